"""The environments in which CI tries what setup.cfg declares."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from scripts.checks import bounds

ROOT = Path(__file__).parents[1]
WORKFLOW = ROOT / ".github" / "workflows" / "bounds.yml"

pytest.importorskip("packaging")


def test_what_the_package_and_its_extras_require_is_tried(tmp_path: Path) -> None:
    names = {each.name for each in bounds.declared(ROOT / "setup.cfg")}
    assert {"click", "torch", "paddlepaddle", "pyclipper", "onnx", "huggingface_hub", "distributed", "pytest"} <= names
    assert not {"mkdocs-material", "matplotlib"} & names
    setup = tmp_path / "setup.cfg"
    extras = "a =\n    # why\n    x>=1\n    y>=2; python_version < '3'\ndocs =\n    z>=3\nb =\n    x>=1"
    setup.write_text(f"[options]\ninstall_requires =\n    w>=4\n[options.extras_require]\n{extras}\n")
    assert [str(each) for each in bounds.declared(setup)] == ["w>=4", "x>=1"]


@pytest.mark.parametrize(
    ("requirement", "version"),
    [("x>=1.3", "1.3.0.post5"), ("x>=1.4", "1.4"), ("x>=1.5", "1.10.0"), ("x>=1.2,!=1.2", "1.3.0.post5")],
)
def test_the_low_end_of_a_range_is_the_lowest_that_the_index_has(requirement: str, version: str) -> None:
    from packaging.requirements import Requirement

    versions = ["2.0rc1", "1.10.0", "1.4", "1.3.0.post5", "1.2", "1.6.1.linux-x86_64"]
    assert str(bounds.lowest(Requirement(requirement), versions)) == version


def test_a_range_without_versions_is_told() -> None:
    from packaging.requirements import Requirement

    with pytest.raises(SystemExit, match="x>=3: the index has no such version"):
        bounds.lowest(Requirement("x>=3"), ["1.0", "2.0"])


def test_the_workflow_tries_both_ends_and_the_oldest_python() -> None:
    job = yaml.safe_load(WORKFLOW.read_text(encoding="utf-8"))["jobs"]["tests"]
    tried = {(each["versions"], each["python"]) for each in job["strategy"]["matrix"]["include"]}
    assert {("lowest", "3.11"), ("newest", "3.13")} <= tried
    (script,) = [step["run"] for step in job["steps"] if "bounds.py" in step.get("run", "")]
    assert script.startswith("python scripts/checks/bounds.py ")
    usage = subprocess.run(
        [sys.executable, str(ROOT / "scripts/checks/bounds.py"), "--help"], capture_output=True, text=True, check=False
    )
    assert "{lowest,newest} folder" in usage.stdout
