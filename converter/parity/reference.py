"""The client of the Paddle process: starts it, asks it, and says clearly when it does not answer."""

from __future__ import annotations

import json
import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Literal

import numpy as np

from paddle2torch.converter.support.errors import PaddleError
from paddle2torch.converter.support.processes import safe_variables
from paddle2torch.converter.support.scratch import Scratch

START_LIMIT = 120.0  # seconds; importing Paddle from a cold disk takes a while
REQUEST_LIMIT = 300.0  # seconds; the slowest request seen takes about three
STDERR_TAIL = 5  # lines quoted in a message
Precision = Literal["single", "double"]
# By its path, and safely: with `-m` the working folder would come first where modules are looked for.
WORKER_COMMAND = (sys.executable, "-P", str(Path(__file__).with_name("paddle_worker.py")))


@dataclass(frozen=True)
class ReferenceOperator:
    """An operator of the Paddle program.

    Attributes:
        type: Paddle's name for it, for example `conv2d`.
        inputs: the values it reads, parameters among them.
        result: the value it computes; by-products (saved means, masks) are left out.
    """

    type: str
    inputs: tuple[str, ...]
    result: str | None


@dataclass(frozen=True)
class ReferenceProgram:
    """What Paddle itself says about a program that it has loaded.

    Attributes:
        feeds: the inputs.
        fetches: the outputs.
        parameters: shape by parameter name.
        operators: in execution order, feed and fetch left out.
    """

    feeds: tuple[str, ...]
    fetches: tuple[str, ...]
    parameters: dict[str, tuple[int, ...]]
    operators: tuple[ReferenceOperator, ...]

    @classmethod
    def from_json(cls, description: dict[str, Any]) -> ReferenceProgram:
        """Read the worker's description."""
        return cls(
            feeds=tuple(description["feeds"]),
            fetches=tuple(description["fetches"]),
            parameters={name: tuple(shape) for name, shape in description["parameters"].items()},
            operators=tuple(
                ReferenceOperator(op["type"], tuple(op["inputs"]), op["result"]) for op in description["operators"]
            ),
        )


