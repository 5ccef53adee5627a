"""The wheel holds the packages, the zoo and the sample, and works away from the checkout."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
BUILD = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--wheel-dir"]


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the unpacked wheel, built from a copy of what git would give."""
    folder = tmp_path_factory.mktemp("wheel")
    checkout = folder / "checkout"
    for name in ("architectures", "converter", "reading"):
        for path in (ROOT / name).rglob("*"):
            if path.is_file() and "__pycache__" not in path.parts:
                target = checkout / path.relative_to(ROOT)
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(path.read_bytes())
    for name in ("setup.cfg", "setup.py", "pyproject.toml", "model_zoo.yaml", "README.md", "LICENSE", "MANIFEST.in"):
        (checkout / name).write_bytes((ROOT / name).read_bytes())
    subprocess.run([*BUILD, str(folder), str(checkout)], check=True)
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder / "site")
    return folder / "site"


def run(site: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """The command line of the unpacked wheel, from a folder of its own."""
    return subprocess.run(
        [sys.executable, "-P", "-m", "paddle2torch", *arguments],
        cwd=site.parent,
        env={**os.environ, "PYTHONPATH": str(site)},
        capture_output=True,
        text=True,
        check=False,
    )


def test_zoo_is_inside_and_found(installed: Path) -> None:
    assert (installed / "converter" / "model_zoo.yaml").read_bytes() == (ROOT / "model_zoo.yaml").read_bytes()
    result = run(installed, "list", "--task", "cls")
    assert result.returncode == 0, result.stderr
    assert "ch_ppocr_mobile_v2.0_cls" in result.stdout


def test_embedded_sample_converts(installed: Path) -> None:
    result = run(installed, "convert", "embedded_rec", "--output", str(installed.parent / "out"))
    assert result.returncode == 0, result.stderr
    assert "63 labels from embedded_dict.txt: blank + 62" in result.stderr


def test_nothing_but_the_packages_is_inside(installed: Path) -> None:
    assert {path.name for path in installed.iterdir() if not path.name.endswith(".dist-info")} == {
        "architectures",
        "converter",
        "reading",
    }
    assert (installed / "converter" / "card.md").is_file()
    assert all((installed / "converter" / "parity" / name).is_file() for name in ("report.html", "report.css"))


def test_console_script_is_declared(installed: Path) -> None:
    (entry_points,) = installed.glob("*.dist-info/entry_points.txt")
    assert "paddle2torch = paddle2torch.cli:main" in entry_points.read_text()
