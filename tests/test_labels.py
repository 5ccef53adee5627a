"""Dictionaries: read as upstream reads them, bundled only when they fit."""

from __future__ import annotations

import pytest

from paddle2torch.converter.mapping.labels import match_labels, read_dictionary
from paddle2torch.converter.support.errors import FormatError


@pytest.mark.parametrize(("data", "characters"), [
    (b"a\nb\n", ["a", "b"]),
    (b"a\r\nb", ["a", "b"]),
    (b"a\n \nb\n", ["a", " ", "b"]),
    (b"\xef\xbb\xbfa\n\xc3\xa9\n", ["a", "é"]),
    (b"a\n\xe2\x80\xa8\nb\n", ["a", "\u2028", "b"]),
    (b"", [""][1:]),
])  # fmt: skip
def test_one_character_a_line(data: bytes, characters: list[str]) -> None:
    assert read_dictionary(data, "d.txt") == characters


def test_text_in_two_bytes_a_character_is_refused() -> None:
    for encoding in ("utf-16", "utf-16-le", "utf-16-be"):
        with pytest.raises(FormatError, match=r"d\.txt at byte [01]: a dictionary is UTF-8 text"):
            read_dictionary("a\nb\n".encode(encoding), "d.txt")


def test_empty_lines_count_and_are_told() -> None:
    characters = read_dictionary(b"a\n\nb\n\n", "d.txt")
    assert characters == ["a", "", "b", ""]
    assert "d.txt with 4 characters (2 of them empty lines) makes 5" in match_labels(characters, 3, False, "d.txt").note


def test_other_encodings_are_refused_with_the_offset() -> None:
    with pytest.raises(FormatError, match="d.txt at byte 1: a dictionary is UTF-8"):
        read_dictionary("aé".encode("latin-1"), "d.txt")


@pytest.mark.parametrize(("classes", "space", "labels"), [
    (3, False, ["blank", "a", "b"]),
    (4, True, ["blank", "a", "b", " "]),
    (3, None, ["blank", "a", "b"]),
    (4, None, ["blank", "a", "b", " "]),
    (3, True, None),
    (4, False, None),
    (5, None, None),
])  # fmt: skip
def test_labels_only_when_the_counts_agree(classes: int, space: bool | None, labels: list[str] | None) -> None:
    found = match_labels(["a", "b"], classes, space, "d.txt")
    assert found.labels == labels
    if labels is None:
        assert f"the head has {classes}" in found.note
        assert "--dict" in found.note
