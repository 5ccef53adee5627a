"""Files of PyTorch weights, ours or anyone's: the state dicts that they hold, or in one line what they are instead.

Nothing in a file is executed, and what was read does not depend on the file any more.
"""

from __future__ import annotations

import json
import logging
import re
import warnings
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from .pickles import OverwhelmingError, look_through
from .records import is_printable

if TYPE_CHECKING:
    from torch import Tensor

logger = logging.getLogger(__name__)

# The key of our text in the header of a safetensors file.
HEADER_KEY = "paddle2torch"

# Files of Paddle's, by the ends of their names.
PADDLE_SUFFIXES = (".pdparams", ".pdopt", ".pdmodel", ".pdiparams", ".pdiparams.info", ".tar", ".tar.gz", ".tgz")
# What wrappers put into the names of tensors: DataParallel and Lightning's strategies, torch.compile, FSDP, checkpoints
# of activations.
WRAPPERS = frozenset({"module", "_forward_module", "_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"})
# Words in a name that say that weights are a running average over training.
AVERAGES = frozenset({"ema", "averaged", "swa"})

DEEPEST = 4  # dictionaries in dictionaries that are looked into
MOST_PREFIXES = 16  # that are tried on the names of one set
LONGEST_NAME = 120  # characters of a tensor's name in a message
MOST_SHOWN = 3
ZIP = b"PK\x03\x04"  # how a file begins that torch.save has written since PyTorch 1.6
OLD_PICKLES = 5  # that an older one has, one behind the other


@dataclass(frozen=True)
class StateDict:
    """A set of tensors in a file.

    Attributes:
        place: where it is: keys of dictionaries, and what was taken off the names; empty where the file is the set.
        tensors: by name.
    """

    place: tuple[str, ...]
    tensors: Mapping[str, Tensor]


@dataclass(frozen=True)
class StateFile:
    """What a file holds.

    Attributes:
        path: of the file.
        found: the sets of tensors.
        header: the text under our key in the header of a `.safetensors`.
    """

    path: Path
    found: tuple[StateDict, ...]
    header: str | None = None

    def candidates(self, root: str) -> Iterator[StateDict]:
        """What the file may hold: its sets as they are, and without what wrappers put around their names.

        Args:
            root: how the names of the wanted tensors begin, up to the first dot.
        """
        seen = set()
        for each in self.found:
            for candidate in (each, *_unwrapped(each, root)):
                tensors = frozenset((name, id(tensor)) for name, tensor in candidate.tensors.items())
                if tensors not in seen:
                    seen.add(tensors)
                    yield candidate

    def choose(self, root: str, fits: Callable[[StateDict], bool]) -> StateDict | None:
        """The one set that fits; None where none does.

        Of weights and their running average over training the average is taken, and that is logged.

        Args:
            root: see `candidates`.
            fits: whether a set is what is wanted.

        Raises:
            ValueError: several fit.
        """
        fitting = [each for each in self.candidates(root) if fits(each)]
        averaged = [each for each in fitting if _is_average(each.place)]
        if len(fitting) > 1 and len(averaged) == 1:
            logger.warning(
                "%s: holds several sets of weights; took the average over training (%s)", self.path, _told(averaged[0])
            )
            return averaged[0]
        if len(fitting) > 1:
            raise ValueError(
                f"{self.path}: holds {len(fitting)} sets of weights that fit ({', '.join(map(_told, fitting))}); save "
                "one of them into a file of its own"
            )
        return fitting[0] if fitting else None


def read_state_file(path: Path, check: bool = True) -> StateFile:
    """Read a `.safetensors`, or what `torch.save` wrote.

    Args:
        path: of the file.
        check: whether to compare the checksums that the file has of its parts.

    Raises:
        OSError: the file cannot be read.
        ValueError: it is something else, or damaged, or holds no tensors; the message says what it is and what to do.
        ImportError: safetensors is not installed.
    """
    return _read_safetensors(path) if path.suffix == ".safetensors" else _read_torch(path, check)


