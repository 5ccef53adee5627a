"""Converted files, as the rest of the converter opens them."""

from __future__ import annotations

import os

from paddle2torch.architectures.loading import Weights, read_weights
from paddle2torch.converter.support.errors import FormatError, SourceError


def open_weights(path: str | os.PathLike[str]) -> Weights:
    """`paddle2torch.architectures.loading.read_weights`, with the errors of this package.

    Raises:
        SourceError: there is no such file, or it cannot be read.
        FormatError: it is not a file of weights of one of our architectures.
    """
    try:
        return read_weights(path)
    except OSError as error:
        raise SourceError(str(error)) from error
    except (ValueError, ImportError) as error:
        raise FormatError(os.fspath(path), str(error).removeprefix(f"{os.fspath(path)}: ")) from error
