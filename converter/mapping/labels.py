"""Dictionaries: what the classes of a recogniser's head stand for."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass

from paddle2torch.architectures.records import Direction
from paddle2torch.converter.support.errors import FormatError

BLANK = "blank"
NO_LABELS = "no labels bundled: "
"""How a note begins that says why there are none."""
SPACE = " "
NO_TEXT = "a dictionary is UTF-8 text, one character a line; save it as such"
# Of the letters of a dictionary, from how many on that run from right to left the script does. Upstream's Arabic,
# Persian, Uyghur and Urdu ones have a third to a half, beside the Latin alphabet; Chinese ones a thousandth.
SHARE = 0.2
_RIGHT_TO_LEFT = ("R", "AL")


@dataclass(frozen=True)
class Labels:
    """The outcome of matching a dictionary with a head.

    Attributes:
        labels: one per class, the CTC blank first; None where the counts do not agree.
        note: one line saying what was found, for the user.
    """

    labels: list[str] | None
    note: str


def read_dictionary(data: bytes, file: str) -> list[str]:
    """The characters of a dictionary, one a line, as upstream reads it: a line may be a space, or hold several.

    Raises:
        FormatError: the file is not UTF-8.
    """
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise FormatError(file, NO_TEXT, error.start) from error
    if "\0" in text:  # UTF-16, most likely, which is valid UTF-8 too where all is ASCII
        raise FormatError(file, NO_TEXT, data.index(0))
    lines = text.split("\n")
    if lines[-1] == "":
        lines.pop()
    return [line.rstrip("\r") for line in lines]


def direction_of(labels: Iterable[str] | None) -> Direction:
    """In which direction the script is read whose letters the labels are."""
    letters = [character for label in labels or () if label != BLANK for character in label if character.isalpha()]
    turned = sum(unicodedata.bidirectional(letter) in _RIGHT_TO_LEFT for letter in letters)
    return "right_to_left" if turned > SHARE * len(letters) else "left_to_right"


def match_class_names(names: list[str], file: str, classes: int) -> Labels:
    """Labels of a classifier with that many classes.

    Args:
        names: one per class.
        file: what gives them, for the note.
        classes: of the head.
    """
    if len(names) == classes:
        return Labels(names, f"{classes} labels from {file}")
    return Labels(None, f"{NO_LABELS}{file} names {len(names)} classes, the head has {classes}")


def match_labels(characters: list[str], classes: int, space: bool | None, file: str) -> Labels:
    """Labels of a head with that many classes: blank, the dictionary, and perhaps a space; or the dictionary is a
    list of labels already, as `publish` writes it.

    Args:
        characters: the dictionary.
        classes: of the head.
        space: whether a space is appended; None leaves it to the counts.
        file: the dictionary's name, for the note.
    """
    if characters[:1] == [BLANK] and len(characters) == classes:
        return Labels(characters, f"{classes} labels from {file}, which lists the blank too")
    tried = []
    for appended in (False, True) if space is None else (space,):
        labels = [BLANK, *characters, *([SPACE] if appended else [])]
        tried.append(len(labels))
        if len(labels) == classes:
            return Labels(labels, f"{classes} labels from {file}: blank + {len(characters)}" + " + space" * appended)
    return Labels(
        None,
        f"{NO_LABELS}{file} with {_counted(characters)} makes {' or '.join(map(str, tried))} classes, the head has "
        f"{classes}; give the dictionary that the model was trained with (--dict)",
    )


def _counted(characters: list[str]) -> str:
    """How many there are, and what stands out."""
    empty = characters.count("")
    return f"{len(characters)} characters" + (f" ({empty} of them empty lines)" if empty else "")
