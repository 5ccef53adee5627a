"""ResNet_vd: ResNet with a three-convolution stem and pooled shortcuts (He et al., https://arxiv.org/abs/1812.01187).

Upstream: PaddleOCR `ppocr/modeling/backbones/det_resnet_vd.py` and `rec_resnet_vd.py`.
"""

from __future__ import annotations

from collections import OrderedDict

from torch import Tensor, nn

from .. import heads, necks, preprocessing, sequence
from ..layers import Pair, conv_norm_act, outputs_of
from ..registry import Architecture, Part, register

NAMES = ("_conv", "_batch_norm")

# depth: (units per stage, whether the units are bottlenecks)
DEPTHS = {18: ((2, 2, 2, 2), False), 34: ((3, 4, 6, 3), False), 50: ((3, 4, 6, 3), True)}
WIDTHS = (64, 128, 256, 512)


def shortcut(in_channels: int, out_channels: int, stride: Pair) -> nn.Module:
    """1×1 convolution; a stride is taken by an average pool ahead of it, which loses no pixel (the "d" variant)."""
    pool = None if stride == 1 else nn.AvgPool2d(stride, stride, ceil_mode=True)
    return conv_norm_act(in_channels, out_channels, 1, names=NAMES, before=pool)


class BasicBlock(nn.Module):
    """Two 3×3 convolutions, the stride in the first; `first` units have a convolution in the shortcut."""

    def __init__(self, in_channels: int, width: int, stride: Pair, first: bool) -> None:
        super().__init__()
        self.out_channels = width
        self.conv0 = conv_norm_act(in_channels, width, 3, stride=stride, activation=nn.ReLU, names=NAMES)
        self.conv1 = conv_norm_act(width, width, 3, names=NAMES)
        self.short = shortcut(in_channels, width, stride) if first else nn.Identity()
        self.relu = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        return self.relu(self.short(x) + self.conv1(self.conv0(x)))


class Bottleneck(nn.Module):
    """1×1, 3×3 with the stride, 1×1 to four times the width; `first` units have a convolution in the shortcut."""

    def __init__(self, in_channels: int, width: int, stride: Pair, first: bool) -> None:
        super().__init__()
        self.out_channels = 4 * width
        self.conv0 = conv_norm_act(in_channels, width, 1, activation=nn.ReLU, names=NAMES)
        self.conv1 = conv_norm_act(width, width, 3, stride=stride, activation=nn.ReLU, names=NAMES)
        self.conv2 = conv_norm_act(width, self.out_channels, 1, names=NAMES)
        self.short = shortcut(in_channels, self.out_channels, stride) if first else nn.Identity()
        self.relu = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        return self.relu(self.short(x) + self.conv2(self.conv1(self.conv0(x))))


def make_stages(depth: int, in_channels: int, stride: Pair) -> list[OrderedDict[str, nn.Module]]:
    """The four stages' units by name, `bb_<stage>_<unit>`; all stages but the first open with `stride`."""
    counts, bottleneck = DEPTHS[depth]
    block = Bottleneck if bottleneck else BasicBlock
    stages = []
    for stage, (count, width) in enumerate(zip(counts, WIDTHS, strict=True)):
        units: OrderedDict[str, nn.Module] = OrderedDict()
        for unit in range(count):
            made = block(in_channels, width, stride if stage and not unit else 1, first=not unit)
            units[f"bb_{stage}_{unit}"] = made
            in_channels = made.out_channels
        stages.append(units)
    return stages


class ResNetVd(nn.Module):
    """What detector and recogniser share: stem and pool; 64 channels at /4 (detector) or /2 of the input."""

    def __init__(self, stem_stride: int) -> None:
        super().__init__()
        self.conv1_1 = conv_norm_act(3, 32, 3, stride=stem_stride, activation=nn.ReLU, names=NAMES)
        self.conv1_2 = conv_norm_act(32, 32, 3, activation=nn.ReLU, names=NAMES)
        self.conv1_3 = conv_norm_act(32, 64, 3, activation=nn.ReLU, names=NAMES)
        self.pool = nn.MaxPool2d(3, 2, 1)

    def stem(self, x: Tensor) -> Tensor:
        return self.pool(self.conv1_3(self.conv1_2(self.conv1_1(x))))


