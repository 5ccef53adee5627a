"""What a converted file says of itself, as typed records; whatever is read from outside is checked field by field.

    metadata = Metadata.from_json(json.loads(text), "model.json")
    metadata.preprocessing.size.height

Nothing here imports torch.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Literal, TypeVar, cast, get_args

from .graph.form import Graph, GraphError, graph_from_json, graph_to_json

SCHEMA_VERSION = 1
# The architecture of networks that were converted by their graph, which the metadata then hold under the same name.
GRAPH = "graph"

Task = Literal["det", "rec", "cls"]
TASKS: tuple[Task, ...] = get_args(Task)

ChannelOrder = Literal["BGR", "RGB"]
ScoreMode = Literal["fast", "slow"]
BoxType = Literal["quad", "poly"]
Direction = Literal["left_to_right", "right_to_left"]
Triple = tuple[float, float, float]  # one value per channel
# The value of an architecture's parameter. A list that was read is a tuple.
Value = bool | int | float | str | None | tuple["Value", ...]

# ---- bounds: far above what any real model has, far below what harms ---------------------------------------------

LARGEST_SIDE = 4096  # pixels of a fixed height or width
MOST_FIXED_PIXELS = (
    2**20
)  # of a fixed height and width; what networks make of an image takes a hundred times its memory
LARGEST_LIMIT = 65536  # pixels of a page's longer side; images are made smaller than that, never larger
LARGEST_MULTIPLE = 512
LARGEST_FACTOR = 1e6  # of scale, mean and std
MOST_CANDIDATES = 100_000
LARGEST_UNCLIP_RATIO = 100.0
LARGEST_VALUE = 1e9  # of an architecture's parameter; whether it fits is for the tensors to say
MOST_PARAMETERS, MOST_VALUES, DEEPEST_VALUE = 64, 256, 4
MOST_LABELS, MOST_TENSORS = 1_000_000, 100_000
LONGEST_TEXT = 4096  # characters
LONGEST_NAME = 240  # bytes: with ".safetensors" it still is a file's name everywhere

# What no file name has on one system or another. A colon names a drive or a stream on Windows.
FORBIDDEN_IN_NAMES = frozenset('<>:"/\\|?*')
DEVICES = frozenset(
    ["AUX", "CON", "CONIN$", "CONOUT$", "NUL", "PRN"]
    + [f"{port}{number}" for port in ("COM", "LPT") for number in "0123456789¹²³"]
)
_BIDIRECTIONAL = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
_SHA256 = re.compile(r"[0-9a-f]{64}")


def name_problem(name: str) -> str | None:
    """Why a text cannot be the stem of files in a folder, on any system; None where it can."""
    if not name.strip():
        return "is empty"
    if len(name.encode("utf-8", "surrogatepass")) > LONGEST_NAME:
        return f"is longer than {LONGEST_NAME} bytes"
    bad = next((character for character in name if not _fits_in_name(character)), None)
    if bad is not None:
        return f"has {bad!a} in it"
    if name.startswith(".") or name.endswith((".", " ")):
        return "begins with a dot, or ends with a dot or a space"
    if name.partition(".")[0].rstrip().upper() in DEVICES:
        return "is the name of a device on Windows"
    return None


def _fits_in_name(character: str) -> bool:
    return character not in FORBIDDEN_IN_NAMES and is_printable(character)


def is_printable(character: str) -> bool:
    """Whether a character is none that steers a terminal, ends a line, turns the direction of text, or stands alone
    for half of another."""
    return character not in _BIDIRECTIONAL and unicodedata.category(character) not in ("Cc", "Cs", "Zl", "Zp")


def spelled_out(text: str) -> str:
    """A text of others, the name of a file say, as a record takes it: what is not printable is spelled, as `\\x1b`."""
    return "".join(each if is_printable(each) else each.encode("unicode_escape").decode("ascii") for each in text)


# ---- preprocessing -----------------------------------------------------------------------------------------------

# How an image comes to its size → the fields of `Size` that say so, in the order of the JSON.
SIZE_MODES: dict[str, tuple[str, ...]] = {
    "height": ("height", "width"),
    "height_padded": ("height", "width"),
    "stretch": ("height", "width"),
    "crop": ("short_side", "height", "width"),
    "multiple": ("multiple", "limit_side"),
    "multiple_at_least": ("multiple", "short_side", "long_side"),
    "multiple_long": ("multiple", "long_side"),
    "multiple_long_up": ("multiple", "long_side"),
    "multiple_height": ("multiple", "height"),
}
_SIZE_BOUNDS = {
    "height": LARGEST_SIDE,
    "width": LARGEST_SIDE,
    "short_side": LARGEST_SIDE,
    "long_side": LARGEST_SIDE,
    "multiple": LARGEST_MULTIPLE,
    "limit_side": LARGEST_LIMIT,
}


@dataclass(frozen=True)
class Size:
    """How an image comes to the size of the network's input.

    Attributes:
        mode: "height": the height is fixed, the aspect ratio is kept, and a batch is as wide as `width` or its widest
            image, with zeros to the right; "height_padded": the same, but exactly `width` wide, and a wider image is
            squeezed; "stretch": both are fixed, and the aspect ratio is not kept; "crop": the shorter side becomes
            `short_side`, and the middle of `height` × `width` is taken. The modes of pages keep the aspect ratio as
            far as sides that are multiples of `multiple` can: "multiple": the longer side is at most `limit_side`;
            "multiple_at_least": the shorter side is at least `short_side`, and then the longer at most `long_side`;
            "multiple_long": the longer side becomes `long_side`, and "multiple_long_up" the same with both sides
            rounded up; "multiple_height": the height is fixed, and the width rounded up.
        height, width, multiple, limit_side, short_side, long_side: in pixels.
    """

    mode: str
    height: int | None = None
    width: int | None = None
    multiple: int | None = None
    limit_side: int | None = None
    short_side: int | None = None
    long_side: int | None = None

    @classmethod
    def from_json(cls, data: object, file: str) -> Size:
        """Check and read a size; see `Metadata.from_json`."""
        with _telling(file):
            return _read_size(data)

    def to_json(self) -> dict[str, Any]:
        """The mode, and the fields that belong to it."""
        return {"mode": self.mode, **{name: getattr(self, name) for name in SIZE_MODES[self.mode]}}


@dataclass(frozen=True)
class Preprocessing:
    """How an image becomes the network's input array (N, 3, H, W).

    Attributes:
        size: how it comes to its size.
        channel_order: of the array's channels.
        scale: factor on the pixels (0 to 255), before `mean` is subtracted.
        mean, std: per channel, in the array's order: (pixel × scale − mean) / std.
    """

    size: Size
    channel_order: ChannelOrder = "BGR"
    scale: float = 1 / 255
    mean: Triple = (0.5, 0.5, 0.5)
    std: Triple = (0.5, 0.5, 0.5)

    @classmethod
    def from_json(cls, data: object, file: str) -> Preprocessing:
        """Check and read a preprocessing; see `Metadata.from_json`."""
        with _telling(file):
            return _read_preprocessing(data)

    def to_json(self) -> dict[str, Any]:
        """As it stands in the metadata."""
        return {
            "channel_order": self.channel_order,
            "scale": self.scale,
            "mean": list(self.mean),
            "std": list(self.std),
            "size": self.size.to_json(),
        }


# ---- postprocessing ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class BoxPostprocessing:
    """How a detector's map becomes boxes, by the names that upstream has for it; the defaults are the published ones.

    Attributes:
        thresh: pixels above it belong to text.
        box_thresh: mean of the map that a box needs.
        max_candidates: regions that are looked at, per image.
        unclip_ratio: a box grows by its area times this over its perimeter.
        use_dilation: whether regions first grow by a pixel to the right and downwards.
        score_mode: whether the mean is taken within the box ("fast") or within the region ("slow").
        box_type: "quad", rectangles that may be turned, or "poly", outlines with any number of corners.
    """

    thresh: float = 0.3
    box_thresh: float = 0.6
    max_candidates: int = 1000
    unclip_ratio: float = 1.5
    use_dilation: bool = False
    score_mode: ScoreMode = "fast"
    box_type: BoxType = "quad"

    def to_json(self) -> dict[str, Any]:
        """As it stands in the metadata."""
        return asdict(self)


@dataclass(frozen=True)
class TextPostprocessing:
    """How a recogniser's characters, which come as they stand in the image from left to right, become text.

    Attributes:
        direction: in which the script is read. Right to left: the characters are turned round, but for runs of Latin
            letters and digits.
    """

    direction: Direction = "left_to_right"

    def to_json(self) -> dict[str, Any]:
        """As it stands in the metadata."""
        return asdict(self)


Postprocessing = BoxPostprocessing | TextPostprocessing

# ---- metadata ----------------------------------------------------------------------------------------------------


KNOWN_STATUSES = ("released", "exported again", "something else", "different", "unknown")


@dataclass(frozen=True)
class KnownRelease:
    """What a file of weights is by the released files that others have seen.

    Attributes:
        status: one of `KNOWN_STATUSES`; see `paddle2torch.converter.zoo.known.Finding`.
        model: whose file it is, or is different from; None where it is unknown.
        seen_from: month since which that file is known, as 2025-05.
        sources: how many have it that do not know of each other.
    """

    status: str
    model: str | None = None
    seen_from: str | None = None
    sources: int | None = None

    def to_json(self) -> dict[str, Any]:
        """As it stands in the metadata."""
        return {"status": self.status, "model": self.model, "seen_from": self.seen_from, "sources": self.sources}


@dataclass(frozen=True)
class Origin:
    """What was converted.

    Attributes:
        file: name of the tarball, folder or file.
        sha256: of that file; of the tensors' file for a folder.
        kind: "inference", "trained" or "pretrained"; None where that is not known.
        url: where it was fetched from, if it was.
        branch: which network of a distilled checkpoint, if it holds several.
        named_by: what told the tensors' names: "checkpoint", "info" or "graph"; None where they have the program's.
        fine_tuned_from: name of the model from which training began, for weights that were trained after conversion.
        known: what the file is by the released ones that others have seen; None in files of earlier versions.
    """

    file: str
    sha256: str
    kind: str | None = None
    url: str | None = None
    branch: str | None = None
    named_by: str | None = None
    fine_tuned_from: str | None = None
    known: KnownRelease | None = None

    def to_json(self) -> dict[str, Any]:
        """As it stands in the metadata."""
        return {
            "kind": self.kind,
            "file": self.file,
            "url": self.url,
            "sha256": self.sha256,
            "branch": self.branch,
            "named_by": self.named_by,
            **({} if self.fine_tuned_from is None else {"fine_tuned_from": self.fine_tuned_from}),
            **({} if self.known is None else {"known": self.known.to_json()}),
        }


@dataclass(frozen=True)
class HubOrigin:
    """Where on the Hugging Face Hub a model was loaded from.

    Attributes:
        repository: ORG/NAME.
        revision: as it was asked for, a branch, tag or commit.
        commit: what that was.
    """

    repository: str
    revision: str
    commit: str

    def to_json(self) -> dict[str, str]:
        """As it stands in the metadata."""
        return {"repository": self.repository, "revision": self.revision, "commit": self.commit}


@dataclass(frozen=True)
class Metadata:
    """The content of a conversion's `.json` and of the `.safetensors` header: all that it takes to use the weights.

    Attributes:
        name: stem of the files; no path (see `name_problem`).
        task: "det", "rec" or "cls".
        architecture: a name of the registry, or "graph".
        parameters: of the architecture; of a graph, the number of classes where it has some.
        preprocessing: how an image becomes the input.
        labels: what each class stands for, the blank of a recogniser first; None where that is not known.
        postprocessing: how the output becomes boxes or text; None for classifiers, and in files of earlier versions.
        source: what was converted.
        graph: the network itself, where it was converted by its graph.
        ignored: tensors of the source that are not used → why.
        initialised: tensors (keys of the module) that the source lacks, made from a fixed seed.
        widened: tensors (keys of the module) that were stored in a narrower type than float32 → that type.
        narrowed: the same for wider types, whose values were rounded.
        folded: tensors (keys of the module) that were computed from several → the source's names of those.
        outputs: what the network returns, in its order, where that is several tensors; empty otherwise.
        rewritings: modules (paths) that the source's program writes in another way → what it does otherwise there.
        digest: sha256 of the tensors, see `paddle2torch.architectures.digest`; None in files of earlier versions.
        converter: version that wrote the file.
        hub: where it was loaded from, where that is the Hugging Face Hub; it is never written by a conversion.
        schema_version: of this record.
    """

    name: str
    task: Task
    architecture: str
    parameters: Mapping[str, Value]
    preprocessing: Preprocessing
    labels: tuple[str, ...] | None = None
    postprocessing: Postprocessing | None = None
    source: Origin | None = None
    graph: Graph | None = None
    ignored: Mapping[str, str] = field(default_factory=dict)
    initialised: tuple[str, ...] = ()
    widened: Mapping[str, str] = field(default_factory=dict)
    narrowed: Mapping[str, str] = field(default_factory=dict)
    folded: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    outputs: tuple[str, ...] = ()
    rewritings: Mapping[str, str] = field(default_factory=dict)
    digest: str | None = None
    converter: str | None = None
    hub: HubOrigin | None = None
    schema_version: int = SCHEMA_VERSION

    @classmethod
    def from_json(cls, data: object, file: str) -> Metadata:
        """Check and read what `to_json` wrote.

        Args:
            data: what `json.loads` returned, from any source.
            file: what to call it in messages.

        Raises:
            ValueError: a field is missing, unknown, of another type, out of bounds, or does not go with another one; or
                the record is of a later version.
        """
        with _telling(file):
            return _read_metadata(data, file)

    def to_json(self) -> dict[str, Any]:
        """As it stands in the files; `json.dumps` takes it."""
        return {
            "schema_version": self.schema_version,
            "name": self.name,
            "task": self.task,
            "architecture": self.architecture,
            **({} if self.graph is None else {GRAPH: graph_to_json(self.graph)}),
            "parameters": {name: _plain(value) for name, value in self.parameters.items()},
            "preprocessing": self.preprocessing.to_json(),
            "labels": None if self.labels is None else list(self.labels),
            **({} if self.postprocessing is None else {"postprocessing": self.postprocessing.to_json()}),
            "source": None if self.source is None else self.source.to_json(),
            "ignored": dict(self.ignored),
            "initialised": list(self.initialised),
            "widened": dict(self.widened),
            **({"narrowed": dict(self.narrowed)} if self.narrowed else {}),
            **({"folded": {key: list(names) for key, names in self.folded.items()}} if self.folded else {}),
            **({"outputs": list(self.outputs)} if self.outputs else {}),
            **({"rewritings": dict(self.rewritings)} if self.rewritings else {}),
            **({} if self.digest is None else {"digest": self.digest}),
            "converter": self.converter,
            **({} if self.hub is None else {"hub": self.hub.to_json()}),
        }


def _plain(value: Value) -> Any:
    return [_plain(each) for each in value] if isinstance(value, tuple) else value


# ---- reading -----------------------------------------------------------------------------------------------------


class _WrongFieldError(Exception):
    """A field is not what it has to be.

    Args:
        where: its path, for example "preprocessing.size.height".
        problem: what it is, and what was expected.
    """

    def __init__(self, where: str, problem: str) -> None:
        super().__init__(f"{where!r} {problem}")


@contextmanager
def _telling(file: str) -> Iterator[None]:
    try:
        yield
    except _WrongFieldError as wrong:
        raise ValueError(
            f"{file}: its metadata cannot be used: {wrong}; convert the model again, or update paddle2torch"
        ) from wrong


def _shown(value: object) -> str:
    """A value of a file for a message: short, and with nothing in it that a terminal obeys."""
    if isinstance(value, dict | list):
        return f"a {'list' if isinstance(value, list) else 'record'} of {len(value)}"
    if isinstance(value, int) and not isinstance(value, bool) and value.bit_length() > 64:
        return "an integer of more than 64 bits"
    text = ascii(value)
    return text if len(text) <= 40 else f"{text[:40]}…"


def _object(data: object, where: str, required: tuple[str, ...], optional: tuple[str, ...] = ()) -> dict[str, Any]:
    """A JSON object with exactly these keys. An unknown one could change what the others mean."""
    if not isinstance(data, dict):
        raise _WrongFieldError(where, f"is {_shown(data)}, a record was expected")
    missing = [key for key in required if key not in data]
    if missing:
        raise _WrongFieldError(where, f"lacks {missing[0]!r}")
    unknown = [key for key in data if key not in required and key not in optional]
    if unknown:
        raise _WrongFieldError(where, f"has {_shown(unknown[0])}, which this version does not know")
    return data


def _text(value: object, where: str) -> str:
    """Printable text of one line."""
    if not isinstance(value, str):
        raise _WrongFieldError(where, f"is {_shown(value)}, text was expected")
    if len(value) > LONGEST_TEXT or not all(map(is_printable, value)):
        raise _WrongFieldError(
            where, f"is {_shown(value)}, printable text of at most {LONGEST_TEXT} characters was expected"
        )
    return value


def _integer(value: object, where: str, largest: int) -> int:
    """From 1 on."""
    if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= largest:
        raise _WrongFieldError(where, f"is {_shown(value)}, an integer from 1 to {largest} was expected")
    return value


def _number(value: object, where: str, largest: float = LARGEST_FACTOR) -> float:
    if not isinstance(value, int | float) or isinstance(value, bool) or not abs(value) <= largest:
        raise _WrongFieldError(where, f"is {_shown(value)}, a number of at most {largest:g} was expected")
    return float(value)


def _positive(value: object, where: str) -> float:
    number = _number(value, where)
    if not number >= 1 / LARGEST_FACTOR:
        raise _WrongFieldError(where, f"is {_shown(value)}, a number from {1 / LARGEST_FACTOR:g} on was expected")
    return number


def _choice(value: object, where: str, choices: tuple[str, ...]) -> str:
    if not isinstance(value, str) or value not in choices:
        raise _WrongFieldError(where, f"is {_shown(value)}, one of {', '.join(choices)} was expected")
    return value


def _triple(data: object, where: str, read: Callable[[object, str], float]) -> Triple:
    if not isinstance(data, list) or len(data) != 3:
        raise _WrongFieldError(where, f"is {_shown(data)}, a list of 3 numbers was expected")
    first, second, third = (read(value, where) for value in data)
    return first, second, third


def _read_size(data: object) -> Size:
    where = "preprocessing.size"
    mode = _choice(data.get("mode") if isinstance(data, dict) else None, f"{where}.mode", tuple(SIZE_MODES))
    found = _object(data, where, ("mode", *SIZE_MODES[mode]))
    sides = {name: _integer(found[name], f"{where}.{name}", _SIZE_BOUNDS[name]) for name in SIZE_MODES[mode]}
    height = sides.get("height", 1)
    width = sides.get("width", height)  # without one it is that of the image, which is as high as wide, say
    if height * width > MOST_FIXED_PIXELS:
        raise _WrongFieldError(where, f"is {height} × {width}, at most {MOST_FIXED_PIXELS} pixels were expected")
    return Size(mode, **sides)


def _read_preprocessing(data: object) -> Preprocessing:
    where = "preprocessing"
    found = _object(data, where, ("channel_order", "scale", "mean", "std", "size"))
    return Preprocessing(
        size=_read_size(found["size"]),
        channel_order=cast(
            ChannelOrder, _choice(found["channel_order"], f"{where}.channel_order", get_args(ChannelOrder))
        ),
        scale=_positive(found["scale"], f"{where}.scale"),
        mean=_triple(found["mean"], f"{where}.mean", _number),
        std=_triple(found["std"], f"{where}.std", _positive),
    )


def _flag(value: object, where: str) -> bool:
    if not isinstance(value, bool):
        raise _WrongFieldError(where, f"is {_shown(value)}, true or false was expected")
    return value


def _from_zero(value: object, where: str, largest: float) -> float:
    number = _number(value, where, largest)
    if number < 0:
        raise _WrongFieldError(where, f"is {_shown(value)}, a number from 0 to {largest:g} was expected")
    return number


def _read_boxes(data: object, where: str) -> BoxPostprocessing:
    found = _object(data, where, tuple(each.name for each in fields(BoxPostprocessing)))
    return BoxPostprocessing(
        thresh=_from_zero(found["thresh"], f"{where}.thresh", 1),
        box_thresh=_from_zero(found["box_thresh"], f"{where}.box_thresh", 1),
        max_candidates=_integer(found["max_candidates"], f"{where}.max_candidates", MOST_CANDIDATES),
        unclip_ratio=_from_zero(found["unclip_ratio"], f"{where}.unclip_ratio", LARGEST_UNCLIP_RATIO),
        use_dilation=_flag(found["use_dilation"], f"{where}.use_dilation"),
        score_mode=cast(ScoreMode, _choice(found["score_mode"], f"{where}.score_mode", get_args(ScoreMode))),
        box_type=cast(BoxType, _choice(found["box_type"], f"{where}.box_type", get_args(BoxType))),
    )


def _read_direction(data: object, where: str) -> TextPostprocessing:
    found = _object(data, where, ("direction",))
    return TextPostprocessing(cast(Direction, _choice(found["direction"], f"{where}.direction", get_args(Direction))))


# A classifier's classes are its answer.
_POSTPROCESSING: dict[str, Callable[[object, str], Postprocessing]] = {"det": _read_boxes, "rec": _read_direction}


def _read_postprocessing(data: object, task: str) -> Postprocessing | None:
    if data is None:
        return None
    read = _POSTPROCESSING.get(task)
    if read is None:
        raise _WrongFieldError("postprocessing", f"stands in the metadata of a model for {task!r}, which has none")
    return read(data, "postprocessing")


def read_postprocessing(data: object, task: str, file: str) -> Postprocessing | None:
    """Check and read the postprocessing of a model for this task, if there is one; see `Metadata.from_json`."""
    with _telling(file):
        return _read_postprocessing(data, task)


def _read_value(value: object, where: str, depth: int = 0) -> Value:
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int | float):
        _number(value, where, LARGEST_VALUE)
        return value
    if isinstance(value, str):
        return _text(value, where)
    if isinstance(value, list) and len(value) <= MOST_VALUES and depth < DEEPEST_VALUE:
        return tuple(_read_value(each, where, depth + 1) for each in value)
    raise _WrongFieldError(where, f"is {_shown(value)}, which is no value of a parameter")


def _read_parameters(data: object) -> dict[str, Value]:
    if not isinstance(data, dict) or len(data) > MOST_PARAMETERS:
        raise _WrongFieldError("parameters", f"is {_shown(data)}, a record of at most {MOST_PARAMETERS} was expected")
    return {_text(name, "parameters"): _read_value(value, f"parameters.{name}") for name, value in data.items()}


Entry = TypeVar("Entry")


def _entries(data: object, where: str, most: int, read: Callable[[object, str], Entry]) -> tuple[Entry, ...]:
    if not isinstance(data, list) or len(data) > most:
        raise _WrongFieldError(where, f"is {_shown(data)}, a list of at most {most} was expected")
    return tuple(read(each, where) for each in data)


def _texts(data: object, where: str) -> dict[str, str]:
    if not isinstance(data, dict) or len(data) > MOST_TENSORS:
        raise _WrongFieldError(where, f"is {_shown(data)}, a record of at most {MOST_TENSORS} was expected")
    return {_text(key, where): _text(value, where) for key, value in data.items()}


def _read_folded(data: object) -> dict[str, tuple[str, ...]]:
    if not isinstance(data, dict) or len(data) > MOST_TENSORS:
        raise _WrongFieldError("folded", f"is {_shown(data)}, a record of at most {MOST_TENSORS} was expected")
    return {_text(key, "folded"): _entries(value, "folded", MOST_VALUES, _text) for key, value in data.items()}


def _label(value: object, where: str) -> str:
    """Whatever a dictionary may hold, a tab or a letter of a private range; only whole characters."""
    if not isinstance(value, str) or len(value) > LONGEST_TEXT or any("\ud800" <= each <= "\udfff" for each in value):
        raise _WrongFieldError(where, f"holds {_shown(value)}, text was expected")
    return value


def _sha256(value: object, where: str) -> str:
    if not isinstance(value, str) or not _SHA256.fullmatch(value):
        raise _WrongFieldError(where, f"is {_shown(value)}, 64 hexadecimal digits were expected")
    return value


def _optional(
    found: Mapping[str, Any], key: str, read: Callable[[object, str], Entry], where: str = ""
) -> Entry | None:
    """A field that may be absent, or null."""
    return None if found.get(key) is None else read(found[key], where + key)


def _read_labels(data: object, where: str) -> tuple[str, ...]:
    return _entries(data, where, MOST_LABELS, _label)


def _read_known(data: object, where: str) -> KnownRelease:
    found = _object(data, where, ("status", "model", "seen_from", "sources"))
    sources = found["sources"]
    return KnownRelease(
        status=_choice(found["status"], f"{where}.status", KNOWN_STATUSES),
        model=_optional(found, "model", _text, f"{where}."),
        seen_from=_optional(found, "seen_from", _text, f"{where}."),
        sources=None if sources is None else _integer(sources, f"{where}.sources", MOST_TENSORS),
    )


def _read_origin(data: object, where: str) -> Origin:
    texts = ("kind", "url", "branch", "named_by", "fine_tuned_from")
    found = _object(data, where, ("file", "sha256"), (*texts, "known"))
    return Origin(
        file=_text(found["file"], f"{where}.file"),
        sha256=_sha256(found["sha256"], f"{where}.sha256"),
        known=_optional(found, "known", _read_known, f"{where}."),
        **{name: _optional(found, name, _text, f"{where}.") for name in texts},
    )


def _read_hub(data: object, where: str) -> HubOrigin:
    found = _object(data, where, ("repository", "revision", "commit"))
    return HubOrigin(**{name: _text(value, f"{where}.{name}") for name, value in found.items()})


def _name(value: object) -> str:
    if not isinstance(value, str):
        raise _WrongFieldError("name", f"is {_shown(value)}, text was expected")
    problem = name_problem(value)
    if problem is not None:
        raise _WrongFieldError("name", f"{problem} ({_shown(value)}), the stem of a file was expected")
    return value


def _read_graph(data: object, file: str) -> Graph:
    try:
        return graph_from_json(data, file)
    except GraphError as error:
        raise _WrongFieldError("graph", error.problem) from error


def _read_metadata(data: object, file: str) -> Metadata:
    required = ("schema_version", "name", "task", "architecture", "parameters", "preprocessing")
    optional = (
        GRAPH,
        "labels",
        "postprocessing",
        "source",
        "ignored",
        "initialised",
        "widened",
        "narrowed",
        "folded",
        "outputs",
        "rewritings",
        "digest",
        "converter",
        "hub",
    )
    version = data.get("schema_version") if isinstance(data, dict) else None
    if version is not None and (type(version) is not int or version != SCHEMA_VERSION):
        raise _WrongFieldError("schema_version", f"is {_shown(version)}, {SCHEMA_VERSION} was expected")
    found = _object(data, "metadata", required, optional)
    task = cast(Task, _choice(found["task"], "task", TASKS))
    metadata = Metadata(
        name=_name(found["name"]),
        task=task,
        architecture=_text(found["architecture"], "architecture"),
        parameters=_read_parameters(found["parameters"]),
        preprocessing=_read_preprocessing(found["preprocessing"]),
        labels=_optional(found, "labels", _read_labels),
        postprocessing=_read_postprocessing(found.get("postprocessing"), task),
        source=_optional(found, "source", _read_origin),
        graph=_optional(found, GRAPH, lambda graph, _: _read_graph(graph, file)),
        ignored=_texts(found.get("ignored", {}), "ignored"),
        initialised=_entries(found.get("initialised", []), "initialised", MOST_TENSORS, _text),
        widened=_texts(found.get("widened", {}), "widened"),
        narrowed=_texts(found.get("narrowed", {}), "narrowed"),
        folded=_read_folded(found.get("folded", {})),
        outputs=_entries(found.get("outputs", []), "outputs", MOST_TENSORS, _text),
        rewritings=_texts(found.get("rewritings", {}), "rewritings"),
        digest=_optional(found, "digest", _sha256),
        converter=_optional(found, "converter", _text),
        hub=_optional(found, "hub", _read_hub),
    )
    _require_agreement(metadata)
    return metadata


def _require_agreement(metadata: Metadata) -> None:
    """What one field says of another."""
    if (metadata.architecture == GRAPH) != (metadata.graph is not None):
        raise _WrongFieldError(
            "architecture", f"is {_shown(metadata.architecture)}, and a graph belongs to {GRAPH!r} alone"
        )
    classes = metadata.parameters.get("classes")
    if classes is not None and (type(classes) is not int or classes < 1):
        raise _WrongFieldError("parameters.classes", f"is {_shown(classes)}, an integer from 1 on was expected")
    if metadata.labels is not None and classes is not None and len(metadata.labels) != classes:
        raise _WrongFieldError("labels", f"are {len(metadata.labels)}, and there are {classes} classes")
