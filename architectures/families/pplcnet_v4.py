"""PPLCNetV4 and all that the PP-OCRv6 networks have around it: large-kernel pyramids, deep supervision, LightSVTR.

Tiny, small and medium differ in rows of widths. Detectors: backbone, RepLKFPN (medium: RepLKPAN), DB head; recognisers:
backbone, LightSVTR (tiny: a guide layer), CTC. Depthwise layers and pyramids are re-parameterised: a checkpoint has
their branches, an inference model the convolutions that these fold into.

Upstream: PaddleOCR `ppocr/modeling/backbones/rec_lcnetv4.py`, `necks/{db_fpn,rnn}.py`,
`heads/{det_db_head,rec_ctc_head}.py`.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any, NamedTuple

from torch import Tensor, nn
from torch.nn import functional as F

from .. import preprocessing
from ..folding import (
    ConvNorm,
    Foldable,
    Replaced,
    absorb_norm,
    dilate_kernel,
    folded_conv,
    fuse_conv_norm,
    fuse_norm,
    identity_kernel,
    pad_kernel,
)
from ..heads import (
    CTC_FIXED,
    CTC_TRAINING,
    DB_FIXED,
    DB_TRAINING,
    FOLDED_HEAD,
    ONE_LAYER,
    THRESHOLD_BRANCH,
    CTCHead,
    DBBranch,
    DBHead,
    ctc_classes,
)
from ..hgnet import Stem
from ..layers import Hardsigmoid02, Pair, SqueezeExcite
from ..necks import LKPAN, RSELayer, fuse, pyramid_width, top_down
from ..registry import Agrees, Architecture, Count, Parameter, Part, Present, Size, register
from ..sequence import Encoder, RowEncoder, map_to_sequence
from ..svtr import (
    ENCODER_FIXED,
    HEIGHT,
    NRTR_HEAD,
    RECOGNISER_FIXED,
    SVTR_TRAINING,
    MultiHead,
    SVTRBlock,
    TimeStepPool,
    unit,
)

KERNEL = 3
EXPANSION = 2


class Stage(NamedTuple):
    """Blocks of one width: the first has the stride, and each may have squeeze-and-excite."""

    out: int
    stride: Pair
    se: tuple[bool, ...]


class Variant(NamedTuple):
    """A size of the network: its name upstream, the width inside its stem, its stages, and the kind of its stem.

    What leaves the stem is as wide as the first stage, and by that width a variant is known.
    """

    name: str
    stem: int
    stages: tuple[Stage, ...]
    simple_stem: bool = False


# fmt: off
S, P = True, False  # a block with squeeze-and-excite, a plain one
DETECTION_VARIANTS = {variant.stages[0].out: variant for variant in (
    Variant("tiny", 16, (
        Stage(32, 1, (S, P)), Stage(48, 2, (P, S, P)), Stage(64, 2, (P, S, P, S, P)), Stage(160, 2, (P, S, P)),
    )),
    Variant("small", 24, (
        Stage(48, 1, (S, P)), Stage(96, 2, (P, S, P)), Stage(192, 2, (P, S, P, S, P)), Stage(384, 2, (P, S, P)),
    )),
    Variant("medium", 64, (
        Stage(128, 1, (S, P)), Stage(256, 2, (P, S, P)), Stage(512, 2, (P, S, P, S, P)), Stage(896, 2, (P, S, P)),
    )),
)}
# A stride that is a pair halves the height alone.
RECOGNITION_VARIANTS = {variant.stages[0].out: variant for variant in (
    Variant("tiny", 24, (
        Stage(48, 1, (S,)), Stage(48, 1, (P,)), Stage(96, (2, 1), (P, S, P)), Stage(160, (2, 1), (P, S, P, P)),
    ), simple_stem=True),
    Variant("small", 48, (
        Stage(96, 1, (S,)), Stage(96, 1, (P, P)), Stage(192, (2, 1), (P, S, P, S, P, S, P)),
        Stage(384, (2, 1), (P, S, P)),
    )),
    Variant("medium", 64, (
        Stage(128, 1, (S,)), Stage(256, 1, (P, P, S)), Stage(512, (2, 1), (P, S, P, S, P, S, P)),
        Stage(768, (2, 1), (P, S, P)),
    )),
)}
# fmt: on


def variant_of(width: int, variants: dict[int, Variant]) -> Variant:
    """The variant whose stem ends in so many channels.

    Raises:
        ValueError: there is none; the message lists all.
    """
    if width not in variants:
        known = ", ".join(f"{each} ({variant.name})" for each, variant in variants.items())
        raise ValueError(f"no PPLCNetV4 has a stem of {width} channels; there are: {known}")
    return variants[width]


# ---- backbone ----------------------------------------------------------------------------------------------------


def conv_norm(
    in_channels: int, out_channels: int, kernel_size: int, *, stride: Pair = 1, groups: int = 1, folded: bool
) -> nn.Module:
    """`ConvNorm`, or the convolution that takes its place in the folded layout."""
    if folded:
        return nn.Conv2d(in_channels, out_channels, kernel_size, stride, kernel_size // 2, groups=groups)
    return ConvNorm(in_channels, out_channels, kernel_size, stride, groups)


class StemUnit(Foldable):
    """Convolution, batch norm and ReLU; folded, the convolution has a bias instead of the norm."""

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int, *, stride: int = 1, folded: bool) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, kernel_size, stride, (kernel_size - 1) // 2, bias=folded)
        self.bn: nn.Module = nn.Identity() if folded else nn.BatchNorm2d(out_channels)
        self.act = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.bn(self.conv(x)))

    def fold(self) -> Replaced:
        return absorb_norm(self, "conv", "bn")


def pooled_stem(channels: int, out_channels: int, folded: bool) -> Stem:
    """The stem of all networks but the tiny recogniser; see `Stem`.

    Shape: (N, 3, H, W) → (N, `out_channels`, H/4, W/4), rounded up.
    """
    return Stem(channels, out_channels, stride=2, unit=partial(StemUnit, folded=folded))


def simple_stem(channels: int, out_channels: int) -> nn.Sequential:
    """The tiny recogniser's stem: two convolutions of stride 2. Released inference models keep its norms.

    Shape: (N, 3, H, W) → (N, `out_channels`, H/4, W/4), rounded up.
    """
    return nn.Sequential(ConvNorm(3, channels, 3, stride=2), nn.GELU(), ConvNorm(channels, out_channels, 3, stride=2))


class RepDWConv(Foldable):
    """A depthwise convolution trained as three branches: k×k with a norm, 1×1, and the input; their sum has a norm.

    RepViT (Wang et al., https://arxiv.org/abs/2307.09283). Folding meets two norms in a row, of which the second one
    scales the input too.

    Shape: (N, `channels`, H, W) → the same.
    """

    def __init__(self, channels: int, kernel_size: int, folded: bool) -> None:
        super().__init__()
        self.folded = folded
        if folded:
            self.reparam_conv = nn.Conv2d(channels, channels, kernel_size, padding=kernel_size // 2, groups=channels)
        else:
            self.conv = ConvNorm(channels, channels, kernel_size, groups=channels)
            self.conv1 = nn.Conv2d(channels, channels, 1, groups=channels, bias=False)
            self.bn = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        if self.folded:
            return self.reparam_conv(x)
        return self.bn(self.conv(x) + self.conv1(x) + x)

    def fold(self) -> Replaced:
        if self.folded:
            return {}
        conv = self.conv.conv
        weight, bias = self.conv.fused()
        height, width = conv.kernel_size
        weight = weight + pad_kernel(self.conv1.weight.detach().double(), (height, width)) + identity_kernel(conv)
        self.reparam_conv = folded_conv(conv, *fuse_norm(weight, bias, self.bn))
        del self.conv, self.conv1, self.bn
        self.folded = True
        return {"reparam_conv": ("conv", "conv1", "bn")}


class Block(Foldable):
    """A depthwise convolution (and squeeze-and-excite) mixes pixels, two 1×1 convolutions mix channels.

    There is a sum around the second part alone, where neither the width nor the size changes. Nothing is activated in
    the first part.

    Shape: (N, `in_channels`, H, W) → (N, `out_channels`, H/stride, W/stride), rounded up.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: Pair, se: bool, folded: bool) -> None:
        super().__init__()
        self.residual = stride == 1 and in_channels == out_channels
        token_mixer: OrderedDict[str, nn.Module] = OrderedDict()
        if self.residual:
            token_mixer["rep_dw"] = RepDWConv(in_channels, KERNEL, folded)
        else:
            token_mixer["dw_conv"] = conv_norm(
                in_channels, in_channels, KERNEL, stride=stride, groups=in_channels, folded=folded
            )
        if se:
            token_mixer["se"] = SqueezeExcite(in_channels, nn.Hardsigmoid)
        self.token_mixer = nn.Sequential(token_mixer)
        hidden = EXPANSION * in_channels
        self.channel_mixer = nn.Sequential(
            OrderedDict(
                expand=conv_norm(in_channels, hidden, 1, folded=folded),
                act=nn.GELU(),
                compress=conv_norm(hidden, out_channels, 1, folded=folded),
            )
        )

    def forward(self, x: Tensor) -> Tensor:
        x = self.token_mixer(x)
        y = self.channel_mixer(x)
        return x + y if self.residual else y

    def fold(self) -> Replaced:
        replaced: Replaced = {}
        for path, mixer in (("token_mixer", self.token_mixer), ("channel_mixer", self.channel_mixer)):
            for name, layer in mixer.named_children():
                if isinstance(layer, ConvNorm):
                    setattr(mixer, name, layer.folded())
                    replaced[f"{path}.{name}"] = (f"{path}.{name}",)
        return replaced


