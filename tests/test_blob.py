"""Files that are read: their bytes are in memory of our own, and all of one and the same file, or there is an error."""

from __future__ import annotations

import gzip
import io
import os
import sys
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import pytest

from paddle2torch.converter.sources import Source, load_source
from paddle2torch.converter.support.blob import Blob, FilePart, FileState, unchanged
from paddle2torch.converter.support.digests import sha256_of
from paddle2torch.converter.support.errors import ConverterError, FormatError, SourceError
from paddle2torch.converter.zoo.catalog import load_zoo
from paddle2torch.converter.zoo.download import Fetcher
from support.graphs import EMBEDDED as FOLDER

CONTENT = bytes(range(256)) * 40


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "file"
    path.write_bytes(CONTENT)
    return path


# ---- reading -----------------------------------------------------------------------------------------------------


def test_bytes_come_from_memory_or_from_a_part_of_a_file(file: Path) -> None:
    part = FilePart(file, FileState.of(file), 1000, 500)
    for content in (CONTENT[1000:1500], memoryview(CONTENT)[1000:1500], part):
        blob = Blob("x", content)
        assert (blob.size, bytes(blob.data), blob.head(3)) == (500, CONTENT[1000:1500], CONTENT[1000:1003])
        assert blob.head(10_000) == bytes(blob.data)
        assert blob.data.readonly
        with blob.stream() as stream:
            assert stream.read(500) == CONTENT[1000:1500]
    whole = Blob.open(file)
    assert (whole.name, whole.size, bytes(whole.data)) == (str(file), len(CONTENT), CONTENT)


def test_a_file_that_cannot_be_read_is_one_error(tmp_path: Path, file: Path) -> None:
    with pytest.raises(SourceError, match=r"nowhere: cannot be read \(No such file or directory\); check the path"):
        Blob.open(tmp_path / "nowhere")
    with pytest.raises(SourceError, match="file: is larger than the memory"):
        FilePart(file, FileState.of(file), 0, 1 << 60).read(1 << 60)


# ---- files that change -------------------------------------------------------------------------------------------


def cut(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 3)


def grow(path: Path) -> None:
    with path.open("ab") as stream:
        stream.write(b"more")


def overwrite(path: Path) -> None:
    """Other content of the same length, in place."""
    content = path.read_bytes()[::-1]
    with path.open("r+b") as stream:
        stream.write(content)
    os.utime(path, ns=(0, 0))  # another time, on file systems whose clock is slow, too


def replace(path: Path) -> None:
    """Another file of the same length and time."""
    found = path.stat()
    path.with_suffix(".new").write_bytes(path.read_bytes()[::-1])
    os.utime(path.with_suffix(".new"), ns=(found.st_atime_ns, found.st_mtime_ns))
    path.with_suffix(".new").replace(path)


CHANGES = (cut, grow, overwrite, replace, Path.unlink)


@pytest.mark.parametrize("change", CHANGES)
def test_a_file_that_changed_since_it_was_found_is_an_error(change: Callable[[Path], None], file: Path) -> None:
    blob = Blob.open(file)
    change(file)
    said = "removed" if change is Path.unlink else "written to or replaced"

    def read_from_the_stream() -> None:
        with blob.stream() as stream:
            stream.read(1)

    for read in (lambda: blob.data, lambda: blob.head(1), read_from_the_stream):
        with pytest.raises(SourceError, match=f"file: was {said} while it was read; give it again when it is complete"):
            read()


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_explains_the_errors_that_it_causes(change: Callable[[Path], None], file: Path) -> None:
    with pytest.raises(SourceError, match="while it was read") as caught, unchanged(file):
        change(file)
        raise FormatError("x", "is damaged")
    assert isinstance(caught.value.__cause__, FormatError)
    with pytest.raises(FormatError), unchanged(FOLDER / "embedded_dict.txt"):
        raise FormatError("x", "is damaged")


# ---- models that change while they are read --------------------------------------------------------------------------


class Saboteur:
    """Does something to a file just before it is opened for the n-th time; there is no way to remove an audit hook."""

    def __init__(self) -> None:
        self._path, self._left, self._action = "", 0, lambda: None
        sys.addaudithook(self._hook)

    def arm(self, path: Path, times: int, action: Callable[[], None]) -> None:
        self._path, self._left, self._action = str(path), times, action

    @property
    def done(self) -> bool:
        return self._left == 0

    def _hook(self, event: str, arguments: tuple) -> None:
        if self._left and event == "open" and str(arguments[0]) == self._path:
            self._left -= 1
            if not self._left:
                self._action()


@pytest.fixture(scope="module")
def saboteur() -> Saboteur:
    return Saboteur()