class PaddleWorker:
    """A Paddle process, started once and used for many models; a context manager.

    The process is started on entry without waiting for it, so that Paddle is imported while the caller does other
    work, and started afresh by the next request if it died or was killed in an earlier one. It runs in a scratch folder
    and, where the system offers that, may write nowhere else (see `paddle_worker`).

    Args:
        command: how to start the process.
        start_limit: seconds until it must have said that Paddle is imported.
        request_limit: seconds that one request may take; the process is killed after it.
    """

    def __init__(
        self,
        command: Sequence[str] = WORKER_COMMAND,
        *,
        start_limit: float = START_LIMIT,
        request_limit: float = REQUEST_LIMIT,
    ) -> None:
        self._command = tuple(command)
        self._start_limit, self._request_limit = start_limit, request_limit
        self._process: _Process | None = None
        self._started_so_far: list[_Process] = []
        self._lock = threading.Lock()
        self._background = ThreadPoolExecutor(max_workers=1, thread_name_prefix="paddle")
        self._folder = Scratch()

    def __enter__(self) -> PaddleWorker:
        self._start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None and not issubclass(kind, Exception):
            self._abandon()
        self.close()

    def _start(self) -> _Process:
        self._process = _Process(self._command, Path(self._folder.name))
        self._started_so_far.append(self._process)
        return self._process

    def _abandon(self) -> None:
        """Stop whatever is going on: the program was interrupted, and waits for no answer and needs no log."""
        self._background.shutdown(wait=False, cancel_futures=True)
        for process in self._started_so_far:
            process.discard()

    def close(self) -> None:
        """End the process and remove its files, also where this is interrupted."""
        with ExitStack() as stack:
            stack.callback(self._folder.cleanup)
            stack.callback(self._end)
            self._background.shutdown(wait=True, cancel_futures=True)

    def _end(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.close()

    def wait(self) -> None:
        """Wait until Paddle has been imported.

        Raises:
            PaddleError: see `load`.
        """
        with self._lock:
            self._started()

    @property
    def versions(self) -> dict[str, str]:
        """The versions of Paddle and Python in the process.

        Raises:
            PaddleError: see `load`.
        """
        with self._lock:
            return dict(self._started().versions or {})

    @property
    def confined(self) -> bool:
        """Whether the kernel keeps the process from writing elsewhere; see `paddle_worker`.

        Raises:
            PaddleError: see `load`.
        """
        with self._lock:
            return self._started().confined

    def load(self, folder: Path, form: str) -> ReferenceProgram:
        """Load FOLDER/inference.pdmodel (form "pdmodel") or FOLDER/inference.json (form "pir") with its .pdiparams.

        Raises:
            PaddleError: Paddle is missing or too old, refuses the model, crashes, or does not answer in time.
        """
        return ReferenceProgram.from_json(self._ask("load", folder=str(folder), form=form)["program"])

    def run(self, inputs: np.ndarray, fetch: Sequence[str], precision: Precision = "single") -> dict[str, np.ndarray]:
        """Run the loaded program; return the named values.

        Args:
            inputs: float32 (N, 3, H, W).
            fetch: names of values, as the program's operators have them.
            precision: that of the program as it is, or "double" for the same program in float64.

        Raises:
            PaddleError: see `load`.
        """
        with tempfile.TemporaryDirectory(dir=self._folder.name) as name:
            folder = Path(name)
            np.save(folder / "inputs.npy", inputs, allow_pickle=False)
            answer = self._ask(
                "run", precision=precision, inputs=str(folder / "inputs.npy"), fetch=list(fetch), outputs=name
            )
            arrays = [np.load(file, allow_pickle=False) for file in answer["files"]]
        return dict(zip(fetch, arrays, strict=True))

    def submit(
        self, inputs: np.ndarray, fetch: Sequence[str], precision: Precision = "single"
    ) -> Future[dict[str, np.ndarray]]:
        """`run`, at the same time as the caller's own work."""
        return self._background.submit(self.run, inputs, fetch, precision)

    def _started(self) -> _Process:
        process = self._process or self._start()
        if process.versions is None:
            self._receive("starting", self._start_limit)
        return process

    def _ask(self, command: str, **arguments: object) -> dict[str, Any]:
        with self._lock:
            self._started().send({"command": command, **arguments})
            answer = self._receive(f"the request {command!r}", self._request_limit)
        if "error" in answer:
            raise PaddleError(f"Paddle refused the request {command!r}: {answer['error']}")
        return answer

    def _receive(self, doing: str, limit: float) -> dict[str, Any]:
        process = self._process
        assert process is not None
        try:
            return process.receive(doing, limit)
        except PaddleError:
            process.kill()
            self._process = None
            raise


class _Process:
    """One run of the worker process, in a folder that also has the file that its stderr goes to."""

    def __init__(self, command: Sequence[str], folder: Path) -> None:
        descriptor, log = tempfile.mkstemp(dir=folder, suffix=".log")
        self._log = Path(log)
        self.versions: dict[str, str] | None = None
        self.confined = False
        try:
            self._popen = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=descriptor,
                text=True,
                encoding="utf-8",
                cwd=folder,
                env=_environment(folder),
            )
        except OSError as error:
            raise PaddleError(f"the Paddle process cannot be started with {command[0]} ({error.strerror})") from error
        finally:
            os.close(descriptor)
        self._lines: queue.SimpleQueue[str] = queue.SimpleQueue()
        threading.Thread(target=self._read, args=(self._popen.stdout,), daemon=True).start()

    def _read(self, stream: IO[str]) -> None:
        for line in stream:
            self._lines.put(line)
        self._lines.put("")  # end of file

    def send(self, request: dict[str, Any]) -> None:
        """Write a request; a process that has ended is noticed by `receive`."""
        assert self._popen.stdin is not None
        try:
            self._popen.stdin.write(json.dumps(request) + "\n")
            self._popen.stdin.flush()
        except BrokenPipeError:
            pass

    def receive(self, doing: str, limit: float) -> dict[str, Any]:
        """The next answer.

        Raises:
            PaddleError: there is none within `limit` seconds, or the process ended, or it cannot use its Paddle.
        """
        try:
            line = self._lines.get(timeout=limit)
        except queue.Empty:
            raise PaddleError(
                f"Paddle did not answer within {limit:g} s while {doing}; it was stopped{self._words()}"
            ) from None
        if not line:
            raise PaddleError(f"Paddle's process ended ({self._ending()}) while {doing}{self._words()}")
        answer = json.loads(line)
        if "unusable" in answer:
            self._log.unlink(missing_ok=True)
            raise PaddleError(answer["unusable"])
        self.versions = answer.get("versions", self.versions)
        self.confined = answer.get("confined", self.confined)
        return answer

    def _ending(self) -> str:
        code = self._popen.wait(timeout=10)
        return f"exit code {code}" if code >= 0 else f"killed by {signal.Signals(-code).name}"

    def _words(self) -> str:
        """What the process last wrote to stderr, as further lines of a message."""
        lines = self._log.read_text(encoding="utf-8", errors="replace").splitlines()[-STDERR_TAIL:]
        # A copy that stays, so that the user can read it.
        descriptor, kept = tempfile.mkstemp(prefix="paddle2torch-paddle-", suffix=".log")
        with os.fdopen(descriptor, "wb") as copy:
            copy.write(self._log.read_bytes())
        return "".join(f"\n  {line}" for line in [*lines, f"(all of its stderr: {kept})"])

    def kill(self) -> None:
        """Stop the process at once."""
        self._popen.kill()
        self._popen.wait()

    def discard(self) -> None:
        """Stop the process at once, and remove its log."""
        self.kill()
        self._log.unlink(missing_ok=True)

    def close(self) -> None:
        """Let the process end, and remove its log; it is stopped at once where this is interrupted."""
        assert self._popen.stdin is not None
        self._popen.stdin.close()
        try:
            with suppress(subprocess.TimeoutExpired):
                self._popen.wait(timeout=10)
        finally:
            self.discard()


def _environment(folder: Path) -> dict[str, str]:
    """The caller's environment, with half of the cores for Paddle unless the caller has set its threads.

    Temporary files go to `folder`.
    """
    return {
        **os.environ,
        **safe_variables(),
        "TMPDIR": str(folder),
        "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", str(half_of_the_cores())),
    }


def half_of_the_cores() -> int:
    """Threads for each of the two frameworks, which work at the same time; more would wait for one another."""
    return max(1, (os.cpu_count() or 1) // 2)
