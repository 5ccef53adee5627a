"""Many models at once: in this process, in several, or on a Dask cluster, with one way of going about it.

A task is plain data with a method that does the work, and may be run again: what it writes it writes whole. Errors that
people can do something about come back as data too, for they cannot all travel as exceptions. What failed for reasons
of the machinery (a worker that died, a network) is tried once more at the end.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol

from paddle2torch.converter.support.errors import (
    ConverterError,
    DownloadError,
    PaddleError,
    SchedulerError,
    UnknownHostError,
)
from paddle2torch.converter.support.extras import require
from paddle2torch.converter.support.interrupts import raise_pending
from paddle2torch.converter.support.processes import safe_children
from paddle2torch.converter.support.table import table_lines
from paddle2torch.converter.support.terminal import clean_streams

TRIES = 2
CONNECT_LIMIT = 20  # seconds for a scheduler to answer
# Errors that another try may not meet.
PASSING = (DownloadError, PaddleError)

# A process does one task at a time: networks compute with all threads there are, and share a Paddle process.
_ALONE = threading.Lock()


@dataclass(frozen=True)
class Report:
    """What a task has to say.

    Attributes:
        summary: one phrase.
        results: lines for stdout.
        passed: whether all is well.
        exit_code: where it is not.
        data: for programs.
    """

    summary: str
    results: tuple[str, ...] = ()
    passed: bool = True
    exit_code: int = 0
    data: dict[str, Any] = field(default_factory=dict)


class Task(Protocol):
    """Something to do for one model; picklable."""

    @property
    def name(self) -> str:
        """What to call it."""
        ...

    def run(self) -> Report:
        """Do it."""
        ...


@dataclass(frozen=True)
class Outcome:
    """What became of a task.

    Attributes:
        name: of the task.
        report: what it said, where it came to its end.
        error: why it did not, for a person; empty otherwise.
        exit_code: of the error, or of a report that did not pass; 0 otherwise.
        passing: whether another try may go better.
        seconds: that it took.
        tries: how many there were.
    """

    name: str
    report: Report | None
    error: str = ""
    exit_code: int = 0
    passing: bool = False
    seconds: float = 0.0
    tries: int = 1

    @property
    def passed(self) -> bool:
        return self.report is not None and self.report.passed

    @property
    def summary(self) -> str:
        """One phrase for a person."""
        return self.report.summary if self.report is not None else self.error.partition("\n")[0]


def run_tasks(
    tasks: Sequence[Task],
    *,
    jobs: int = 1,
    scheduler: str | None = None,
    debug: bool = False,
    done: Callable[[Outcome], None] = lambda outcome: None,
) -> list[Outcome]:
    """Run tasks and collect what became of them.

    Args:
        tasks: with names of their own.
        jobs: processes at a time; one task after the other in this process for 1.
        scheduler: address of a Dask scheduler whose workers do it; they must see the same files.
        debug: let errors through as they are.
        done: called with each outcome as it comes in; once more for a task that is tried again.

    Returns:
        The outcomes, in the tasks' order.

    Raises:
        SchedulerError: no scheduler answers.
        MissingPackageError: Dask is not installed.
    """
    outcomes: dict[str, Outcome] = {}
    waiting = list(tasks)
    for tries in range(1, TRIES + 1):
        with _executor(min(jobs, len(waiting)), scheduler) as executor:
            for outcome in _stream(executor, waiting, tries, debug):
                outcomes[outcome.name] = outcome
                done(outcome)
        waiting = [task for task in waiting if outcomes[task.name].passing]
        # A download was tried several times; alone, it would be tried again at once, and not later.
        alone = len(tasks) == 1 and outcomes[tasks[0].name].exit_code == DownloadError.exit_code
        if not waiting or alone:
            break
    return [outcomes[task.name] for task in tasks]


def _stream(executor: Executor | None, tasks: Sequence[Task], tries: int, debug: bool) -> Iterator[Outcome]:
    """Outcomes as they come in."""
    if executor is None:
        for task in tasks:
            yield attempt(task, tries, debug)
        return
    futures = {executor.submit(attempt, task, tries, debug): task for task in tasks}
    try:
        for future in as_completed(futures):
            try:
                yield future.result()
            except Exception as error:  # a worker that was killed, and whatever its machinery says of that
                if debug and isinstance(error, ConverterError):
                    raise
                reason = f"the worker was lost ({type(error).__name__}: {str(error).partition(chr(10))[0]})"
                yield Outcome(futures[future].name, None, reason, SchedulerError.exit_code, passing=True, tries=tries)
    finally:
        for future in futures:
            future.cancel()


def attempt(task: Task, tries: int, debug: bool = False) -> Outcome:
    """Run one task, in whatever process this is."""
    started = time.monotonic()
    try:
        with _ALONE:
            report = task.run()
        raise_pending()
    except ConverterError as error:
        raise_pending(error)
        if debug:
            raise
        seconds = time.monotonic() - started
        passing = isinstance(error, PASSING) and not isinstance(error, UnknownHostError)
        return Outcome(task.name, None, str(error), error.exit_code, passing, seconds, tries)
    return Outcome(task.name, report, "", report.exit_code, False, time.monotonic() - started, tries)


@contextmanager
def _executor(jobs: int, scheduler: str | None) -> Iterator[Executor | None]:
    if scheduler is not None:
        with _cluster(scheduler) as executor:
            yield executor
    elif jobs > 1:
        import multiprocessing
        from concurrent.futures import ProcessPoolExecutor

        # Fresh processes: a fork would inherit threads of PyTorch that do not run in it.
        context = multiprocessing.get_context("spawn")
        with safe_children(), ProcessPoolExecutor(jobs, context, clean_streams) as executor:
            try:
                yield executor
            except BaseException:
                executor.shutdown(wait=False, cancel_futures=True)
                raise
    else:
        yield None


@contextmanager
def _cluster(address: str) -> Iterator[Executor]:
    distributed = require("distributed", "cluster", "--scheduler")
    try:
        # Before the client, which cannot be taken apart again without complaints where it is malformed.
        distributed.comm.resolve_address(address)
        client = distributed.Client(address, timeout=CONNECT_LIMIT, set_as_default=False)
    except (OSError, ValueError, TimeoutError) as error:
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise SchedulerError(f"{address}: no Dask scheduler answers there ({reason}); check the address") from error
    with client:
        # Not pure: a task that is tried again must not be answered with what became of it the first time.
        yield client.get_executor(pure=False)


def table(outcomes: Sequence[Outcome]) -> list[str]:
    """What became of all, for a terminal."""
    rows = [("NAME", "OUTCOME", "SECONDS", "TRIES", "")]
    rows += [
        (each.name, "done" if each.passed else "FAILED", f"{each.seconds:.1f}", str(each.tries), each.summary)
        for each in outcomes
    ]
    return table_lines(rows)
