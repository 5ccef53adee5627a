"""PPLCNetV3, the backbone of the mobile models of PP-OCRv4 and PP-OCRv5.

It is PP-LCNet (Cui et al., https://arxiv.org/abs/2109.15099) with re-parameterised convolutions and learnable affine
layers. Upstream: PaddleOCR `ppocr/modeling/backbones/rec_lcnetv3.py`.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import NamedTuple

import torch
from torch import Tensor, nn

from .. import heads, necks, preprocessing, svtr
from ..folding import ConvNorm, Foldable, Replaced, folded_conv, fuse_norm, identity_kernel, pad_kernel
from ..layers import Pair, SqueezeExcite, conv_norm_act, make_divisible
from ..registry import Architecture, Count, Ignored, Parameter, Part, Present, register

NAMES = ("conv", "bn")
WIDTH_DIVISOR = 16


class Row(NamedTuple):
    """One block at scale 1: kernel, width out, stride, squeeze-and-excite or not."""

    kernel: int
    out: int
    stride: Pair
    se: bool = False


STEM = 16
# `blocks2` to `blocks6`. Whether a stride is a number or a pair matters, see `RepLayer`.
DETECTION_STAGES = (
    (Row(3, 32, 1),),
    (Row(3, 64, 2), Row(3, 64, 1)),
    (Row(3, 128, 2), Row(3, 128, 1)),
    (Row(3, 256, 2), *[Row(5, 256, 1)] * 4),
    (Row(5, 512, 2, se=True), Row(5, 512, 1, se=True), *[Row(5, 512, 1)] * 2),
)
RECOGNITION_STAGES = (
    (Row(3, 32, 1),),
    (Row(3, 64, 1), Row(3, 64, 1)),
    (Row(3, 128, (2, 1)), Row(3, 128, 1)),
    (Row(3, 256, (1, 2)), *[Row(5, 256, 1)] * 4),
    (Row(5, 512, (2, 1), se=True), Row(5, 512, 1, se=True), Row(5, 512, (2, 1)), Row(5, 512, 1)),
)
# Widths, at scale 1, of the detector's four maps.
MAPS = (16, 24, 56, 480)


class LearnableAffine(nn.Module):
    """scale·x + bias with one value each. Shape: any → the same."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.empty(1))
        self.bias = nn.Parameter(torch.empty(1))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """To the identity."""
        nn.init.ones_(self.scale)
        nn.init.zeros_(self.bias)

    def forward(self, x: Tensor) -> Tensor:
        return self.scale * x + self.bias


class Activation(nn.Sequential):
    """Hardswish and an affine layer."""

    def __init__(self) -> None:
        super().__init__(OrderedDict(act=nn.Hardswish(), lab=LearnableAffine()))


class UnusedActivation(Activation):
    """An activation that a checkpoint has and the network never applies. It is not trained, so it stays as it was."""

    def __init__(self) -> None:
        super().__init__()
        self.requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        return x