def make_stages(channels: int, stages: tuple[Stage, ...], folded: bool) -> Iterator[nn.Sequential]:
    """The blocks of each stage, for an input of so many channels."""
    for stage in stages:
        first, *rest = stage.se
        yield nn.Sequential(
            Block(channels, stage.out, stage.stride, first, folded),
            *(Block(stage.out, stage.out, 1, se, folded) for se in rest),
        )
        channels = stage.out


class DetectionPPLCNetV4(nn.Module):
    """The backbone of the detectors.

    Args:
        width: channels of the stem's output: 32 (tiny), 48 (small) or 128 (medium).
        folded: whether to have the layout of inference models, without branches.

    Shape: (N, 3, H, W) → four maps at /4, /8, /16 and /32 with `out_channels` channels.

    Raises:
        ValueError: there is no variant of that width.
    """

    def __init__(self, width: int = 48, folded: bool = False) -> None:
        super().__init__()
        variant = variant_of(width, DETECTION_VARIANTS)
        self.stem = pooled_stem(variant.stem, width, folded)
        self.blocks_s1, self.blocks_s2, self.blocks_s3, self.blocks_s4 = make_stages(width, variant.stages, folded)
        self.out_channels = [stage.out for stage in variant.stages]

    def forward(self, x: Tensor) -> list[Tensor]:
        fine = self.blocks_s1(self.stem(x))
        middle = self.blocks_s2(fine)
        coarse = self.blocks_s3(middle)
        return [fine, middle, coarse, self.blocks_s4(coarse)]


