"""Names of results: inside the folder, of bounded length, each its own; or one error that says which are not."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from paddle2torch.architectures.records import name_problem
from paddle2torch.converter.support.errors import SourceError
from paddle2torch.converter.support.names import LONGEST, result_name, result_names, with_branch


@pytest.mark.parametrize(
    ("source", "name"),
    [
        ("best_accuracy.pdparams", "best_accuracy"),
        ("runs/a.tar.gz", "a"),
        ("runs/A.TAR", "A"),
        ("x/inference.pdiparams.info", "inference"),
        ("x/ch_PP-OCRv3_rec", "ch_PP-OCRv3_rec"),
        ("x/mine.v2.pth", "mine.v2"),
        ("plates/.pdparams", "plates"),
        ("plates/...pdparams", "plates"),
        ("plates/_.pdparams", "plates"),
        ("plates/ .tar", "plates"),
        ("CON.pdparams", "_CON"),
        ("nul.2.pdparams", "_nul.2"),
        ("模型.pdparams", "模型"),
        ("e\u0301.tar", "é"),
        ("a\x1bb\n.tar", "a_b_"),
        ("a:b?.tar", "a_b_"),
        (".hidden.tar", "hidden"),
        ("hf:ORG/NAME", "NAME"),
        ("hf:ORG/NAME@v1", "NAME"),
    ],
)
def test_a_result_is_called_after_its_source(source: str, name: str) -> None:
    assert result_name(source) == name


@pytest.mark.parametrize(
    ("sources", "names"),
    [
        (["plates/best_accuracy.pdparams", "meters/best_accuracy.pdparams"],
         ["plates_best_accuracy", "meters_best_accuracy"]),
        (["a/inference/", "b/inference"], ["a_inference", "b_inference"]),
        (["x/a/inference", "y/a/inference"], ["x_a_inference", "y_a_inference"]),
        (["a/best.pdparams", "b/best.pdparams", "c/last.pdparams"], ["a_best", "b_best", "last"]),
        (["a/Best.pdparams", "b/best.pdparams"], ["a_Best", "b_best"]),
        (["zoo_model", "x/zoo_model.tar"], ["zoo_model", "x_zoo_model"]),
        (["a/b_c.tar", "a_b/c.tar"], ["b_c", "c"]),
        (["a/e\u0301.tar", "b/é.tar"], ["a_é", "b_é"]),
        (["a/CON", "b/con"], ["a_CON", "b_con"]),
        (["hf:a/m", "hf:b/m"], ["a_m", "b_m"]),
    ],
)  # fmt: skip
def test_sources_of_one_name_are_told_apart_by_their_folders(sources: list[str], names: list[str]) -> None:
    assert result_names(sources, known={"zoo_model"}) == dict(zip(sources, names, strict=True))


@pytest.mark.parametrize(
    "sources",
    [["a/x.tar", "a/x.zip"], ["a/x.tar", "a/X.zip"], ["a/x?.tar", "a/x:.tar"], ["/.tar", "/x.tar"], ["a/x.tar", "/a/x.tar"]],
)  # fmt: skip
def test_what_cannot_be_told_apart_is_one_error_with_both(sources: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir("/")
    if sources[1] == "/a/x.tar":  # the same file, which is done once
        assert result_names(sources) == {"a/x.tar": "x"}
        return
    with pytest.raises(SourceError, match="their results would have one name|has no name") as error:
        result_names(sources)
    assert sources[0] in str(error.value)


def test_a_branch_may_not_make_a_name_of_another_source() -> None:
    assert result_names(["x/a.tar", "y/a_Teacher.tar"]) == {"x/a.tar": "a", "y/a_Teacher.tar": "a_Teacher"}
    names = result_names(["x/a.tar", "y/a_Teacher.tar"], branch="Teacher")
    assert names == {"x/a.tar": "x_a", "y/a_Teacher.tar": "y_a_Teacher"}


def test_a_published_model_is_called_after_its_folder(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "config.json").write_text("{}")
    assert result_name(tmp_path / "mine" / "model.safetensors") == "mine"
    assert result_name(tmp_path / "mine" / "mine-0123abcd.pth") == "mine"
    assert result_name(tmp_path / "model.safetensors") == "model"


def test_long_names_are_cut_and_stay_apart() -> None:
    first, second = result_names(["é" * 120 + ".tar", "é" * 121 + ".tar"]).values()
    assert first != second
    assert max(len(first.encode()), len(second.encode())) <= LONGEST


@given(names=st.lists(st.text(max_size=300), min_size=1, max_size=4), branch=st.none() | st.text(max_size=9))
@settings(max_examples=500, deadline=None, derandomize=True)
def test_whatever_the_sources_names_results_have_their_own(names: list[str], branch: str | None) -> None:
    try:
        found = result_names(names, branch=branch)
    except SourceError:
        return
    every = [*found.values(), *(with_branch(name, branch) for name in found.values() if branch)]
    assert [name_problem(name) for name in every] == [None] * len(every)
    assert len({name.casefold() for name in found.values()}) == len(found)
    inside = {os.path.dirname(os.path.join("/out", f"{name}.safetensors")) for name in every}  # noqa: PTH118, PTH120
    assert inside == {"/out"}
