"""The steps of pre- and postprocessing, as PaddleOCR lists them in configurations and beside exported models.

Upstream: PaddleOCR `ppocr/data/imaug/{operators,rec_img_aug}.py` and `ppocr/postprocess/`, PaddleClas
`ppcls/data/preprocess/`. A step, and every argument of one, is followed, known to change nothing, or refused by name.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, NoReturn, cast, get_args

from paddle2torch.architectures.preprocessing import IMAGENET_MEAN, IMAGENET_STD
from paddle2torch.architectures.records import (
    LARGEST_FACTOR,
    LARGEST_LIMIT,
    LARGEST_SIDE,
    LARGEST_UNCLIP_RATIO,
    MOST_CANDIDATES,
    MOST_FIXED_PIXELS,
    BoxPostprocessing,
    BoxType,
    Preprocessing,
    ScoreMode,
    Size,
    Triple,
)
from paddle2torch.converter.support.errors import FormatError

# A page's sides are multiples of the first, where its longer side is fixed of the second.
MULTIPLE, COARSE_MULTIPLE = 32, 128
# What upstream takes where the step has no arguments, and what no page's longer side is enlarged beyond.
LEAST_SIDE, MOST_SIDE = 736, 4000
HALF: Triple = (0.5, 0.5, 0.5)
_FRACTION = re.compile(r"\s*(\d+(?:\.\d*)?)\s*/\s*(\d+(?:\.\d*)?)\s*")

# Steps that see to labels, or to the order of axes.
HARMLESS = frozenset(
    {
        "ClsLabelEncode",
        "CTCLabelEncode",
        "DetLabelEncode",
        "KeepKeys",
        "MultiLabelEncode",
        "NRTRLabelEncode",
        "SARLabelEncode",
        "ToCHWImage",
    }
)
# Steps that change an image in training alone.
AUGMENTATIONS = frozenset(
    {
        "BaseDataAugmentation",
        "ColorJitter",
        "CopyPaste",
        "EastRandomCropData",
        "IaaAugment",
        "MakeBorderMap",
        "MakeShrinkMap",
        "RandAugment",
        "RandomCrop",
        "RandomPerspective",
        "RecAug",
        "RecConAug",
    }
)


class Arguments:
    """The arguments of a step or section; what nobody asks for is refused.

    Args:
        file, place: where they stand, for messages.
        name: of the step.
        given: its arguments; an empty one counts as absent.
    """

    def __init__(self, file: str, place: str, name: str, given: object) -> None:
        self.file, self.place, self.name = file, place, name
        if given is not None and not isinstance(given, dict):
            raise FormatError(file, f"{place}: {name} is {given!r:.60}; expected its arguments by name")
        self._left = {str(key): value for key, value in (given or {}).items() if value is not None}

    def take(self, key: str) -> Any:
        """An argument as it stands there; None where it is absent."""
        return self._left.pop(key, None)

    def ignore(self, *keys: str) -> None:
        """Arguments that change nothing."""
        for key in keys:
            self._left.pop(key, None)

    def wrong(self, key: str, value: object, expected: str) -> NoReturn:
        """Refuse an argument."""
        raise FormatError(self.file, f"{self.place}: {self.name}.{key} is {value!r:.60}; expected {expected}")

    def bounded(self, key: str, height: int, width: int) -> tuple[int, int]:
        """A size that every image is to have, where a network can be run with it."""
        if height * width > MOST_FIXED_PIXELS:
            self.wrong(key, [height, width], f"a height and width of at most {MOST_FIXED_PIXELS} pixels together")
        return height, width

    def integer(self, key: str, largest: int, default: int | None = None) -> int | None:
        """A number of pixels or of other things."""
        value = self.take(key)
        return default if value is None else self.as_integer(key, value, largest)

    def as_integer(self, key: str, value: object, largest: int) -> int:
        """The value of an argument as an integer from 1 on."""
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        if type(value) is not int or not 1 <= value <= largest:
            self.wrong(key, value, f"an integer from 1 to {largest}")
        return value

    def integers(self, key: str, names: tuple[str, ...], largest: int) -> tuple[int, ...] | None:
        """As many integers as there are names."""
        value = self.take(key)
        if value is None:
            return None
        if not isinstance(value, list | tuple) or len(value) != len(names):
            self.wrong(key, value, ", ".join(names))
        return tuple(self.as_integer(key, each, largest) for each in value)

    def number(self, key: str, default: float, least: float, most: float) -> float:
        """A number, or a fraction such as `1./255.`, which upstream evaluates."""
        value = self.take(key)
        return default if value is None else self.as_number(key, value, least, most)

    def as_number(self, key: str, value: object, least: float, most: float) -> float:
        """The value of an argument as a number."""
        fraction = _FRACTION.fullmatch(value) if isinstance(value, str) and len(value) < 100 else None
        number = value
        if fraction is not None and float(fraction[2]):
            number = float(fraction[1]) / float(fraction[2])
        if isinstance(number, bool) or not isinstance(number, int | float) or not least <= number <= most:
            self.wrong(key, value, f"a number from {least:g} to {most:g}")
        return float(number)

    def triple(self, key: str, default: Triple, least: float) -> Triple:
        """A number for each channel."""
        value = self.take(key)
        if value is None:
            return default
        if not isinstance(value, list | tuple) or len(value) != 3:
            self.wrong(key, value, "3 numbers")
        first, second, third = (self.as_number(key, each, least, LARGEST_FACTOR) for each in value)
        return first, second, third

    def choice(self, key: str, choices: tuple[Any, ...]) -> Any:
        """One of several values; the first where none is given."""
        value = self.take(key)
        if value is None:
            return choices[0]
        if not any(type(value) is type(each) and value == each for each in choices):
            self.wrong(key, value, " or ".join(map(repr, choices)))
        return value

    def end(self) -> None:
        """Refuse what is left."""
        for key, value in self._left.items():
            raise FormatError(
                self.file,
                f"{self.place}: {self.name}.{key} ({value!r:.60}) is not known, or has no effect beside the others; "
                "leave it out if it means nothing",
            )


# ---- preprocessing -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Steps:
    """How an image becomes a network's input, step by step.

    Attributes:
        file, place: where the list stands, for messages.
        listed: name and arguments of each step.
    """

    file: str
    place: str
    listed: tuple[tuple[str, object], ...] = ()

    @classmethod
    def read(cls, section: object, file: str, place: str) -> Steps:
        """A list of steps; an empty one where there is none.

        Raises:
            FormatError: it is no list of steps.
        """
        if section is None:
            return cls(file, place)
        if not isinstance(section, list):
            raise FormatError(file, f"{place} is {section!r:.60}; expected a list of steps")
        listed = []
        for step in section:
            if not isinstance(step, dict) or len(step) != 1:
                raise FormatError(file, f"{place} has {step!r:.60}; expected a step's name and its arguments")
            listed += [(str(name), arguments) for name, arguments in step.items()]
        return cls(file, place, tuple(listed))

    def __bool__(self) -> bool:
        return bool(self.listed)

    def only(self, name: str) -> Steps:
        """The steps of that name alone."""
        return replace(self, listed=tuple(step for step in self.listed if step[0] == name))

    def preprocessing(self, usual: Preprocessing, task: str, harmless: frozenset[str] = HARMLESS) -> Preprocessing:
        """What the steps say, in place of what is usual for the network.

        Args:
            usual: taken where the steps say nothing.
            task: of the network.
            harmless: names of steps that may stand there as well.

        Raises:
            FormatError: a step, or an argument of one, is not known, not possible, or not at its place.
        """
        names = [name for name, _ in self.listed]
        # PaddleClas reads RGB where nothing else is said.
        plain = "ResizeImage" in names and "DecodeImage" not in names
        record, last = replace(usual, channel_order="RGB") if plain else usual, None
        for name, given in self.listed:
            if name in harmless:
                continue
            reader = READERS.get(name)
            if reader is None or task not in reader.tasks:
                known = ", ".join(each for each, found in READERS.items() if task in found.tasks)
                raise FormatError(
                    self.file, f"{self.place}: the step {name} is not known for such a network; known are {known}"
                )
            if last is not None and reader.place <= READERS[last].place:
                raise FormatError(
                    self.file, f"{self.place}: the step {name} stands after {last}; such an order is not followed"
                )
            arguments = Arguments(self.file, self.place, name, given)
            record = reader.read(arguments, record)
            arguments.end()
            last = name
        self._require_whole(names, record)
        return record

    def _require_whole(self, names: list[str], record: Preprocessing) -> None:
        """Refuse lists in which a step is missing, or superfluous, beside another one."""
        if record.size.mode == "crop" and record.size.height is None:
            raise FormatError(self.file, f"{self.place}: ResizeImage.resize_short needs the step CropImage")
        for name in names:
            normalises = READERS[name].normalises if name in READERS else None
            if normalises is False and "NormalizeImage" not in names:
                raise FormatError(self.file, f"{self.place}: {name} needs the step NormalizeImage")
            if normalises and "NormalizeImage" in names:
                raise FormatError(self.file, f"{self.place}: NormalizeImage stands beside {name}, which normalises too")


def _decode(arguments: Arguments, record: Preprocessing) -> Preprocessing:
    arguments.choice("channel_first", (False,))
    arguments.choice("ignore_orientation", (False,))
    return replace(record, channel_order=arguments.choice("img_mode", ("RGB", "BGR")))


def _normalise(arguments: Arguments, record: Preprocessing) -> Preprocessing:
    arguments.ignore("order")
    arguments.choice("channel_num", (3,))
    arguments.choice("output_fp16", (False,))
    smallest = 1 / LARGEST_FACTOR
    return replace(
        record,
        scale=arguments.number("scale", 1 / 255, smallest, LARGEST_FACTOR),
        mean=arguments.triple("mean", IMAGENET_MEAN, -LARGEST_FACTOR),
        std=arguments.triple("std", IMAGENET_STD, smallest),
    )


def _resize_page(arguments: Arguments, record: Preprocessing) -> Preprocessing:
    shape = arguments.integers("image_shape", ("height", "width"), LARGEST_SIDE)
    if shape is not None:
        kept = arguments.choice("keep_ratio", (False, True))
        arguments.ignore("limit_side_len", "limit_type", "resize_long", "max_side_limit")
        whole = arguments.bounded("image_shape", shape[0], shape[0] if kept else shape[1])
        size = Size("multiple_height", shape[0], multiple=MULTIPLE) if kept else Size("stretch", *whole)
        return replace(record, size=size)
    side, long_side = arguments.take("limit_side_len"), arguments.take("resize_long")
    if side is None and long_side is not None:
        arguments.ignore("limit_type", "max_side_limit", "keep_ratio")
        side = arguments.as_integer("resize_long", long_side, LARGEST_SIDE)
        return replace(record, size=Size("multiple_long_up", multiple=COARSE_MULTIPLE, long_side=side))
    most = arguments.integer("max_side_limit", LARGEST_SIDE, MOST_SIDE)
    if side is None:
        size = Size("multiple_at_least", multiple=MULTIPLE, short_side=LEAST_SIDE, long_side=most)
        return replace(record, size=size)
    arguments.ignore("keep_ratio")
    side = arguments.as_integer("limit_side_len", side, LARGEST_LIMIT)
    return replace(record, size=_limited(arguments, side, cast(int, most)))


def _limited(arguments: Arguments, side: int, most: int) -> Size:
    """The size that a limit of some type says."""
    kind = arguments.choice("limit_type", ("min", "max", "resize_long"))
    if kind == "max":
        return Size("multiple", multiple=MULTIPLE, limit_side=min(side, most))
    if kind == "resize_long":
        return Size("multiple_long", multiple=MULTIPLE, long_side=min(side, most))
    if side > LARGEST_SIDE:
        arguments.wrong("limit_side_len", side, f"at most {LARGEST_SIDE} for a shorter side")
    return Size("multiple_at_least", multiple=MULTIPLE, short_side=side, long_side=most)


def _line_shape(arguments: Arguments) -> tuple[int, int]:
    """Height and width of a line."""
    shape = arguments.integers("image_shape", ("3 channels", "height", "width"), LARGEST_SIDE)
    if shape is None:
        arguments.wrong("image_shape", None, "3 channels, height, width")
    if shape[0] != 3:
        arguments.wrong("image_shape", list(shape), "3 channels")
    return arguments.bounded("image_shape", shape[1], shape[2])


def _line(record: Preprocessing, size: Size) -> Preprocessing:
    """Steps of lines normalise by themselves."""
    return replace(record, size=size, scale=1 / 255, mean=HALF, std=HALF)


def _resize_line(arguments: Arguments, record: Preprocessing) -> Preprocessing:
    # What evaluation does with lines that are wider depends on the mode; predictors let them be.
    arguments.ignore("infer_mode", "eval_mode", "character_dict_path")
    padded = arguments.choice("padding", (True, False))
    return _line(record, Size("height" if padded else "stretch", *_line_shape(arguments)))


def _resize_svtr_line(arguments: Arguments, record: Preprocessing) -> Preprocessing:
    padded = arguments.choice("padding", (True, False))
    return _line(record, Size("height_padded" if padded else "stretch", *_line_shape(arguments)))


def _resize_angle(arguments: Arguments, record: Preprocessing) -> Preprocessing:
    return _line(record, Size("height_padded", *_line_shape(arguments)))


def _sides(arguments: Arguments) -> tuple[int, int] | None:
    """Height and width, which PaddleClas gives as one number or as width and height."""
    value = arguments.take("size")
    if value is None:
        return None
    sides = value if isinstance(value, list | tuple) else [value, value]
    if len(sides) != 2:
        arguments.wrong("size", value, "width and height")
    width, height = (arguments.as_integer("size", each, LARGEST_SIDE) for each in sides)
    return arguments.bounded("size", height, width)


def _resize_image(arguments: Arguments, record: Preprocessing) -> Preprocessing:
    arguments.choice("interpolation", ("LINEAR", "linear", "bilinear", 1))
    arguments.choice("backend", ("cv2",))
    arguments.ignore("return_numpy")
    short_side, sides = arguments.integer("resize_short", LARGEST_SIDE), _sides(arguments)
    if short_side is not None:
        return replace(record, size=Size("crop", short_side=short_side))  # the sides follow
    if sides is None:
        arguments.wrong("size", None, "a size, or resize_short")
    return replace(record, size=Size("stretch", *sides))


def _crop(arguments: Arguments, record: Preprocessing) -> Preprocessing:
    size, sides = record.size, _sides(arguments)
    if sides is None or size.mode != "crop" or size.height or max(sides) > (size.short_side or 0):
        arguments.wrong("size", sides, "height and width within ResizeImage.resize_short")
    return replace(record, size=replace(size, height=sides[0], width=sides[1]))


@dataclass(frozen=True)
class Reader:
    """What a step means.

    Attributes:
        place: among the others; each place is taken once, in this order.
        tasks: whose networks have the step.
        read: takes the arguments and what was said before.
        normalises: of a step that resizes, whether it normalises too.
    """

    place: int
    tasks: tuple[str, ...]
    read: Callable[[Arguments, Preprocessing], Preprocessing]
    normalises: bool | None = None


READERS = {
    "DecodeImage": Reader(0, ("det", "rec", "cls"), _decode),
    "DetResizeForTest": Reader(1, ("det",), _resize_page, normalises=False),
    "RecResizeImg": Reader(1, ("rec",), _resize_line, normalises=True),
    "SVTRRecResizeImg": Reader(1, ("rec",), _resize_svtr_line, normalises=True),
    "ClsResizeImg": Reader(1, ("cls",), _resize_angle, normalises=True),
    "ResizeImage": Reader(1, ("cls",), _resize_image, normalises=False),
    "CropImage": Reader(2, ("cls",), _crop),
    "NormalizeImage": Reader(3, ("det", "rec", "cls"), _normalise),
}


# ---- postprocessing ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Postprocessing:
    """What a file says of the output.

    Attributes:
        boxes: how a detector's map becomes boxes; None where the file does not say.
        class_names: of a classifier; None where the file does not say.
    """

    boxes: BoxPostprocessing | None = None
    class_names: list[str] | None = None


def read_postprocessing(section: object, task: str, file: str, place: str = "PostProcess") -> Postprocessing:
    """Read the section of the postprocessing.

    Args:
        section: what stands there; nothing perhaps.
        task: of the network.
        file, place: for messages.

    Raises:
        FormatError: it is of a kind that is not known for such a network, or a key of it is not known or not possible.
    """
    if section is None:
        return Postprocessing()
    if not isinstance(section, dict):
        raise FormatError(file, f"{place} is {section!r:.60}; expected keys and values")
    name, given = section.get("name"), {key: value for key, value in section.items() if key != "name"}
    if name is None and len(section) == 1:  # as PaddleClas writes it
        ((name, given),) = section.items()
    reader = POSTPROCESSING[task].get(name) if isinstance(name, str) else None
    if not isinstance(name, str) or reader is None:
        raise FormatError(
            file, f"{place}.name is {name!r:.60}; for such a network it is one of {', '.join(POSTPROCESSING[task])}"
        )
    arguments = Arguments(file, place, name, given)
    found = reader(arguments)
    arguments.end()
    return found


def _boxes(box_thresh: float, unclip_ratio: float) -> Callable[[Arguments], Postprocessing]:
    """A reader that takes these where there is nothing."""

    def read(arguments: Arguments) -> Postprocessing:
        arguments.ignore("model_name", "key")
        candidates = arguments.integer("max_candidates", MOST_CANDIDATES, BoxPostprocessing.max_candidates)
        return Postprocessing(
            BoxPostprocessing(
                thresh=arguments.number("thresh", BoxPostprocessing.thresh, 0, 1),
                box_thresh=arguments.number("box_thresh", box_thresh, 0, 1),
                max_candidates=cast(int, candidates),
                unclip_ratio=arguments.number("unclip_ratio", unclip_ratio, 0, LARGEST_UNCLIP_RATIO),
                use_dilation=arguments.choice("use_dilation", (False, True)),
                score_mode=arguments.choice("score_mode", get_args(ScoreMode)),
                box_type=arguments.choice("box_type", get_args(BoxType)),
            )
        )

    return read


def _text(arguments: Arguments) -> Postprocessing:
    # The characters are read where the file's others are.
    arguments.ignore("character_dict", "model_name", "key", "multi_head")
    return Postprocessing()


def _classes(arguments: Arguments) -> Postprocessing:
    arguments.ignore("topk", "model_name", "key", "class_id_map_file")
    names = arguments.take("label_list")
    return Postprocessing(class_names=class_names(names, arguments.file, f"{arguments.place}: {arguments.name}"))


def class_names(names: object, file: str, place: str) -> list[str] | None:
    """The names of a classifier's classes, those of angles in degrees; None where there are none.

    Raises:
        FormatError: they are no list of texts or numbers.
    """
    if names is None:
        return None
    if not isinstance(names, list) or not all(type(name) in (str, int) for name in names):
        raise FormatError(file, f"{place}.label_list is {names!r:.60}; expected a list of names")
    return [str(name).removesuffix("_degree") for name in names]


POSTPROCESSING: dict[str, dict[str, Callable[[Arguments], Postprocessing]]] = {
    "det": {"DBPostProcess": _boxes(0.7, 2.0), "DistillationDBPostProcess": _boxes(0.6, 1.5)},
    "rec": {"CTCLabelDecode": _text, "DistillationCTCLabelDecode": _text},
    "cls": {"ClsPostProcess": _classes, "DistillationClsPostProcess": _classes, "Topk": _classes},
}


# ---- both --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Usage:
    """What a file says of how a model is used.

    Attributes:
        file: what to call it.
        steps: of the preprocessing.
        section: of the postprocessing, as it stands there.
        harmless: names of steps that change nothing there.
    """

    file: str
    steps: Steps
    section: object = None
    harmless: frozenset[str] = HARMLESS

    def preprocessing(self, usual: Preprocessing, task: str) -> Preprocessing:
        """See `Steps.preprocessing`."""
        return self.steps.preprocessing(usual, task, self.harmless)

    def postprocessing(self, task: str) -> Postprocessing:
        """See `read_postprocessing`."""
        return read_postprocessing(self.section, task, self.file)
