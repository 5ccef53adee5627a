"""A strict reader of tar files: names, offsets and sizes of the members, nothing else.

The standard library's reader is made to accept and to unpack as much as it can; versions in use hang on negative sizes
and take exponential time over crafted headers. Here only what a model's tarball can hold passes (files and folders, in
the V7, ustar, GNU and pax variants), and no number is believed before it is checked. Links, devices, sparse files and
the rest are refused by name.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple, Protocol

BLOCK = 512
_ZEROS = bytes(BLOCK)
_LARGEST_EXTENSION = 64 * 1024
"""Bytes of a pax header or a GNU long name; a file name is never near this."""

_REFUSED = {
    b"1": "a hard link",
    b"2": "a symbolic link",
    b"3": "a character device",
    b"4": "a block device",
    b"6": "a named pipe",
    b"S": "a sparse file",
}
_EXTENSIONS = (b"L", b"K", b"x", b"g")
"""GNU's long name and long link, pax headers for the next member and for all: they describe, they are no members."""

_FILE_TYPES = (b"0", b"\0", b"7")
_FOLDER_TYPE = b"5"


class TarError(Exception):
    """What is wrong with the tar, as the end of a sentence that begins with the file's name."""


class Stream(Protocol):
    """What is asked of a tar's bytes, compressed or not."""

    def read(self, size: int, /) -> bytes:
        """The next bytes."""

    def seek(self, offset: int, /) -> int:
        """Go to an offset."""

    def tell(self) -> int:
        """The offset now."""


class Member(NamedTuple):
    """A file or folder: its name as written (folders end in a slash), and where its bytes lie in the tar."""

    name: str
    offset: int
    size: int


def tar_members(stream: Stream, limit: int, most: int) -> Iterator[Member]:
    """The files and folders of a tar, in order.

    Args:
        stream: the tar at its beginning, with read, seek and tell; only headers are read.
        limit: where the last byte of a member may lie at most.
        most: how many headers there may be at most.

    Raises:
        TarError: the tar is broken, or holds something else than files and folders.
    """
    headers = 0
    name: str | None = None  # given by an extension header for the member that follows it
    size: int | None = None
    while header := _header(stream):
        headers += 1
        if headers > most:
            raise TarError(f"refused: more than {most} entries; a model has a handful")
        kind = header[156:157]
        length = _number(header[124:136])
        if kind in _EXTENSIONS:
            extension = _extension(stream, length)
            if kind == b"L":
                name = _text(extension.rstrip(b"\0"))
            elif kind == b"x":
                records = _pax_records(extension)
                name = records.get("path", name)
                size = _decimal(records["size"]) if "size" in records else size
            continue
        member = Member(
            name if name is not None else _name(header), stream.tell(), size if size is not None else length
        )
        name = size = None
        if kind == _FOLDER_TYPE or (kind in _FILE_TYPES and member.name.endswith("/")):  # the latter as V7 wrote them
            yield member._replace(name=member.name.rstrip("/") + "/", size=0)
            continue
        if kind not in _FILE_TYPES:
            what = _REFUSED.get(kind, f"of unknown type {kind!r}")
            raise TarError(f"refused: its member {member.name[:200]!a} is {what}; a model's archive has only files")
        _check_extent(stream, member, limit)
        yield member
        stream.seek(member.offset + -(-member.size // BLOCK) * BLOCK)


def _check_extent(stream: Stream, member: Member, limit: int) -> None:
    """Refuse a member that is larger than it may be, or than the tar goes on."""
    end = member.offset + member.size
    if end > limit:
        raise TarError(
            f"its member {member.name[:200]!a} ends at byte {end}, and there may be {limit}; "
            "it is cut short, or made to overwhelm"
        )
    if member.size:
        stream.seek(end - 1)
        if not stream.read(1):
            raise TarError(f"ends inside its member {member.name[:200]!a}; it is cut short, download it again")


def _header(stream: Stream) -> bytes:
    """The next header, checked; nothing at the end of the archive."""
    offset = stream.tell()
    header = stream.read(BLOCK)
    if header == _ZEROS:
        return b""
    if not header:
        raise TarError(f"ends at byte {offset} without the zeros that end a tar; it is cut short, download it again")
    if len(header) < BLOCK:
        raise TarError(f"ends inside a header at byte {offset}; it is cut short, download it again")
    if not is_header(header):
        raise TarError(f"is not a tar: no valid header at byte {offset}")
    return header


def is_header(block: bytes) -> bool:
    """Whether a block has a tar header's checksum (there are writers that summed signed bytes)."""
    if len(block) < BLOCK or block == _ZEROS:
        return False
    try:
        stated = _number(block[148:156])
    except TarError:
        return False
    summed = block[:148] + b" " * 8 + block[156:]
    unsigned = sum(summed)
    return stated in (unsigned, unsigned - 256 * sum(byte > 127 for byte in summed))


def _number(data: bytes) -> int:
    """A number field: octal digits, or big-endian binary where the first bit is set."""
    if data[0] == 0x80:
        return int.from_bytes(data[1:], "big")
    digits = data.split(b"\0")[0].strip(b" ")
    if not all(byte in b"01234567" for byte in digits):
        raise TarError(f"is broken: a header has {data!r} for a number")
    return int(digits or b"0", 8)


def _name(header: bytes) -> str:
    name = header[:100].split(b"\0")[0]
    prefix = header[345:500].split(b"\0")[0]
    # GNU's variant (`ustar` with spaces) keeps other things where ustar has the front part of a long name.
    return _text(prefix + b"/" + name if prefix and header[257:263] == b"ustar\0" else name)


def _text(data: bytes) -> str:
    return data.decode("utf-8", errors="backslashreplace")


def _extension(stream: Stream, length: int) -> bytes:
    if length > _LARGEST_EXTENSION:
        raise TarError(f"is refused: a header of {length} bytes, where {_LARGEST_EXTENSION} are plenty")
    data = stream.read(-(-length // BLOCK) * BLOCK)
    if len(data) < length:
        raise TarError("ends inside a header; it is cut short, download it again")
    return data[:length]


def _pax_records(data: bytes) -> dict[str, str]:
    """The records of a pax header, each `LENGTH KEY=VALUE\\n` with the length counting itself."""
    records = {}
    at = 0
    while at < len(data):
        space = data.find(b" ", at, at + 8)
        end = at + _decimal(_text(data[at:space])) if space > at else at
        record = data[space + 1 : end]
        key, equals, value = record.partition(b"=")
        if not at < space < end <= len(data) or not record.endswith(b"\n") or not equals:
            raise TarError("is broken: a pax header that does not follow its format")
        records[_text(key)] = _text(value[:-1])
        at = end
    if any(key.startswith("GNU.sparse.") for key in records):
        raise TarError("refused: it holds a sparse file; only files and folders belong in a model's archive")
    return records


def _decimal(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 20):
        raise TarError(f"is broken: a pax header has {text!a:.40} for a number")
    return int(text)
