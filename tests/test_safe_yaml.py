"""YAML from outside: JSON's values and nothing else, whatever YAML has beside them."""

from __future__ import annotations

import json
import time
import tracemalloc
from collections.abc import Callable
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from paddle2torch.converter.support import safe_yaml
from paddle2torch.converter.support.safe_yaml import LARGEST, MOST, load_yaml


@pytest.mark.parametrize(("text", "value"), [
    ("1", 1), ("-7", -7), ("0", 0), ("0.5", 0.5), ("1e-3", 0.001), ("-1.5E+2", -150.0), ("null", None), ("", None),
    ("true", True), ("False", False), ("x", "x"), ("'1'", "1"), ('"null"', "null"), ("!!str 5", "5"),
    ("|\n  1\n", "1\n"), ("[1, [2]]", [1, [2]]), ("{a: 1, 2: b, true: c}", {"a": 1, 2: "b", True: "c"}),
    ('"\\u263a"', "☺"), ("　", "　"),
])  # fmt: skip
def test_values(text: str, value: Any) -> None:
    found = load_yaml(f"x: {text}".encode())["x"]
    assert (found, type(found)) == (value, type(value))


@pytest.mark.parametrize("text", [
    "~", "=", "no", "No", "y", "Y", "on", "off", "<<", "12:30", "190:20:30", "1_000", "0x1f", "0o17", "017", "00", "+1", "1.", ".5",
    ".inf", "-.INF", ".nan", "NaN", "2024-01-01", "2024-01-01 12:00:00", "1e1000x", "NULL", "TRUE", "1" * 19, "1e9999",
])  # fmt: skip
def test_what_yaml_takes_for_else_is_text(text: str) -> None:
    assert load_yaml(f"- {text}".encode()) == [text]
    assert load_yaml(f"{text}: 1".encode()) == {text: 1} if text != "<<" else True


texts = st.text(st.characters(max_codepoint=0xD7FF))  # YAML writes others than JSON beyond
json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**17), 10**17)
    | st.floats(allow_nan=False, allow_infinity=False)
    | texts,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=12,
)


@given(json_values)
def test_what_json_writes_is_read(value: Any) -> None:
    """All of it in double quotes, as YAML 1.1 also has it; what is no character of YAML's is refused."""
    text = json.dumps({"x": value}, ensure_ascii=True)
    assert load_yaml(text.encode()) == {"x": value}


@given(json_values.filter(lambda value: "e" not in repr(value)))  # where YAML writes 1e+17 as text
def test_what_yaml_writes_is_read(value: Any) -> None:
    shared = {"x": value, "y": [value, value]}
    assert load_yaml(yaml.safe_dump(shared, allow_unicode=True).encode()) == shared


def test_aliases_stand_for_what_they_name() -> None:
    text = b"a: &a {x: [1, 2]}\nb: *a\nc: &n 25\nd: [*n, *a]\n"
    found = load_yaml(text)
    assert found == {"a": {"x": [1, 2]}, "b": {"x": [1, 2]}, "c": 25, "d": [25, {"x": [1, 2]}]}
    assert load_yaml(b"[&a 1, &a 2, *a]") == [1, 2, 2]


def laughs(levels: int, width: int) -> bytes:
    lines = ["a0: &a0 [" + ",".join(["x"] * width) + "]"]
    lines += [f"a{n}: &a{n} [" + ",".join([f"*a{n - 1}"] * width) + "]" for n in range(1, levels)]
    return ("\n".join(lines) + "\n").encode()


def merges(levels: int) -> bytes:
    lines = ["m0: &m0 {a: 1}", *(f"m{n}: &m{n} {{<<: [*m{n - 1}, *m{n - 1}]}}" for n in range(1, levels))]
    return ("\n".join(lines) + "\n").encode()


REFUSED: dict[str, tuple[Callable[[], bytes], str]] = {
    "laughs": (lambda: laughs(9, 9), "more than 250,000 values in line 6"),
    "laughs of two": (lambda: laughs(60, 2), "more than 250,000 values in line"),
    "laughs in keys' values": (lambda: b"a: &a {x: 1, y: 2}\n" + b"".join(
        b"%d: &%s {x: *%s, y: *%s}\n" % (n, chr(98 + n).encode(), chr(97 + n).encode(), chr(97 + n).encode()) for n in range(24)),
        "more than 250,000 values"),
    "merge keys": (lambda: merges(26), r"a merge key \(<<\).* in line 2"),
    "a merge key of one": (lambda: b"a: &a {x: 1}\nb: {<<: *a}", r"a merge key \(<<\).* in line 2"),
    "an alias of itself": (lambda: b"a: &a [1, *a]", r"\*a stands for nothing in line 1"),
    "an alias of nothing": (lambda: b"a: *b", r"\*b stands for nothing in line 1"),
    "many values": (lambda: b"[" + b"1," * (MOST + 1) + b"]", "more than 250,000 values"),
    "many documents": (lambda: b"--- 1\n" * 5, "5 documents in one file"),
    "many bytes": (lambda: b" " * (LARGEST + 1), "bytes are too many"),
    "depth in flow": (lambda: b"[" * 100_000, "nested more than 64 levels deep in line 1"),
    "depth in blocks": (lambda: b"- " * 70 + b"1", "nested more than 64 levels deep in line 1"),
    "a Python object": (lambda: b"a: !!python/object/apply:os.system [ls]", "the tag tag:yaml.org,2002:python/object/apply:os.system"),
    "a Python name": (lambda: b"a: !!python/name:os.system x", "the tag"),
    "bytes": (lambda: b"a: !!binary aGk=", "the tag tag:yaml.org,2002:binary in line 1"),
    "a tag of somebody's": (lambda: b"a: !mine {b: 1}", "the tag !mine in line 1"),
    "a key that is a list": (lambda: b"? [1, 2]\n: 3", "a key that is a list or a table"),
    "a bracket too few": (lambda: b"a: [1, 2", "in line"),
    "a control character": (lambda: b"a: \x01", ""),
    "no UTF-8": (lambda: b"a: \xff\xfe", ""),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_the_rest_is_refused_in_one_line_at_once(case: str) -> None:
    make, message = REFUSED[case]
    data = make()
    started = time.process_time()
    tracemalloc.start()
    with pytest.raises(ValueError, match=message) as caught:
        load_yaml(data)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert "\n" not in str(caught.value)
    assert time.process_time() - started < 5
    assert peak < 128 << 20


def test_the_parser_without_c_reads_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    text = b"a: &a [1, no, '2', ~]\nb: {c: *a, d: 0.5}\n"
    expected = load_yaml(text)
    monkeypatch.setattr(safe_yaml, "LOADER", yaml.SafeLoader)
    assert load_yaml(text) == expected == {"a": [1, "no", "2", "~"], "b": {"c": [1, "no", "2", "~"], "d": 0.5}}
