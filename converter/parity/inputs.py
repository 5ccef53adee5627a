"""Inputs worth comparing on: rendered text, seeded noise, the user's own images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from paddle2torch.architectures.records import Preprocessing, Size
from paddle2torch.converter.ocr.images import load_image
from paddle2torch.converter.ocr.preprocess import prepare
from paddle2torch.converter.ocr.rendering import SEED
from paddle2torch.converter.tasks import Batch, Task


@dataclass(frozen=True)
class Case:
    """One batch to run both frameworks on.

    Attributes:
        name: what to call it, for example "3 lines of text, 48 x 213".
        images: uint8 (H, W, 3) RGB each: the batch before preprocessing, for people to look at.
        array: float32 (N, 3, H, W), the input of both networks.
    """

    name: str
    images: tuple[np.ndarray, ...]
    array: np.ndarray


def default_cases(task: Task, preprocessing: Preprocessing) -> list[Case]:
    """Rendered text at two batch sizes and, where the network takes any, two sizes; and noise."""
    return [*(text_case(task, preprocessing, batch) for batch in task.samples), noise_case(task, preprocessing)]


def image_cases(task: Task, preprocessing: Preprocessing, images: Sequence[Path]) -> list[Case]:
    """The user's images, one batch each, and noise.

    Raises:
        SourceError: a file is missing or no image.
    """
    loaded = [(path.name, load_image(path)) for path in images]
    return [
        *(Case(name, (image,), prepare([image], preprocessing)) for name, image in loaded),
        noise_case(task, preprocessing),
    ]


def noise_case(task: Task, preprocessing: Preprocessing) -> Case:
    """A batch of random pixels, the same at every call."""
    count, channels, height, width = task.noise.shape(preprocessing)
    pixels = np.random.default_rng(SEED).integers(0, 256, (count, height, width, channels), dtype=np.uint8)
    return _case("noise", list(pixels), preprocessing)


def text_case(task: Task, preprocessing: Preprocessing, batch: Batch) -> Case:
    """A batch of rendered text, the same at every call."""
    count, _, height, width = batch.shape(preprocessing)
    return _case("text", [task.render(index, height, width) for index in range(count)], preprocessing)


def _case(what: str, images: list[np.ndarray], preprocessing: Preprocessing) -> Case:
    """Images that have the size of the network's input already, whatever the preprocessing does with others."""
    height, width, _ = images[0].shape
    as_they_are = replace(preprocessing, size=Size("stretch", height, width))
    return Case(f"{what}, {len(images)} x {height} x {width}", tuple(images), prepare(images, as_they_are))
