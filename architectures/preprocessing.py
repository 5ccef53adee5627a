"""How an image becomes a network's input, as the released models want it."""

from __future__ import annotations

from .records import Preprocessing, Size

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)

DETECTION = Preprocessing(Size("multiple", multiple=32, limit_side=960), mean=IMAGENET_MEAN, std=IMAGENET_STD)
RECOGNITION_32 = Preprocessing(Size("height", height=32, width=320))
RECOGNITION_48 = Preprocessing(Size("height", height=48, width=320))
CLASSIFICATION = Preprocessing(Size("height_padded", height=48, width=192))
LINE_ORIENTATION = Preprocessing(Size("stretch", 80, 160), "RGB", mean=IMAGENET_MEAN, std=IMAGENET_STD)
PAGE_ORIENTATION = Preprocessing(Size("crop", 224, 224, short_side=256), "RGB", mean=IMAGENET_MEAN, std=IMAGENET_STD)
