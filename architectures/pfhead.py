"""PFHeadLocal, the head of the server detectors of PP-OCRv4 and PP-OCRv5.

Upstream: PaddleOCR `ppocr/modeling/heads/det_db_head.py`.
"""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor, nn

from .heads import DB_ALGORITHM, DB_TRAINING, FOLDED_HEAD, THRESHOLD_BRANCH, DBHead
from .layers import conv_norm_act
from .necks import upsample
from .registry import Parameter, Part


class BothMaps(NamedTuple):
    """What the released program of the PP-OCRv4 server detector returns, in its order; each (N, 1, H, W).

    Attributes:
        cbn_maps: the refined map; PaddleOCR's inference takes its boxes from this one.
        maps: the mean of the refined map and of the one before refinement.
    """

    cbn_maps: Tensor
    maps: Tensor


class LocalModule(nn.Module):
    """Refines a map by what lies around each pixel: (N, 1 + `channels`, H, W) → (N, 1, H, W), before the sigmoid."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.last_3 = conv_norm_act(channels + 1, channels, 3, activation=nn.ReLU, names=("conv", "bn"))
        self.last_1 = nn.Conv2d(channels, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.last_1(self.last_3(x))


class PFHeadLocal(DBHead):
    """A DB head whose shrink map is refined at full size (upstream's "large" mode).

    Args:
        both_maps: whether evaluation returns two maps, as the released program of PP-OCRv4 does, or only their last
            one, as later programs do.
        folded_head, k: see `DBHead`.

    Shape: (N, C, H/4, W/4) → evaluation: a map (N, 1, H, W), or `BothMaps`; training: refined, threshold and binary
    map (N, 3, H, W), the binary one made of the shrink map before refinement.
    """

    def __init__(self, in_channels: int, both_maps: bool = False, folded_head: bool = False, k: float = 50.0) -> None:
        super().__init__(in_channels, folded_head=folded_head, k=k)
        self.both_maps = both_maps
        self.cbn_layer = LocalModule(in_channels // 4)

    def forward(self, x: Tensor) -> Tensor | BothMaps:
        features = self.binarize.features(x)
        shrink = self.binarize.from_features(features)
        refined = torch.sigmoid(self.cbn_layer(torch.cat([shrink, upsample(features, 2)], 1)))
        if self.training:
            threshold = self.thresh(x)
            return torch.cat([refined, threshold, self.step(shrink, threshold)], 1)
        mean = 0.5 * (shrink + refined)
        return BothMaps(refined, mean) if self.both_maps else mean


PF_HEAD = Part(
    PFHeadLocal,
    parameters=FOLDED_HEAD,
    config={"Head.name": "PFHeadLocal"},
    # Upstream's other mode, which it takes without a word, refines at half the size.
    fixed={**DB_ALGORITHM, "Head.mode": ("large",)},
    harmless=DB_TRAINING,
    optional=THRESHOLD_BRANCH,
)
# No weight tells how many maps are returned: programs of the same network have two or, of a later revision, one.
PF_HEAD_BOTH_MAPS = replace(PF_HEAD, parameters={**FOLDED_HEAD, "both_maps": Parameter(True)})