class RecognitionPPLCNetV4(nn.Module):
    """The backbone of the recognisers.

    Args:
        width: channels of the stem's output: 48 (tiny), 96 (small) or 128 (medium).
        folded: whether to have the layout of inference models, without branches.

    Shape: (N, 3, 48, W) → (N, `out_channels`, 1, W/8), rounded down; in training (N, `out_channels`, 1, 40).

    Raises:
        ValueError: there is no variant of that width.
    """

    def __init__(self, width: int = 96, folded: bool = False) -> None:
        super().__init__()
        variant = variant_of(width, RECOGNITION_VARIANTS)
        self.conv1 = (
            simple_stem(variant.stem, width) if variant.simple_stem else pooled_stem(variant.stem, width, folded)
        )
        self.blocks2, self.blocks3, self.blocks4, self.blocks5 = make_stages(width, variant.stages, folded)
        self.out_channels = variant.stages[-1].out
        self.pool = TimeStepPool()

    def forward(self, x: Tensor) -> Tensor:
        return self.pool(self.blocks5(self.blocks4(self.blocks3(self.blocks2(self.conv1(x))))))


# ---- necks of the detectors --------------------------------------------------------------------------------------


class Pyramid(NamedTuple):
    """What the necks return in training; all maps at the level's own size.

    Attributes:
        fused: what they return in evaluation.
        p4, p3, p2: the sums of the top-down way at /16, /8 and /4, for the auxiliary heads.
    """

    fused: Tensor
    p4: Tensor
    p3: Tensor
    p2: Tensor


