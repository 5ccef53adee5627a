"""Many models at once: in this process, in several, on a cluster that loses a worker."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from paddle2torch.cli import main
from paddle2torch.converter.batch.run import Outcome, Report, run_tasks, table
from paddle2torch.converter.batch.tasks import ConvertTask, VerifyTask, absolute
from paddle2torch.converter.conversion.choice import Access, Choice
from paddle2torch.converter.support.errors import DownloadError, SchedulerError
from support.graphs import EMBEDDED
from support.scripted import Scripted

SUFFIXES = (".pth", ".safetensors", ".json")


def runs(folder: Path, name: str) -> int:
    return len((folder / name).read_text())


@pytest.fixture
def scripted(tmp_path: Path) -> Callable[..., Scripted]:
    return lambda name, *arguments: Scripted(name, tmp_path / name, *arguments)


def test_outcomes_come_in_the_order_of_the_tasks_and_are_told_at_once(scripted: Callable[..., Scripted]) -> None:
    told: list[str] = []
    outcomes = run_tasks([scripted("a"), scripted("b")], done=lambda outcome: told.append(outcome.name))
    assert [outcome.name for outcome in outcomes] == told == ["a", "b"]
    assert all(outcome.passed and outcome.tries == 1 for outcome in outcomes)


def test_what_may_pass_is_tried_once_more_at_the_end(scripted: Callable[..., Scripted], tmp_path: Path) -> None:
    told: list[str] = []
    tasks = [scripted("once", 1), scripted("fine"), scripted("always", 9), scripted("lasting", 9, "lasting")]
    outcomes = run_tasks(tasks, done=lambda outcome: told.append(outcome.name))
    assert told == ["once", "fine", "always", "lasting", "once", "always"]
    assert [outcome.passed for outcome in outcomes] == [True, True, False, False]
    assert [outcome.tries for outcome in outcomes] == [2, 1, 2, 1]
    assert [runs(tmp_path, task.name) for task in tasks] == [2, 1, 2, 1]
    assert (outcomes[2].error, outcomes[2].exit_code) == ("always: no luck", DownloadError.exit_code)


def test_a_download_alone_is_not_tried_again(scripted: Callable[..., Scripted], tmp_path: Path) -> None:
    (outcome,) = run_tasks([scripted("once", 1)])
    assert (outcome.passed, outcome.tries, runs(tmp_path, "once")) == (False, 1, 1)


def test_a_process_that_dies_costs_one_try(scripted: Callable[..., Scripted], tmp_path: Path) -> None:
    outcomes = run_tasks([scripted("killed", 1, "killed"), scripted("other")], jobs=2)
    assert all(outcome.passed for outcome in outcomes)
    assert outcomes[0].tries == 2
    assert runs(tmp_path, "killed") == 2


def test_a_process_that_always_dies_is_told(scripted: Callable[..., Scripted]) -> None:
    outcomes = run_tasks([scripted("killed", 9, "killed"), scripted("other", 9, "killed")], jobs=2)
    assert "the worker was lost" in outcomes[0].error
    assert outcomes[0].exit_code == SchedulerError.exit_code


def test_the_table_has_a_row_for_each() -> None:
    rows = table([Outcome("a", Report("fine"), seconds=1.26), Outcome("bcd", None, "no\nluck", 5, tries=2)])
    assert rows == [
        "NAME  OUTCOME  SECONDS  TRIES",
        "a     done     1.3      1      fine",
        "bcd   FAILED   0.0      2      no",
    ]


# ---- real work ---------------------------------------------------------------------------------------------------


@pytest.fixture
def tarballs(tmp_path: Path) -> list[Path]:
    """Copies of the embedded inference tarball."""
    paths = [tmp_path / "sources" / f"m{i}.tar" for i in range(6)]
    paths[0].parent.mkdir()
    for path in paths:
        shutil.copy(EMBEDDED / "embedded_rec_infer.tar", path)
    return paths


def same_weights(folder: Path, paths: list[Path]) -> bool:
    """Whether all were converted, to the same state dict, and nothing else lies there."""
    contents = {(folder / path.with_suffix(".pth").name).read_bytes() for path in paths}
    expected = {path.stem + suffix for path in paths for suffix in SUFFIXES}
    return len(contents) == 1 and {path.name for path in folder.iterdir()} == expected


def test_several_processes_write_what_one_writes(tarballs: list[Path], tmp_path: Path) -> None:
    result = CliRunner().invoke(
        main, ["convert", *map(str, tarballs[:3]), "--jobs", "2", "--output", str(tmp_path / "out")]
    )
    assert result.exit_code == 0, result.output
    assert same_weights(tmp_path / "out", tarballs[:3])
    assert "[3/3]" in result.stderr
    assert result.stdout.splitlines()[-4].split() == ["NAME", "OUTCOME", "SECONDS", "TRIES"]


def test_one_failure_among_many_leaves_the_others_and_the_exit_code(tarballs: list[Path], tmp_path: Path) -> None:
    tarballs[0].write_bytes(b"no archive")
    arguments = ["convert", *map(str, tarballs[:2]), "--output", str(tmp_path / "out")]
    result = CliRunner().invoke(main, arguments)
    alone = CliRunner().invoke(main, ["convert", str(tarballs[0])])
    assert result.exit_code == alone.exit_code == 6
    assert alone.stderr.count("error: ") == 1
    assert f"error: 1 of 2 models failed: {tarballs[0]}\n" in result.stderr
    assert same_weights(tmp_path / "out", tarballs[1:2])


def test_nothing_named_is_a_matter_of_usage() -> None:
    for command in ("convert", "verify"):
        result = CliRunner().invoke(main, [command])
        assert result.exit_code == 2
        assert "name a SOURCE, or give --all" in result.output


def test_all_means_every_model_that_has_the_kind(tmp_path: Path) -> None:
    """Without a network nearly all fail; the embedded one does not."""
    arguments = ["verify", "--all", "--kind", "pretrained", "--mirror", str(tmp_path), "--summary", str(tmp_path / "s")]
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == DownloadError.exit_code
    models = json.loads((tmp_path / "s").read_text(encoding="utf-8"))["models"]
    assert len(models) > 1
    assert all("error" in model for model in models)


def test_relative_paths_are_made_to_mean_the_same_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "m.tar").touch()
    task = VerifyTask(
        "m.tar", Choice(dictionary=Path("d.txt")), Access(mirror="https://a/b"), "graph:m.tar", images=(Path("i.png"),)
    )
    found = absolute(task)
    assert found.text == str(tmp_path / "m.tar")
    assert found.choice.dictionary == tmp_path / "d.txt"
    assert found.access.mirror == "https://a/b"
    assert found.reference == f"graph:{tmp_path / 'm.tar'}"
    assert found.images == (tmp_path / "i.png",)
    assert absolute(ConvertTask("embedded_rec", Choice(), Access(), Path("o"))).text == "embedded_rec"


# ---- a cluster ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def cluster() -> Iterator[object]:
    """A real Dask scheduler with two worker processes on this machine."""
    distributed = pytest.importorskip("distributed")
    with distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None, silence_logs=50
    ) as started:
        yield started


def test_a_cluster_that_loses_a_worker_midway_finishes(cluster: object, tarballs: list[Path], tmp_path: Path) -> None:
    pids = [worker.pid for worker in cluster.workers.values()]
    told: list[Outcome] = []

    def kill_one(outcome: Outcome) -> None:
        if not told:
            os.kill(pids[0], signal.SIGKILL)
        told.append(outcome)

    tasks = [ConvertTask(str(path), Choice(), Access(), tmp_path / "out") for path in tarballs]
    outcomes = run_tasks(tasks, scheduler=cluster.scheduler_address, done=kill_one)
    assert all(outcome.passed for outcome in outcomes), [outcome.error for outcome in outcomes]
    assert same_weights(tmp_path / "out", tarballs)
    with pytest.raises(ProcessLookupError):
        os.kill(pids[0], 0)


def test_the_command_takes_a_scheduler_and_relative_paths(
    cluster: object, tarballs: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    names = [os.path.relpath(path) for path in tarballs[:2]]
    address = cluster.scheduler_address
    result = CliRunner().invoke(main, ["convert", *names, "--output", "out", "--scheduler", address])
    assert result.exit_code == 0, result.output
    assert same_weights(tmp_path / "out", tarballs[:2])


@pytest.mark.parametrize("address", ["tcp://127.0.0.1:9", "x:y:z", "tcp://nowhere.invalid:8786", "nothing"])
def test_a_scheduler_that_does_not_answer_is_one_clear_error(address: str) -> None:
    pytest.importorskip("distributed")
    code = (
        "from paddle2torch.cli import main; from paddle2torch.converter.batch import run; run.CONNECT_LIMIT = 1; "
        f"main(['convert', 'embedded_rec', '--scheduler', {address!r}])"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=30)
    assert ended.returncode == SchedulerError.exit_code
    assert ended.stderr.startswith(f"error: {address}: no Dask scheduler answers there")
    assert ended.stderr.count("\n") == 1
