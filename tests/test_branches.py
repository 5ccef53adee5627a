"""Networks in a checkpoint: prefixes, wrappers, the choice."""

from __future__ import annotations

import pytest

from paddle2torch.converter.mapping.branches import census, choose
from paddle2torch.converter.support.errors import MappingError

PARTS = ("backbone.conv.weight", "head.fc.bias")


def prefixed(*prefixes: str) -> list[str]:
    """Interleaved, as PP-OCRv3's detector has them."""
    return [f"{prefix}{part}" for part in PARTS for prefix in prefixes]


@pytest.mark.parametrize(("prefixes", "order"), [
    (("",), [""]),
    (("Student2.", "Student.", "Teacher."), ["Student", "Student2", "Teacher"]),
    (("teacher_model.", "student_model.", "student2_model."), ["student_model", "student2_model", "teacher_model"]),
    (("Teacher.", "Student."), ["Student", "Teacher"]),
    (("module.",), [""]),
    (("_layers.Teacher.", "_layers.Student."), ["Student", "Teacher"]),
    (("module.Student.module.",), ["Student"]),
])  # fmt: skip
def test_exported_branch_comes_first(prefixes: tuple[str, ...], order: list[str]) -> None:
    branches = census(prefixed(*prefixes))
    assert [branch.name for branch in branches] == order
    assert all(sorted(branch.names) == sorted(PARTS) for branch in branches)


def test_names_lead_back_to_the_file() -> None:
    branch = census(prefixed("Student.", "Teacher."))[0]
    assert branch.names["head.fc.bias"] == "Student.head.fc.bias"


def test_inner_parts_do_not_split_a_name() -> None:
    (branch,) = census(["head.ctc_encoder.encoder.conv1.conv.weight", "head.sar_head.encoder.backbone.weight"])
    assert list(branch.names) == ["head.ctc_encoder.encoder.conv1.conv.weight", "head.sar_head.encoder.backbone.weight"]


def test_wanted_branch_is_taken_and_a_wrong_one_refused() -> None:
    branches = census(prefixed("Student.", "Teacher."))
    assert choose(branches, "Teacher", "x").name == "Teacher"
    assert choose(branches, "Teacher.", "x").name == "Teacher"
    with pytest.raises(MappingError, match="x: has no branch 'Uncle'; it has: Student, Teacher"):
        choose(branches, "Uncle", "x")


def test_unknown_branches_are_not_guessed_between() -> None:
    with pytest.raises(MappingError, match=r"several networks \(A, B\); say which with --branch"):
        choose(census(prefixed("A.", "B.")), None, "x")
    assert choose(census(prefixed("A.")), None, "x").name == "A"