# The branches beside the large kernel of a size, as (kernel, dilation); none reaches farther than the large one.
DILATED_BRANCHES: dict[int, tuple[tuple[int, int], ...]] = {
    5: ((3, 1), (3, 2)),
    7: ((5, 1), (3, 2), (3, 3)),
    9: ((5, 1), (5, 2), (3, 3), (3, 4)),
    11: ((5, 1), (5, 2), (3, 3), (3, 4), (3, 5)),
    13: ((5, 1), (7, 2), (3, 3), (3, 4), (3, 5)),
}


class DilatedReparamBlock(Foldable):
    """A large depthwise kernel trained beside smaller, dilated ones, each with its norm (UniRepLKNet).

    Ding et al., https://arxiv.org/abs/2311.15599.

    Args:
        kernel_size: one of `DILATED_BRANCHES`.

    Shape: (N, `channels`, H, W) → the same.

    Raises:
        ValueError: there are no branches for a kernel of that size.
    """

    def __init__(self, channels: int, kernel_size: int, folded: bool) -> None:
        super().__init__()
        if kernel_size not in DILATED_BRANCHES:
            sizes = ", ".join(map(str, DILATED_BRANCHES))
            raise ValueError(f"a dilated block has a kernel of one of the sizes {sizes}, not {kernel_size}")
        self.branches = () if folded else DILATED_BRANCHES[kernel_size]
        self.lk_origin = nn.Conv2d(
            channels, channels, kernel_size, padding=kernel_size // 2, groups=channels, bias=folded
        )
        self.origin_bn: nn.Module = nn.Identity() if folded else nn.BatchNorm2d(channels)
        for size, dilation in self.branches:
            reach = dilation * (size - 1) // 2
            conv = nn.Conv2d(channels, channels, size, padding=reach, dilation=dilation, groups=channels, bias=False)
            self.add_module(f"dil_conv_k{size}_{dilation}", conv)
            self.add_module(f"dil_bn_k{size}_{dilation}", nn.BatchNorm2d(channels))

    def forward(self, x: Tensor) -> Tensor:
        y = self.origin_bn(self.lk_origin(x))
        for size, dilation in self.branches:
            conv, norm = self.branch(size, dilation)
            y = y + norm(conv(x))
        return y

    def branch(self, size: int, dilation: int) -> tuple[nn.Conv2d, nn.BatchNorm2d]:
        """Convolution and norm of one branch."""
        return getattr(self, f"dil_conv_k{size}_{dilation}"), getattr(self, f"dil_bn_k{size}_{dilation}")

    def fold(self) -> Replaced:
        if not isinstance(self.origin_bn, nn.BatchNorm2d):
            return {}
        replaced = ["lk_origin", "origin_bn"]
        weight, bias = fuse_conv_norm(self.lk_origin, self.origin_bn)
        height, width = self.lk_origin.kernel_size
        for size, dilation in self.branches:
            branch_weight, branch_bias = fuse_conv_norm(*self.branch(size, dilation))
            weight = weight + pad_kernel(dilate_kernel(branch_weight, dilation), (height, width))
            bias = bias + branch_bias
            for name in (f"dil_conv_k{size}_{dilation}", f"dil_bn_k{size}_{dilation}"):
                delattr(self, name)
                replaced.append(name)
        self.lk_origin = folded_conv(self.lk_origin, weight, bias)
        self.origin_bn = nn.Identity()
        self.branches = ()
        return {"lk_origin": tuple(replaced)}