def packed(kind: str, folder: Path, form: str, changed: bool = False) -> Path:
    """The embedded model in one of the forms that are read; with another weight, where that is asked for."""
    files = {}
    with tarfile.open(FOLDER / f"embedded_rec_{kind}.tar") as tar:
        for member in filter(tarfile.TarInfo.isfile, tar):
            files[Path(member.name).name] = tar.extractfile(member).read()  # type: ignore[union-attr]
    if changed:
        files = {name: other_weights(name, content) for name, content in files.items()}
    folder.mkdir(parents=True, exist_ok=True)
    if form == "folder":
        for name, content in files.items():
            (folder / name).write_bytes(content)
        return folder
    buffer = io.BytesIO()
    if form == "zip":
        with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
            for name, content in files.items():
                archive.writestr(name, content)
    else:
        with tarfile.open(fileobj=buffer, mode="w") as tar:
            for name, content in files.items():
                info = tarfile.TarInfo(name)
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
    path = folder / f"model.{form}"
    path.write_bytes(gzip.compress(buffer.getvalue(), 1) if form == "tar.gz" else buffer.getvalue())
    return path


def other_weights(name: str, content: bytes) -> bytes:
    """A file with one weight changed, of the same length."""
    if not name.endswith((".pdiparams", ".pdparams")):
        return content
    at = len(content) * 2 // 3
    return content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :]


def load(path: Path) -> Source:
    return load_source(str(path), load_zoo(), Fetcher(offline=True))


def tensors_of(source: Source) -> dict[str, bytes]:
    return {name: array.tobytes() for name, array in source.tensors.items()}


def swapped(path: Path, other: Path) -> Callable[[], None]:
    """Puts another file in the place of a file, as a download or a training does that ends."""

    def swap() -> None:
        path.with_suffix(".new").write_bytes(other.read_bytes())
        path.with_suffix(".new").replace(path)

    return swap


def overwritten(path: Path, other: Path) -> Callable[[], None]:
    """Writes another file's bytes into a file."""

    def write() -> None:
        content = other.read_bytes()
        with path.open("r+b") as stream:
            stream.write(content)
            stream.truncate()
        os.utime(path, ns=(0, 0))

    return write


@pytest.mark.parametrize("form", ["tar", "tar.gz", "zip", "folder"])
@pytest.mark.parametrize("kind", ["train", "infer"])
@pytest.mark.parametrize("how", ["cut", "swapped", "overwritten"])
def test_a_model_that_changes_while_it_is_read_is_an_error_or_one_of_both(
    how: str, kind: str, form: str, saboteur: Saboteur, tmp_path: Path
) -> None:
    """At every moment at which its file is opened."""
    weights = {"train": "best_accuracy.pdparams", "infer": "inference.pdiparams"}[kind]
    other = packed(kind, tmp_path / "other", form, changed=True)
    path, wanted = packed(kind, tmp_path / "model", form), []
    for each in (path, other):
        source = load(each)
        wanted.append((tensors_of(source), source.sha256))
    assert wanted[0][0] != wanted[1][0]
    file, its_other = (path / weights, other / weights) if form == "folder" else (path, other)
    pristine = file.read_bytes()
    for times in range(1, 20):
        file.write_bytes(pristine)
        change = {"cut": lambda file, other: lambda: cut(file), "swapped": swapped, "overwritten": overwritten}[how]
        saboteur.arm(file, times, change(file, its_other))
        try:
            source = load(path)
        except ConverterError as error:
            assert "\n" not in str(error)
            continue
        assert (tensors_of(source), source.sha256) == wanted[0 if not saboteur.done else 1], (times, how)
        if not saboteur.done:
            saboteur.arm(file, 0, lambda: None)
            break
    assert times > 1


def test_a_model_of_the_zoo_is_the_one_that_was_hashed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    zoo, name = load_zoo(), "ch_PP-OCRv3_rec"
    path = tmp_path / "mirror" / urlsplit(zoo.get(name).artifacts["trained"].url).path.lstrip("/")
    path.parent.mkdir(parents=True)
    first, second = packed("train", tmp_path / "a", "tar"), packed("train", tmp_path / "b", "tar", changed=True)
    path.write_bytes(first.read_bytes())
    fetcher = Fetcher(tmp_path / "cache", mirror=tmp_path / "mirror")
    assert load_source(name, zoo, fetcher, "trained").sha256 == sha256_of(first)

    def then_swapped(hashed: Path) -> str:
        found = sha256_of(hashed)
        swapped(path, second)()
        return found

    monkeypatch.setattr("paddle2torch.converter.zoo.download.sha256_of", then_swapped)
    with pytest.raises(SourceError, match="was written to or replaced while it was read"):
        load_source(name, zoo, fetcher, "trained")


@pytest.mark.parametrize("form", ["tar", "folder"])
@pytest.mark.parametrize("kind", ["train", "infer"])
def test_what_was_read_stays_whatever_becomes_of_the_file(kind: str, form: str, tmp_path: Path) -> None:
    path = packed(kind, tmp_path / "model", form)
    source, before = load(path), tensors_of(load(path))
    for file in filter(Path.is_file, [path, *tmp_path.rglob("*")]):
        os.truncate(file, 0)
    assert tensors_of(source) == before
    if Path("/proc/self/maps").exists():
        assert str(tmp_path) not in Path("/proc/self/maps").read_text()
    assert all(isinstance(array, np.ndarray) for array in source.tensors.values())
