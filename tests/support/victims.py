"""Commands that are killed: a process that has imported everything once, and forks a child for each of them.

Importing PyTorch takes seconds, forking a process that has it takes milliseconds; so a hundred kills are affordable.

    python victims.py

answers requests, one JSON object per line, on stdin and stdout:

    {"arguments": [...], "zoo": FILE, "kill_after": SECONDS or null, "kill_at": STEP or null, "folder": FOLDER}
        -> {"status": exit code, or minus the signal, "seconds": how long it took, "said": what it printed to stderr,
            "left": the files below FOLDER}

STEP counts what the command is about to do to files below FOLDER: open for writing, rename, remove and so on.
"""

from __future__ import annotations

import gc
import importlib
import io
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import IO, Any, NamedTuple

STEPS = {"os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.chmod"}
POLL = 0.0005  # seconds
LONGEST = 60.0  # seconds for any command


class Ending(NamedTuple):
    """How a command ended: exit code (or minus the signal), how long it ran, what it printed to stderr, what is there."""

    status: int
    seconds: float
    said: str
    left: list[str]


class Victims:
    """The process that forks."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def run(
        self,
        arguments: list[str],
        zoo: Path,
        folder: Path,
        kill_after: float | None = None,
        kill_at: int | None = None,
    ) -> Ending:
        """Run a command line; kill it after so many seconds, or before its Nth step below the folder."""
        request = {
            "arguments": arguments,
            "zoo": str(zoo),
            "folder": str(folder),
            "kill_after": kill_after,
            "kill_at": kill_at,
        }
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        assert answer, "the process that forks has ended"
        return Ending(**json.loads(answer))


@contextmanager
def ready(*within: str) -> Iterator[Victims]:
    """The forking process, for as long as the block lasts; started by the command line `within`, where one is given."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PADDLE2TORCH_")}
    places = [str(Path(__file__).resolve().parents[1]), os.environ.get("PYTHONPATH", "")]
    environment |= {"PYTHONPATH": os.pathsep.join(filter(None, places)), "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(
        [*within, sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
    ) as process:
        yield Victims(process)


# ---- in the process that forks


def warm_up() -> None:
    """Do once what the commands do, so that the children find everything imported."""
    import torch

    from paddle2torch.cli import main

    torch.set_num_threads(1)
    have_no_paddle()
    with tempfile.TemporaryDirectory() as folder, redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
        for arguments in (
            ["convert", "embedded_rec", "--output", folder],
            ["convert", "--to", "paddle", f"{folder}/embedded_rec.pth", "--output", folder],
            ["download", "embedded_rec", "--cache", folder],
            ["publish", "embedded_rec", "--kind", "trained", "--output", folder],
        ):
            main(arguments, standalone_mode=False)
    for module in (
        "paddle2torch.converter.zoo.transfer",
        "paddle2torch.converter.support.progress",
        "paddle2torch.converter.zoo.lock",
        "filelock",
    ):
        importlib.import_module(module)
    gc.freeze()


def have_no_paddle() -> None:
    """Let `publish` take a result made up here: Paddle's takes many times as long as all that is written."""
    import numpy as np

    from paddle2torch.converter.parity.compare import Deviation
    from paddle2torch.converter.parity.inputs import Case
    from paddle2torch.converter.parity.pairing import Layer
    from paddle2torch.converter.parity.result import CaseResult, LayerResult, ParityResult, WeightFile
    from paddle2torch.converter.release import publish
    from paddle2torch.converter.tasks import Answer

    class Verifier:
        def verify(self, conversion: Any, *, weights: Path) -> ParityResult:
            none, file = Deviation(0.0, 0.0), WeightFile(weights.name, None)
            case = Case("an image", (np.zeros((48, 100, 3), "u1"),), np.zeros((1, 3, 48, 100), "f4"))
            layer = LayerResult(Layer("backbone", "conv2d", "x", ()), (1, 2), none, none, 0.0)
            answers = (Answer("text", "text", True),)
            return ParityResult(
                name=conversion.name,
                task=conversion.network.task,
                architecture=conversion.network.name,
                parameters=conversion.network.parameters,
                tolerance=1.0,
                cases=(CaseResult(case, 1.0, (layer,), none, 1.0, answers),),
                source=file,
                reference=file,
                weights=file,
                versions={"paddle2torch": "0", "torch": "0", "paddlepaddle": "0", "numpy": "0", "python": "0"},
            )

    publish.verifying = lambda options: nullcontext(Verifier())


def serve() -> None:
    warm_up()
    for line in sys.stdin:
        with tempfile.TemporaryFile("w+b") as said:
            ending = oversee(json.loads(line), said)
            said.seek(0)
            print(json.dumps({**ending, "said": said.read().decode(errors="replace")}), flush=True)


def files_below(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def oversee(request: dict[str, Any], said: IO[bytes]) -> dict[str, Any]:
    """Fork, and kill the child when its time has come."""
    started = time.monotonic()
    child = os.fork()
    if not child:
        os._exit(obey(request, said))
    limit = LONGEST if request["kill_after"] is None else request["kill_after"]
    while not (ended := os.waitpid(child, os.WNOHANG))[0]:
        if time.monotonic() - started > limit:
            os.kill(child, signal.SIGKILL)
        time.sleep(POLL)
    seconds = time.monotonic() - started
    left = files_below(Path(request["folder"]))
    return {"status": os.waitstatus_to_exitcode(ended[1]), "seconds": seconds, "left": left}


def obey(request: dict[str, Any], said: IO[bytes]) -> int:
    """The child: the command line, as a user would run it."""
    import paddle2torch.converter.zoo.catalog
    from paddle2torch.cli import main

    null = os.open(os.devnull, os.O_RDWR)
    for descriptor, target in ((null, 0), (null, 1), (said.fileno(), 2)):
        os.dup2(descriptor, target)
    paddle2torch.converter.zoo.catalog.zoo_path = lambda: Path(request["zoo"])
    if request["kill_at"] is not None:
        sys.addaudithook(killer(request["kill_at"], request["folder"]))
    try:
        main(request["arguments"], prog_name="paddle2torch")
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        sys.excepthook(*sys.exc_info())
        return 1
    return 0


def killer(last: int, folder: str) -> Any:
    """An audit hook that kills its own process before a step."""
    steps = 0

    def is_step(event: str, arguments: tuple) -> bool:
        return event in STEPS or (event == "open" and bool(arguments[2] & (os.O_WRONLY | os.O_RDWR)))

    def hook(event: str, arguments: tuple) -> None:
        nonlocal steps
        if is_step(event, arguments) and str(arguments[0]).startswith(folder):
            steps += 1
            if steps == last:
                os.kill(os.getpid(), signal.SIGKILL)

    return hook


if __name__ == "__main__":
    serve()
