"""`model_zoo.lock.json`: sizes and sha256 of the zoo's tarballs, measured and never typed.

The file lies beside `model_zoo.yaml` and is read together with it; `paddle2torch zoo lock` alone writes it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from paddle2torch.converter.support.errors import ConverterError, ZooError
from paddle2torch.converter.support.files import atomic_write

if TYPE_CHECKING:
    from paddle2torch.converter.zoo.catalog import Zoo
    from paddle2torch.converter.zoo.download import Fetched, Fetcher

Key = tuple[str, str]
"""A tarball of the zoo: the name of the model under which it was published, and the kind."""


@dataclass(frozen=True)
class KnownFile:
    """A file that has been seen.

    Attributes:
        sha256: its hash in lower-case hex.
        size: its length in bytes.
    """

    sha256: str
    size: int


def lock_path(zoo: Path) -> Path:
    """Where the lock file of a zoo's file lies."""
    return zoo.with_name(f"{zoo.stem}.lock.json")


def read_lock(path: Path) -> dict[Key, KnownFile]:
    """What a lock file says the tarballs are; nothing where there is no file.

    Raises:
        ZooError: it cannot be read, or is not as `write_lock` writes it.
    """
    try:
        content = json.loads(path.read_bytes())
        return {(name, kind): _known(entry) for name, tarballs in content.items() for kind, entry in tarballs.items()}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, TypeError, AttributeError, RecursionError) as error:
        raise ZooError(
            f"{path}: cannot be read as the lock of a zoo ({error or type(error).__name__}); restore it, or remove it "
            "and measure the tarballs anew with `zoo lock`"
        ) from error


def _known(entry: Mapping[str, object]) -> KnownFile:
    """An entry of the lock file.

    Raises:
        ValueError: it lacks a size or a sha256.
        AttributeError: it is no mapping.
    """
    size, sha256 = entry.get("size"), entry.get("sha256")
    if type(size) is not int or size < 1 or not isinstance(sha256, str) or not re.fullmatch("[0-9a-f]{64}", sha256):
        raise ValueError(f"expected size and sha256, found {entry!r:.60}")
    return KnownFile(sha256, size)


def write_lock(path: Path, zoo: Zoo, measured: Mapping[Key, Fetched]) -> tuple[Key, ...]:
    """Write what was measured into a lock file; what it has of other tarballs of the zoo stays.

    Args:
        path: the file.
        zoo: the zoo, with what the lock file has now.
        measured: the tarballs, as `measure` brings them.

    Returns:
        Those whose size or sha256 was not in the file like that before.

    Raises:
        OutputError: the file cannot be written.
    """
    content: dict[str, dict[str, dict[str, object]]] = {}
    changed = []
    for (name, kind), artifact in zoo.tarballs.items():
        found = measured.get((name, kind), artifact)
        if (found.size, found.sha256) != (artifact.size, artifact.sha256):
            changed.append((name, kind))
        if found.sha256 is not None:
            content.setdefault(name, {})[kind] = {"size": found.size, "sha256": found.sha256}
    with atomic_write(path) as stream:
        stream.write((json.dumps(content, indent=1) + "\n").encode())
    return tuple(changed)


def measure(
    zoo: Zoo, fetcher: Fetcher, names: Iterable[str] | None = None, jobs: int = 4
) -> tuple[dict[Key, Fetched], list[ConverterError]]:
    """Fetch tarballs whatever the lock file says of them, to be measured anew.

    Args:
        zoo: the zoo.
        fetcher: where to get them from.
        names: of which models, under all their names; all where None.
        jobs: downloads at a time.

    Returns:
        The tarballs that came, and why the others did not.

    Raises:
        SourceError: a name that the zoo does not have.
    """
    wanted = None if names is None else {each for name in names for each in zoo.get(name).names}
    artifacts = {
        key: replace(artifact, size=None, sha256=None)
        for key, artifact in zoo.tarballs.items()
        if wanted is None or key[0] in wanted
    }
    outcomes = dict(zip(artifacts, fetcher.try_all(list(artifacts.values()), jobs), strict=True))
    errors = [outcome for outcome in outcomes.values() if isinstance(outcome, ConverterError)]
    return {key: outcome for key, outcome in outcomes.items() if not isinstance(outcome, ConverterError)}, errors
