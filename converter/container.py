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
import unicodedata
import zipfile
import zlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from io import FileIO
from pathlib import Path

from converter import tar
from converter.blob import Blob
from converter.errors import ArchiveError, SourceError

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
        read: the bytes of the named files.
    """

    path: Path
    separator: str
    sizes: dict[str, int]
    read: Callable[[Iterable[str]], dict[str, memoryview]]

    def blobs(self, names: Iterable[str]) -> dict[str, Blob]:
        """The named files, in messages called after the container and themselves."""
        return {
            name: Blob(f"{self.path.name}{self.separator}{name}", data) for name, data in self.read(list(names)).items()
        }


def open_container(path: Path) -> Container:
    """Open a folder, or an archive by what its first bytes say (whatever it is called).

    Raises:
        ArchiveError: the archive is broken or refused, or the file is no archive.
        SourceError: the path cannot be read, or the folder is no model's.
    """
    if path.is_dir():
        return _folder(path)
    start = bytes(Blob.open(path).data[: tar.BLOCK])
    if start.startswith(b"\x1f\x8b"):
        return _tar_gz(path)
    if start.startswith((b"PK\x03\x04", b"PK\x05\x06")):
        return _zip(path)
    if tar.is_header(start):
        return _tar(path)
    raise ArchiveError(f"{path}: neither a tar, a tar.gz nor a zip; give an archive, a folder or a .pdparams file")


# ---- names -------------------------------------------------------------------------------------------------------


def _normalised(path: Path, names: Sequence[str]) -> list[str]:
    """The names as they would be unpacked; refused where one is unsafe or two would be the same file."""
    if len(names) > MAX_ENTRIES:
        raise ArchiveError(f"{path}: refused: more than {MAX_ENTRIES} entries; a model has a handful")
    taken: dict[str, str] = {}
    result = []
    for name in names:
        if problem := _unsafe(name):
            raise ArchiveError(
                f"{path}: refused: its member {name[:200]!a} {problem}; take the archive from a source you trust"
            )
        plain = "/".join(part for part in name.replace("\\", "/").split("/") if part not in ("", "."))
        # What a file system that ignores case or normalises Unicode takes for one name.
        other = taken.setdefault(unicodedata.normalize("NFKC", plain).casefold(), name)
        if other is not name:
            raise ArchiveError(
                f"{path}: refused: its members {other!a} and {name!a} would be one file; take the archive from a source you trust"
            )
        result.append(plain)
    return result


def _unsafe(name: str) -> str | None:
    """What is wrong with a member's name, if anything."""
    parts = name.replace("\\", "/").split("/")
    if len(name) > MAX_NAME:
        return f"has a name of more than {MAX_NAME} characters"
    if not name.isprintable():
        return "has control characters in its name"
    if parts[0] == "" or re.match(r"[A-Za-z]:", name):
        return "has an absolute path" if name else "has no name"
    if ".." in parts:
        return "leads out of the archive ('..')"
    if all(part in ("", ".") for part in parts):
        return "has no name"
    return None


def _unpacked_limit(path: Path) -> int:
    return min(MAX_UNPACKED, max(ALWAYS_UNPACKED, MAX_RATIO * path.stat().st_size))


# ---- tar ---------------------------------------------------------------------------------------------------------


def _members(path: Path, stream: object, limit: int) -> dict[str, tar.Member]:
    """The files of a tar by their normalised names."""
    files: list[tar.Member] = []
    try:
        for count, member in enumerate(tar.tar_members(stream, limit)):
            if count >= MAX_ENTRIES:
                raise tar.TarError(f"refused: more than {MAX_ENTRIES} entries; a model has a handful")
            if member.name.endswith("/"):
                if (problem := _unsafe(member.name)) and member.name.strip("./"):
                    raise tar.TarError(f"refused: its folder {member.name[:200]!a} {problem}")
            else:
                files.append(member)
    except tar.TarError as problem:
        raise ArchiveError(f"{path}: {problem}") from problem
    return dict(zip(_normalised(path, [member.name for member in files]), files, strict=True))


