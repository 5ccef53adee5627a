"""Small Paddle networks with the building blocks of PP-OCRv4 and PP-OCRv5, for `make_graph_cases.py`.

No network of those generations is in the list, and their programs are likely to be tried with `--as-graph`. So the
parts that they do not share with the older ones are here as upstream has them (PaddleOCR, `ppocr/modeling`): PP-LCNetV3
with its learnable affine blocks, PP-HGNetV2 with its stem of padding and "same" pooling, residual squeeze-and-excite
pyramids, the local head of the server detectors, and the SVTR neck with flat kernels. Widths are small.
"""

# Paddle rewrites `forward`, and its own `zip` knows no `strict`.
# ruff: noqa: B905

from __future__ import annotations

from typing import Any

import paddle
from paddle import nn
from paddle.nn import functional as F


def conv_norm(
    inside: int, outside: int, kernel: Any, stride: Any = 1, groups: int = 1, padding: Any = None
) -> list[nn.Layer]:
    """Convolution without bias and batch norm."""
    padding = padding if padding is not None else (kernel - 1) // 2
    return [
        nn.Conv2D(inside, outside, kernel, stride, padding, groups=groups, bias_attr=False),
        nn.BatchNorm2D(outside),
    ]


class Affine(nn.Layer):
    """One learnable factor and one summand for all."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = self.create_parameter([1], default_initializer=nn.initializer.Constant(1.0))
        self.bias = self.create_parameter([1], default_initializer=nn.initializer.Constant(0.0))

    def forward(self, x: Any) -> Any:
        return self.scale * x + self.bias


class Rep(nn.Layer):
    """A convolution whose branches were merged, then affine, hard swish, affine."""

    def __init__(self, inside: int, outside: int, kernel: int, stride: Any = 1, groups: int = 1) -> None:
        super().__init__()
        self.reparam_conv = nn.Conv2D(inside, outside, kernel, stride, (kernel - 1) // 2, groups=groups)
        self.lab, self.act_lab, self.stride = Affine(), Affine(), stride

    def forward(self, x: Any) -> Any:
        x = self.lab(self.reparam_conv(x))
        return self.act_lab(F.hardswish(x)) if self.stride != 2 else x


class SqueezeExcite(nn.Layer):
    """Channel attention with a hard sigmoid of slope 1/6."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.pool = nn.AdaptiveAvgPool2D(1)
        self.conv1, self.conv2 = nn.Conv2D(channels, channels // 4, 1), nn.Conv2D(channels // 4, channels, 1)

    def forward(self, x: Any) -> Any:
        return paddle.multiply(x, F.hardsigmoid(self.conv2(F.relu(self.conv1(self.pool(x))))))


class LCNet(nn.Layer):
    """PP-LCNetV3 in miniature; the recogniser averages its last map in evaluation."""

    def __init__(self, strides: tuple[Any, ...], detector: bool) -> None:
        super().__init__()
        self.detector = detector
        self.conv1 = nn.Sequential(*conv_norm(3, 8, 3, 2))
        widths = (8, 12, 16, 20, 24)
        self.blocks = nn.LayerList(
            nn.Sequential(Rep(a, a, 5, stride, a), SqueezeExcite(a), Rep(a, b, 1))
            for a, b, stride in zip(widths, widths[1:], strides)
        )
        self.outs = nn.LayerList(nn.Conv2D(width, 8, 1) for width in widths[1:])

    def forward(self, x: Any) -> Any:
        x = self.conv1(x)
        maps = []
        for block, out in zip(self.blocks, self.outs):
            x = block(x)
            maps.append(out(x))
        return maps if self.detector else F.avg_pool2d(x, [3, 2])


class RSELayer(nn.Layer):
    """A convolution and its residual squeeze-and-excite."""

    def __init__(self, inside: int, outside: int, kernel: int) -> None:
        super().__init__()
        self.in_conv = nn.Conv2D(inside, outside, kernel, padding=kernel // 2, bias_attr=False)
        self.se_block = SqueezeExcite(outside)

    def forward(self, x: Any) -> Any:
        x = self.in_conv(x)
        return x + self.se_block(x)


class Pyramid(nn.Layer):
    """RSEFPN."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.ins_conv = nn.LayerList(RSELayer(8, channels, 1) for _ in range(4))
        self.inp_conv = nn.LayerList(RSELayer(channels, channels // 4, 3) for _ in range(4))

    def forward(self, maps: Any) -> Any:
        c2, c3, c4, c5 = (conv(x) for conv, x in zip(self.ins_conv, maps))
        out4 = c4 + F.upsample(c5, scale_factor=2, mode="nearest", align_mode=1)
        out3 = c3 + F.upsample(out4, scale_factor=2, mode="nearest", align_mode=1)
        out2 = c2 + F.upsample(out3, scale_factor=2, mode="nearest", align_mode=1)
        p2, p3, p4, p5 = (conv(x) for conv, x in zip(self.inp_conv, (out2, out3, out4, c5)))
        return paddle.concat(
            [
                F.upsample(p5, scale_factor=8, mode="nearest", align_mode=1),
                F.upsample(p4, scale_factor=4, mode="nearest", align_mode=1),
                F.upsample(p3, scale_factor=2, mode="nearest", align_mode=1),
                p2,
            ],
            axis=1,
        )


class LocalHead(nn.Layer):
    """DB head with the local branch of the server detectors (PFHeadLocal)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        quarter = channels // 4
        self.conv1 = nn.Sequential(*conv_norm(channels, quarter, 3), nn.ReLU())
        self.conv2 = nn.Conv2DTranspose(quarter, quarter, 2, stride=2)
        self.norm = nn.BatchNorm2D(quarter)
        self.conv3 = nn.Conv2DTranspose(quarter, 1, 2, stride=2)
        self.last_3 = nn.Sequential(*conv_norm(quarter + 1, quarter, 3), nn.ReLU())
        self.last_1 = nn.Conv2D(quarter, 1, 1)

    def forward(self, x: Any) -> Any:
        f = F.relu(self.norm(self.conv2(self.conv1(x))))
        base = F.sigmoid(self.conv3(f))
        local = paddle.concat([base, F.upsample(f, scale_factor=2, mode="nearest")], axis=1)
        return 0.5 * (base + F.sigmoid(self.last_1(self.last_3(local))))


class HGNet(nn.Layer):
    """PP-HGNetV2 in miniature: the stem, and one block of aggregated convolutions."""

    def __init__(self) -> None:
        super().__init__()

        def unit(
            inside: int, outside: int, kernel: int, stride: Any = 1, padding: Any = None, groups: int = 1
        ) -> nn.Layer:
            return nn.Sequential(*conv_norm(inside, outside, kernel, stride, groups, padding), nn.ReLU(), Affine())

        self.stem1 = unit(3, 8, 3, 2)
        self.stem2a, self.stem2b = unit(8, 4, 2, padding="SAME"), unit(4, 8, 2, padding="SAME")
        self.pool = nn.MaxPool2D(2, 1, ceil_mode=True, padding="SAME")
        self.stem3, self.stem4 = unit(16, 8, 3, (2, 1)), unit(8, 12, 1)
        self.layers = nn.LayerList(
            nn.Sequential(unit(12, 12, 1), nn.Sequential(*conv_norm(12, 12, 5, groups=12), nn.ReLU())) for _ in range(3)
        )
        self.aggregate = nn.Sequential(unit(48, 24, 1), unit(24, 12, 1))
        self.down = nn.Sequential(*conv_norm(12, 24, 3, (2, 1), groups=12))
        self.ese = nn.Conv2D(24, 24, 1)

    def forward(self, x: Any) -> Any:
        x = F.pad(self.stem1(x), [0, 1, 0, 1])
        x = self.stem4(self.stem3(paddle.concat([self.pool(x), self.stem2b(self.stem2a(x))], axis=1)))
        identity, outputs = x, [x]
        for layer in self.layers:
            x = layer(x)
            outputs.append(x)
        x = self.down(self.aggregate(paddle.concat(outputs, axis=1)) + identity)
        return x * F.sigmoid(self.ese(x.mean(axis=[2, 3], keepdim=True)))


class Attention(nn.Layer):
    """Global mixing as SVTR has it."""

    def __init__(self, channels: int, heads: int) -> None:
        super().__init__()
        self.channels, self.heads, self.head_dim = channels, heads, channels // heads
        self.qkv, self.proj = nn.Linear(channels, 3 * channels), nn.Linear(channels, channels)
        self.drop = nn.Dropout(0.1)

    def forward(self, x: Any) -> Any:
        qkv = self.qkv(x).reshape((0, -1, 3, self.heads, self.head_dim)).transpose((2, 0, 3, 1, 4))
        q, k, v = qkv[0] * self.head_dim**-0.5, qkv[1], qkv[2]
        weights = self.drop(F.softmax(q.matmul(k.transpose((0, 1, 3, 2))), axis=-1))
        return self.proj(weights.matmul(v).transpose((0, 2, 1, 3)).reshape((0, -1, self.channels)))


class Block(nn.Layer):
    """A transformer block."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm1, self.mixer = nn.LayerNorm(channels, epsilon=1e-5), Attention(channels, 2)
        self.norm2 = nn.LayerNorm(channels, epsilon=1e-5)
        self.mlp = nn.Sequential(nn.Linear(channels, 2 * channels), nn.Swish(), nn.Linear(2 * channels, channels))

    def forward(self, x: Any) -> Any:
        x = x + self.mixer(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class SVTR(nn.Layer):
    """The neck of the recognisers, with its flat kernels, and the CTC head."""

    def __init__(self, channels: int, hidden: int = 8, classes: int = 11) -> None:
        super().__init__()

        def unit(inside: int, outside: int, kernel: Any, padding: Any) -> nn.Layer:
            return nn.Sequential(*conv_norm(inside, outside, kernel, padding=padding), nn.Swish())

        self.conv1, self.conv2 = unit(channels, 4, [1, 3], [0, 1]), unit(4, hidden, 1, 0)
        self.blocks, self.norm = nn.LayerList(Block(hidden) for _ in range(2)), nn.LayerNorm(hidden, epsilon=1e-6)
        self.conv3, self.conv4 = unit(hidden, channels, 1, 0), unit(2 * channels, 4, [1, 3], [0, 1])
        self.conv1x1, self.fc = unit(4, hidden, 1, 0), nn.Linear(hidden, classes)

    def forward(self, x: Any) -> Any:
        guide = x.clone()
        guide.stop_gradient = True
        z = self.conv2(self.conv1(guide))
        _, channels, height, width = z.shape
        z = z.flatten(2).transpose([0, 2, 1])
        for block in self.blocks:
            z = block(z)
        z = self.norm(z).reshape([0, height, width, channels]).transpose([0, 3, 1, 2])
        z = self.conv1x1(self.conv4(paddle.concat((x, self.conv3(z)), axis=1)))
        return F.softmax(self.fc(z.squeeze(axis=2).transpose([0, 2, 1])), axis=2)


def mobile_detector() -> nn.Layer:
    """PP-OCRv4 and v5, mobile: PP-LCNetV3, RSEFPN, and the local head that the server detectors have."""
    return nn.Sequential(LCNet((2, 2, 2, 2), detector=True), Pyramid(16), LocalHead(16))


def mobile_recogniser() -> nn.Layer:
    """PP-OCRv4 and v5, mobile: PP-LCNetV3 and SVTR."""
    return nn.Sequential(LCNet((1, (2, 1), (1, 2), (2, 1)), detector=False), SVTR(24))


def server_recogniser() -> nn.Layer:
    """PP-OCRv5, server: PP-HGNetV2 and SVTR."""
    return nn.Sequential(HGNet(), nn.AvgPool2D([3, 2]), SVTR(24))
