"""What holds a model's files: a tar, a tar.gz, a zip or a folder, behind one interface.

Archives come from the internet. Their names are checked as if they were to be unpacked, though nothing is: absolute
paths, `..`, links, devices and names that would overwrite each other are refused. Counts and sizes are bounded from the
headers, before a member is read.
"""

from __future__ import annotations

import gzip
import os
import re
import stat
import struct
import unicodedata
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from io import FileIO
from pathlib import Path

from paddle2torch.converter.containers import tar
from paddle2torch.converter.support.blob import Blob, FilePart, FileState
from paddle2torch.converter.support.errors import ArchiveError, SourceError

MAX_ENTRIES = 10_000
MAX_NAME = 1024
MAX_UNPACKED = 8 << 30
ALWAYS_UNPACKED = 64 << 20
MAX_RATIO = 100
"""A compressed archive may hold ALWAYS_UNPACKED bytes, or MAX_RATIO times its own size, and never above MAX_UNPACKED.
Trained weights hardly compress at all."""

_CHUNK = 1 << 20


@dataclass(frozen=True)
class Container:
    """An archive or folder.

    Attributes:
        path: where it lies.
        separator: what stands between the container's name and a member's in messages.
        sizes: bytes of each file in it by name, with forward slashes.
        read: the contents of the named files: in memory, or where they lie in a file.
    """

    path: Path
    separator: str
    sizes: dict[str, int]
    read: Callable[[Iterable[str]], Mapping[str, bytes | FilePart]]

    def blobs(self, names: Iterable[str]) -> dict[str, Blob]:
        """The named files, in messages called after the container and themselves."""
        return {
            name: Blob(f"{self.path.name}{self.separator}{name}", content)
            for name, content in self.read(list(names)).items()
        }


def open_container(path: Path) -> Container:
    """Open a folder, or an archive by what its first bytes say (whatever it is called).

    Raises:
        ArchiveError: the archive is broken or refused, or the file is no archive.
        SourceError: the path cannot be read, or the folder is no model's.
    """
    if path.is_dir():
        return _folder(path)
    start = Blob.open(path).head(tar.BLOCK)
    if start.startswith(b"\x1f\x8b"):
        return _tar_gz(path)
    if start.startswith((b"PK\x03\x04", b"PK\x05\x06")):
        return _zip(path)
    if tar.is_header(start):
        return _tar(path)
    raise ArchiveError(f"{path}: neither a tar, a tar.gz nor a zip; give an archive, a folder or a .pdparams file")


# ---- names -------------------------------------------------------------------------------------------------------


def _normalised(path: Path, names: Sequence[str]) -> list[str]:
    """The files' names as they would be unpacked; refused where one is unsafe or two would be the same file."""
    taken: dict[str, str] = {}
    result = []
    for name in names:
        _refuse_unsafe(path, name)
        plain = "/".join(part for part in name.replace("\\", "/").split("/") if part not in ("", "."))
        # What a file system that ignores case or composes Unicode takes for one name.
        other = taken.setdefault(unicodedata.normalize("NFKC", plain).casefold(), name)
        if not plain:
            raise _refused(path, f"its member {name!a} has no name")
        if other is not name:
            raise _refused(path, f"its members {other!a} and {name!a} would be one file")
        result.append(plain)
    return result


def _refuse_unsafe(path: Path, name: str) -> None:
    """Refuse a member's or a folder's name that would lead out of the archive, or lie to the reader of a message."""
    parts = name.replace("\\", "/").split("/")
    if len(name) > MAX_NAME:
        raise _refused(path, f"a member's name has {len(name)} characters")
    if not name.isprintable():
        raise _refused(path, f"its member {name!a} has control characters in its name")
    if parts[0] == "" or re.match(r"[A-Za-z]:", name):
        raise _refused(path, f"its member {name!a} has an absolute path")
    if ".." in parts:
        raise _refused(path, f"its member {name!a} leads out of the archive")


def _refused(path: Path, problem: str) -> ArchiveError:
    return ArchiveError(f"{path}: refused: {problem}; take the archive from a source you trust")


def _broken(path: Path, error: Exception) -> ArchiveError:
    return ArchiveError(f"{path}: broken or cut short ({error}); download it again")


def _unpacked_limit(path: Path) -> int:
    return min(MAX_UNPACKED, max(ALWAYS_UNPACKED, MAX_RATIO * path.stat().st_size))


# ---- tar ---------------------------------------------------------------------------------------------------------


def _members(path: Path, stream: tar.Stream, limit: int) -> dict[str, tar.Member]:
    """The files of a tar by their normalised names."""
    files: list[tar.Member] = []
    try:
        for member in tar.tar_members(stream, limit, MAX_ENTRIES):
            if member.name.endswith("/"):
                _refuse_unsafe(path, member.name)
            else:
                files.append(member)
    except tar.TarError as problem:
        raise ArchiveError(f"{path}: {problem}") from problem
    return dict(zip(_normalised(path, [member.name for member in files]), files, strict=True))


