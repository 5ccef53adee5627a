"""Ctrl-C on the command line: it ends at once with 130, in one word, and leaves neither files nor processes."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from torch import Tensor, nn

from paddle2torch.cli import main
from paddle2torch.converter.batch.run import Report, run_tasks
from paddle2torch.converter.graph.trace import trace_module
from paddle2torch.converter.support.errors import MappingError
from paddle2torch.converter.support.interrupts import PAUSE, raise_pending, remembered
from paddle2torch.converter.zoo.catalog import load_zoo
from support import http_server
from support.graphs import EMBEDDED
from support.http_server import Page, Server

MODELS = ("ch_PP-OCRv3_det", "ch_PP-OCRv2_rec")
# Where the interrupt passes through Python code that a C library runs, Python ends by the signal itself; shells call
# both 130.
INTERRUPTED = (130, -signal.SIGINT)
AT_ONCE = 4.0  # seconds, on a machine that has other things to do
PATIENCE = 60.0  # seconds


class Command:
    """A command line in a session of its own, as a terminal has it, with a folder for temporary files of its own."""

    def __init__(self, folder: Path, *arguments: str) -> None:
        self._temporary = folder / "temporary"
        self._temporary.mkdir()
        environment = {name: value for name, value in os.environ.items() if not name.startswith("PADDLE2TORCH_")}
        environment |= {"TMPDIR": str(self._temporary), "OMP_NUM_THREADS": "1"}
        command = [sys.executable, "-m", "paddle2torch", *arguments]
        self.process = subprocess.Popen(
            command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True, text=True
        )

    def wait_for_note(self, words: str) -> None:
        """Until it has said that on stderr."""
        assert self.process.stderr is not None
        for line in self.process.stderr:
            if words in line:
                return
        pytest.fail(f"it ended without saying {words!r}")

    def processes(self) -> list[str]:
        """The command lines of all processes of the session that are still there."""
        found = []
        for process in Path("/proc").glob("[0-9]*"):
            try:
                session = int((process / "stat").read_text().rpartition(")")[2].split()[3])
                if session == self.process.pid:
                    found.append((process / "cmdline").read_text().replace("\0", " "))
            except OSError:  # it ended in this moment
                continue
        return found

    def interrupt(self, everyone: bool = True, expected: tuple[int, ...] = INTERRUPTED) -> list[str]:
        """Ctrl-C, which reaches all processes at once, or an interrupt for the first alone; what is said after it."""
        started = time.monotonic()
        (os.killpg if everyone else os.kill)(self.process.pid, signal.SIGINT)
        _, said = self.process.communicate(timeout=PATIENCE)
        assert time.monotonic() - started < AT_ONCE
        assert self.process.returncode in expected, said
        assert "Traceback" not in said
        wait_for(lambda: not self.processes(), lambda: f"left running: {self.processes()}")
        assert list(self._temporary.glob("paddle2torch-*")) == []  # PyTorch has a folder of its own there
        return said.splitlines()


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Command]]:
    """Starts a command."""
    started: list[Command] = []

    def start(*arguments: str) -> Command:
        started.append(Command(tmp_path, *arguments))
        return started[-1]

    yield start
    for command in started:
        if command.process.poll() is None:
            os.killpg(command.process.pid, signal.SIGKILL)
        command.process.communicate()


def wait_for(condition: Callable[[], object], what: Callable[[], str] = lambda: "") -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, what()
        time.sleep(0.01)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("*") if path.is_file())


# ---- downloads ---------------------------------------------------------------------------------------------------


@pytest.fixture
def server() -> Iterator[Server]:
    """A server that sends half of each file, and nothing more until the test is over."""
    done = threading.Event()
    with http_server.running() as server:
        for name in MODELS:
            path = load_zoo().get(name).artifacts["inference"].url.removeprefix("https://paddleocr.bj.bcebos.com")
            server.pages[path] = Page(bytes(200_000), faults=[http_server.stalls_after(100_000, done)])
        yield server
        done.set()


@pytest.mark.parametrize("models", [MODELS[:1], MODELS], ids=["one file", "several files"])
def test_a_download_keeps_what_has_come(
    models: tuple[str, ...], server: Server, start: Callable[..., Command], tmp_path: Path
) -> None:
    cache = tmp_path / "cache"
    command = start("download", *models, "--mirror", server.url, "--cache", str(cache))
    wait_for(lambda: sum(path.stat().st_size > 80_000 for path in cache.rglob("*.partial")) == len(models))
    assert command.interrupt() == ["interrupted"]
    tarballs = [Path(request.path).name for request in server.requests]
    assert names(cache) == sorted(name + end for name in tarballs for end in (".partial", ".partial.json"))


# ---- conversions -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("moment", [0.0, 0.3, 0.6, 0.9])
def test_a_conversion_writes_all_or_nothing(moment: float, start: Callable[..., Command], tmp_path: Path) -> None:
    """Moments lie between its first note, before PyTorch is imported, and its end."""
    complete = ["embedded_rec.json", "embedded_rec.pth", "embedded_rec.safetensors"]
    command = start("convert", "embedded_rec", "--kind", "trained", "--output", str(tmp_path / "converted"))
    command.wait_for_note("converting")
    time.sleep(moment)
    if command.process.poll() is None:
        command.interrupt(expected=(*INTERRUPTED, 0))  # it may have come to its end meanwhile
        assert names(tmp_path / "converted") in ([], complete)
    else:
        assert names(tmp_path / "converted") == complete


# ---- Paddle's process --------------------------------------------------------------------------------------------


@pytest.mark.skipif(find_spec("paddle") is None, reason="PaddlePaddle is not installed")
@pytest.mark.parametrize("everyone", [True, False], ids=["Ctrl-C", "the first process alone"])
@pytest.mark.parametrize("computing", [False, True], ids=["while Paddle is imported", "while it computes"])
def test_no_paddle_process_is_left(
    computing: bool, everyone: bool, start: Callable[..., Command], tmp_path: Path
) -> None:
    sources = [tmp_path / f"m{number}.tar" for number in range(20)]  # enough to be at it when the interrupt comes
    for path in sources:
        shutil.copy(EMBEDDED / "embedded_rec_infer.tar", path)
    command = start("verify", *map(str, sources))
    if computing:
        command.wait_for_note("[1/20]")
    else:
        wait_for(lambda: any("paddle_worker" in line for line in command.processes()))
    time.sleep(0.2)
    assert command.interrupt(everyone)[-1] == "interrupted"


# ---- interrupts that Python loses ----------------------------------------------------------------------------------


def interrupt(error: type[Exception] | None = None) -> None:
    """Ctrl-C in code that keeps it to itself, or raises an error in its place."""
    try:
        signal.raise_signal(signal.SIGINT)
    except KeyboardInterrupt:
        if error is not None:
            raise error("trying to pop from empty mode stack")  # noqa: B904 (as it happens)


def test_an_error_in_its_place_ends_a_command_as_it_does(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("paddle2torch.converter.cli.zoo.open_zoo", lambda: interrupt(RuntimeError))
    result = CliRunner().invoke(main, ["--debug", "list"])
    assert (result.exit_code, result.stderr) == (130, "interrupted\n")


@pytest.mark.parametrize("error", [None, RuntimeError, MappingError], ids=["nothing", "a library's", "ours"])
def test_no_task_follows_one(error: type[Exception] | None) -> None:
    class Interrupted:
        def __init__(self, name: str) -> None:
            self.name = name

        def run(self) -> Report:
            ran.append(self.name)
            interrupt(error)
            return Report("as if nothing had happened")

    ran: list[str] = []
    with pytest.raises(KeyboardInterrupt), remembered():
        run_tasks([Interrupted("first"), Interrupted("second")])
    assert ran == ["first"]


def test_it_is_no_finding_about_a_network() -> None:
    class Interrupted(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            interrupt(RuntimeError)
            return x

    with pytest.raises(KeyboardInterrupt), remembered():
        trace_module(Interrupted(), (1, 3, 32, 32))


def test_it_waits_for_pytorch_to_be_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    """C++ code there that calls Python aborts the process when that raises."""
    done = []
    with pytest.raises(KeyboardInterrupt), remembered():
        with monkeypatch.context() as importing:
            importing.setattr(torch.__spec__, "_initializing", True)
            for _ in range(3):
                signal.raise_signal(signal.SIGINT)
                time.sleep(3 * PAUSE)
            done.append("all")
        time.sleep(PATIENCE)
    assert done == ["all"]
    time.sleep(3 * PAUSE)  # it comes once


def test_the_import_system_marks_modules_that_are_being_imported(tmp_path: Path) -> None:
    """The mark is Python's own affair, so that a new version may do without."""
    (tmp_path / "torch.py").write_text(
        "from paddle2torch.converter.support import interrupts\nduring = interrupts._torch_is_being_imported()\n"
    )
    code = "import torch; from paddle2torch.converter.support import interrupts; print(torch.during, interrupts._torch_is_being_imported())"
    path = os.pathsep.join([str(tmp_path), *sys.path])
    run = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True, check=True
    )
    assert run.stdout == "True False\n"


def test_other_errors_and_other_handlers_are_left_alone() -> None:
    heeded: list[int] = []
    with pytest.raises(RuntimeError), remembered():
        raise RuntimeError
    with pytest.raises(RuntimeError):  # one that was heeded long ago
        with pytest.raises(KeyboardInterrupt), remembered():
            signal.raise_signal(signal.SIGINT)
        with remembered():
            raise_pending()
            raise RuntimeError
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    signal.signal(signal.SIGINT, lambda number, frame: heeded.append(number))
    try:
        with remembered():
            interrupt()
            raise_pending()
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    assert heeded == [signal.SIGINT]
