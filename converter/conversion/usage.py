"""How a converted model is used: what becomes its input, and what its output means.

Whoever converts asks here, whether the network is one of the registry or the program itself. A configuration that the
user gives wins over the `inference.yml` beside the model, and that over what is usual for such networks; a program that
takes images of one size alone has the last word on the size.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from paddle2torch.architectures.records import (
    MOST_FIXED_PIXELS,
    BoxPostprocessing,
    Postprocessing,
    Preprocessing,
    Size,
    TextPostprocessing,
)
from paddle2torch.converter.mapping.exported import read_settings
from paddle2torch.converter.mapping.labels import direction_of
from paddle2torch.converter.support.errors import FormatError, MappingError

if TYPE_CHECKING:
    from paddle2torch.converter.mapping.config import Config
    from paddle2torch.converter.mapping.exported import Settings
    from paddle2torch.converter.mapping.steps import Usage
    from paddle2torch.converter.sources import Source

# Height and width that upstream wrote into programs before it left them open; its predictors feed others.
TRACED = frozenset({(32, 100), (32, 320), (640, 640), (960, 960)})


@dataclass(frozen=True)
class Instructions:
    """What files say of a model's use.

    Attributes:
        config: the configuration that the user gives.
        settings: the `inference.yml` beside the model.
    """

    config: Config | None = None
    settings: Settings | None = None

    def preprocessing(self, usual: Preprocessing, task: str) -> tuple[Preprocessing, str | None]:
        """The preprocessing, and the file that tells it; None where it is the usual one.

        Raises:
            FormatError: a step is not followed; see `paddle2torch.converter.mapping.steps`.
        """
        for usage in self._usages():
            if usage.steps:
                return usage.preprocessing(usual, task), usage.file
        return usual, None

    def boxes(self, task: str) -> BoxPostprocessing:
        """How a detector's map becomes boxes; as published, where nothing is said.

        Raises:
            FormatError: see `preprocessing`.
        """
        found = [usage.postprocessing(task).boxes for usage in self._usages()]
        return next((boxes for boxes in found if boxes is not None), BoxPostprocessing())

    def class_names(self, task: str) -> tuple[list[str], str] | None:
        """The names of a classifier's classes, and the file that tells them.

        Raises:
            FormatError: see `preprocessing`.
        """
        if self.config is not None and self.config.class_names is not None:
            return self.config.class_names, self.config.path.name
        for usage in self._usages():
            names = usage.postprocessing(task).class_names
            if names is not None:
                return names, Path(usage.file).name
        return None

    def _usages(self) -> list[Usage]:
        return [each.usage for each in (self.config, self.settings) if each is not None]


def instructions_of(source: Source, config: Config | None = None) -> Instructions:
    """What there is to a source.

    Raises:
        FormatError: its `inference.yml` is damaged.
    """
    blob = source.files.settings
    return Instructions(config, read_settings(blob) if blob is not None else None)


def postprocessing_of(task: str, instructions: Instructions, labels: Sequence[str] | None) -> Postprocessing | None:
    """How the output becomes boxes or text; None for classifiers, whose classes are their answer.

    Raises:
        FormatError: a key of the postprocessing is not followed.
    """
    if task == "det":
        return instructions.boxes(task)
    return TextPostprocessing(direction_of(labels)) if task == "rec" else None


def note_usage(told_by: str | None, sides: Sides, said: Preprocessing, settled: Preprocessing) -> list[str]:
    """What the user should know of it.

    Args:
        told_by: the file that tells the preprocessing; None where it is the usual one.
        sides: that the program takes alone.
        said: what is usual, or what the file says.
        settled: what it is, after the program had its say.
    """
    notes = [] if told_by is None else [f"the preprocessing is that of {Path(told_by).name}"]
    if said != settled:
        height, width = ("any" if side is None else str(side) for side in sides)
        notes.append(f"images come to the one size that the program takes: {height} × {width} (height × width)")
    return notes


# ---- sizes that a program states ---------------------------------------------------------------------------------

Sides = tuple[int | None, int | None]
"""Height and width, None where any is taken."""


def stated_sides(shape: tuple[int, ...], source: Source) -> Sides:
    """The height and width that a program takes alone.

    Args:
        shape: of its input, (N, 3, H, W); what it leaves open is negative.
        source: whose program it is.
    """
    height, width = shape[2:]
    if source.files.program is not None and (height, width) in TRACED:
        return None, None
    return height if height > 0 else None, width if width > 0 else None


def require_height(said: Preprocessing, told_by: str | None, task: str, sides: Sides) -> None:
    """See that a file and the program agree on how high a line is.

    A recogniser trained on lines of one height reads nothing in those of another, however it was exported.

    Args:
        said: what the file says.
        told_by: the file; None where the preprocessing is the usual one.
        task: of the network.
        sides: that the program takes alone.

    Raises:
        FormatError: they do not.
    """
    height, stated = said.size.height, sides[0]
    if told_by is not None and task == "rec" and None not in (height, stated) and height != stated:
        raise FormatError(
            told_by,
            f"lines are {height} pixels high (image_shape), but the program takes {stated} alone; give the file of "
            "this model, or export the model again with the height that it was trained with",
        )


def with_sides(preprocessing: Preprocessing, task: str, sides: Sides) -> Preprocessing:
    """A preprocessing after which an image has these sides.

    Args:
        preprocessing: taken where the sides are open.
        task: of the network.
        sides: of its input. A page of which only one is fixed comes to its size as otherwise.

    Raises:
        MappingError: they are larger than a network is run with.
    """
    (height, width), size = sides, preprocessing.size
    if (height or 1) * (width or 1) > MOST_FIXED_PIXELS:
        raise MappingError(
            f"the program takes images of {height or 'any'} × {width or 'any'} pixels alone, and at most "
            f"{MOST_FIXED_PIXELS} pixels are taken"
        )
    if sides == (None, None) or (task == "det" and None in sides):
        return preprocessing
    if task == "det":
        return replace(preprocessing, size=Size("stretch", height, width))
    height, fixed = height or size.height, width or size.width
    if size.mode in ("stretch", "crop"):
        whole = size.mode == "stretch" or max(height or 0, fixed or 0) <= (size.short_side or 0)
        return replace(
            preprocessing, size=replace(size, height=height, width=fixed) if whole else Size("stretch", height, fixed)
        )
    mode = size.mode if width is None else "height_padded"
    return replace(preprocessing, size=Size(mode, height, fixed))