def printable(name: str) -> str:
    """A name from a file for a message: short, and with nothing in it that a terminal obeys."""
    text = "".join(character if is_printable(character) else "?" for character in name[:LONGEST_NAME])
    return text if len(name) <= LONGEST_NAME else f"{text}…"


def require_plain(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Raise ValueError where a tensor is not simply its values: real numbers in memory, each in a place of its own."""
    for name, tensor in tensors.items():
        problem = _oddity(tensor)
        if problem is not None:
            raise ValueError(
                f"{path}: {printable(name)} is {problem}; save it as an ordinary tensor of floating-point numbers"
            )


def _oddity(tensor: Tensor) -> str | None:
    import torch

    dtype = str(tensor.dtype).removeprefix("torch.")
    if tensor.is_meta:
        return "a tensor without values (device meta)"
    if tensor.is_quantized:
        return f"quantised ({dtype})"
    if tensor.layout is not torch.strided:
        return f"sparse ({str(tensor.layout).removeprefix('torch.')})"
    if tensor.is_complex() or dtype.startswith(("float8", "float4")):
        return f"of type {dtype}"
    if tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes():
        return f"of shape {list(tensor.shape)}, but has fewer values"
    return None


# ---- names -------------------------------------------------------------------------------------------------------


def _unwrapped(found: StateDict, root: str) -> Iterator[StateDict]:
    """The same tensors under shorter names: without what wrappers add, and without what stands before `root`."""
    whole = {name: tuple(name.split(".")) for name in found.tensors}
    bare = {name: tuple(part for part in parts if part not in WRAPPERS) for name, parts in whole.items()}
    for names in (whole, bare) if bare != whole else (whole,):
        prefixes = {parts[:place] for parts in names.values() for place, part in enumerate(parts[:-1]) if part == root}
        for prefix in [(), *sorted(prefixes - {()})[:MOST_PREFIXES]]:
            kept = [name for name, parts in names.items() if parts[: len(prefix)] == prefix]
            tensors = {".".join(names[name][len(prefix) :]): found.tensors[name] for name in kept}
            if len(tensors) == len(kept):  # no two have become one
                yield StateDict((*found.place, *([".".join(prefix)] if prefix else [])), tensors)


def _is_average(place: tuple[str, ...]) -> bool:
    return any(AVERAGES.intersection(re.split(r"[^a-z]+", part.lower())) for part in place)


def _told(found: StateDict) -> str:
    return " / ".join(map(printable, found.place)) or "at the top"


# ---- safetensors -------------------------------------------------------------------------------------------------


def _read_safetensors(path: Path) -> StateFile:
    try:
        from safetensors.torch import load
    except ImportError as error:
        raise ImportError(
            f"{path}: reading .safetensors needs the package safetensors: pip install safetensors"
        ) from error
    data = path.read_bytes()
    try:
        tensors = load(data)
        header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    except Exception as error:  # SafetensorError, and KeyError for types that PyTorch does not have
        raise ValueError(f"{path}: not a safetensors file, or a damaged one ({error}); get it again") from error
    return StateFile(path, (StateDict((), tensors),), header.get("__metadata__", {}).get(HEADER_KEY))


# ---- torch.save --------------------------------------------------------------------------------------------------


def _read_torch(path: Path, check: bool) -> StateFile:
    import torch

    with path.open("rb") as file, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # on storages of old files, for example
        packed = file.read(len(ZIP)) == ZIP
        if packed:
            _check_archive(path, file, check)
        try:
            foreign = _foreign_objects(file, packed)
        except OverwhelmingError as problem:
            raise ValueError(f"{path}: {problem}; do not trust it") from None
        file.seek(0)
        try:
            # An old file from memory: of one on disk PyTorch first tries whether it is a tar.
            content = torch.load(file if packed else BytesIO(file.read()), map_location="cpu", weights_only=True)
        except Exception:  # a broken file makes torch's unpickler raise nearly anything
            # Without its cause, in which PyTorch recommends to execute what is in the file.
            raise ValueError(f"{path}: {_what_it_is(path, file, packed, foreign)}") from None
    found = tuple(_state_dicts(content, (), set()))
    if not found:
        raise ValueError(f"{path}: not a state dict, that is, a dict of tensors; save `model.state_dict()`")
    return StateFile(path, found)


def _foreign_objects(file: BinaryIO, packed: bool) -> list[str]:
    """What the pickles of a file refer to besides tensors; see `look_through`."""
    if packed:
        with zipfile.ZipFile(file) as archive:
            found = []
            for name in archive.namelist():
                if name.casefold().endswith("data.pkl"):
                    with archive.open(name) as stream:
                        found += look_through(stream)
            return found
    file.seek(0)
    return [name for _ in range(OLD_PICKLES) for name in look_through(file)]


def _check_archive(path: Path, file: BinaryIO, check: bool) -> None:
    """What PyTorch does not look at: that each member is there once, as it was written, and no larger than the file."""
    try:
        with zipfile.ZipFile(file) as archive:
            problem = _problem_of(archive, file.seek(0, 2), check)
    except Exception as error:  # damage makes zipfile raise nearly anything
        raise ValueError(f"{path}: is damaged ({error}); get it again") from error
    if problem is not None:
        raise ValueError(f"{path}: {problem}")


def _problem_of(archive: zipfile.ZipFile, size: int, check: bool) -> str | None:
    members = archive.infolist()
    twice = [name for name, times in Counter(member.filename.casefold() for member in members).items() if times > 1]
    if twice:
        return f"has two members called {printable(twice[0])}; torch.save writes each once, so do not trust it"
    if sum(member.file_size for member in members) > size:
        return "its members are compressed, or lie upon each other, which torch.save does not do; save it again"
    # With torch.serialization.set_crc32_options(False) none is computed.
    broken = archive.testzip() if check and any(member.CRC for member in members) else None
    return broken and f"is damaged: {printable(broken)} is not as it was written; get it again"


def _state_dicts(content: object, place: tuple[str, ...], seen: set[int]) -> Iterator[StateDict]:
    """The dictionaries (and lists) that hold tensors, from the outside in."""
    import torch

    if id(content) in seen or len(place) > DEEPEST:
        return
    seen.add(id(content))
    if isinstance(content, list | tuple):
        content = {f"[{index}]": value for index, value in enumerate(content)}
    if not isinstance(content, dict):
        return
    named = {key: value for key, value in content.items() if isinstance(key, str)}
    tensors = {key: value for key, value in named.items() if isinstance(value, torch.Tensor)}
    if tensors:
        yield StateDict(place, tensors)
    for key, value in named.items():
        yield from _state_dicts(value, (*place, key), seen)


def _what_it_is(path: Path, file: BinaryIO, packed: bool, foreign: list[str]) -> str:
    """Why PyTorch does not read a file, and what to do with it."""
    if path.name.endswith(PADDLE_SUFFIXES):
        return f"a file of Paddle's, not of PyTorch's; convert it first: paddle2torch convert {path}"
    if not file.seek(0, 2):
        return "is empty; get it again"
    if packed:
        with zipfile.ZipFile(file) as archive:
            if any(name.endswith("/constants.pkl") for name in archive.namelist()):
                return "a TorchScript program, not a state dict; torch.jit.load reads it"
    elif any(name.startswith("numpy.") for name in foreign):
        return (
            "a pickle of NumPy arrays, as Paddle's checkpoints are, and no file of PyTorch's; name it .pdparams and "
            "convert it: paddle2torch convert NAME.pdparams"
        )
    if foreign:
        shown = ", ".join(map(printable, foreign[:MOST_SHOWN]))
        return (
            f"not a file that torch.load(weights_only=True) takes: it refers to {shown}, as the pickle of a whole "
            "module or of a training's settings does, and reading it would run code; save `model.state_dict()` where "
            "it was made"
        )
    return "not a file that torch.load(weights_only=True) takes, or a damaged one; save `model.state_dict()` again"