class DetectionResNetVd(ResNetVd):
    """A detector's backbone.

    Args:
        depth: 18 or 34 (basic units) or 50 (bottlenecks).

    Shape: (N, 3, H, W) → four maps at /4, /8, /16 and /32 with `out_channels` channels.
    """

    def __init__(self, depth: int) -> None:
        super().__init__(stem_stride=2)
        stages = make_stages(depth, 64, 2)
        self.out_channels = [list(units.values())[-1].out_channels for units in stages]
        self.stages = nn.ModuleList(nn.Sequential(units) for units in stages)

    def forward(self, x: Tensor) -> list[Tensor]:
        return outputs_of(self.stages, self.stem(x))


class RecognitionResNetVd(ResNetVd):
    """A recogniser's backbone: strides along the height only, after the stem.

    Args:
        depth: 18 or 34 (basic units) or 50 (bottlenecks).

    Shape: (N, 3, 32, W) → (N, `out_channels`, 1, W/4).
    """

    def __init__(self, depth: int) -> None:
        super().__init__(stem_stride=1)
        units = OrderedDict(pair for stage in make_stages(depth, 64, (2, 1)) for pair in stage.items())
        self.out_channels = list(units.values())[-1].out_channels
        self.block_list = nn.Sequential(units)
        self.out_pool = nn.MaxPool2d(2)

    def forward(self, x: Tensor) -> Tensor:
        return self.out_pool(self.block_list(self.stem(x)))


# ---- parts and architectures -------------------------------------------------------------------------------------

PP_OCR = "PP-OCR, https://arxiv.org/abs/2009.09941"


def resnet(build: type[ResNetVd], depth: int, rename: tuple[str, str]) -> Part:
    """The backbone of that depth."""
    return Part(
        build,
        {"depth": depth},
        config={"Backbone.name": "ResNet", "Backbone.layers": depth},
        fixed={"Backbone.dcn_stage": (None, [False] * 4), "Backbone.out_indices": (None, [0, 1, 2, 3])},
        harmless=("Backbone.disable_se",),
        renames=(rename,),
    )


STAGES = ("backbone.bb_<n>_<m>.<rest>", "backbone.stages.<n>.bb_<n>_<m>.<rest>")
BLOCK_LIST = ("backbone.bb_<n>_<m>.<rest>", "backbone.block_list.bb_<n>_<m>.<rest>")

register(
    Architecture(
        "det_resnet18_vd_dbfpn", "det", "detector: ResNet18_vd + DBFPN + DB head (server; teacher of PP-OCRv2)", PP_OCR,
        backbone=resnet(DetectionResNetVd, 18, STAGES), neck=necks.dbfpn(256), head=heads.DB,
        preprocessing=preprocessing.DETECTION,
    ),
    Architecture(
        "det_resnet50_vd_lkpan", "det", "detector: ResNet50_vd + LKPAN + DB head 7×7 (teacher of PP-OCRv3)",
        "PP-OCRv3, https://arxiv.org/abs/2206.03001", backbone=resnet(DetectionResNetVd, 50, STAGES),
        neck=necks.LK_PAN, head=heads.DB_LARGE_KERNEL, preprocessing=preprocessing.DETECTION,
    ),
    Architecture(
        "rec_resnet34_vd_bilstm_ctc", "rec", "recogniser: ResNet34_vd + BiLSTM + CTC (server)", PP_OCR,
        backbone=resnet(RecognitionResNetVd, 34, BLOCK_LIST), neck=sequence.bilstm(256), head=heads.CTC,
        preprocessing=preprocessing.RECOGNITION_32,
    ),
)  # fmt: skip
