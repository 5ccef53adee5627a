"""Necks of the recognisers: a one-row feature map in, a sequence over time steps out.

Upstream: PaddleOCR `ppocr/modeling/necks/rnn.py`.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .layers import conv_norm_act, runs_eagerly
from .registry import Parameter, Part, Size

NAMES = ("conv", "norm")


def map_to_sequence(x: Tensor) -> Tensor:
    """(N, C, 1, T) → (N, T, C)."""
    return x.squeeze(2).transpose(1, 2)


class BiLSTM(nn.Module):
    """Two-layer bidirectional LSTM (CRNN, Shi et al., https://arxiv.org/abs/1507.05717).

    Shape: (N, T, `in_channels`) → (N, T, 2·`hidden_size`).
    """

    def __init__(self, in_channels: int, hidden_size: int) -> None:
        super().__init__()
        self.out_channels = 2 * hidden_size
        self.lstm = nn.LSTM(in_channels, hidden_size, num_layers=2, bidirectional=True, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.lstm(map_to_sequence(x))[0]


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
    """A pre-norm transformer block with global mixing (SVTR, Du et al., https://arxiv.org/abs/2205.00159).

    Upstream's configuration says `prenorm=False`, yet the code it selects normalises before mixing; the released
    graphs do the same.
    """

    def __init__(self, channels: int, heads: int, mlp_ratio: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(channels, eps=1e-5)
        self.mixer = Attention(channels, heads)
        self.norm2 = nn.LayerNorm(channels, eps=1e-5)
        self.mlp = MLP(channels, mlp_ratio * channels)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.mixer(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class SVTREncoder(nn.Module):
    """The neck of the PP-OCRv3 recognisers: two transformer blocks beside a guide from the backbone.

    Shape: (N, `in_channels`, 1, T) → (N, T, `out_channels`).
    """

    def __init__(self, in_channels: int, out_channels: int = 64, channels: int = 120, depth: int = 2) -> None:
        super().__init__()
        narrow = in_channels // 8
        self.out_channels = out_channels

        def unit(inside: int, outside: int, kernel_size: int) -> nn.Sequential:
            return conv_norm_act(inside, outside, kernel_size, activation=nn.SiLU, names=NAMES)

        self.conv1 = unit(in_channels, narrow, 3)
        self.conv2 = unit(narrow, channels, 1)
        self.svtr_block = nn.ModuleList(SVTRBlock(channels, heads=8, mlp_ratio=2) for _ in range(depth))
        self.norm = nn.LayerNorm(channels, eps=1e-6)
        self.conv3 = unit(channels, in_channels, 1)
        self.conv4 = unit(2 * in_channels, narrow, 3)
        self.conv1x1 = unit(narrow, out_channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv2(self.conv1(x))
        n, c, h, w = y.shape
        y = y.flatten(2).transpose(1, 2)
        for block in self.svtr_block:
            y = block(y)
        y = self.norm(y).reshape(n, h, w, c).permute(0, 3, 1, 2)
        return map_to_sequence(self.conv1x1(self.conv4(torch.cat([x, self.conv3(y)], 1))))


class SequenceEncoder(nn.Module):
    """A recogniser's neck: checks that the backbone left one row, then encodes it.

    Args:
        encoder: "bilstm" or "svtr".
        hidden_size: of the LSTM, per direction.
    """

    def __init__(self, in_channels: int, encoder: str, hidden_size: int | None = None) -> None:
        super().__init__()
        if encoder == "bilstm":
            self.encoder: nn.Module = BiLSTM(in_channels, hidden_size)
        else:
            self.encoder = SVTREncoder(in_channels)
        self.out_channels = self.encoder.out_channels

    def forward(self, x: Tensor) -> Tensor:
        if runs_eagerly() and x.shape[2] != 1:
            raise ValueError(
                f"the backbone left {x.shape[2]} rows where the recogniser needs 1: give pictures of the height that "
                "the model was trained for (32 pixels, or 48 for PP-OCRv3)"
            )
        return self.encoder(x)


def bilstm(hidden_size: int) -> Part:
    """The LSTM of that many features per direction, unless the weights tell otherwise."""
    return Part(
        SequenceEncoder,
        {"encoder": "bilstm"},
        parameters={
            "hidden_size": Parameter(hidden_size, Size("neck.encoder.lstm.weight_hh_l0", 1), "Neck.hidden_size")
        },
        config={"Neck.encoder_type": "rnn"},
        renames=(
            ("<rest>.lstm.<n>.cell_fw.<kind>_<gate>", "<rest>.lstm.<kind>_<gate>_l<n>"),
            ("<rest>.lstm.<n>.cell_bw.<kind>_<gate>", "<rest>.lstm.<kind>_<gate>_l<n>_reverse"),
        ),
    )


SVTR = Part(
    SequenceEncoder,
    {"encoder": "svtr"},
    config={"Neck.encoder_type": "svtr"},
    renames=(("head.ctc_encoder.encoder.<rest>", "neck.encoder.<rest>"),),
)
