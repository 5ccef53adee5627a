"""Backbone, neck and head as one module."""

from __future__ import annotations

from typing import Self

from torch import Tensor, nn

from . import folding
from .layers import runs_eagerly


class OCRModel(nn.Module):
    """A PP-OCR network.

    Shape: input (N, 3, H, W), preprocessed as its architecture says. The output depends on the task:

    - a detector returns the shrink map (N, 1, H, W), and in training shrink, threshold and binary map (N, 3, H, W);
    - a recogniser returns probabilities (N, T, classes), and in training logits;
    - a classifier returns probabilities (N, classes), and in training logits.

    Two kinds of detectors return several such tensors, as a named tuple: that of PP-OCRv4's server detector has two
    maps in evaluation (`pfhead.BothMaps`), as its released program does; those of PP-OCRv6 have in training the maps of
    their auxiliary heads as well (`pplcnet_v4.SupervisedMaps`).

    Raises:
        ValueError: a detector's input has sides that are not multiples of 32, or a recogniser's has another height than
            its own.
    """

    def __init__(self, task: str, backbone: nn.Module, head: nn.Module, neck: nn.Module | None = None) -> None:
        super().__init__()
        self.task = task
        self.backbone = backbone
        self.neck = neck if neck is not None else nn.Identity()
        self.head = head

    def fold(self) -> Self:
        """Folds every re-parameterised layer, in place; a network without such layers stays as it is.

        The folded network has fewer tensors and computes the same in evaluation: kernels are computed in double
        precision, and rounded once. Training it is possible, too, but is not what upstream does.

        Returns:
            The network itself.
        """
        folding.fold(self)
        return self

    def forward(self, x: Tensor) -> Tensor | tuple[Tensor, ...]:
        if self.task == "det" and runs_eagerly() and (x.shape[2] % 32 or x.shape[3] % 32):
            raise ValueError(f"a detector takes sides that are multiples of 32, not {x.shape[2]} × {x.shape[3]}")
        return self.head(self.neck(self.backbone(x)))
