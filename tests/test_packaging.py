"""What is installed: one package, whole, that works in any folder and lets nothing there take its place."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from email.message import Message
from email.parser import Parser
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
BUILD = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--wheel-dir"]
FOLDERS = ("architectures", "converter", "face", "reading")
PACKAGED = (
    "setup.cfg",
    "setup.py",
    "pyproject.toml",
    "model_zoo.yaml",
    "model_zoo.lock.json",
    "model_zoo.known.json",
    "README.md",
    "LICENSE",
    "MANIFEST.in",
)


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the unpacked wheel, built from a copy of what git would give."""
    folder = tmp_path_factory.mktemp("wheel")
    checkout = folder / "checkout"
    for name in FOLDERS:
        for path in (ROOT / name).rglob("*"):
            if path.is_file() and "__pycache__" not in path.parts:
                target = checkout / path.relative_to(ROOT)
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(path.read_bytes())
    for name in PACKAGED:
        (checkout / name).write_bytes((ROOT / name).read_bytes())
    subprocess.run([*BUILD, str(folder), str(checkout)], check=True)
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder / "site")
    return folder / "site"


def run(site: Path, *command: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Python with the unpacked wheel, in a folder of its own."""
    return subprocess.run(
        [sys.executable, *command],
        cwd=cwd or site.parent,
        env={**os.environ, "PYTHONPATH": str(site)},
        capture_output=True,
        text=True,
        check=False,
    )


def about(site: Path) -> Message:
    """The distribution's metadata."""
    (path,) = site.glob("*.dist-info/METADATA")
    return Parser().parsestr(path.read_text(encoding="utf-8"))


def test_there_is_one_import_name(installed: Path) -> None:
    assert [path.name for path in installed.iterdir() if path.suffix != ".dist-info"] == ["paddle2torch"]


def test_what_is_no_code_is_inside_too(installed: Path) -> None:
    package = installed / "paddle2torch"
    for name in ("model_zoo.yaml", "model_zoo.lock.json", "model_zoo.known.json"):
        assert (package / "converter" / "zoo" / name).read_bytes() == (ROOT / name).read_bytes()
    others = ("py.typed", "converter/release/card.md", "converter/parity/report.html", "converter/parity/report.css")
    assert [name for name in others if not (package / name).is_file()] == []


def test_every_module_is_inside(installed: Path) -> None:
    here = {path.relative_to(ROOT) for name in FOLDERS for path in (ROOT / name).rglob("*.py")}
    there = {path.relative_to(installed / "paddle2torch") for path in installed.rglob("*.py")}
    assert there == {Path(*path.parts[1:]) if path.parts[0] == "face" else path for path in here}


@pytest.mark.parametrize("planted", ["converter/__init__.py", "architectures/__init__.py", "reading.py", "numpy.py"])
def test_the_working_folder_takes_nobody_s_place(installed: Path, tmp_path: Path, planted: str) -> None:
    (tmp_path / planted).parent.mkdir(exist_ok=True)
    (tmp_path / planted).write_text("import pathlib\npathlib.Path('ran').touch()\nraise SystemExit('planted')\n")
    result = run(installed, "-m", "paddle2torch", "convert", "embedded_rec", "--output", "out", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert "63 labels from embedded_dict.txt: blank + 62" in result.stderr
    assert not (tmp_path / "ran").exists()


def test_python_finds_all_names_of_the_face(installed: Path) -> None:
    code = "import paddle2torch\nfor name in paddle2torch.__all__: getattr(paddle2torch, name)\n"
    result = run(installed, "-P", "-c", code)
    assert result.returncode == 0, result.stderr


def test_importing_the_face_imports_nothing_else(installed: Path) -> None:
    code = "import sys; before = set(sys.modules); import paddle2torch; print(*set(sys.modules) - before)"
    assert run(installed, "-P", "-c", code).stdout.split() == ["paddle2torch"]


def test_console_script_is_declared(installed: Path) -> None:
    (entry_points,) = installed.glob("*.dist-info/entry_points.txt")
    assert "paddle2torch = paddle2torch.cli:main" in entry_points.read_text()


def test_the_package_index_shows_where_it_comes_from(installed: Path) -> None:
    told = about(installed)
    assert {line.partition(",")[0] for line in told.get_all("Project-URL", [])} >= {
        "Source",
        "Documentation",
        "Changelog",
    }
    assert [line for line in told.get_all("Classifier", []) if line.endswith(("3.11", "3.12", "3.13"))]


def test_links_of_the_description_work_on_the_package_index(installed: Path) -> None:
    """Links between files of the repository lead nowhere there."""
    text = about(installed).get_payload()
    assert isinstance(text, str)
    assert "](docs/" not in text
    assert "](CONTRIBUTING.md" not in text
