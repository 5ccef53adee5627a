"""Neck and head of the server detectors of PP-OCRv4 and PP-OCRv5: LKPAN with IntraCL, and PFHeadLocal.

Upstream: PaddleOCR `ppocr/modeling/necks/{db_fpn,intracl}.py` and `ppocr/modeling/heads/det_db_head.py`.
"""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor, nn

from .folding import Foldable, folded_conv, fuse_conv_norm
from .heads import DBBranch
from .layers import conv_norm_act
from .necks import fuse, top_down, upsample
from .registry import Parameter, Part, Present, Size


class IntraCLBlock(nn.Module):
    """Strip convolutions that follow a line of text (I3CL, Du et al., https://arxiv.org/abs/2108.01343).

    At each size, largest first, a square, an upright and a flat kernel read the same map and are summed. There is no
    activation before the last convolution.

    Args:
        channels: in and out.
        reduction: how many times narrower the maps between are.

    Shape: (N, `channels`, H, W) → the same.
    """

    def __init__(self, channels: int, reduction: int = 2) -> None:
        super().__init__()
        narrow = channels // reduction

        def conv(height: int, width: int) -> nn.Conv2d:
            return nn.Conv2d(narrow, narrow, (height, width), padding=(height // 2, width // 2))

        self.conv1x1_reduce_channel = nn.Conv2d(channels, narrow, 1)
        self.conv1x1_return_channel = nn.Conv2d(narrow, channels, 1)
        self.v_layer_7x1, self.v_layer_5x1, self.v_layer_3x1 = conv(7, 1), conv(5, 1), conv(3, 1)
        self.q_layer_1x7, self.q_layer_1x5, self.q_layer_1x3 = conv(1, 7), conv(1, 5), conv(1, 3)
        self.c_layer_7x7, self.c_layer_5x5, self.c_layer_3x3 = conv(7, 7), conv(5, 5), conv(3, 3)
        self.bn = nn.BatchNorm2d(channels)
        self.relu = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv1x1_reduce_channel(x)
        y = self.c_layer_7x7(y) + self.v_layer_7x1(y) + self.q_layer_1x7(y)
        y = self.c_layer_5x5(y) + self.v_layer_5x1(y) + self.q_layer_1x5(y)
        y = self.c_layer_3x3(y) + self.v_layer_3x1(y) + self.q_layer_1x3(y)
        return x + self.relu(self.bn(self.conv1x1_return_channel(y)))


class LKPAN(nn.Module):
    """The pyramid with 9×9 convolutions and a second, bottom-up way (PP-OCRv3, https://arxiv.org/abs/2206.03001).

    Args:
        in_channels: of the four maps, finest first.
        out_channels: of the map that is returned.
        intracl: whether each level passes an IntraCL block at the end (PP-OCRv4 and later).

    Shape: maps at /4, /8, /16, /32 with `in_channels` → (N, `out_channels`, H/4, W/4).
    """

    def __init__(self, in_channels: list[int], out_channels: int, intracl: bool = False) -> None:
        super().__init__()
        self.out_channels = out_channels
        quarter, levels = out_channels // 4, len(in_channels)
        self.ins_conv = nn.ModuleList(nn.Conv2d(channels, out_channels, 1, bias=False) for channels in in_channels)
        self.inp_conv = nn.ModuleList(nn.Conv2d(out_channels, quarter, 9, padding=4, bias=False) for _ in range(levels))
        self.pan_head_conv = nn.ModuleList(
            nn.Conv2d(quarter, quarter, 3, stride=2, padding=1, bias=False) for _ in range(levels - 1)
        )
        self.pan_lat_conv = nn.ModuleList(nn.Conv2d(quarter, quarter, 9, padding=4, bias=False) for _ in range(levels))
        self.incl1, self.incl2, self.incl3, self.incl4 = (
            IntraCLBlock(quarter) if intracl else nn.Identity() for _ in range(4)
        )

    def forward(self, maps: list[Tensor]) -> Tensor:
        summed = top_down([conv(x) for conv, x in zip(self.ins_conv, maps, strict=True)])
        finest, *coarser = [conv(x) for conv, x in zip(self.inp_conv, summed, strict=True)]
        path = [finest]
        for conv, x in zip(self.pan_head_conv, coarser, strict=True):
            path.append(x + conv(path[-1]))
        p2, p3, p4, p5 = (conv(x) for conv, x in zip(self.pan_lat_conv, path, strict=True))
        return fuse([self.incl1(p2), self.incl2(p3), self.incl3(p4), self.incl4(p5)])


class BothMaps(NamedTuple):
    """What the released program of the PP-OCRv4 server detector returns, in its order; each (N, 1, H, W).

    Attributes:
        cbn_maps: the refined map; PaddleOCR's inference takes its boxes from this one.
        maps: the mean of the refined map and of the one before refinement.
    """

    cbn_maps: Tensor
    maps: Tensor


class FoldableDBBranch(DBBranch, Foldable):
    """A branch of the DB head that also gives its features, and whose norms fold into the convolutions before them.

    Args:
        folded: whether it has the folded layout: convolutions with biases, no norms.

    Shape: see `DBBranch`.
    """

    def __init__(self, in_channels: int, folded: bool = False) -> None:
        super().__init__(in_channels, 3)
        if folded:
            self.conv1 = nn.Conv2d(in_channels, in_channels // 4, 3, padding=1)
            self._drop_norms()

    def features(self, x: Tensor) -> Tensor:
        """All but the last convolution: (N, C, H/4, W/4) → (N, C/4, H/2, W/2)."""
        x = self.relu1(self.conv_bn1(self.conv1(x)))
        return self.relu2(self.conv_bn2(self.conv2(x)))

    def from_features(self, features: Tensor) -> Tensor:
        """The last convolution and the sigmoid: (N, C/4, H/2, W/2) → (N, 1, H, W)."""
        return self.sigmoid(self.conv3(features))

    def forward(self, x: Tensor) -> Tensor:
        return self.from_features(self.features(x))

    def fold(self) -> None:
        if isinstance(self.conv_bn1, nn.Identity):
            return
        self.conv1 = folded_conv(self.conv1, *fuse_conv_norm(self.conv1, self.conv_bn1))
        self.conv2 = folded_conv(self.conv2, *fuse_conv_norm(self.conv2, self.conv_bn2))
        self._drop_norms()

    def _drop_norms(self) -> None:
        self.add_module("conv_bn1", nn.Identity())
        self.add_module("conv_bn2", nn.Identity())


class LocalModule(nn.Module):
    """Refines a map by what lies around each pixel: (N, 1 + `channels`, H, W) → (N, 1, H, W), before the sigmoid."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.last_3 = conv_norm_act(channels + 1, channels, 3, activation=nn.ReLU, names=("conv", "bn"))
        self.last_1 = nn.Conv2d(channels, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.last_1(self.last_3(x))


class PFHeadLocal(nn.Module):
    """The head of the server detectors: a DB head whose shrink map is refined at full size (upstream's "large" mode).

    Args:
        both_maps: whether evaluation returns two maps, as the released program of PP-OCRv4 does, or only their last
            one, as later programs do.
        folded_head: whether the two branches have the folded layout, as later revisions of upstream export it.
        k: steepness of the differentiable step.

    Shape: (N, C, H/4, W/4) → evaluation: a map (N, 1, H, W), or `BothMaps`; training: refined, threshold and binary
    map (N, 3, H, W), the binary one made of the shrink map before refinement.
    """

    def __init__(self, in_channels: int, both_maps: bool = False, folded_head: bool = False, k: float = 50.0) -> None:
        super().__init__()
        self.both_maps = both_maps
        self.k = k
        self.binarize = FoldableDBBranch(in_channels, folded_head)
        self.thresh = FoldableDBBranch(in_channels, folded_head)
        self.cbn_layer = LocalModule(in_channels // 4)

    def forward(self, x: Tensor) -> Tensor | BothMaps:
        features = self.binarize.features(x)
        shrink = self.binarize.from_features(features)
        refined = torch.sigmoid(self.cbn_layer(torch.cat([shrink, upsample(features, 2)], 1)))
        if self.training:
            threshold = self.thresh(x)
            return torch.cat([refined, threshold, torch.sigmoid(self.k * (shrink - threshold))], 1)
        mean = 0.5 * (shrink + refined)
        return BothMaps(refined, mean) if self.both_maps else mean


LKPAN_INTRACL = Part(
    LKPAN,
    arguments={"intracl": True},
    parameters={
        "out_channels": Parameter(256, told_by=Size("neck.ins_conv.0.weight", 0), config="Neck.out_channels"),
    },
    config={"Neck.name": "LKPAN", "Neck.intracl": True},
)
PF_HEAD = Part(
    PFHeadLocal,
    parameters={"folded_head": Parameter(False, told_by=Present("head.binarize.conv1.bias"))},
    config={"Head.name": "PFHeadLocal"},
    optional=("head.thresh.",),
)
# No weight tells how many maps are returned: programs of the same network have two or, of a later revision, one.
PF_HEAD_BOTH_MAPS = replace(PF_HEAD, parameters={**PF_HEAD.parameters, "both_maps": Parameter(True)})