class RepLayer(Foldable):
    """A re-parameterised convolution, an affine layer and an activation.

    The training layout sums convolutions of the full size, a 1×1 convolution where that is not the full size, and the
    input, each with a batch norm. The folded layout is one convolution with a bias.

    What depends on the stride depends on how it is written, for so upstream compares it: the input is summed where the
    stride is the number 1 and the widths agree; the activation is left out where it is the number 2. A pair that has a
    2 has neither effect.

    Args:
        branches: convolutions of the full size in the training layout.
        folded: which layout.

    Shape: (N, `in_channels`, H, W) → (N, `out_channels`, H/stride, W/stride), rounded up.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        *,
        stride: Pair = 1,
        groups: int = 1,
        branches: int,
        folded: bool,
    ) -> None:
        super().__init__()
        self.folded = folded

        def branch(kernel_size: int) -> ConvNorm:
            return ConvNorm(in_channels, out_channels, kernel_size, stride, groups)

        if not folded:
            summed = in_channels == out_channels and stride == 1
            self.identity = nn.BatchNorm2d(in_channels) if summed else None
            self.conv_kxk = nn.ModuleList(branch(kernel_size) for _ in range(branches))
            self.conv_1x1 = branch(1) if kernel_size > 1 else None
        self.lab = LearnableAffine()
        if stride != 2:
            self.act: nn.Module = Activation()
        else:
            self.act = nn.Identity() if folded else UnusedActivation()
        if folded:
            self.reparam_conv = nn.Conv2d(
                in_channels, out_channels, kernel_size, stride, (kernel_size - 1) // 2, groups=groups
            )

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.lab(self.reparam_conv(x) if self.folded else self._sum(x)))

    def _sum(self, x: Tensor) -> Tensor:
        first, *others = [branch for branch in (self.identity, self.conv_1x1, *self.conv_kxk) if branch is not None]
        y = first(x)
        for branch in others:
            y = y + branch(x)
        return y

    def fold(self) -> Replaced:
        if self.folded:
            return {}
        layers = [name for name in ("identity", "conv_kxk", "conv_1x1") if getattr(self, name) is not None]
        branches = [branch for branch in (*self.conv_kxk, self.conv_1x1) if isinstance(branch, ConvNorm)]
        full = branches[0].conv
        height, width = full.kernel_size
        fused = [branch.fused() for branch in branches]
        if self.identity is not None:
            fused.append(fuse_norm(identity_kernel(full), None, self.identity))
        weight = torch.stack([pad_kernel(weight, (height, width)) for weight, _ in fused]).sum(0)
        self.reparam_conv = folded_conv(full, weight, torch.stack([bias for _, bias in fused]).sum(0))
        del self.identity, self.conv_kxk, self.conv_1x1
        if isinstance(self.act, UnusedActivation):
            self.act = nn.Identity()
        self.folded = True
        return {"reparam_conv": tuple(layers)}


def block(in_channels: int, out_channels: int, row: Row, *, branches: int, folded: bool) -> nn.Sequential:
    """Depthwise layer, perhaps squeeze-and-excite (torch's own hard sigmoid), 1×1 layer; nothing is summed around."""
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    layers["dw_conv"] = RepLayer(
        in_channels,
        in_channels,
        row.kernel,
        stride=row.stride,
        groups=in_channels,
        branches=branches,
        folded=folded,
    )
    if row.se:
        layers["se"] = SqueezeExcite(in_channels, nn.Hardsigmoid)
    layers["pw_conv"] = RepLayer(in_channels, out_channels, 1, branches=branches, folded=folded)
    return nn.Sequential(layers)


class PPLCNetV3(nn.Module):
    """What detector and recogniser share: a stem without activation and five stages of blocks.

    Args:
        stages: the rows of `blocks2` to `blocks6`.
        scale: factor on all widths, which become multiples of 16.
        branches: convolutions of the full size per layer, in the training layout.
        folded: whether it has the folded layout.
    """

    def __init__(self, stages: tuple[tuple[Row, ...], ...], scale: float, branches: int, folded: bool) -> None:
        super().__init__()
        channels = make_divisible(STEM * scale, WIDTH_DIVISOR)
        self.conv1 = conv_norm_act(3, channels, 3, stride=2, names=NAMES)
        self.widths = []
        for number, rows in enumerate(stages, 2):
            blocks = []
            for row in rows:
                outside = make_divisible(row.out * scale, WIDTH_DIVISOR)
                blocks.append(block(channels, outside, row, branches=branches, folded=folded))
                channels = outside
            self.add_module(f"blocks{number}", nn.Sequential(*blocks))
            self.widths.append(channels)

    def features(self, x: Tensor) -> list[Tensor]:
        """The outputs of the five stages, in order."""
        x = self.conv1(x)
        maps = []
        for number, _ in enumerate(self.widths, 2):
            x = self.get_submodule(f"blocks{number}")(x)
            maps.append(x)
        return maps


class DetectionPPLCNetV3(PPLCNetV3):
    """The detectors' backbone: 1×1 convolutions with biases bring the last four maps to the widths of the neck.

    Args:
        scale, branches, folded: see `PPLCNetV3`.

    Shape: (N, 3, H, W) → maps at /4, /8, /16, /32 with `out_channels`.
    """

    def __init__(self, scale: float = 0.75, branches: int = 4, folded: bool = False) -> None:
        super().__init__(DETECTION_STAGES, scale, branches, folded)
        self.out_channels = [int(width * scale) for width in MAPS]
        self.layer_list = nn.ModuleList(
            nn.Conv2d(inside, outside, 1) for inside, outside in zip(self.widths[1:], self.out_channels, strict=True)
        )

    def forward(self, x: Tensor) -> list[Tensor]:
        return [conv(x) for conv, x in zip(self.layer_list, self.features(x)[1:], strict=True)]


class RecognitionPPLCNetV3(PPLCNetV3):
    """The recognisers' backbone.

    Args:
        scale, branches, folded: see `PPLCNetV3`.

    Shape: (N, 3, 48, W) → (N, `out_channels`, 1, W/8), rounded up twice and then down; for training see
        `svtr.TimeStepPool`.
    """

    def __init__(self, scale: float = 0.95, branches: int = 4, folded: bool = False) -> None:
        super().__init__(RECOGNITION_STAGES, scale, branches, folded)
        self.out_channels = self.widths[-1]
        self.pool = svtr.TimeStepPool()

    def forward(self, x: Tensor) -> Tensor:
        return self.pool(self.features(x)[-1])


def parameters(scale: float) -> dict[str, Parameter]:
    """What differs between networks, with the scale of upstream's configuration."""
    return {
        "scale": Parameter(scale, config="Backbone.scale", absent=1.0),
        "branches": Parameter(
            4, told_by=Count("backbone.blocks2.0.dw_conv.conv_kxk.<n>.conv.weight"), config="Backbone.conv_kxk_num"
        ),
        "folded": Parameter(False, told_by=Present("backbone.blocks2.0.dw_conv.reparam_conv.weight")),
    }


# The affine layers have other names in programs that were exported before upstream's source was published. The first
# two lines keep the usual names usual in both directions.
RENAMES = (
    ("backbone.<rest>.lab.scale", "backbone.<rest>.lab.scale"),
    ("backbone.<rest>.lab.bias", "backbone.<rest>.lab.bias"),
    ("backbone.<rest>_conv.w", "backbone.<rest>_conv.lab.scale"),
    ("backbone.<rest>_conv.b", "backbone.<rest>_conv.lab.bias"),
    ("backbone.<rest>_conv.activation.scale", "backbone.<rest>_conv.act.lab.scale"),
    ("backbone.<rest>_conv.activation.bias", "backbone.<rest>_conv.act.lab.bias"),
)
LEFT_OVER = tuple(
    Ignored(f"backbone.{name}.", "left over from an earlier revision of the backbone, which no operator uses")
    for name in ("conv1.hardswish", "hardswish", "last_conv", "fc")
)

# Factors of the learning rate.
TRAINING = ("Backbone.lr_mult_list", "Backbone.lab_lr")

DETECTION = Part(
    DetectionPPLCNetV3,
    parameters=parameters(0.75),
    config={"Backbone.name": "PPLCNetV3", "Backbone.det": True},
    harmless=TRAINING,
    renames=RENAMES,
    ignored=LEFT_OVER,
    # Programs that were exported with their branches lack the activations that are never applied.
    optional=tuple(f"backbone.blocks{number}.0.dw_conv.act." for number in (3, 4, 5, 6)),
)
RECOGNITION = Part(
    RecognitionPPLCNetV3,
    parameters=parameters(0.95),
    config={"Backbone.name": "PPLCNetV3"},
    fixed={"Backbone.det": (None, False)},
    harmless=TRAINING,
    renames=RENAMES,
    ignored=LEFT_OVER,
)

SOURCE = "PP-OCRv4, https://github.com/PaddlePaddle/PaddleOCR/blob/release/2.7/doc/doc_en/PP-OCRv4_introduction_en.md"

register(
    Architecture(
        "det_pplcnet_v3_rsefpn", "det",
        "detector: PPLCNetV3 ×0.75 + RSEFPN + DB head (PP-OCRv4 and PP-OCRv5 mobile)", SOURCE,
        backbone=DETECTION, neck=necks.RSE_FPN, head=heads.DB, preprocessing=preprocessing.DETECTION,
    ),
    Architecture(
        "rec_pplcnet_v3_svtr_ctc", "rec",
        "recogniser: PPLCNetV3 ×0.95 + SVTR + CTC (PP-OCRv4 and PP-OCRv5 mobile)", SOURCE,
        backbone=RECOGNITION, head=svtr.svtr_ctc(6625), preprocessing=preprocessing.RECOGNITION_48,
    ),
)  # fmt: skip
