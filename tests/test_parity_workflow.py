"""The scripts inside the parity workflow, run as GitHub would run them."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from paddle2torch.converter.zoo.catalog import load_zoo

ROOT = Path(__file__).parents[1]
WORKFLOW = ROOT / ".github" / "workflows" / "parity.yml"

pytestmark = pytest.mark.skipif(shutil.which("jq") is None, reason="jq is not installed; GitHub's machines have it")


def run_step(job: str, marker: str, folder: Path, **environment: str) -> None:
    """Run the one step of a job whose script contains the marker, in this folder."""
    steps = yaml.safe_load(WORKFLOW.read_text(encoding="utf-8"))["jobs"][job]["steps"]
    (script,) = [step["run"] for step in steps if marker in step.get("run", "")]
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    subprocess.run(
        ["bash", "-e", "-o", "pipefail", "-c", script],
        cwd=folder,
        env={**os.environ, "PATH": path, "PYTHONPATH": str(ROOT), **environment},
        check=True,
    )


@pytest.mark.parametrize("filters", ["", "--task det --generation PP-OCRv3"])
def test_the_matrix_has_every_tarball_once(filters: str, tmp_path: Path) -> None:
    run_step("models", "paddle2torch list", tmp_path, FILTERS=filters, GITHUB_OUTPUT=str(tmp_path / "output"))
    name, _, value = (tmp_path / "output").read_text().partition("=")
    entries = json.loads(value)["include"]
    found = [(model, entry["kind"]) for entry in entries for model in entry["models"].split()]
    models = load_zoo().filter(task="det", generation="PP-OCRv3") if filters else load_zoo().models.values()
    assert name == "matrix"
    assert sorted(found) == sorted((model.name, kind) for model in models for kind in model.artifacts)
    assert len({(entry["architecture"], entry["kind"]) for entry in entries}) == len(entries) <= 256


def test_the_summary_has_a_row_for_every_model(tmp_path: Path) -> None:
    good = {"name": "a", "passed": True, "worst_layer": "head.fc", "worst_error": 1e-14}
    summaries = {"one": [good], "two": [{"name": "b", "passed": False, "error": "b: not downloaded"}]}
    for name, models in summaries.items():
        (tmp_path / "parity" / name).mkdir(parents=True)
        (tmp_path / "parity" / name / "summary.json").write_text(json.dumps({"passed": True, "models": models}))
    run_step("summary", "jq", tmp_path, GITHUB_STEP_SUMMARY=str(tmp_path / "page.md"))
    rows = (tmp_path / "page.md").read_text().splitlines()
    assert rows[2].startswith("| a | passed | head.fc | 1")
    assert rows[3].startswith("| b | **failed** | b: not downloaded |")
