"""The bytes of a model's files: what a message calls them, and that they are all of one and the same file.

Files are read, never mapped: memory that belongs to a file changes, or is gone, when somebody writes to the file.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import BufferedIOBase, BytesIO
from pathlib import Path
from typing import NamedTuple

from paddle2torch.converter.support.errors import ConverterError, SourceError


class FileState(NamedTuple):
    """What a file was like when it was looked at: another one once it has been written to or replaced."""

    device: int
    inode: int
    size: int
    modified: int

    @classmethod
    def of(cls, path: Path) -> FileState:
        """The state now.

        Raises:
            SourceError: the file cannot be found.
        """
        with _reading(path):
            found = path.stat()
        return cls(found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns)


@contextmanager
def unchanged(path: Path, state: FileState | None = None) -> Iterator[None]:
    """See that a file is the same after the block as it was before; an error in the block may be due to a change, too.

    Args:
        path: the file.
        state: what it was like before, where that was noted earlier.

    Raises:
        SourceError: it was written to, replaced or removed meanwhile.
    """
    state = state or FileState.of(path)
    try:
        yield
    except ConverterError as error:
        _require(path, state, error)
        raise
    _require(path, state)


def _require(path: Path, state: FileState, cause: Exception | None = None) -> None:
    """Raise unless the file is still in that state."""
    try:
        now: FileState | None = FileState.of(path)
    except SourceError:
        now = None
    if now != state:
        change = "removed" if now is None else "written to or replaced"
        raise SourceError(f"{path}: was {change} while it was read; give it again when it is complete") from cause


@dataclass(frozen=True)
class FilePart:
    """Bytes of a file that are read when they are asked for, as long as the file is what it was.

    Attributes:
        path: of the file.
        state: of the file when it was found.
        offset: of the first byte.
        size: how many bytes.
    """

    path: Path
    state: FileState
    offset: int
    size: int

    @classmethod
    def whole(cls, path: Path) -> FilePart:
        """All of a file.

        Raises:
            SourceError: the file cannot be found.
        """
        state = FileState.of(path)
        return cls(path, state, 0, state.size)

    @contextmanager
    def stream(self) -> Iterator[BufferedIOBase]:
        """The file at the first of the bytes.

        Raises:
            SourceError: the file cannot be read, was changed since it was found, or is larger than the memory.
        """
        with unchanged(self.path, self.state), _reading(self.path), self.path.open("rb") as stream:
            stream.seek(self.offset)
            yield stream

    def read(self, count: int) -> bytes:
        """The first bytes, `count` at most; raises SourceError as `stream` does."""
        with self.stream() as stream:
            return stream.read(min(count, self.size))


@dataclass(frozen=True)
class Blob:
    """A model's file, wherever it lies: on disk or inside an archive.

    Attributes:
        name: what to call it in messages, for example `x_infer.tar:x_infer/inference.pdmodel`.
        content: its bytes in memory, or where they are to be read from.
    """

    name: str
    content: bytes | memoryview | FilePart

    @classmethod
    def open(cls, path: Path) -> Blob:
        """A file of its own, which is not yet read.

        Raises:
            SourceError: the file cannot be found.
        """
        return cls(str(path), FilePart.whole(path))

    @property
    def size(self) -> int:
        """How many bytes."""
        return self.content.size if isinstance(self.content, FilePart) else len(self.content)

    @property
    def data(self) -> memoryview:
        """All bytes, read-only; every call reads them from the file, and only who has the result keeps them in memory.

        Raises:
            SourceError: see `FilePart.stream`.
        """
        return memoryview(self.content.read(self.size) if isinstance(self.content, FilePart) else self.content)

    def head(self, count: int) -> bytes:
        """The first bytes, `count` at most; raises SourceError as `FilePart.stream` does."""
        return self.content.read(count) if isinstance(self.content, FilePart) else bytes(self.content[:count])

    @contextmanager
    def stream(self) -> Iterator[BufferedIOBase]:
        """A stream at the first byte, for `size` bytes; raises SourceError as `FilePart.stream` does."""
        if isinstance(self.content, FilePart):
            with self.content.stream() as stream:
                yield stream
        else:
            yield BytesIO(self.content)


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    """What the system raises over a file, as the error for people."""
    try:
        yield
    except OSError as error:
        raise SourceError(f"{path}: cannot be read ({error.strerror}); check the path and its permissions") from error
    except MemoryError as error:
        raise SourceError(f"{path}: is larger than the memory; is it the model?") from error
