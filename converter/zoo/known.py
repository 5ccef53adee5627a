"""`model_zoo.known.json`: files of released models as others have seen them, and what a file at hand is by them.

    finding = find_weights(files, ("PP-OCRv4_mobile_det", "ch_PP-OCRv4_det"), tensors)
    finding.status, finding.told  # "released", "inference.pdiparams is that of the released PP-OCRv4_mobile_det, …"

Nothing there says that a file is good, only that others have the same; what is not there is unknown, not wrong. The
file lies beside `model_zoo.yaml`, is written by `scripts.fixtures.known_files`, and is read when a file is first looked
up.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from paddle2torch.converter.support.errors import ZooError

if TYPE_CHECKING:
    import numpy as np

    from paddle2torch.architectures.records import KnownRelease
    from paddle2torch.converter.containers.archive import ModelFiles
    from paddle2torch.converter.support.blob import Blob

_HEX = {"sha256": 64, "git": 40, "tensors": 64}
_PART = 1 << 20  # bytes that are hashed at a time
_NEAR = 0.1  # of a file's size; the same tensors exported again differ by names and padding
_MONTH = re.compile(r"\d{4}-\d{2}")


@dataclass(frozen=True)
class Seen:
    """A revision of a released file, or of one that has a released file's name and is something else.

    Attributes:
        model: under which of its names.
        file: as it is called: `inference.pdiparams`, `NAME_infer.tar`.
        sha256: of the file, in lower-case hex.
        git: its id as a git blob, in lower-case hex.
        size: its bytes.
        tensors: of weights, the digest of their values (see `paddle2torch.architectures.digest.digest_of_values`).
        seen_from: month since which others have it, as 2025-05.
        sources: how many that do not know of each other.
        note: what else is known.
        instead: what it is, where it is not the released file.
    """

    model: str
    file: str
    sha256: str | None = None
    git: str | None = None
    size: int | None = None
    tensors: str | None = None
    seen_from: str | None = None
    sources: int = 1
    note: str | None = None
    instead: str | None = None

    @property
    def told(self) -> str:
        """Where and when it was seen, as the end of a sentence."""
        since = f" since {self.seen_from}" if self.seen_from else ""
        return f"seen{since} in {self.sources} {'source' if self.sources == 1 else 'sources'}"

    def differs(self, size: int) -> bool:
        """Whether a file of that size, which has none of the known hashes, is sure to be another than this."""
        return self.sha256 is not None or self.git is not None or self.size not in (None, size)

    def is_near(self, size: int) -> bool:
        """Whether a file of that size may hold the same tensors."""
        return self.size is None or abs(size - self.size) <= _NEAR * self.size


@dataclass(frozen=True)
class Finding:
    """What a file is by the known ones.

    Attributes:
        file: what it is called.
        status: "released"; "exported again", where the values are those of a released file; "something else", where
            others have it and know that it is not what its name says; "different", where releases of this file are
            known and it is none of them; "unknown".
        seen: the revision that it is, or the latest of those that it is not.
        count: how many revisions it was compared with, where it is none of them.
    """

    file: str
    status: str
    seen: Seen | None = None
    count: int = 0

    @property
    def told(self) -> str:
        """The finding for a person, one line."""
        if self.seen is None:
            return f"{self.file} is unknown: it is none of the released files on record"
        model = self.seen.model
        if self.status == "released":
            note = f" ({self.seen.note})" if self.seen.note else ""
            return f"{self.file} is that of the released {model}, {self.seen.told}{note}"
        if self.status == "exported again":
            return f"{self.file} is another export of the released {model}, {self.seen.told}: its tensors are the same"
        if self.status == "something else":
            return f"{self.file} is known, and not the released one of {model}: {self.seen.instead}"
        known = "the one known release" if self.count == 1 else f"each of the {self.count} known releases"
        return f"{self.file} is different from {known} of {model} ({self.seen.told})"

    @property
    def record(self) -> KnownRelease:
        """The finding for the metadata."""
        from paddle2torch.architectures.records import KnownRelease

        if self.seen is None:
            return KnownRelease(self.status)
        return KnownRelease(self.status, self.seen.model, self.seen.seen_from, self.seen.sources)


@dataclass(frozen=True)
class KnownFiles:
    """All that is on record."""

    revisions: tuple[Seen, ...] = ()

    @cached_property
    def _by_hash(self) -> dict[str, list[Seen]]:
        found: dict[str, list[Seen]] = {}
        for each in self.revisions:
            for value in filter(None, (each.sha256, each.git, each.tensors)):
                found.setdefault(value, []).append(each)
        return found

    def called(self, file: str) -> tuple[Seen, ...]:
        """The released revisions of a file by its name alone, which is that of a whole tarball or checkpoint."""
        return tuple(each for each in self.revisions if each.file == file and each.instead is None)

    def find(self, blob: Blob, names: Sequence[str], tensors: Iterable[np.ndarray] | None = None) -> Finding:
        """What a file is.

        Args:
            blob: the file.
            names: of the model that it should be of; empty where that is not known.
            tensors: of weights, the arrays that it holds, to be compared where its bytes are not on record.
        """
        file = blob.name.replace("\\", "/").rpartition("/")[2].rpartition(":")[2]
        for hash_of in (_sha256, _git):
            if same := self._by_hash.get(hash_of(blob)):
                seen = _best(same, names)
                return Finding(file, "something else" if seen.instead else "released", seen)
        compared = any(each.tensors and each.is_near(blob.size) for each in self.revisions)
        if tensors is not None and compared and (same := self._by_hash.get(digest_of_arrays(tensors))):
            return Finding(file, "exported again", _best(same, names))
        others = [
            each for each in self.revisions if each.model in names and not each.instead and _alike(each.file, file)
        ]
        if others and all(each.differs(blob.size) for each in others):
            return Finding(file, "different", max(others, key=lambda each: each.seen_from or ""), len(others))
        return Finding(file, "unknown")


def known_path(zoo: Path) -> Path:
    """Where the known files of a zoo's file lie."""
    return zoo.with_name(f"{zoo.stem}.known.json")


