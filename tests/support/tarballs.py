"""Tarballs of models, as far as a downloader looks into them."""

from __future__ import annotations

import io
import random
import tarfile


def tarball(size: int, seed: int | str = 0, member: str = "x/best_accuracy.pdparams") -> bytes:
    """A tar of that many bytes with one file of noise, for which any name can be given, and zeros at its end."""
    end = 2 * tarfile.BLOCKSIZE
    length = (size - tarfile.BLOCKSIZE - end) // tarfile.BLOCKSIZE * tarfile.BLOCKSIZE
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w") as tar:
        info = tarfile.TarInfo(member)
        info.size = length
        tar.addfile(info, io.BytesIO(random.Random(seed).randbytes(length)))
    return made.getvalue()[: tarfile.BLOCKSIZE + length].ljust(size, b"\0")
