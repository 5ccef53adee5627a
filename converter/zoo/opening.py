"""What a downloaded file must turn out to be before anything is remembered of it.

A network's log-in page comes with status 200 in place of any file, and what a broken connection has brought may look
like all. So a file is opened as what it should be first. What is known by its hash needs none of this.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from paddle2torch.converter.support.errors import ConverterError
from paddle2torch.converter.zoo.catalog import Artifact, Dictionary

if TYPE_CHECKING:
    pass

LARGEST_DICTIONARY = 4 << 20  # bytes; the longest of upstream's has about 75 KB
LONGEST_LABEL = 64  # characters of a dictionary's line; upstream's have at most two
_PAGES = (b"<!doctype", b"<html", b"<head", b"<?xml")


def unfit(path: Path, url: str, artifact: Artifact | Dictionary, *, told_its_end: bool) -> str | None:
    """Why a file cannot be what was asked for, as the end of a sentence that begins with its URL.

    Args:
        path: where it lies, under whatever name.
        url: whose name's ending tells what it is.
        artifact: what it should be.
        told_its_end: whether the server told where it ends; where not, it must show by itself that it is whole.

    Returns:
        None where it can.
    """
    with path.open("rb") as stream:
        beginning = stream.read(512)
    if beginning.lstrip().lower().startswith(_PAGES):
        return "is a web page, not the file; is there a log-in page in the way?"
    if isinstance(artifact, Dictionary):
        if not told_its_end:
            return "the server does not tell how long it is, so nobody knows whether all of it came"
        return _unfit_dictionary(path.read_bytes())
    try:
        _open_model(path, url)
    except ConverterError as error:
        # Its name at present is nobody's business.
        name = url.rpartition("/")[2]
        problem = str(error).replace(str(path), name).replace(path.name, name).partition("\n")[0]
        return f"is not what it should be ({problem})"
    return None


def _open_model(path: Path, url: str) -> None:
    """Open a model's file.

    Raises:
        ArchiveError, FormatError, SourceError: it is none, or is not whole.
    """
    if url.partition("?")[0].endswith(".pdparams"):
        from paddle2torch.converter.formats.pdparams import read_pdparams
        from paddle2torch.converter.support.blob import Blob

        read_pdparams(Blob.open(path))
    else:
        from paddle2torch.converter.containers.archive import require_model

        require_model(path)


def _unfit_dictionary(data: bytes) -> str | None:
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        return "is not a dictionary: it is not UTF-8"
    lines = text.split("\n")
    if not text.strip("\r\n"):
        return "is not a dictionary: it is empty"
    if "\0" in text or max(map(len, lines)) > LONGEST_LABEL:
        return f"is not a dictionary: it has lines of more than {LONGEST_LABEL} characters, or bytes that are no text"
    return None