class RepLKFPN(nn.Module):
    """The pyramid of the tiny and the small detector: RSEFPN with large depthwise kernels where that has 3×3 ones.

    Args:
        in_channels: of the four maps, finest first.
        out_channels: of the map that is returned.
        kernel_size: of the depthwise convolutions.
        folded_neck: whether to have the layout of inference models, without branches.

    Shape: maps at /4, /8, /16, /32 with `in_channels` → (N, `out_channels`, H/4, W/4); in training a `Pyramid`.

    Raises:
        ValueError: see `DilatedReparamBlock`.
    """

    def __init__(
        self, in_channels: list[int], out_channels: int = 96, kernel_size: int = 7, folded_neck: bool = False
    ) -> None:
        super().__init__()
        self.out_channels = out_channels
        quarter, levels = out_channels // 4, range(len(in_channels))
        self.ins_conv = nn.ModuleList(RSELayer(channels, out_channels, 1) for channels in in_channels)
        self.inp_conv_dw = nn.ModuleList(DilatedReparamBlock(out_channels, kernel_size, folded_neck) for _ in levels)
        self.inp_conv_pw = nn.ModuleList(nn.Conv2d(out_channels, quarter, 1, bias=False) for _ in levels)
        self.inp_conv_se = nn.ModuleList(SqueezeExcite(quarter, Hardsigmoid02) for _ in levels)

    def forward(self, maps: list[Tensor]) -> Tensor | Pyramid:
        summed = top_down([conv(x) for conv, x in zip(self.ins_conv, maps, strict=True)])
        mixed = []
        for x, dw, pw, se in zip(summed, self.inp_conv_dw, self.inp_conv_pw, self.inp_conv_se, strict=True):
            y = pw(dw(x))
            mixed.append(y + se(y))
        return _output(fuse(mixed), summed, self.training)


class DilatedReparamConv(Foldable):
    """A large depthwise convolution and a 1×1 one with its norm, without activation.

    Shape: (N, `in_channels`, H, W) → (N, `out_channels`, H, W).
    """

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int, folded: bool) -> None:
        super().__init__()
        self.dw = DilatedReparamBlock(in_channels, kernel_size, folded)
        self.pw = nn.Conv2d(in_channels, out_channels, 1, bias=folded)
        self.bn: nn.Module = nn.Identity() if folded else nn.BatchNorm2d(out_channels)

    def forward(self, x: Tensor) -> Tensor:
        return self.bn(self.pw(self.dw(x)))

    def fold(self) -> Replaced:
        return absorb_norm(self, "pw", "bn")


class RepLKPAN(LKPAN):
    """The pyramid of the medium detector: LKPAN whose large kernels are depthwise, followed by 1×1 convolutions.

    Arguments, shape and what it raises: see `RepLKFPN`.
    """

    def __init__(
        self, in_channels: list[int], out_channels: int = 256, kernel_size: int = 9, folded_neck: bool = False
    ) -> None:
        large = partial(DilatedReparamConv, kernel_size=kernel_size, folded=folded_neck)
        super().__init__(in_channels, out_channels, intracl=True, large=large)

    def forward(self, maps: list[Tensor]) -> Tensor | Pyramid:
        summed = self.summed(maps)
        return _output(self.fused(summed), summed, self.training)


def _output(fused: Tensor, summed: list[Tensor], training: bool) -> Tensor | Pyramid:
    """What a pyramid returns.

    Args:
        fused: of all levels.
        summed: the sums of the top-down way, finest first.
        training: whether the auxiliary heads want those too.
    """
    p2, p3, p4, _ = summed
    return Pyramid(fused, p4, p3, p2) if training else fused


# ---- head of the detectors ---------------------------------------------------------------------------------------


# The levels that have auxiliary branches, and by how much each is enlarged before them.
AUXILIARY_LEVELS = (("p4", 4), ("p3", 2), ("p2", 1))


class SupervisedMaps(NamedTuple):
    """What the detectors return in training, each (N, 3, H, W): shrink, threshold and binary map.

    Attributes:
        maps: of the whole pyramid.
        aux_maps_p4, aux_maps_p3, aux_maps_p2: of one level, for a loss of its own.
    """

    maps: Tensor
    aux_maps_p4: Tensor
    aux_maps_p3: Tensor
    aux_maps_p2: Tensor


