"""The benchmark in its smallest form: that it works, and what it leaves. Nothing here looks at a time."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest

from scripts.bench import __main__ as bench
from scripts.bench import engines

ENGINES = ["plain", "optimized", "onnxruntime"]
SPREAD = {"median": 2.0, "least": 1.0, "most": 4.0, "count": 3}
NEEDS_MATPLOTLIB = pytest.mark.skipif(importlib.util.find_spec("matplotlib") is None, reason="matplotlib is missing")


def results() -> dict[str, Any]:
    """As a run leaves it, with made-up figures."""
    seconds = dict.fromkeys(("plain", "optimized", "paddle"), SPREAD)
    whole = {"bytes": 2_000_000, "largest": 2_000_000, "seconds": SPREAD, "ratio": SPREAD, "processor": SPREAD}
    return {
        "machine": bench.machine(),
        "inference": {
            "a_det": {
                "shape": "1x3x32x64",
                "seconds": seconds,
                "ratios": seconds,
                "unusable": {},
                "profiles": {
                    "optimized": {"softmax": {"calls": 1, "seconds": 0.004, "kernels": 0.003}},
                    "onnxruntime": {"softmax": {"calls": 1, "seconds": 0.002, "kernels": 0}},
                },
            }
        },
        "conversion": {
            "import torch": {**whole, "bytes": 0, "largest": 0, "memory": {**SPREAD, "median": 2e8}},
            "a_det": {**whole, "memory": {**SPREAD, "median": 2.03e8}},
        },
        "verification": {
            "models": 2,
            "verify": SPREAD,
            "imports": {"torch": 1.5, "paddle": 2.5},
            "executions": {"paddle": SPREAD, "torch": SPREAD},
            "ratio": SPREAD,
        },
    }


def test_spread_is_median_and_extremes() -> None:
    spread = bench.Spread.of([4.0, 1.0, 2.0])
    assert spread == bench.Spread(2.0, 1.0, 4.0, 3)
    assert spread.text(1000, 0) == "2000 (1000–4000)"


def test_tables_say_what_was_measured() -> None:
    text = "\n".join(table.markdown() for table in bench.tables(results()))
    assert "| a_det | 1 × 3 × 32 × 64 | 2000.0 (1000.0–4000.0) |" in text
    assert "| a_det | softmax | 1 | 4.00 | 3.00 | 2.00 |" in text
    assert "| a_det | 2.0 | 2.00 (1.00–4.00) | 2.00 (1.00–4.00) | 203 | 1.50 × largest |" in text
    assert "Verification of 2 models" in text
    assert "| processor |" in text


@NEEDS_MATPLOTLIB
def test_written_are_figures_image_and_the_part_of_the_page(tmp_path: Path) -> None:
    page = tmp_path / "benchmarks.md"
    page.write_text("# Before\n\n<!-- figures -->\nold\n<!-- end of figures -->\n\nAfter\n", encoding="utf-8")
    paths = bench.write(results(), tmp_path / "benchmarks")
    assert [path.name for path in paths] == ["benchmarks.json", "inference.png", "inference.svg", "benchmarks.md"]
    assert all(path.stat().st_size for path in paths)
    text = page.read_text(encoding="utf-8")
    assert text.startswith("# Before\n\n<!-- figures -->\n\n### Inference")
    assert text.endswith("<!-- end of figures -->\n\nAfter\n")
    assert "old" not in text


def test_sections_that_are_not_run_again_are_kept_on_the_same_machine(tmp_path: Path) -> None:
    earlier = results()
    assert bench.kept(tmp_path, earlier["machine"]) == {}
    (tmp_path / "benchmarks.json").write_text(json.dumps(earlier), encoding="utf-8")
    sections = {name: earlier[name] for name in ("inference", "conversion", "verification")}
    assert bench.kept(tmp_path, {**earlier["machine"], "load": 3.0}) == json.loads(json.dumps(sections))
    assert bench.kept(tmp_path, {**earlier["machine"], "torch": "9.0"}) == {}


def test_command_that_fails_is_not_timed() -> None:
    with pytest.raises(bench.subprocess.CalledProcessError):
        bench.run([bench.sys.executable, "-c", "raise SystemExit(3)"])


def test_memory_of_a_process_is_its_own() -> None:
    little, much = (bench.run([bench.sys.executable, "-c", f"x = bytearray({size})"]) for size in (1, 2**27))
    assert 2**27 * 0.9 < much.memory - little.memory < 2**27 * 1.2


def test_engine_that_cannot_run_says_why(tmp_path: Path) -> None:
    with bench.Engine("optimized", tmp_path / "none.pth", "1x3x32x64") as engine:
        assert "there is no such file" in engine.greeting["unusable"]


@NEEDS_MATPLOTLIB
def test_smallest_form(mirror: Path, tmp_path: Path) -> None:
    command = ["inference", "conversion", "--small", "--rounds", "1", "--mirror", str(mirror), "--engines", *ENGINES]
    assert bench.main([*command, "--output", str(tmp_path / "benchmarks")]) == 0
    written = json.loads((tmp_path / "benchmarks" / "benchmarks.json").read_text(encoding="utf-8"))
    assert written.keys() == {"machine", "inference", "conversion"}
    model = written["inference"][bench.SMALL]
    assert set(model["seconds"]) == set(model["ratios"]) == set(ENGINES)
    assert model["unusable"] == {}
    ours, theirs = (model["profiles"][engine] for engine in bench.PROFILED)
    kinds = {engines.LINEAR, engines.CONVOLUTION, engines.SOFTMAX, engines.OTHER}
    assert ours.keys() == theirs.keys() == kinds
    # Two in each of 11 blocks and two after them, of which two are joined; ONNX Runtime has the gates' 18 as well.
    assert (ours[engines.LINEAR]["calls"], theirs[engines.LINEAR]["calls"]) == (23, 42)
    assert ours[engines.LINEAR]["kernels"] > 0
    assert set(written["conversion"]) == {"import torch", bench.SMALL}
    wanted = {"bytes", "largest", "seconds", "ratio", "processor", "memory"}
    assert all(each.keys() == wanted for each in written["conversion"].values())
