"""Nothing that lies in the working folder is imported: not by a command, not by a process that it starts, as a library
neither. People work in folders that they have unpacked."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from paddle2torch.converter.zoo import catalog

PLANTED = (
    "paddle", "numpy", "torch", "converter", "architectures", "reading", "yaml", "click", "cv2", "typing", "json",
    "pickle", "multiprocessing", "ctypes",
)  # fmt: skip
OURSELVES = "paddle2torch"
"""Planted, too, but for `python -m paddle2torch`, which is Python's own way to run what lies there."""
PACKAGES = ("paddle", "converter", "multiprocessing")
"""Those that are planted as folders."""
HARM = "import os\nwith open({ran!r}, 'a') as file:\n    file.write(__name__ + '\\n')\nraise ImportError('planted')\n"
SAMPLE = Path(catalog.__file__).parent / "embedded" / "sample.png"
COMPILER = shutil.which("c++")
LINE = ("--det", "none", "--rec", "embedded_rec")

COMMANDS = {
    "list": ("list",),
    "info": ("info", "embedded_rec"),
    "download": ("download", "embedded_rec"),
    "cache list": ("cache", "list"),
    "inspect": ("inspect", "embedded_rec"),
    "convert": ("convert", "embedded_rec"),
    "convert --jobs": ("convert", "embedded_rec", "model", "--jobs", "2"),
    "convert --verify": ("convert", "embedded_rec", "--verify"),
    "convert --to paddle": ("convert", "--to", "paddle", "embedded_rec.pth", "--output", "back"),
    "compare": ("compare", "embedded_rec", "embedded_rec.pth"),
    "verify": ("verify", "embedded_rec"),
    "verify --jobs": ("verify", "embedded_rec", "model", "--jobs", "2"),
    "publish": ("publish", "embedded_rec", "--dry-run"),
    "export": ("export", "embedded_rec.pth", "--format", "torchscript", "--format", "onnx", "--format", "pt2"),
    "read": ("read", str(SAMPLE), *LINE),
    "read --engine paddle": ("read", str(SAMPLE), *LINE, "--engine", "paddle"),
}
LIBRARY = {
    "verify": "paddle2torch.verify('embedded_rec')",
    "Reader": f"""
from paddle2torch.reading.paddle import PaddleSession
with PaddleSession() as session:
    session.reader(det=None, cls=None, rec="embedded_rec").read({str(SAMPLE)!r})
""",
    "optimize": """
import torch
network = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.Hardswish(), torch.nn.Softmax(1)).eval()
paddle2torch.optimize(network, compile=True)(torch.zeros(1, 3, 9, 9))
""",
    "a pool": """
from pathlib import Path
from paddle2torch.converter.batch.run import run_tasks
from paddle2torch.converter.batch.tasks import ConvertTask
from paddle2torch.converter.conversion.choice import Access, Choice
tasks = [ConvertTask(text, Choice(), Access(), Path("converted")) for text in ("embedded_rec", "model")]
assert all(outcome.passed for outcome in run_tasks(tasks, jobs=2))
""",
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a model, what was made of it, and modules that must not run."""
    folder = tmp_path_factory.mktemp("unpacked")
    environment = {**os.environ, "PYTHONSAFEPATH": "1"}
    convert = [sys.executable, "-m", "paddle2torch", "convert", "embedded_rec", "--output", str(folder)]
    subprocess.run(convert, env=environment, check=True, capture_output=True)
    (folder / "model").mkdir()
    unpack = ["tar", "-xf", str(SAMPLE.with_name("embedded_rec_train.tar")), "-C", str(folder / "model")]
    subprocess.run(unpack, check=True)
    for name in PLANTED:
        plant(folder, name)
    return folder


def plant(folder: Path, name: str) -> None:
    """Put a module there that notes in a file that it ran."""
    path = folder / name / "__init__.py" if name in PACKAGES else folder / f"{name}.py"
    path.parent.mkdir(exist_ok=True)
    path.write_text(HARM.format(ran=str(folder / "ran")))


@pytest.fixture(scope="module")
def console_script(tmp_path_factory: pytest.TempPathFactory) -> str:
    """What an installer makes of our entry point."""
    script = tmp_path_factory.mktemp("bin") / "paddle2torch"
    script.write_text(
        "import sys\nfrom paddle2torch.cli import main\nif __name__ == '__main__':\n    sys.exit(main())\n"
    )
    return str(script)


def run(folder: Path, *command: str) -> None:
    """Run Python there; nothing that is planted does."""
    result = subprocess.run([sys.executable, *command], cwd=folder, capture_output=True, text=True, check=False)
    ran = folder / "ran"
    names = ran.read_text().split() if ran.exists() else []
    ran.unlink(missing_ok=True)
    assert names == []
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize("arguments", COMMANDS.values(), ids=COMMANDS)
def test_no_command_imports_from_the_working_folder(
    folder: Path, console_script: str, arguments: tuple[str, ...]
) -> None:
    plant(folder, OURSELVES)
    run(folder, console_script, *arguments)


@pytest.mark.parametrize("name", ["list", "convert --jobs", "verify", "read --engine paddle"])
def test_no_command_that_is_run_as_a_module_does(folder: Path, name: str) -> None:
    (folder / f"{OURSELVES}.py").unlink(missing_ok=True)
    run(folder, "-m", "paddle2torch", *COMMANDS[name])


@pytest.mark.parametrize(
    "code",
    [
        pytest.param(
            code, id=name, marks=pytest.mark.skipif(name == "optimize" and not COMPILER, reason="no C++ compiler")
        )
        for name, code in LIBRARY.items()
    ],
)
def test_no_process_of_the_library_imports_from_the_working_folder(folder: Path, tmp_path: Path, code: str) -> None:
    plant(folder, OURSELVES)
    script = tmp_path / "script.py"
    script.write_text(f"import paddle2torch\nif __name__ == '__main__':\n    exec({code!r})\n")
    run(folder, str(script))


def test_an_empty_entry_of_the_path_is_not_the_working_folder_either(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`PYTHONPATH=$PYTHONPATH:/somewhere`, where nothing was set before."""
    code = "from paddle2torch.converter.support.processes import safe_variables as safe; print(safe()['PYTHONPATH'])"
    path = os.pathsep.join(["", "sources", str(tmp_path), *filter(None, [os.environ.get("PYTHONPATH")])])
    monkeypatch.setenv("PYTHONPATH", path)
    found = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert found.stdout.strip() == path.partition(os.pathsep)[2].partition(os.pathsep)[2]
