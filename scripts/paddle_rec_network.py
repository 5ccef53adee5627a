"""The multilingual v2.0 recogniser in Paddle: MobileNetV3 small x0.5, two bidirectional LSTM layers, CTC.

Structured names and variable names are those of the released programs (french_mobile_v2.0_rec, say), so that what this
network saves is laid out as a released model is. Runs under PaddlePaddle 2.6 and 3.
"""

from __future__ import annotations

import paddle
from paddle import ParamAttr, nn
from paddle.nn import functional as F

HIDDEN = 48  # per direction
LAST_CHANNELS = 288

# kernel, middle channels, output channels, squeeze-and-excite, activation, stride. A stride written as a pair allows
# no residual, even (1, 1).
BLOCKS = (
    (3, 8, 8, True, "relu", (1, 1)),
    (3, 40, 16, False, "relu", (2, 1)),
    (3, 48, 16, False, "relu", 1),
    (5, 48, 24, True, "hardswish", (2, 1)),
    (5, 120, 24, True, "hardswish", 1),
    (5, 120, 24, True, "hardswish", 1),
    (5, 64, 24, True, "hardswish", 1),
    (5, 72, 24, True, "hardswish", 1),
    (5, 144, 48, True, "hardswish", (2, 1)),
    (5, 288, 48, True, "hardswish", 1),
    (5, 288, 48, True, "hardswish", 1),
)
ACTIVATIONS = {"relu": F.relu, "hardswish": F.hardswish, None: lambda x: x}


class ConvUnit(nn.Layer):
    """Convolution without bias, batch norm, activation."""

    def __init__(self, inputs, outputs, kernel, stride, activation, name, groups=1):
        super().__init__()
        self.conv = nn.Conv2D(
            inputs,
            outputs,
            kernel,
            stride,
            padding=(kernel - 1) // 2,
            groups=groups,
            weight_attr=ParamAttr(name=f"{name}_weights"),
            bias_attr=False,
        )
        self.bn = nn.BatchNorm(
            outputs,
            param_attr=ParamAttr(name=f"{name}_bn_scale"),
            bias_attr=ParamAttr(name=f"{name}_bn_offset"),
            moving_mean_name=f"{name}_bn_mean",
            moving_variance_name=f"{name}_bn_variance",
        )
        self.activation = ACTIVATIONS[activation]

    def forward(self, x):
        return self.activation(self.bn(self.conv(x)))


class SqueezeExcite(nn.Layer):
    """Channel gates from the picture's average; the hard sigmoid clips 0.2 x + 0.5."""

    def __init__(self, channels, name):
        super().__init__()
        self.pool = nn.AdaptiveAvgPool2D(1)
        self.conv1 = self._conv(channels, channels // 4, f"{name}_1")
        self.conv2 = self._conv(channels // 4, channels, f"{name}_2")

    @staticmethod
    def _conv(inputs, outputs, name):
        weight, bias = ParamAttr(name=f"{name}_weights"), ParamAttr(name=f"{name}_offset")
        return nn.Conv2D(inputs, outputs, 1, weight_attr=weight, bias_attr=bias)

    def forward(self, x):
        gates = self.conv2(F.relu(self.conv1(self.pool(x))))
        return x * F.hardsigmoid(gates, slope=0.2, offset=0.5)


class Block(nn.Layer):
    """Inverted residual: expand, depthwise, gate, project."""

    def __init__(self, inputs, kernel, middle, outputs, gated, activation, stride, name):
        super().__init__()
        self.residual = stride == 1 and inputs == outputs
        self.gated = gated
        self.expand_conv = ConvUnit(inputs, middle, 1, 1, activation, f"{name}_expand")
        self.bottleneck_conv = ConvUnit(middle, middle, kernel, stride, activation, f"{name}_depthwise", groups=middle)
        if gated:
            self.mid_se = SqueezeExcite(middle, f"{name}_se")
        self.linear_conv = ConvUnit(middle, outputs, 1, 1, None, f"{name}_linear")

    def forward(self, x):
        y = self.bottleneck_conv(self.expand_conv(x))
        y = self.linear_conv(self.mid_se(y) if self.gated else y)
        return x + y if self.residual else y


class Backbone(nn.Layer):
    """(N, 3, 32, W) → (N, 288, 1, W // 4)."""

    def __init__(self):
        super().__init__()
        channels = 8
        self.conv1 = ConvUnit(3, channels, 3, 2, "hardswish", "conv1")
        blocks = []
        for index, (kernel, middle, outputs, gated, activation, stride) in enumerate(BLOCKS, start=2):
            blocks.append(Block(channels, kernel, middle, outputs, gated, activation, stride, f"conv{index}"))
            channels = outputs
        self.blocks = nn.Sequential(*blocks)
        self.conv2 = ConvUnit(channels, LAST_CHANNELS, 1, 1, "hardswish", "conv_last")
        self.pool = nn.MaxPool2D(2, 2)

    def forward(self, x):
        return self.pool(self.conv2(self.blocks(self.conv1(x))))


class SequenceEncoder(nn.Layer):
    """(N, T, 288) → (N, T, 96)."""

    def __init__(self):
        super().__init__()
        self.lstm = nn.LSTM(LAST_CHANNELS, HIDDEN, num_layers=2, direction="bidirectional")

    def forward(self, x):
        return self.lstm(x)[0]


class Neck(nn.Layer):
    """(N, 288, 1, T) → (N, T, 96)."""

    def __init__(self):
        super().__init__()
        self.encoder = SequenceEncoder()

    def forward(self, x):
        return self.encoder(paddle.transpose(paddle.squeeze(x, axis=2), [0, 2, 1]))


class Head(nn.Layer):
    """(N, T, 96) → logits in training, probabilities in evaluation, both (N, T, classes)."""

    def __init__(self, classes):
        super().__init__()
        weight, bias = ParamAttr(name="ctc_fc_w_attr"), ParamAttr(name="ctc_fc_b_attr")
        self.fc = nn.Linear(2 * HIDDEN, classes, weight_attr=weight, bias_attr=bias)

    def forward(self, x):
        logits = self.fc(x)
        return logits if self.training else F.softmax(logits, axis=2)


class Recogniser(nn.Layer):
    """(N, 3, 32, W) → (N, W // 4, classes): logits in training, probabilities in evaluation."""

    def __init__(self, classes):
        super().__init__()
        self.backbone = Backbone()
        self.neck = Neck()
        self.head = Head(classes)

    def forward(self, x):
        return self.head(self.neck(self.backbone(x)))