def _tar(path: Path) -> Container:
    """An uncompressed tar: its members are parts of the file."""
    state = FileState.of(path)
    with path.open("rb") as stream:
        members = _members(path, stream, state.size)

    def read(names: Iterable[str]) -> dict[str, FilePart]:
        return {name: FilePart(path, state, members[name].offset, members[name].size) for name in names}

    return Container(path, ":", {name: member.size for name, member in members.items()}, read)


def _tar_gz(path: Path) -> Container:
    """A compressed tar: gone through once for headers and checksum, and once more for the members that are wanted."""
    limit = _unpacked_limit(path)
    with _gzip_errors(path), gzip.open(path) as stream:
        members = _members(path, stream, limit)
        while stream.read(_CHUNK):  # to the end, where the checksum is
            if stream.tell() > limit:
                raise _refused(path, f"it unpacks to more than {limit} bytes, far more than a model of its size")

    def read(names: Iterable[str]) -> dict[str, bytes]:
        found = {}
        with _gzip_errors(path), gzip.open(path) as stream:
            for name in sorted(names, key=lambda name: members[name].offset):
                stream.seek(members[name].offset)
                found[name] = stream.read(members[name].size)
        return found

    return Container(path, ":", {name: member.size for name, member in members.items()}, read)


@contextmanager
def _gzip_errors(path: Path) -> Iterator[None]:
    """What the standard library raises over broken gzip files, as the one error for people."""
    try:
        yield
    except (EOFError, zlib.error, OSError) as error:
        raise _broken(path, error) from error


# ---- zip ---------------------------------------------------------------------------------------------------------


class _Directory(FileIO):
    """A zip while its directory is read, which the standard library takes into memory whole, whatever its size."""

    def read(self, size: int | None = -1) -> bytes:
        if size is not None and size > MAX_ENTRIES * 512:
            raise zipfile.BadZipFile(f"a directory of {size} bytes, where a model's takes a few hundred")
        return super().read(-1 if size is None else size)


def _zip(path: Path) -> Container:
    """A zip: its members are unpacked into memory when they are wanted."""
    limit = _unpacked_limit(path)
    with _zip_errors(path), _Directory(path) as stream, zipfile.ZipFile(stream) as archive:
        entries = archive.infolist()
    if len(entries) > MAX_ENTRIES:
        raise _refused(path, f"more than {MAX_ENTRIES} entries; a model has a handful")
    for entry in entries:
        _refuse_unsafe(path, entry.orig_filename)
        if problem := _unfit(entry):
            raise ArchiveError(f"{path}: refused: its member {entry.filename!a} is {problem}")
    files = [entry for entry in entries if not entry.is_dir()]
    if (total := sum(entry.file_size for entry in files)) > limit:
        raise _refused(path, f"it unpacks to {total} bytes, far more than a model of its size")
    members = dict(zip(_normalised(path, [entry.orig_filename for entry in files]), files, strict=True))

    def read(names: Iterable[str]) -> dict[str, bytes]:
        found = {}
        with _zip_errors(path), zipfile.ZipFile(path) as archive:
            for name in names:
                with archive.open(members[name]) as member:
                    # With a size given, no more is inflated, whatever the stream would yield.
                    found[name] = member.read(members[name].file_size)
                if len(found[name]) != members[name].file_size:
                    raise zipfile.BadZipFile(f"{name} ends early")
        return found

    return Container(path, ":", {name: entry.file_size for name, entry in members.items()}, read)


@contextmanager
def _zip_errors(path: Path) -> Iterator[None]:
    """What the standard library raises over broken zips, as the one error for people."""
    try:
        yield
    except (zipfile.BadZipFile, EOFError, zlib.error, struct.error, ValueError, NotImplementedError, OSError) as error:
        raise _broken(path, error) from error


def _unfit(entry: zipfile.ZipInfo) -> str | None:
    """What a zip's member is that it should not be, if anything."""
    kind = stat.S_IFMT(entry.external_attr >> 16)
    if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
        return "a symbolic link" if kind == stat.S_IFLNK else "neither a file nor a folder"
    if entry.flag_bits & 1:
        return "encrypted; unpack it yourself and give the folder"
    if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        return f"compressed by method {entry.compress_type}; unpack it yourself and give the folder"
    return None


# ---- folder ------------------------------------------------------------------------------------------------------


def _folder(path: Path) -> Container:
    """A folder with all that is below it; linked folders are not entered."""
    sizes: dict[str, int] = {}
    for folder, _, files in os.walk(path):
        for file in (Path(folder) / name for name in files):
            if file.is_file():
                sizes[file.relative_to(path).as_posix()] = file.stat().st_size
        if len(sizes) > MAX_ENTRIES:
            raise SourceError(f"{path}: more than {MAX_ENTRIES} files; give the model's own folder")

    def read(names: Iterable[str]) -> dict[str, FilePart]:
        return {name: FilePart.whole(path / name) for name in names}

    return Container(path, "/", dict(sorted(sizes.items())), read)