class SupervisedDBHead(DBHead):
    """The DB head with an auxiliary pair of branches for each of three levels of the pyramid, used in training only.

    Args:
        folded_head: whether its norms are in the convolutions before them, as in inference models.
        k: steepness of the differentiable step.

    Shape: as `DBHead`; in training a `Pyramid` → `SupervisedMaps`, for which the levels are enlarged to H/4, W/4 first.
    """

    def __init__(self, in_channels: int, folded_head: bool = False, k: float = 50.0) -> None:
        super().__init__(in_channels, folded_head=folded_head, k=k)
        for level, _ in AUXILIARY_LEVELS:
            self.add_module(f"aux_binarize_{level}", DBBranch(in_channels, folded=folded_head))
            self.add_module(f"aux_thresh_{level}", DBBranch(in_channels, folded=folded_head))

    def forward(self, x: Tensor | Pyramid) -> Tensor | tuple[Tensor, ...]:
        if not isinstance(x, Pyramid):
            return super().forward(x)
        if not self.training:
            return super().forward(x.fused)
        auxiliary = []
        for level, factor in AUXILIARY_LEVELS:
            features = getattr(x, level)
            if factor > 1:
                features = F.interpolate(features, scale_factor=float(factor), mode="bilinear")
            branches = getattr(self, f"aux_binarize_{level}"), getattr(self, f"aux_thresh_{level}")
            auxiliary.append(self.maps(*branches, features))
        return SupervisedMaps(self.maps(self.binarize, self.thresh, x.fused), *auxiliary)


# ---- heads of the recognisers ------------------------------------------------------------------------------------


