"""SVTR (Du et al., https://arxiv.org/abs/2205.00159) as the recognisers from PP-OCRv3 on have it, with its CTC head.

Upstream: PaddleOCR `ppocr/modeling/necks/rnn.py`, `ppocr/modeling/backbones/rec_svtrnet.py` and
`ppocr/modeling/heads/rec_multi_head.py`.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .heads import CTC_TRAINING, ONE_LAYER, CTCHead, ctc_classes
from .layers import Pair, conv_norm_act, runs_eagerly
from .registry import Ignored, Part
from .sequence import Encoder, RowEncoder, map_to_sequence

HEIGHT = 48

unit = partial(conv_norm_act, activation=nn.SiLU, names=("conv", "norm"))
"""Convolution without bias, batch norm and SiLU."""


class TimeStepPool(nn.Module):
    """The last pooling of a recogniser's backbone, which leaves one row: a mean over 3 rows and 2 columns.

    In training it makes 40 time steps of images of any height and width, as upstream does for batches of several sizes;
    for images of 48×320 both are the same.

    Shape: (N, C, 3, W) → (N, C, 1, W/2), rounded down; in training (N, C, H, W) → (N, C, 1, 40).

    Raises:
        ValueError: there are less than 3 rows; not in training.
    """

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            return F.adaptive_avg_pool2d(x, (1, 40))
        if runs_eagerly() and x.shape[2] < 3:
            raise ValueError(
                f"the backbone left {x.shape[2]} rows where its last pooling needs 3: give images {HEIGHT} pixels high"
            )
        return F.avg_pool2d(x, (3, 2))


class Attention(nn.Module):
    """Multi-head self-attention over all time steps.

    Shape: (N, T, `channels`) → the same.
    """

    def __init__(self, channels: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.scale = (channels // heads) ** -0.5
        self.qkv = nn.Linear(channels, 3 * channels)
        self.proj = nn.Linear(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        n, t, c = x.shape
        q, k, v = self.qkv(x).reshape(n, t, 3, self.heads, c // self.heads).permute(2, 0, 3, 1, 4).unbind(0)
        weights = torch.softmax((q * self.scale) @ k.transpose(-2, -1), dim=-1)
        return self.proj((weights @ v).transpose(1, 2).reshape(n, t, c))


class MLP(nn.Module):
    """Linear, SiLU, linear. Shape: (N, T, `channels`) → the same."""

    def __init__(self, channels: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(channels, hidden)
        self.act = nn.SiLU()
        self.fc2 = nn.Linear(hidden, channels)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(self.act(self.fc1(x)))


class SVTRBlock(nn.Module):
    """A pre-norm transformer block with global mixing.

    Upstream's configuration says `prenorm=False`, yet the code it selects normalises before mixing; the released
    graphs do the same.
    """

    def __init__(self, channels: int, heads: int, hidden: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(channels, eps=1e-5)
        self.mixer = Attention(channels, heads)
        self.norm2 = nn.LayerNorm(channels, eps=1e-5)
        self.mlp = MLP(channels, hidden)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.mixer(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class SVTREncoder(Encoder):
    """Two transformer blocks on a narrowed map, and the backbone's map beside them.

    Upstream stops its gradient from PP-OCRv4 on (`use_guide`), because there the NRTR head trains the backbone; without
    that head the backbone would not learn, so it is not stopped here.

    Args:
        out_channels: upstream's `dims`.
        channels: width of the transformer, upstream's `hidden_dims`.
        depth: number of blocks.
        kernel_size: of the first and of the last but one convolution; one row high from PP-OCRv4 on.

    Shape: (N, `in_channels`, 1, T) → (N, T, `out_channels`).
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int = 120,
        channels: int = 120,
        depth: int = 2,
        kernel_size: Pair = (1, 3),
    ) -> None:
        super().__init__()
        narrow = in_channels // 8
        self.out_channels = out_channels
        self.conv1 = unit(in_channels, narrow, kernel_size)
        self.conv2 = unit(narrow, channels, 1)
        self.svtr_block = nn.ModuleList(SVTRBlock(channels, heads=8, hidden=2 * channels) for _ in range(depth))
        self.norm = nn.LayerNorm(channels, eps=1e-6)
        self.conv3 = unit(channels, in_channels, 1)
        self.conv4 = unit(2 * in_channels, narrow, kernel_size)
        self.conv1x1 = unit(narrow, out_channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = map_to_sequence(self.conv2(self.conv1(x)))
        for block in self.svtr_block:
            y = block(y)
        y = self.norm(y).transpose(1, 2).unsqueeze(2)
        return map_to_sequence(self.conv1x1(self.conv4(torch.cat([x, self.conv3(y)], 1))))


class MultiHead(nn.Module):
    """Encoder and CTC layer, which upstream trains beside a second decoder; that one is not part of the network here.

    Args:
        classes: characters, blank, and space where the dictionary has one.
        encoder: makes the encoder for a map of so many channels.

    Shape: (N, `in_channels`, 1, T) → (N, T, `classes`); probabilities in evaluation, logits in training.
    """

    def __init__(self, in_channels: int, classes: int, encoder: Callable[[int], Encoder] = SVTREncoder) -> None:
        super().__init__()
        self.ctc_encoder = RowEncoder(encoder(in_channels), HEIGHT)
        self.ctc_head = CTCHead(self.ctc_encoder.out_channels, classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.ctc_head(self.ctc_encoder(x))


def svtr_neck(in_channels: int) -> RowEncoder:
    """The encoder of PP-OCRv3, which is a neck in the names in circulation: square kernels, narrower at its end."""
    return RowEncoder(SVTREncoder(in_channels, out_channels=64, kernel_size=3), HEIGHT)


# What configurations may say of all recognisers from PP-OCRv3 on, and of those whose encoder is of transformer blocks.
RECOGNISER_FIXED = {
    "Neck.name": ("SequenceEncoder",),
    "algorithm": (None, "SVTR", "SVTR_LCNet", "SVTR_HGNet"),
}
ENCODER_FIXED = {
    **RECOGNISER_FIXED,
    "Neck.num_heads": (None, 8),
    "Neck.qkv_bias": (None, True),
    "Neck.qk_scale": (None,),
}
SVTR_FIXED = {
    **ENCODER_FIXED,
    "Neck.depth": (None, 2),
    "Neck.hidden_dims": (None, 120),
    "Neck.mlp_ratio": (None, 2),
}
# `use_guide` stops the gradient towards the backbone; the rates are those of dropout.
SVTR_TRAINING = ("Neck.use_guide", "Neck.drop_rate", "Neck.attn_drop_rate", "Neck.drop_path")

SVTR = Part(
    svtr_neck,
    config={"Neck.encoder_type": "svtr"},
    fixed={**SVTR_FIXED, "Neck.dims": (None, 64), "Neck.kernel_size": (None, [3, 3])},
    harmless=SVTR_TRAINING,
    renames=(("head.ctc_encoder.encoder.<rest>", "neck.encoder.<rest>"),),
)

NRTR_HEAD = (
    Ignored("head.gtc_head.", "the NRTR head guides training and is never run in evaluation"),
    Ignored("head.before_gtc.", "it leads to the NRTR head, which is never run in evaluation"),
)


def svtr_ctc(classes: int) -> Part:
    """`MultiHead` for so many classes, unless the weights tell otherwise."""
    return Part(
        MultiHead,
        parameters={"classes": ctc_classes("head.ctc_head.fc.weight", classes)},
        config={"Neck.encoder_type": "svtr", "Head.name": "CTCHead"},
        fixed={**ONE_LAYER, **SVTR_FIXED, "Neck.dims": (120,), "Neck.kernel_size": ([1, 3],)},
        harmless=CTC_TRAINING + SVTR_TRAINING,
        ignored=NRTR_HEAD,
        one_row=("head.ctc_encoder.encoder.conv4.conv.weight",),
    )
