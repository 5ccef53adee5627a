"""Feature pyramids of the detectors: four maps in, one map at a quarter of the input's size out.

Upstream: PaddleOCR `ppocr/modeling/necks/db_fpn.py`.
"""

from __future__ import annotations

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
        for level, channels in enumerate(in_channels, 2):
            self.add_module(f"in{level}_conv", nn.Conv2d(channels, out_channels, 1, bias=False))
        for level in (5, 4, 3, 2):
            self.add_module(f"p{level}_conv", nn.Conv2d(out_channels, out_channels // 4, 3, padding=1, bias=False))

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


class LKPAN(nn.Module):
    """The pyramid of the PP-OCRv3 teacher: 9×9 convolutions and a second, bottom-up way (arXiv 2206.03001).

    Shape: maps at /4, /8, /16, /32 with `in_channels` → (N, `out_channels`, H/4, W/4).
    """

    def __init__(self, in_channels: list[int], out_channels: int) -> None:
        super().__init__()
        self.out_channels = out_channels
        quarter, levels = out_channels // 4, len(in_channels)
        self.ins_conv = nn.ModuleList(nn.Conv2d(channels, out_channels, 1, bias=False) for channels in in_channels)
        self.inp_conv = nn.ModuleList(nn.Conv2d(out_channels, quarter, 9, padding=4, bias=False) for _ in range(levels))
        self.pan_head_conv = nn.ModuleList(
            nn.Conv2d(quarter, quarter, 3, stride=2, padding=1, bias=False) for _ in range(levels - 1)
        )
        self.pan_lat_conv = nn.ModuleList(nn.Conv2d(quarter, quarter, 9, padding=4, bias=False) for _ in range(levels))

    def forward(self, maps: list[Tensor]) -> Tensor:
        summed = top_down([conv(x) for conv, x in zip(self.ins_conv, maps, strict=True)])
        finest, *coarser = [conv(x) for conv, x in zip(self.inp_conv, summed, strict=True)]
        path = [finest]
        for conv, x in zip(self.pan_head_conv, coarser, strict=True):
            path.append(x + conv(path[-1]))
        return fuse([conv(x) for conv, x in zip(self.pan_lat_conv, path, strict=True)])


def pyramid_width(default: int, key: str) -> Parameter:
    """The pyramid's channels, told by the first convolution's output."""
    return Parameter(default, told_by=Size(key, 0), config="Neck.out_channels")


def dbfpn(width: int) -> Part:
    """DBFPN of that many channels, unless the weights tell otherwise."""
    return Part(
        DBFPN,
        parameters={"out_channels": pyramid_width(width, "neck.in2_conv.weight")},
        config={"Neck.name": "DBFPN"},
    )


RSE_FPN = Part(
    RSEFPN,
    parameters={"out_channels": pyramid_width(96, "neck.ins_conv.0.in_conv.weight")},
    config={"Neck.name": "RSEFPN"},
)
LK_PAN = Part(
    LKPAN,
    parameters={"out_channels": pyramid_width(256, "neck.ins_conv.0.weight")},
    config={"Neck.name": "LKPAN"},
)
