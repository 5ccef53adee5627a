"""What the recognisers from PP-OCRv4 on share: the pooling to one row, the SVTR encoder, and encoder with CTC layer.

Upstream: PaddleOCR `ppocr/modeling/necks/rnn.py` and `ppocr/modeling/heads/rec_multi_head.py`.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .heads import CTCHead
from .layers import runs_eagerly
from .registry import Ignored, Parameter, Part, Size
from .sequence import SVTRBlock, map_to_sequence

HEIGHT = 48


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


def unit(in_channels: int, out_channels: int, kernel_size: tuple[int, int] = (1, 1)) -> nn.Sequential:
    """Convolution without bias, batch norm and SiLU, at the same size."""
    padding = (kernel_size[0] // 2, kernel_size[1] // 2)
    return nn.Sequential(
        OrderedDict(
            conv=nn.Conv2d(in_channels, out_channels, kernel_size, padding=padding, bias=False),
            norm=nn.BatchNorm2d(out_channels),
            act=nn.SiLU(),
        )
    )


class SVTREncoder(nn.Module):
    """The encoder of the PP-OCRv4 and PP-OCRv5 recognisers: two transformer blocks and the backbone's map beside them.

    (SVTR, Du et al., https://arxiv.org/abs/2205.00159.) It differs from that of PP-OCRv3 in kernels that are one row
    high and in its width. Upstream stops its gradient (`use_guide`), because there the NRTR head trains the backbone;
    without that head the backbone would not learn, so it is not stopped here.

    Args:
        out_channels: upstream's `dims`.
        channels: width of the transformer, upstream's `hidden_dims`.
        depth: number of blocks.
        kernel_size: of the first and of the last but one convolution.

    Shape: (N, `in_channels`, 1, T) → (N, T, `out_channels`).
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int = 120,
        channels: int = 120,
        depth: int = 2,
        kernel_size: tuple[int, int] = (1, 3),
    ) -> None:
        super().__init__()
        narrow = in_channels // 8
        self.out_channels = out_channels
        self.conv1 = unit(in_channels, narrow, kernel_size)
        self.conv2 = unit(narrow, channels)
        self.svtr_block = nn.ModuleList(SVTRBlock(channels, heads=8, mlp_ratio=2) for _ in range(depth))
        self.norm = nn.LayerNorm(channels, eps=1e-6)
        self.conv3 = unit(channels, in_channels)
        self.conv4 = unit(2 * in_channels, narrow, kernel_size)
        self.conv1x1 = unit(narrow, out_channels)

    def forward(self, x: Tensor) -> Tensor:
        y = map_to_sequence(self.conv2(self.conv1(x)))
        for block in self.svtr_block:
            y = block(y)
        y = self.norm(y).transpose(1, 2).unsqueeze(2)
        return map_to_sequence(self.conv1x1(self.conv4(torch.cat([x, self.conv3(y)], 1))))


class RowEncoder(nn.Module):
    """Checks that the backbone left one row, then encodes it.

    Args:
        encoder: takes one row and has `out_channels`.

    Shape: (N, C, 1, T) → (N, T, `out_channels`).

    Raises:
        ValueError: there are more rows.
    """

    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder
        self.out_channels = encoder.out_channels

    def forward(self, x: Tensor) -> Tensor:
        if runs_eagerly() and x.shape[2] != 1:
            raise ValueError(
                f"the backbone left {x.shape[2]} rows where the recogniser needs 1: give images {HEIGHT} pixels high"
            )
        return self.encoder(x)


class MultiHead(nn.Module):
    """Encoder and CTC layer, which upstream trains beside a second decoder; that one is not part of the network here.

    Args:
        classes: characters, blank, and space where the dictionary has one.
        encoder: makes the encoder for a map of so many channels.

    Shape: (N, `in_channels`, 1, T) → (N, T, `classes`); probabilities in evaluation, logits in training.
    """

    def __init__(self, in_channels: int, classes: int, encoder: Callable[[int], nn.Module] = SVTREncoder) -> None:
        super().__init__()
        self.ctc_encoder = RowEncoder(encoder(in_channels))
        self.ctc_head = CTCHead(self.ctc_encoder.out_channels, classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.ctc_head(self.ctc_encoder(x))


NRTR_HEAD = (
    Ignored("head.gtc_head.", "the NRTR head guides training and is never run in evaluation"),
    Ignored("head.before_gtc.", "it leads to the NRTR head, which is never run in evaluation"),
)

SVTR_CTC = Part(
    MultiHead,
    parameters={"classes": Parameter(6625, told_by=Size("head.ctc_head.fc.weight", 0))},
    config={"Neck.encoder_type": "svtr", "Head.name": "CTCHead"},
    ignored=NRTR_HEAD,
)
