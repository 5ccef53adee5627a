"""Names from files: they end up in messages, on terminals and in other files."""

from __future__ import annotations

from paddle2torch.converter.support.errors import FormatError

LONGEST_NAME = 1024  # characters; released models have names of up to 68


def checked_name(file: str, name: object) -> str:
    """The name, when it is text without line ends and control characters, and not endless.

    Args:
        file: the file it comes from, for the message.
        name: the name, as bytes (UTF-8) or text.

    Raises:
        FormatError: it is something else.
    """
    try:
        text = name.decode() if isinstance(name, bytes) else name
    except UnicodeDecodeError:
        text = None
    if isinstance(text, str) and text.isprintable() and len(text) <= LONGEST_NAME:
        return text
    shown = repr(name[:60]) if isinstance(name, bytes | str) else f"a {type(name).__name__}"
    raise FormatError(
        file, f"a name is {shown}, which is not printable text of up to {LONGEST_NAME} characters; the file is damaged"
    )
