"""The way through: image → boxes → crops → upright crops → text."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from paddle2torch.architectures.records import BoxPostprocessing
from paddle2torch.converter.ocr.ctc import Reading, decode
from paddle2torch.converter.ocr.images import load_image
from paddle2torch.converter.ocr.preprocess import pad_tiny, prepare
from paddle2torch.converter.support.arguments import in_python
from paddle2torch.converter.support.errors import SourceError
from paddle2torch.reading.crops import cut_out
from paddle2torch.reading.defaults import AUTO, BATCH_SIZE, DROP_SCORE, open_stages
from paddle2torch.reading.detection import PUBLISHED, box_around, find_boxes, find_outlines
from paddle2torch.reading.network import Network, open_network, users_fetcher

if TYPE_CHECKING:
    from PIL import Image

    from paddle2torch.converter.zoo.download import Fetcher
    from paddle2torch.reading.network import Model

TURN_SCORE = 0.9  # how sure the classifier must be before a line is turned
UPSIDE_DOWN = "180"
LONGEST_SIDE = 32766  # pixels; OpenCV cuts boxes out of nothing longer

Point = tuple[int, int]


@dataclass(frozen=True)
class Line:
    """A line of text in an image.

    Attributes:
        text: what it says, in the order in which it is read.
        score: mean probability of its characters.
        box: corners (x, y) in pixels, clockwise from the top left.
        outline: corners of its outline, where the detector finds lines that need not be straight; the box is around it.
    """

    text: str
    score: float
    box: tuple[Point, Point, Point, Point]
    outline: tuple[Point, ...] | None = None

    def as_dict(self) -> dict[str, Any]:
        """The same as JSON has it."""
        found = {"text": self.text, "score": round(self.score, 4), "box": [list(point) for point in self.box]}
        return found if self.outline is None else {**found, "outline": [list(point) for point in self.outline]}


class Reader:
    """Reads the text in images.

    A model is a zoo name, a path, an `nn.Module` or a `Network`; see `open_network` for all that it may be and
    for the errors.

    Args:
        det: finds the lines; None where each image is one line. "auto", here and below, is the newest small model that
            can be had: of PP-OCRv6, else of PP-OCRv5, else of the list of 2022.
        cls: tells lines that are upside down; None for none. "auto" is none where there is no detector.
        rec: reads the lines; choose it by the script. "auto" knows Chinese, Japanese and Latin letters, or, if nothing
            newer can be had, Latin letters without accents.
        doc: tells by how much a page is turned; it is read upright then. None takes pages to be upright.
        dictionary: file of the recogniser's characters, in place of those that come with it.
        fetcher: gets what has to be downloaded; `paddle2torch.reading.network.users_fetcher()` where None.
        detection: how the detector's map becomes boxes; what the model says, or what is published, where None.
        batch_size: lines that classifier and recogniser take at once.
        drop_score: lines found by the detector are left out below it.
    """

    def __init__(
        self,
        det: Model | None = AUTO,
        cls: Model | None = AUTO,
        rec: Model = AUTO,
        *,
        doc: Model | None = None,
        dictionary: Path | None = None,
        fetcher: Fetcher | None = None,
        detection: BoxPostprocessing | None = None,
        batch_size: int = BATCH_SIZE,
        drop_score: float = DROP_SCORE,
    ) -> None:
        fetcher = fetcher or users_fetcher()

        def opened(model: Model, task: str) -> Network:
            return open_network(model, task, dictionary=dictionary if task == "rec" else None, fetcher=fetcher)

        with in_python():
            self._det, self._cls, doc, self._rec = open_stages(det, cls, doc, rec, opened)
        self._doc = None if doc is None else _telling_angles(doc)
        said = self._det.boxes if self._det is not None else PUBLISHED
        self._detection, self._batch_size, self._drop_score = detection or said, batch_size, drop_score

    def read(self, image: str | Path | Image.Image | np.ndarray) -> list[Line]:
        """The lines of an image, from top to bottom and left to right as it stands upright.

        Args:
            image: an image's file, an image of Pillow's, or pixels: uint8 (H, W, 3), RGB.

        Returns:
            The lines; their corners are places in the image as it was given.

        Raises:
            SourceError: the file is missing or no image, or the image is larger than can be handled.
            ValueError: the array is not of that type and shape.
            TypeError: it is something else.
        """
        given = _checked(image) if isinstance(image, np.ndarray) else load_image(image)
        quarters = self._quarters(given)
        pixels = np.ascontiguousarray(np.rot90(given, quarters))
        places: list[tuple[np.ndarray, np.ndarray | None]]
        if self._det is None:
            height, width = pixels.shape[:2]
            whole = np.array([[0, 0], [width - 1, 0], [width - 1, height - 1], [0, height - 1]])
            places, crops, lowest = [(whole, None)], [pixels], 0.0
        else:
            pixels = pad_tiny(pixels)
            places = self._find(self._det, pixels)
            crops, lowest = [cut_out(pixels, box) for box, _ in places], self._drop_score
        readings = self._recognise(self._turn_upright(crops))
        return [
            Line(
                reading.text,
                reading.score,
                _corners(_turned_back(box, quarters, given.shape)),
                None if outline is None else _points(_turned_back(outline, quarters, given.shape)),
            )
            for (box, outline), reading in zip(places, readings, strict=True)
            if reading.text and reading.score >= lowest
        ]

    def _quarters(self, pixels: np.ndarray) -> int:
        """By how many quarters of a circle, against the clock, a page becomes upright."""
        if self._doc is None:
            return 0
        (probabilities,) = self._doc.run(prepare([pixels], self._doc.preprocessing))
        return int((self._doc.labels or ())[probabilities.argmax()]) // 90

    def _find(self, detector: Network, pixels: np.ndarray) -> list[tuple[np.ndarray, np.ndarray | None]]:
        """The boxes, (4, 2) each, and the outline of each where the detector finds outlines."""
        height, width = pixels.shape[:2]
        if max(height, width) > LONGEST_SIDE:
            raise SourceError(f"the image has {width} × {height} pixels; make no side longer than {LONGEST_SIDE}")
        (probabilities,) = detector.run(prepare([pixels], detector.preprocessing))[:, 0]
        if self._detection.box_type == "poly":
            return [
                (box_around(outline), outline)
                for outline in find_outlines(probabilities, height, width, self._detection)
            ]
        return [(box, None) for box in find_boxes(probabilities, height, width, self._detection)]

    def _turn_upright(self, crops: list[np.ndarray]) -> list[np.ndarray]:
        """The crops, those turned that the classifier is sure are upside down."""
        if self._cls is None:
            return crops
        upright, labels = list(crops), self._cls.labels or ()
        for places, probabilities in self._in_batches(self._cls, crops):
            for place, row in zip(places, probabilities, strict=True):
                if labels[row.argmax()] == UPSIDE_DOWN and row.max() > TURN_SCORE:
                    upright[place] = np.ascontiguousarray(crops[place][::-1, ::-1])
        return upright

    def _recognise(self, crops: list[np.ndarray]) -> list[Reading]:
        readings: dict[int, Reading] = {}
        for places, probabilities in self._in_batches(self._rec, crops):
            readings |= zip(places, decode(probabilities, self._rec.labels, self._rec.direction), strict=True)
        return [readings[place] for place in range(len(crops))]

    def _in_batches(self, network: Network, crops: Sequence[np.ndarray]) -> Iterator[tuple[list[int], np.ndarray]]:
        """The network's answers for crops of like shape together, each with the places of its crops in the list."""
        order = sorted(range(len(crops)), key=lambda place: crops[place].shape[1] / crops[place].shape[0])
        for start in range(0, len(order), self._batch_size):
            places = order[start : start + self._batch_size]
            yield places, network.run(prepare([crops[place] for place in places], network.preprocessing))


