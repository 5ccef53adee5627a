"""What is read with unless something else is asked for."""

from __future__ import annotations

from typing import Any

DETECTOR = "ch_PP-OCRv3_det"  # for all scripts
CLASSIFIER = "ch_ppocr_mobile_v2.0_cls"
RECOGNISER = "en_number_mobile_v2.0_rec"  # Latin letters without accents, digits

AUTO = "auto"  # a classifier where there is a detector
BATCH_SIZE = 6
DROP_SCORE = 0.5


def classifier(wanted: Any, detecting: bool) -> Any:
    """The classifier that is wanted, "auto" resolved: an image that is one line is taken to be upright."""
    if isinstance(wanted, str) and wanted == AUTO:
        return CLASSIFIER if detecting else None
    return wanted
