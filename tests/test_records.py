"""Metadata as records: what is written is what is read, and nothing that cannot be is read."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from paddle2torch.architectures.graph.form import graph_from_json
from paddle2torch.architectures.records import (
    SIZE_MODES,
    HubOrigin,
    Metadata,
    Origin,
    Preprocessing,
    Size,
    name_problem,
)

GRAPH = {
    "format": "paddle2torch-graph", "version": 1, "inputs": {"x": [-1, 3, 48, 320]}, "outputs": ["y"],
    "parameters": {}, "nodes": [{"type": "relu", "inputs": {"x": ["x"]}, "outputs": ["y"], "attributes": {}}],
}  # fmt: skip

WHOLE = Metadata(
    name="mine",
    task="rec",
    architecture="rec_mobilenet_v3_bilstm_ctc",
    parameters={"scale": 0.5, "classes": 3, "strides": ((1, 1), (2, 1)), "flag": True, "none": None},
    preprocessing=Preprocessing(Size("height", height=32, width=320), "RGB", 1 / 255, (0.485, 0.456, 0.406)),
    labels=("blank", "\t", "é"),
    source=Origin("mine.tar", "0" * 64, "trained", "https://x/mine.tar", "Student", "info", "other"),
    ignored={"head.sar_head.x": "is not used"},
    initialised=("head.thresh.conv1.weight",),
    widened={"head.fc.weight": "float16"},
    narrowed={"head.fc.bias": "float64"},
    outputs=("cbn_maps", "maps"),
    rewritings={"neck.encoder.svtr_block.0.mixer": "matmul where the program has affine"},
    digest="f" * 64,
    converter="0.1.0",
    hub=HubOrigin("org/mine", "main", "abc"),
)
BY_GRAPH = Metadata(
    "mine",
    "det",
    "graph",
    {},
    Preprocessing(Size("multiple", multiple=32, limit_side=960)),
    graph=graph_from_json(GRAPH),
)


@pytest.mark.parametrize("metadata", [WHOLE, BY_GRAPH])
def test_what_is_written_is_what_is_read(metadata: Metadata) -> None:
    written = json.loads(json.dumps(metadata.to_json()))
    assert Metadata.from_json(written, "m.json") == metadata
    assert Metadata.from_json(written, "m.json").to_json() == written


@pytest.mark.parametrize("mode", SIZE_MODES)
def test_a_size_has_the_fields_of_its_mode_and_no_others(mode: str) -> None:
    data = {"mode": mode, **dict.fromkeys(SIZE_MODES[mode], 64)}
    assert Size.from_json(data, "m").to_json() == data
    for key in SIZE_MODES[mode]:
        with pytest.raises(ValueError, match=f"lacks '{key}'"):
            Size.from_json({name: value for name, value in data.items() if name != key}, "m")
    with pytest.raises(ValueError, match="has 'depth', which this version does not know"):
        Size.from_json({**data, "depth": 3}, "m")


def changed(*path: str, to: object) -> dict[str, Any]:
    """A good record with one value replaced."""
    record = copy.deepcopy(json.loads(json.dumps(WHOLE.to_json())))
    place = record
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = to
    return record


@pytest.mark.parametrize(
    ("record", "message"),
    [
        (None, "'metadata' is None, a record was expected"),
        ([], "'metadata' is a list of 0, a record"),
        (changed("schema_version", to=2), "'schema_version' is 2, 1 was expected"),
        (changed("schema_version", to=True), "'schema_version' is True"),
        (changed("colour", to=1), "has 'colour', which this version does not know"),
        (changed("name", to=None), "'name' is None, text was expected"),
        (changed("name", to="../x"), "'name' has '/' in it"),
        (changed("name", to="a\x1b[2J"), r"'name' has '\\x1b' in it"),
        (changed("task", to="tab"), "'task' is 'tab', one of det, rec, cls"),
        (changed("architecture", to=["rec"]), "'architecture' is a list of 1, text was expected"),
        (changed("architecture", to="a\x9bb"), "printable text"),
        (changed("architecture", to="graph"), "a graph belongs to 'graph' alone"),
        (changed("parameters", to=[]), "'parameters' is a list"),
        (changed("parameters", "classes", to="63"), "'parameters.classes' is '63', an integer from 1 on"),
        (changed("parameters", "classes", to=-1), "'parameters.classes' is -1"),
        (changed("parameters", "classes", to=10**400), "is an integer of more than 64 bits"),
        (changed("parameters", "scale", to=float("nan")), "'parameters.scale' is nan"),
        (changed("parameters", "scale", to={}), "'parameters.scale' is a record of 0"),
        (changed("parameters", "scale", to=[[[[[1]]]]]), "'parameters.scale' is a list"),
        (changed("parameters", "scale", to=[0] * 1000), "'parameters.scale' is a list of 1000"),
        (changed("preprocessing", to=None), "'preprocessing' is None, a record"),
        (changed("preprocessing", "channel_order", to="GBR"), "'preprocessing.channel_order' is 'GBR', one of BGR, RGB"),
        (changed("preprocessing", "scale", to=0), "'preprocessing.scale' is 0, a number from"),
        (changed("preprocessing", "mean", to=[1, 2]), "'preprocessing.mean' is a list of 2, a list of 3"),
        (changed("preprocessing", "mean", to=[0, 0, float("inf")]), "'preprocessing.mean' is inf"),
        (changed("preprocessing", "std", to=[0.5, 0, 0.5]), "'preprocessing.std' is 0"),
        (changed("preprocessing", "size", to="big"), "'preprocessing.size.mode' is None"),
        (changed("preprocessing", "size", "height", to=10**9), "'preprocessing.size.height' is 1000000000"),
        (changed("preprocessing", "size", "height", to=32.5), "'preprocessing.size.height' is 32.5, an integer"),
        (
            changed("preprocessing", "size", to={"mode": "stretch", "height": 2048, "width": 1024}),
            "'preprocessing.size' is 2048 × 1024, at most 1048576 pixels",
        ),
        (
            changed("preprocessing", "size", to={"mode": "multiple_height", "multiple": 32, "height": 2048}),
            "'preprocessing.size' is 2048 × 2048, at most",
        ),
        (changed("labels", to=5), "'labels' is 5, a list"),
        (changed("labels", to=["a", None, "b"]), "'labels' holds None, text"),
        (changed("labels", to=["a", "\ud800", "b"]), "'labels' holds"),
        (changed("labels", to=["a", "b"]), "'labels' are 2, and there are 3 classes"),
        (changed("source", "sha256", to="0"), "'source.sha256' is '0', 64 hexadecimal digits"),
        (changed("source", "url", to=7), "'source.url' is 7"),
        (changed("ignored", to={"a": 1}), "'ignored' is 1"),
        (changed("initialised", to="abc"), "'initialised' is 'abc', a list"),
        (changed("digest", to="xyz"), "'digest' is 'xyz'"),
        (changed("hub", to={"repository": "a"}), "'hub' lacks 'revision'"),
        (changed("graph", to={}), "'graph' is no graph of this converter"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_told_with_its_field(record: object, message: str) -> None:
    with pytest.raises(ValueError, match=rf"^m\.json: its metadata cannot be used: .*{message}") as error:
        Metadata.from_json(record, "m.json")
    assert str(error.value).isprintable()


def test_a_graph_belongs_to_its_architecture() -> None:
    record = {**BY_GRAPH.to_json(), "architecture": "det_mobilenet_v3_dbfpn"}
    with pytest.raises(ValueError, match="a graph belongs to 'graph' alone"):
        Metadata.from_json(record, "m.json")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


def paths(value: object, path: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    below = (
        [each for key, inner in value.items() for each in paths(inner, (*path, key))] if isinstance(value, dict) else []
    )
    return ([path] if path else []) + below


@pytest.mark.parametrize("metadata", [WHOLE, BY_GRAPH])
@given(data=st.data())
@settings(max_examples=200, deadline=None, derandomize=True)
def test_any_value_anywhere_is_read_or_is_a_value_error(metadata: Metadata, data: st.DataObject) -> None:
    record = copy.deepcopy(json.loads(json.dumps(metadata.to_json())))
    *ancestors, last = data.draw(st.sampled_from(paths(record)))
    place = record
    for key in ancestors:
        place = place[key]
    place[last] = data.draw(JSON)
    try:
        read = Metadata.from_json(record, "m.json")
    except ValueError as error:
        assert str(error).isprintable()
    else:
        assert Metadata.from_json(read.to_json(), "m.json") == read


@pytest.mark.parametrize(
    "name", ["", " ", ".", "..", "a/b", "a\\b", "C:x", "a\nb", "CON", "nul.txt", "com1", "x.", "x ", ".x", "é" * 121, "\ud800"]
)  # fmt: skip
def test_names_that_are_no_files_stem_somewhere(name: str) -> None:
    assert name_problem(name)


@pytest.mark.parametrize("name", ["a", "ch_PP-OCRv3_rec", "模型", "a b", "console", "x.y", "é" * 120])
def test_names_that_are(name: str) -> None:
    assert name_problem(name) is None


READERS: list[Callable[[object, str], object]] = [Preprocessing.from_json, Size.from_json]


@pytest.mark.parametrize("read", READERS)
def test_parts_are_read_by_themselves_with_the_same_care(read: Callable[[object, str], object]) -> None:
    with pytest.raises(ValueError, match=r"^m: its metadata cannot be used"):
        read(None, "m")