def _tar(path: Path) -> Container:
    """An uncompressed tar: its members are views of the mapped file."""
    data = Blob.open(path).data
    with path.open("rb") as stream:
        members = _members(path, stream, len(data))

    def read(names: Iterable[str]) -> dict[str, memoryview]:
        found = {name: members[name] for name in names}
        return {name: data[member.offset : member.offset + member.size] for name, member in found.items()}

    return Container(path, ":", {name: member.size for name, member in members.items()}, read)


def _tar_gz(path: Path) -> Container:
    """A compressed tar: gone through once for the headers and the checksum, once more for the members that are wanted."""
    limit = _unpacked_limit(path)
    try:
        with gzip.open(path) as stream:
            members = _members(path, stream, limit)
            while stream.read(_CHUNK):  # to the end, where the checksum is
                if stream.tell() > limit:
                    raise ArchiveError(
                        f"{path}: refused: unpacks to more than {limit} bytes, far more than a model of its size"
                    )
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise _broken(path, error) from error

    def read(names: Iterable[str]) -> dict[str, memoryview]:
        found = {}
        with gzip.open(path) as stream:
            for name in sorted(names, key=lambda name: members[name].offset):
                stream.seek(members[name].offset)
                found[name] = memoryview(stream.read(members[name].size))
        return found

    return Container(path, ":", {name: member.size for name, member in members.items()}, read)


def _broken(path: Path, error: Exception) -> ArchiveError:
    return ArchiveError(f"{path}: broken or cut short ({error}); download it again")


# ---- zip ---------------------------------------------------------------------------------------------------------


class _Zip(FileIO):
    """A zip's file while its directory is read: the standard library takes that into memory whole, whatever its size."""

    largest_read = MAX_ENTRIES * 512

    def read(self, size: int | None = -1) -> bytes:
        if size is not None and size > self.largest_read:
            raise zipfile.BadZipFile(f"a directory of {size} bytes, where a model's takes a few hundred")
        return super().read(size)


def _zip(path: Path) -> Container:
    limit = _unpacked_limit(path)
    try:
        with _Zip(path) as stream, zipfile.ZipFile(stream) as archive:
            entries = [entry for entry in archive.infolist() if not entry.is_dir()]
    except (zipfile.BadZipFile, ValueError, NotImplementedError, OSError) as error:
        raise _broken(path, error) from error
    for entry in entries:
        if problem := _unfit(entry):
            raise ArchiveError(f"{path}: refused: its member {entry.orig_filename[:200]!a} is {problem}")
    if (total := sum(entry.file_size for entry in entries)) > limit:
        raise ArchiveError(f"{path}: refused: unpacks to {total} bytes, far more than a model of its size")
    names = _normalised(path, [entry.orig_filename for entry in entries])
    members = dict(zip(names, entries, strict=True))

    def read(wanted: Iterable[str]) -> dict[str, memoryview]:
        try:
            with zipfile.ZipFile(path) as archive:
                return {name: memoryview(archive.read(members[name])) for name in wanted}
        except (zipfile.BadZipFile, EOFError, zlib.error, ValueError, NotImplementedError) as error:
            raise _broken(path, error) from error

    return Container(path, ":", {name: entry.file_size for name, entry in members.items()}, read)


def _unfit(entry: zipfile.ZipInfo) -> str | None:
    """What a zip's member is that it should not be, if anything."""
    kind = stat.S_IFMT(entry.external_attr >> 16)
    if kind not in (0, stat.S_IFREG):
        return "a symbolic link" if kind == stat.S_IFLNK else "neither a file nor a folder"
    if entry.flag_bits & 1:
        return "encrypted; unpack it yourself and give the folder"
    if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        return (
            f"compressed by method {entry.compress_type}, and only 'stored' and 'deflated' are read; unpack it yourself"
        )
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

    def read(names: Iterable[str]) -> dict[str, memoryview]:
        return {name: Blob.open(path / name).data for name in names}

    return Container(path, "/", dict(sorted(sizes.items())), read)