@cache
def known_files() -> KnownFiles:
    """What is on record, read once.

    Raises:
        ZooError: see `read_known`.
    """
    from paddle2torch.converter.zoo.catalog import zoo_path

    return read_known(known_path(zoo_path()))


def read_known(path: Path) -> KnownFiles:
    """Read the known files; none where there is no file.

    Raises:
        ZooError: it cannot be read, or is not as `write_known` writes it.
    """
    try:
        content = json.loads(path.read_bytes())
        return KnownFiles(
            tuple(
                _read(model, file, entry)
                for model, files in content.items()
                for file, entries in files.items()
                for entry in entries
            )
        )
    except FileNotFoundError:
        return KnownFiles()
    except (OSError, ValueError, TypeError, AttributeError, RecursionError) as error:
        raise ZooError(
            f"{path}: cannot be read as the known files of a zoo ({error or type(error).__name__}); restore it, or "
            "remove it and do without"
        ) from error


def known_text(revisions: Iterable[Seen]) -> str:
    """The content of the file: a revision a line."""
    models: dict[str, dict[str, list[str]]] = {}
    for each in revisions:
        entry = {key: value for key, value in vars(each).items() if key not in ("model", "file") and value is not None}
        line = "   " + json.dumps(entry, ensure_ascii=False)
        models.setdefault(each.model, {}).setdefault(each.file, []).append(line)
    blocks = []
    for model, files in models.items():
        lists = [f"  {json.dumps(file)}: [\n" + ",\n".join(lines) + "\n  ]" for file, lines in files.items()]
        blocks.append(f" {json.dumps(model)}: {{\n" + ",\n".join(lists) + "\n }")
    return "{\n" + ",\n".join(blocks) + "\n}\n"


def _read(model: str, file: str, entry: Mapping[str, Any]) -> Seen:
    """One revision.

    Raises:
        ValueError: a value is of the wrong kind, or nothing tells the file.
        TypeError: a key is unknown, or the entry is no mapping.
    """
    seen = Seen(model, file, **entry)
    texts = all(isinstance(each, str | None) for each in (seen.note, seen.instead))
    hashes = [(getattr(seen, key), length) for key, length in _HEX.items() if getattr(seen, key) is not None]
    numbers = [seen.sources, *([] if seen.size is None else [seen.size])]
    if not (
        texts
        and all(isinstance(value, str) and re.fullmatch(f"[0-9a-f]{{{length}}}", value) for value, length in hashes)
        and all(type(value) is int and value >= 1 for value in numbers)
        and (seen.seen_from is None or _MONTH.fullmatch(seen.seen_from))
        and (seen.sha256 or seen.git or seen.size)
    ):
        raise ValueError(f"expected sha256, git or size of {file} of {model}, found {entry!r:.80}")
    return seen


def find_weights(
    files: ModelFiles, names: Sequence[str], tensors: Iterable[np.ndarray], known: KnownFiles | None = None
) -> Finding:
    """What the file is that holds a model's weights.

    Args:
        files: the model's.
        names: of the zoo's model that it should be; empty where that is not known.
        tensors: that it holds.
        known: what is on record; all where None.
    """
    blob = files.checkpoint or files.parameters
    assert blob is not None
    return (known or known_files()).find(blob, names, tensors)


def find_others(files: ModelFiles, names: Sequence[str], known: KnownFiles | None = None) -> tuple[Finding, ...]:
    """What the files are that lie beside a model's weights; see `find_weights`."""
    record = known or known_files()
    beside = [blob for blob in (files.program, files.pir, files.info, files.settings) if blob is not None]
    return tuple(record.find(blob, names) for blob in beside)


def _alike(known: str, file: str) -> bool:
    """Whether a known file is of the kind that a file at hand is; checkpoints are called this and that."""
    if file.endswith(".pdparams"):
        return known.endswith(".pdparams") and not known.startswith("._")
    return known == file


def _best(same: Sequence[Seen], names: Sequence[str]) -> Seen:
    """Of revisions with the same content, the one of the model that is meant, first under the name that is."""
    order = {name: place for place, name in enumerate(names)}
    return min(same, key=lambda each: (each.instead is not None, order.get(each.model, len(order))))


def _sha256(blob: Blob) -> str:
    return _hashed(blob, hashlib.sha256())


def _git(blob: Blob) -> str:
    return _hashed(blob, hashlib.sha1(b"blob %d\0" % blob.size, usedforsecurity=False))


def _hashed(blob: Blob, digest: hashlib._Hash) -> str:
    left = blob.size
    with blob.stream() as stream:  # which goes on to the end of an archive
        while left and (part := stream.read(min(left, _PART))):
            digest.update(part)
            left -= len(part)
    return digest.hexdigest()


def digest_of_arrays(arrays: Iterable[np.ndarray]) -> str:
    """The digest by which weights are recognised in another export; see `Seen.tensors`."""
    import numpy as np
    import torch

    from paddle2torch.architectures.digest import digest_of_values

    # One by one, because arrays of a file may not be written to, which PyTorch warns of.
    return digest_of_values(torch.from_numpy(np.array(array)) for array in arrays)
