"""How an image becomes a network's input, as the released models want it."""

from __future__ import annotations

from .records import Preprocessing, Size

PAGE = Size("multiple", multiple=32, limit_side=960)
DETECTION = Preprocessing(PAGE, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
RECOGNITION_32 = Preprocessing(Size("height", height=32, width=320))
RECOGNITION_48 = Preprocessing(Size("height", height=48, width=320))
CLASSIFICATION = Preprocessing(Size("height_padded", height=48, width=192))
