"""Necks of the recognisers: a one-row feature map in, a sequence over time steps out.

Upstream: PaddleOCR `ppocr/modeling/necks/rnn.py`.
"""

from __future__ import annotations

from torch import Tensor, nn

from .layers import runs_eagerly
from .registry import Parameter, Part, Size


def map_to_sequence(x: Tensor) -> Tensor:
    """(N, C, 1, T) → (N, T, C)."""
    return x.squeeze(2).transpose(1, 2)


class Encoder(nn.Module):
    """Makes a sequence of one row: (N, C, 1, T) → (N, T, `out_channels`)."""

    out_channels: int


class RowEncoder(Encoder):
    """Checks that the backbone left one row, then encodes it.

    Args:
        encoder: takes that row.
        height: of the images that leave one row, for the message.

    Shape: (N, C, 1, T) → (N, T, `out_channels`).

    Raises:
        ValueError: there are more rows.
    """

    def __init__(self, encoder: Encoder, height: int) -> None:
        super().__init__()
        self.encoder = encoder
        self.height = height
        self.out_channels = encoder.out_channels

    def forward(self, x: Tensor) -> Tensor:
        if runs_eagerly() and x.shape[2] != 1:
            raise ValueError(
                f"the backbone left {x.shape[2]} rows where the recogniser needs 1: give images {self.height} pixels "
                "high"
            )
        return self.encoder(x)


class BiLSTM(Encoder):
    """Two-layer bidirectional LSTM (CRNN, Shi et al., https://arxiv.org/abs/1507.05717).

    Shape: (N, `in_channels`, 1, T) → (N, T, 2·`hidden_size`).
    """

    def __init__(self, in_channels: int, hidden_size: int) -> None:
        super().__init__()
        self.out_channels = 2 * hidden_size
        self.lstm = nn.LSTM(in_channels, hidden_size, num_layers=2, bidirectional=True, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.lstm(map_to_sequence(x))[0]


def bilstm_neck(in_channels: int, hidden_size: int) -> RowEncoder:
    """`BiLSTM` as a neck, for images 32 pixels high."""
    return RowEncoder(BiLSTM(in_channels, hidden_size), height=32)


def bilstm(hidden_size: int) -> Part:
    """The LSTM of that many features per direction, unless the weights tell otherwise."""
    return Part(
        bilstm_neck,
        parameters={
            "hidden_size": Parameter(hidden_size, Size("neck.encoder.lstm.weight_hh_l0", 1), "Neck.hidden_size")
        },
        config={"Neck.encoder_type": "rnn"},
        fixed={"Neck.name": ("SequenceEncoder",), "algorithm": (None, "CRNN")},
        renames=(
            ("<rest>.lstm.<n>.cell_fw.<kind>_<gate>", "<rest>.lstm.<kind>_<gate>_l<n>"),
            ("<rest>.lstm.<n>.cell_bw.<kind>_<gate>", "<rest>.lstm.<kind>_<gate>_l<n>_reverse"),
        ),
    )
