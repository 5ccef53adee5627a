"""Where a model's files lie: a file, a folder that `publish` made, or such a folder on the Hugging Face Hub."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path

SCHEME = "hf:"
SUFFIXES = (".pth", ".safetensors")
WEIGHTS, CONFIG = "model.safetensors", "config.json"
# As torch.hub wants it: the beginning of the file's sha256 is part of its name.
PTH = "-" + "[0-9a-f]" * 8 + ".pth"

_ADDRESS = re.compile(rf"{SCHEME}(?P<repository>[\w.-]+/[\w.-]+)(?:@(?P<revision>[\w./-]+))?", re.ASCII)


@dataclass(frozen=True)
class Place:
    """The files of a model on this machine.

    Attributes:
        weights: a `.safetensors` or `.pth`.
        sidecar: the `.json` that describes the weights; it need not be there.
        origin: repository, revision (as asked for) and commit (what that was), for a model of the Hub.
    """

    weights: Path
    sidecar: Path
    origin: dict[str, str] = field(default_factory=dict)


def is_converted(text: str) -> bool:
    """Whether `locate` is for this: a file of PyTorch weights, a folder that `publish` made, or a model of the Hub."""
    path = Path(text)
    if text.startswith(SCHEME) or path.suffix in SUFFIXES:
        return True
    # Not by the path's own methods: they raise errors for what no path can be.
    return os.path.isdir(path) and (os.path.isfile(path / WEIGHTS) or any(path.glob(f"*{PTH}")))  # noqa: PTH112, PTH113


def locate(path: str | PathLike[str]) -> Place:
    """Find a model's files; those of `hf:ORG/NAME` or `hf:ORG/NAME@REVISION` are fetched into the Hub's cache.

    A revision is a commit, a tag or a branch; "main" where none is given. Of a folder only files that `publish` writes
    are looked at, `model.safetensors` before the `.pth`.

    Raises:
        FileNotFoundError: there is no such file, folder, repository or revision, or the Hub cannot be reached and the
            cache has none of it.
        ValueError: the address of a model on the Hub is malformed, or a folder holds several models.
        ImportError: the package huggingface_hub is missing.
    """
    text = os.fspath(path)
    if text.startswith(SCHEME):
        return _fetch(text)
    path = Path(path)
    if os.path.isdir(path):  # noqa: PTH112 (False for what no path can be)
        return _look_in(path, str(path))
    if not os.path.isfile(path):  # noqa: PTH113 (False for what no path can be)
        raise FileNotFoundError(
            f"{path}: there is no such file{'; check the path' if path.suffix in SUFFIXES else _how_to_get(text)}"
        )
    return Place(path, path.with_suffix(".json"))


def _how_to_get(text: str) -> str:
    """What to do about a text that names no converted file, but may be something that can be converted."""
    return f"; a model of the zoo, or of Paddle's, is converted first: paddle2torch convert {text}"


def _look_in(folder: Path, name: str) -> Place:
    sidecar = folder / CONFIG
    if (folder / WEIGHTS).is_file():
        return Place(folder / WEIGHTS, sidecar)
    found = sorted(folder.glob(f"*{PTH}"))
    if not found:
        raise FileNotFoundError(
            f"{name}: has neither {WEIGHTS} nor NAME-xxxxxxxx.pth; it is no published model{_how_to_get(name)}"
        )
    if len(found) > 1:
        raise ValueError(f"{name}: holds {' and '.join(file.name for file in found)}; name one of them")
    return Place(found[0], sidecar)


def _fetch(address: str) -> Place:
    parts = _ADDRESS.fullmatch(address)
    if parts is None:
        raise ValueError(f"{address}: expected hf:ORG/NAME or hf:ORG/NAME@REVISION")
    repository, revision = parts["repository"], parts["revision"] or "main"
    folder = _download(address, repository, revision, [WEIGHTS, CONFIG])
    if not (folder / WEIGHTS).is_file():
        # The same commit, should the branch have moved meanwhile.
        folder = _download(address, repository, folder.name, [f"*{PTH}", CONFIG])
    place = _look_in(folder, address)
    # The cache has a folder for every commit.
    return Place(place.weights, place.sidecar, {"repository": repository, "revision": revision, "commit": folder.name})


def _download(address: str, repository: str, revision: str, files: list[str]) -> Path:
    """The repository's snapshot in the Hub's cache, with these of its files."""
    try:
        from huggingface_hub import errors, snapshot_download
    except ImportError as error:
        raise ImportError(
            f"{address}: loading from the Hub needs the package huggingface_hub: pip install huggingface_hub"
        ) from error
    try:
        return Path(snapshot_download(repository, revision=revision, allow_patterns=files))
    except errors.RevisionNotFoundError as error:
        raise FileNotFoundError(f"{address}: {repository} has no revision {revision}") from error
    except errors.RepositoryNotFoundError as error:
        raise FileNotFoundError(
            f"{address}: the Hub has no such model, or hides it from you; check the name, or log in (`hf auth login`)"
        ) from error
    except errors.LocalEntryNotFoundError as error:
        raise FileNotFoundError(
            f"{address}: not in the cache, and the Hub cannot be reached or does not give it; check network and login"
        ) from error
    except errors.HFValidationError as error:
        raise ValueError(f"{address}: expected hf:ORG/NAME or hf:ORG/NAME@REVISION") from error
    except Exception as error:  # whatever a server's answer makes the library raise
        raise FileNotFoundError(f"{address}: cannot be fetched from the Hub ({_reason(error)})") from error


def _reason(error: Exception) -> str:
    """What went wrong, in words that are nobody else's: an error's own may be a server's, or tell a password."""
    status = getattr(getattr(error, "response", None), "status_code", None)
    words = f"it answers {status}" if status is not None else getattr(error, "strerror", None)
    return str(words or type(error).__name__)
