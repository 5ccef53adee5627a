"""Backbone, neck and head as one module."""

from __future__ import annotations

from torch import Tensor, nn

from .layers import runs_eagerly


class OCRModel(nn.Module):
    """A PP-OCR network.

    Shape: input (N, 3, H, W), preprocessed as its architecture says. In evaluation a detector returns the shrink map
    (N, 1, H, W), a recogniser probabilities (N, T, classes), a classifier probabilities (N, classes); in training
    recogniser and classifier return logits, a detector shrink, threshold and binary map (N, 3, H, W).

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

    def forward(self, x: Tensor) -> Tensor:
        if self.task == "det" and runs_eagerly() and (x.shape[2] % 32 or x.shape[3] % 32):
            raise ValueError(f"a detector takes sides that are multiples of 32, not {x.shape[2]} × {x.shape[3]}")
        return self.head(self.neck(self.backbone(x)))