class LightSVTR(Encoder):
    """The encoder of the small and the medium recogniser: transformer blocks on a narrowed map, and a way around them.

    It has no paper; blocks as in SVTR (Du et al., https://arxiv.org/abs/2205.00159). Its convolutions are not folded
    in released inference models.

    Args:
        channels: of the transformer and of the output, upstream's `dims`.
        hidden: width of the blocks' MLP.
        depth: number of blocks.
        local_kernel: width of the depthwise convolution that mixes neighbours before the blocks.

    Shape: (N, `in_channels`, 1, T) → (N, T, `channels`).
    """

    def __init__(self, in_channels: int, channels: int, hidden: int, depth: int, local_kernel: int) -> None:
        super().__init__()
        self.out_channels = channels
        self.conv_reduce = unit(in_channels, channels, 1)
        self.local_conv = nn.Sequential(
            nn.Conv2d(
                channels, channels, (1, local_kernel), padding=(0, local_kernel // 2), groups=channels, bias=False
            ),
            nn.BatchNorm2d(channels),
            nn.SiLU(),
        )
        self.svtr_block = nn.ModuleList(SVTRBlock(channels, heads=8, hidden=hidden) for _ in range(depth))
        self.norm = nn.LayerNorm(channels, eps=1e-6)
        self.skip_conv = unit(in_channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv_reduce(x)
        y = map_to_sequence(y + self.local_conv(y))
        for block in self.svtr_block:
            y = block(y)
        return map_to_sequence(self.norm(y).transpose(1, 2).unsqueeze(2) + self.skip_conv(x))


class LightSVTRHead(MultiHead):
    """LightSVTR and a CTC layer.

    Args:
        classes: characters, blank and space.
        channels, hidden, depth, local_kernel: see `LightSVTR`.

    Shape: (N, `in_channels`, 1, T) → (N, T, `classes`); probabilities in evaluation, logits in training.
    """

    def __init__(
        self,
        in_channels: int,
        classes: int,
        channels: int = 120,
        hidden: int = 240,
        depth: int = 2,
        local_kernel: int = 7,
    ) -> None:
        encoder = partial(LightSVTR, channels=channels, hidden=hidden, depth=depth, local_kernel=local_kernel)
        super().__init__(in_channels, classes, encoder)


class RowToSequence(Encoder):
    """No encoder: (N, `channels`, 1, T) → (N, T, `channels`)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.out_channels = channels

    def forward(self, x: Tensor) -> Tensor:
        return map_to_sequence(x)


class GuidedCTCHead(CTCHead):
    """A two-layer CTC head behind a depthwise and a pointwise convolution over time.

    Shape: (N, T, `in_channels`) → (N, T, `classes`); probabilities in evaluation, logits in training.
    """

    def __init__(self, in_channels: int, classes: int, mid_channels: int, kernel_size: int) -> None:
        super().__init__(in_channels, classes, mid_channels)
        self.guide_layer = nn.Sequential(
            nn.Conv1d(in_channels, in_channels, kernel_size, padding=kernel_size // 2, groups=in_channels, bias=False),
            nn.BatchNorm1d(in_channels),
            nn.Hardswish(),
            nn.Conv1d(in_channels, in_channels, 1, bias=False),
            nn.BatchNorm1d(in_channels),
            nn.Hardswish(),
        )

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(self.guide_layer(x.transpose(1, 2)).transpose(1, 2))


class GuidedHead(nn.Module):
    """The tiny recogniser's head: no encoder, a guided CTC head. Released inference models keep its norms.

    Args:
        classes: characters, blank and space.
        mid_channels: width between the two linear layers.
        guide_kernel: of the convolution over time.

    Shape: (N, `in_channels`, 1, T) → (N, T, `classes`); probabilities in evaluation, logits in training.
    """

    def __init__(self, in_channels: int, classes: int, mid_channels: int = 80, guide_kernel: int = 5) -> None:
        super().__init__()
        self.ctc_encoder = RowEncoder(RowToSequence(in_channels), HEIGHT)
        self.ctc_head = GuidedCTCHead(in_channels, classes, mid_channels, guide_kernel)

    def forward(self, x: Tensor) -> Tensor:
        return self.ctc_head(self.ctc_encoder(x))


# ---- architectures -----------------------------------------------------------------------------------------------


def width_of(width: int, told_by: Size, variants: dict[int, Variant]) -> Parameter:
    """The width by which a variant is known."""
    return Parameter(width, told_by=told_by, choices=tuple(variants))


def size_agrees(variants: dict[int, Variant]) -> dict[str, Agrees]:
    """Whether what a configuration says of the size, by its name or as before sizes had names, goes with the width."""

    def named(value: object, parameters: Mapping[str, Any]) -> bool:
        return value == variants[parameters["width"]].name

    def stem_type(value: object, parameters: Mapping[str, Any]) -> bool:
        return value == ("simple" if variants[parameters["width"]].simple_stem else "branch")

    def stem_channels(value: object, parameters: Mapping[str, Any]) -> bool:
        return value == parameters["width"]

    return {
        "Backbone.model_size": named,
        "Backbone.config_name": named,
        "Backbone.stem_type": stem_type,
        "Backbone.stem_channels": stem_channels,
    }


def detection(width: int) -> Part:
    """The detectors' backbone; the width is told by the weights."""
    return Part(
        DetectionPPLCNetV4,
        parameters={
            "width": width_of(width, Size("backbone.stem.stem4.conv.weight", 0), DETECTION_VARIANTS),
            "folded": Parameter(False, told_by=Present("backbone.stem.stem4.conv.bias")),
        },
        config={"Backbone.name": "PPLCNetV4", "Backbone.det": True},
        agrees=size_agrees(DETECTION_VARIANTS),
    )


def recognition(width: int) -> Part:
    """The recognisers' backbone; the width is told by the weights."""
    return Part(
        RecognitionPPLCNetV4,
        parameters={
            "width": width_of(width, Size("backbone.blocks2.0.token_mixer.se.conv1.weight", 1), RECOGNITION_VARIANTS),
            "folded": Parameter(False, told_by=Present("backbone.blocks2.0.token_mixer.rep_dw.reparam_conv.weight")),
        },
        config={"Backbone.name": "PPLCNetV4"},
        fixed={"Backbone.det": (None, False), "Backbone.use_rep": (None, True)},
        harmless=("Backbone.lr_mult_list",),
        agrees=size_agrees(RECOGNITION_VARIANTS),
    )


REP_LK_FPN = Part(
    RepLKFPN,
    parameters={
        "out_channels": pyramid_width(96, "neck.ins_conv.0.in_conv.weight"),
        "kernel_size": Parameter(
            7,
            told_by=Size("neck.inp_conv_dw.0.lk_origin.weight", 2),
            config="Neck.dilated_kernel_size",
            choices=tuple(DILATED_BRANCHES),
        ),
        "folded_neck": Parameter(False, told_by=Present("neck.inp_conv_dw.0.lk_origin.bias")),
    },
    config={"Neck.name": "RepLKFPN"},
    fixed={"Neck.shortcut": (None, True)},
)
REP_LK_PAN = Part(
    RepLKPAN,
    parameters={
        "out_channels": pyramid_width(256, "neck.ins_conv.0.weight"),
        "kernel_size": Parameter(
            9, told_by=Size("neck.inp_conv.0.dw.lk_origin.weight", 2), choices=tuple(DILATED_BRANCHES)
        ),
        "folded_neck": Parameter(False, told_by=Present("neck.inp_conv.0.dw.lk_origin.bias")),
    },
    config={"Neck.name": "RepLKPAN", "Neck.intracl": True},
)
SUPERVISED_DB = Part(
    SupervisedDBHead,
    parameters=FOLDED_HEAD,
    config={"Head.name": "DBHead"},
    fixed=DB_FIXED,
    harmless=DB_TRAINING,
    agrees={"Head.aux_in_channels": lambda value, parameters: value == parameters["out_channels"]},
    optional=(*THRESHOLD_BRANCH, "head.aux_"),
)
LIGHT_SVTR_CTC = Part(
    LightSVTRHead,
    parameters={
        "classes": ctc_classes("head.ctc_head.fc.weight", 18710),
        "channels": Parameter(
            120, told_by=Size("head.ctc_encoder.encoder.conv_reduce.conv.weight", 0), config="Neck.dims"
        ),
        "hidden": Parameter(240, told_by=Size("head.ctc_encoder.encoder.svtr_block.0.mlp.fc1.weight", 0)),
        "depth": Parameter(
            2, told_by=Count("head.ctc_encoder.encoder.svtr_block.<n>.norm1.weight"), config="Neck.depth"
        ),
        "local_kernel": Parameter(
            7, told_by=Size("head.ctc_encoder.encoder.local_conv.0.weight", 3), config="Neck.local_kernel"
        ),
    },
    config={"Neck.encoder_type": "lightsvtr", "Head.name": "CTCHead"},
    fixed={**ONE_LAYER, **ENCODER_FIXED},
    harmless=CTC_TRAINING + SVTR_TRAINING,
    agrees={"Neck.mlp_ratio": lambda value, parameters: value * parameters["channels"] == parameters["hidden"]},
    ignored=NRTR_HEAD,
)
GUIDED_CTC = Part(
    GuidedHead,
    parameters={
        "classes": ctc_classes("head.ctc_head.fc2.weight", 6906),
        "mid_channels": Parameter(80, told_by=Size("head.ctc_head.fc1.weight", 0), config="Head.mid_channels"),
        "guide_kernel": Parameter(5, told_by=Size("head.ctc_head.guide_layer.0.weight", 2)),
    },
    config={"Neck.encoder_type": "reshape", "Head.name": "CTCHead", "Head.use_guide": True},
    fixed={**CTC_FIXED, **RECOGNISER_FIXED, "Head.use_guide": (True,)},
    harmless=CTC_TRAINING,
    ignored=NRTR_HEAD,
)

SOURCE = "PP-OCRv6, https://github.com/PaddlePaddle/PaddleOCR/tree/main/configs"

register(
    Architecture(
        "det_pplcnet_v4_replkfpn", "det", "detector: PPLCNetV4 + RepLKFPN + DB head (PP-OCRv6 tiny and small)", SOURCE,
        backbone=detection(48), neck=REP_LK_FPN, head=SUPERVISED_DB, preprocessing=preprocessing.DETECTION,
    ),
    Architecture(
        "det_pplcnet_v4_replkpan", "det", "detector: PPLCNetV4 + RepLKPAN + DB head (PP-OCRv6 medium)", SOURCE,
        backbone=detection(128), neck=REP_LK_PAN, head=SUPERVISED_DB, preprocessing=preprocessing.DETECTION,
    ),
    Architecture(
        "rec_pplcnet_v4_guide_ctc", "rec", "recogniser: PPLCNetV4 + guided CTC (PP-OCRv6 tiny)", SOURCE,
        backbone=recognition(48), head=GUIDED_CTC, preprocessing=preprocessing.RECOGNITION_48,
    ),
    Architecture(
        "rec_pplcnet_v4_lightsvtr_ctc", "rec", "recogniser: PPLCNetV4 + LightSVTR + CTC (PP-OCRv6 small and medium)",
        SOURCE, backbone=recognition(96), head=LIGHT_SVTR_CTC, preprocessing=preprocessing.RECOGNITION_48,
    ),
)  # fmt: skip
