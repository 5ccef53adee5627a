"""Feature pyramids of the detectors: four maps in, one map at a quarter of the input's size out.

Upstream: PaddleOCR `ppocr/modeling/necks/db_fpn.py`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .layers import Hardsigmoid02, SqueezeExcite
from .registry import Parameter, Part, Size


def upsample(x: Tensor, factor: int) -> Tensor:
    """Nearest neighbour, by a whole factor."""
    return F.interpolate(x, scale_factor=float(factor), mode="nearest")


def top_down(maps: list[Tensor]) -> list[Tensor]:
    """Adds to each map, finest first, everything that the coarser ones know."""
    summed = [maps[-1]]
    for finer in reversed(maps[:-1]):
        summed.insert(0, finer + upsample(summed[0], 2))
    return summed


def fuse(maps: list[Tensor]) -> Tensor:
    """Brings all maps to the finest one's size and concatenates them, coarsest first."""
    return torch.cat([upsample(coarse, 2**i) for i, coarse in reversed(list(enumerate(maps))) if i] + [maps[0]], 1)


class DBFPN(nn.Module):
    """The pyramid of the DB detector (Liao et al., https://arxiv.org/abs/1911.08947); plain convolutions.

    Shape: maps at /4, /8, /16, /32 with `in_channels` → (N, `out_channels`, H/4, W/4).
    """

    def __init__(self, in_channels: list[int], out_channels: int) -> None:
        super().__init__()
        self.out_channels = out_channels
        self.in2_conv, self.in3_conv, self.in4_conv, self.in5_conv = (
            nn.Conv2d(channels, out_channels, 1, bias=False) for channels in in_channels
        )
        self.p5_conv, self.p4_conv, self.p3_conv, self.p2_conv = (
            nn.Conv2d(out_channels, out_channels // 4, 3, padding=1, bias=False) for _ in in_channels
        )

    def forward(self, maps: list[Tensor]) -> Tensor:
        c2, c3, c4, c5 = maps
        f2, f3, f4, f5 = top_down([self.in2_conv(c2), self.in3_conv(c3), self.in4_conv(c4), self.in5_conv(c5)])
        return fuse([self.p2_conv(f2), self.p3_conv(f3), self.p4_conv(f4), self.p5_conv(f5)])


class RSELayer(nn.Module):
    """A convolution whose output is added to its own squeeze-and-excite (PP-OCRv3, https://arxiv.org/abs/2206.03001)."""

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int) -> None:
        super().__init__()
        self.in_conv = nn.Conv2d(in_channels, out_channels, kernel_size, padding=kernel_size // 2, bias=False)
        self.se_block = SqueezeExcite(out_channels, Hardsigmoid02)

    def forward(self, x: Tensor) -> Tensor:
        x = self.in_conv(x)
        return x + self.se_block(x)


class RSEFPN(nn.Module):
    """The pyramid of the PP-OCRv3 detectors: DBFPN with residual squeeze-and-excite layers.

    Shape: maps at /4, /8, /16, /32 with `in_channels` → (N, `out_channels`, H/4, W/4).
    """

    def __init__(self, in_channels: list[int], out_channels: int) -> None:
        super().__init__()
        self.out_channels = out_channels
        self.ins_conv = nn.ModuleList(RSELayer(channels, out_channels, 1) for channels in in_channels)
        self.inp_conv = nn.ModuleList(RSELayer(out_channels, out_channels // 4, 3) for _ in in_channels)

    def forward(self, maps: list[Tensor]) -> Tensor:
        summed = top_down([conv(x) for conv, x in zip(self.ins_conv, maps, strict=True)])
        return fuse([conv(x) for conv, x in zip(self.inp_conv, summed, strict=True)])


class IntraCLBlock(nn.Module):
    """Strip convolutions that follow a line of text (I3CL, Du et al., https://arxiv.org/abs/2108.01343).

    At each size, largest first, a square, an upright and a flat kernel read the same map and are summed. There is no
    activation before the last convolution. Upstream: PaddleOCR `ppocr/modeling/necks/intracl.py`.

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


def large_kernel(in_channels: int, out_channels: int) -> nn.Conv2d:
    """A 9×9 convolution without bias, at the same size."""
    return nn.Conv2d(in_channels, out_channels, 9, padding=4, bias=False)


class LKPAN(nn.Module):
    """A pyramid with large kernels and a second, bottom-up way (PP-OCRv3, https://arxiv.org/abs/2206.03001).

    Args:
        in_channels: of the four maps, finest first.
        out_channels: of the map that is returned.
        intracl: whether each level ends with an IntraCL block (server detectors from PP-OCRv4 on).
        large: makes a large kernel's layer of so many channels in and out.

    Shape: maps at /4, /8, /16, /32 with `in_channels` → (N, `out_channels`, H/4, W/4).
    """

    def __init__(
        self,
        in_channels: list[int],
        out_channels: int,
        intracl: bool = False,
        large: Callable[[int, int], nn.Module] = large_kernel,
    ) -> None:
        super().__init__()
        self.out_channels = out_channels
        quarter, levels = out_channels // 4, range(len(in_channels))
        self.ins_conv = nn.ModuleList(nn.Conv2d(channels, out_channels, 1, bias=False) for channels in in_channels)
        self.inp_conv = nn.ModuleList(large(out_channels, quarter) for _ in levels)
        self.pan_head_conv = nn.ModuleList(
            nn.Conv2d(quarter, quarter, 3, stride=2, padding=1, bias=False) for _ in levels[1:]
        )
        self.pan_lat_conv = nn.ModuleList(large(quarter, quarter) for _ in levels)
        self.incl1, self.incl2, self.incl3, self.incl4 = (
            IntraCLBlock(quarter) if intracl else nn.Identity() for _ in levels
        )

    def summed(self, maps: list[Tensor]) -> list[Tensor]:
        """The sums of the top-down way, finest first."""
        return top_down([conv(x) for conv, x in zip(self.ins_conv, maps, strict=True)])

    def fused(self, summed: list[Tensor]) -> Tensor:
        """What comes after: the bottom-up way, and all levels in one map."""
        finest, *coarser = [conv(x) for conv, x in zip(self.inp_conv, summed, strict=True)]
        path = [finest]
        for conv, x in zip(self.pan_head_conv, coarser, strict=True):
            path.append(x + conv(path[-1]))
        p2, p3, p4, p5 = (conv(x) for conv, x in zip(self.pan_lat_conv, path, strict=True))
        return fuse([self.incl1(p2), self.incl2(p3), self.incl3(p4), self.incl4(p5)])

    def forward(self, maps: list[Tensor]) -> Tensor | tuple[Tensor, ...]:
        return self.fused(self.summed(maps))


def pyramid_width(default: int, key: str) -> Parameter:
    """The pyramid's channels, told by the first convolution's output."""
    return Parameter(default, told_by=Size(key, 0), config="Neck.out_channels")


def dbfpn(width: int) -> Part:
    """DBFPN of that many channels, unless the weights tell otherwise."""
    return Part(
        DBFPN,
        parameters={"out_channels": pyramid_width(width, "neck.in2_conv.weight")},
        config={"Neck.name": "DBFPN"},
        fixed={"Neck.use_asf": (None, False)},
    )


RSE_FPN = Part(
    RSEFPN,
    parameters={"out_channels": pyramid_width(96, "neck.ins_conv.0.in_conv.weight")},
    config={"Neck.name": "RSEFPN"},
    # Layers without a shortcut have the same tensors; no released detector is one.
    fixed={"Neck.shortcut": (None, True), "Neck.intracl": (None, False)},
)
LK_PAN = Part(
    LKPAN,
    parameters={"out_channels": pyramid_width(256, "neck.ins_conv.0.weight")},
    config={"Neck.name": "LKPAN"},
    fixed={"Neck.mode": (None, "large"), "Neck.intracl": (None, False)},
)
LK_PAN_INTRACL = replace(
    LK_PAN,
    arguments={"intracl": True},
    config={**LK_PAN.config, "Neck.intracl": True},
    fixed={"Neck.mode": (None, "large")},
)
