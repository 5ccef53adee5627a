"""Tells what a file is that is not what was asked for, from its first bytes."""

from __future__ import annotations

import re

from paddle2torch.converter.support.blob import Blob
from paddle2torch.converter.support.errors import FormatError

_HEAD = 512

# Kinds of files that a reader may itself be for.
PROGRAM, PARAMETERS, PIR, PICKLE = "a Paddle program", "Paddle inference parameters", "JSON", "a pickle"

# What the first bytes match, what the file is then, and what to do about it. The first match counts.
_KINDS: tuple[tuple[re.Pattern[bytes], str, str], ...] = tuple(
    (re.compile(pattern, re.DOTALL | re.IGNORECASE), kind, advice)
    for pattern, kind, advice in (
        (rb"version https://git-lfs", "a Git LFS pointer", "fetch the file itself with `git lfs pull`"),
        (rb"\s*(<!doctype|<html|<\?xml|<head|<script)", "a web page", "the download went wrong; get the file again"),
        (rb"\x80.\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19", "a PyTorch checkpoint", "it needs no conversion from Paddle"),
        (rb"PK\x03\x04.{26}[^/]{1,200}/(data\.pkl|\.format_version|byteorder|version)", "a PyTorch checkpoint",
         "it needs no conversion from Paddle"),
        (rb"PK\x03\x04.{26}[^/]{1,200}\.npy", "a NumPy archive", "save the arrays with paddle.save"),
        (rb"PK\x03\x04", "a zip archive", "name it .zip, or unpack it"),
        (rb".{257}ustar", "a tar archive", "name it .tar, or unpack it"),
        (rb"\x1f\x8b", "a gzip file", "name it .tar.gz, or unpack it"),
        (rb"BZh|\xfd7zXZ|7z\xbc\xaf|Rar!", "a compressed archive", "unpack it"),
        (rb".{7}\x00\{\s*\"", "a safetensors file", "Paddle's checkpoints are .pdparams files"),
        (rb"\x93NUMPY", "a NumPy array", "save the arrays with paddle.save"),
        (rb"\x89HDF", "an HDF5 file", "Paddle's checkpoints are .pdparams files"),
        (rb"\x89PNG|\xff\xd8\xff|GIF8", "an image", "give the model"),
        (rb"\x08[\x01-\x1f]\x12.(pytorch|paddle|onnx|tf2onnx|keras)|\x08[\x03-\x1f]:", "an ONNX model",
         "give the Paddle model that it was made from"),
        (rb"\x00{16}[\x02-\x7f]\x00\x00\x00\x08", PARAMETERS, "they belong into the .pdiparams file"),
        (rb"\x80[\x02-\x05]", PICKLE, "Paddle's .pdparams and .pdiparams.info files are pickles"),
        (rb"\s*[{\[]\s*[\"}\]{]", PIR, "inference.json of Paddle 3 is JSON"),
        (rb"\n.{1,5}\x08\x00\x10(\x00|\xff{9}\x01)[\x1a\x22]", PROGRAM, "it belongs into the .pdmodel file"),
    )
)  # fmt: skip


def recognise(blob: Blob) -> tuple[str, str] | None:
    """What the bytes are, and what to do about it; None where that cannot be told."""
    head = blob.head(_HEAD)
    if not head:
        return "empty", "get it again"
    if not head.strip(b"\0") and len(head) == _HEAD:
        return "nothing but zeros at its beginning", "it was not written completely; get it again"
    return next(((kind, advice) for pattern, kind, advice in _KINDS if pattern.match(head)), None)


def refuse_foreign(blob: Blob, own: str | None, wanted: str) -> None:
    """Stop early when a file is obviously something else.

    Args:
        blob: the file.
        own: the kind (one of this module's constants) that the reader is for.
        wanted: what the reader reads, for the message.

    Raises:
        FormatError: the file is of another kind.
    """
    found = recognise(blob)
    if found and found[0] != own:
        kind, advice = found
        raise FormatError(blob.name, f"is {kind}, not {wanted}; {advice}")