def _telling_angles(network: Network) -> Network:
    """The network, if its classes are angles of whole quarters."""
    wrong = [label for label in network.labels or () if label not in ("0", "90", "180", "270")]
    if wrong:
        raise SourceError(
            f"{network.name}: its classes are {', '.join(map(repr, network.labels or ()))}; for pages a classifier of "
            "the angles 0, 90, 180, 270 is wanted"
        )
    return network


def _turned_back(corners: np.ndarray, quarters: int, shape: tuple[int, ...]) -> np.ndarray:
    """Where corners (N, 2) of a page that was turned lie in the page as it was given.

    Args:
        quarters: by which it was turned, against the clock.
        shape: (H, W, …) of the page as it was given.
    """
    height, width, x, y = shape[0], shape[1], corners[:, 0], corners[:, 1]
    sides = [(x, y), (width - 1 - y, x), (width - 1 - x, height - 1 - y), (y, height - 1 - x)]
    return np.stack(sides[quarters % 4], axis=1)


def _points(corners: np.ndarray) -> tuple[Point, ...]:
    return tuple((int(x), int(y)) for x, y in corners)


def _corners(box: np.ndarray) -> tuple[Point, Point, Point, Point]:
    first, second, third, fourth = _points(box)
    return first, second, third, fourth


def _checked(pixels: np.ndarray) -> np.ndarray:
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3 or not pixels.size:
        raise ValueError(f"an image is uint8 (H, W, 3), RGB, not {pixels.dtype} {pixels.shape}")
    return pixels
