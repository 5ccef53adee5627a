"""kill -9 at any moment: what stands at a final path is complete and correct, and the next run succeeds and tidies up."""

from __future__ import annotations

import errno
import gzip
import hashlib
import itertools
import os
import random
import re
import shutil
import tarfile
import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from paddle2torch.converter.support.errors import OutputError
from paddle2torch.converter.support.files import atomic_write, sweep, write_together
from paddle2torch.converter.zoo import download
from paddle2torch.converter.zoo.cache import Cache
from paddle2torch.converter.zoo.catalog import load_zoo, zoo_path
from support import http_server, victims
from support.http_server import Page, Server
from support.tarballs import tarball
from support.victims import Victims

EMBEDDED = Path(download.__file__).with_name("embedded")
DOWNLOADED = ("ch_PP-OCRv2_det", "ch_PP-OCRv2_rec")
KILLED = -9

LEFTOVER = re.compile(r"\.part$|\.part/|\.partial$|\.partial\.json$|\.lock$")
"""What a killed process may leave behind, and no process that ended well."""


# ---- what is killed ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Stage:
    """Where a command is run, again and again.

    Attributes:
        server: has what is to be downloaded, and takes its time.
        samples: models in the forms that are read, and a converted one.
        folder: all that the command writes lies below; a copy of the zoo is in it.
    """

    server: Server
    samples: Path
    folder: Path

    @property
    def zoo(self) -> Path:
        """The copy of the zoo that the command may change."""
        return self.folder / "zoo.yaml"

    @property
    def downloading(self) -> list[str]:
        """Options for commands that download."""
        return ["--mirror", self.server.url, "--cache", str(self.folder / "cache")]

    @property
    def output(self) -> list[str]:
        """Options for commands that write results."""
        return ["--output", str(self.folder / "output")]


@dataclass(frozen=True)
class Operation:
    """A command that is killed.

    Attributes:
        arguments: its command line.
        kills: how often it is killed at random.
        prepare: what is there before it runs.
    """

    arguments: Callable[[Stage], list[str]]
    kills: int
    prepare: Callable[[Stage], None] = lambda stage: None


def earlier_results(*names: str) -> Callable[[Stage], None]:
    """Results of an earlier run, which are replaced."""

    def prepare(stage: Stage) -> None:
        (stage.folder / "output").mkdir()
        for name in names:
            (stage.folder / "output" / name).write_bytes(b"an earlier result")

    return prepare


def downloaded_before(stage: Stage) -> None:
    """All that the server has lies in the cache."""
    cache = Cache(stage.folder / "cache")
    for path, page in stage.server.pages.items():
        url = stage.server.url + path
        cache.path(url).parent.mkdir(parents=True, exist_ok=True)
        cache.path(url).write_bytes(page.body)
        cache.remember(url, hashlib.sha256(page.body).hexdigest(), len(page.body))


# The network's graph is compared where an inference model is converted, which takes longer than all else.
OPERATIONS = {
    "download": Operation(lambda stage: ["download", *DOWNLOADED, *stage.downloading], 30),
    "unpack tar.gz": Operation(lambda stage: ["convert", str(stage.samples / "trained.tar.gz"), *stage.output], 20),
    "unpack zip": Operation(lambda stage: ["convert", str(stage.samples / "inference.zip"), *stage.output], 5),
    "convert": Operation(
        lambda stage: ["convert", "embedded_rec", "--kind", "trained", *stage.output],
        25,
        earlier_results("embedded_rec.pth", "embedded_rec.safetensors", "embedded_rec.json"),
    ),
    "convert back": Operation(
        lambda stage: [
            *("convert", "--to", "paddle", str(stage.samples / "embedded_rec.safetensors")),
            *("--reference", "embedded_rec", *stage.output),
        ],
        15,
    ),
    "publish": Operation(lambda stage: ["publish", "embedded_rec", "--kind", "trained", *stage.output], 10),
    "zoo lock": Operation(lambda stage: ["zoo", "lock", *DOWNLOADED, *stage.downloading], 10, downloaded_before),
    "cache clean": Operation(
        lambda stage: ["cache", "clean", "--cache", str(stage.folder / "cache")], 5, downloaded_before
    ),
}  # fmt: skip
STEPPED = ("download", "convert", "convert back", "zoo lock", "cache clean")


# ---- the stage ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def killable() -> Iterator[Victims]:
    with victims.ready() as ready:
        yield ready


@pytest.fixture(scope="module")
def samples(killable: Victims, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The embedded model as .tar.gz, .zip and .safetensors."""
    folder = tmp_path_factory.mktemp("samples")
    (folder / "trained.tar.gz").write_bytes(gzip.compress((EMBEDDED / "embedded_rec_train.tar").read_bytes(), 1))
    with (
        tarfile.open(EMBEDDED / "embedded_rec_infer.tar") as tar,
        zipfile.ZipFile(folder / "inference.zip", "w", zipfile.ZIP_DEFLATED) as archive,
    ):
        for member in filter(tarfile.TarInfo.isfile, tar):
            archive.writestr(member.name, tar.extractfile(member).read())  # type: ignore[union-attr]
    ending = killable.run(["convert", "embedded_rec", "--output", str(folder)], zoo_path(), folder)
    assert ending.status == 0, ending.said
    return folder


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with http_server.running() as server:
        for name in DOWNLOADED:
            for artifact in load_zoo().get(name).artifacts.values():
                path = artifact.url.removeprefix("https://paddleocr.bj.bcebos.com")
                server.pages[path] = Page(tarball(150_000, seed=path), pause=0.005)
        yield server


@pytest.fixture
def new_stage(server: Server, samples: Path, tmp_path: Path) -> Callable[[Operation], Stage]:
    """Makes stages on which nothing was run yet; one at a time."""

    def new(operation: Operation) -> Stage:
        stage = Stage(server, samples, tmp_path / "stage")
        shutil.rmtree(stage.folder, ignore_errors=True)
        stage.folder.mkdir()
        shutil.copy(zoo_path(), stage.zoo)
        operation.prepare(stage)
        return stage

    return new


def contents(folder: Path) -> dict[str, str]:
    """The sha256 of each file below a folder; the times in the cache's records are left out."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(
            re.sub(rb'"first_seen": ".*"', b"", path.read_bytes())
        ).hexdigest()
        for path in folder.rglob("*")
        if path.is_file()
    }


class Trial:
    """An operation, what it does when nothing disturbs it, and the check of what is left of it when it is killed."""

    def __init__(self, name: str, killable: Victims, new_stage: Callable[[Operation], Stage]) -> None:
        self.operation, self._killable, self._new_stage = OPERATIONS[name], killable, new_stage
        stage = new_stage(self.operation)
        self._before = contents(stage.folder)
        ending = self._run(stage)
        assert ending.status == 0, ending.said
        self._after, self.seconds = contents(stage.folder), ending.seconds
        assert self._after != self._before

    def _run(self, stage: Stage, **kill: float) -> victims.Ending:
        return self._killable.run(self.operation.arguments(stage), stage.zoo, stage.folder, **kill)  # type: ignore[arg-type]

    def kill(self, **kill: float) -> bool:
        """Kill it, look at what is left, and run it to its end; whether it was killed before that."""
        stage = self._new_stage(self.operation)
        ending = self._run(stage, **kill)
        assert ending.status in (0, KILLED), ending.said
        for name, sha256 in contents(stage.folder).items():
            assert LEFTOVER.search(name) or sha256 in (self._before.get(name), self._after.get(name)), (kill, name)
        if killed := ending.status == KILLED:
            again = self._run(stage)
            assert again.status == 0, (kill, again.said)
        assert contents(stage.folder) == self._after, kill
        return killed


@pytest.fixture
def trial(request: pytest.FixtureRequest, killable: Victims, new_stage: Callable[[Operation], Stage]) -> Trial:
    return Trial(request.param, killable, new_stage)


# ---- kills -------------------------------------------------------------------------------------------------------


def test_a_hundred_kills_are_planned() -> None:
    assert sum(operation.kills for operation in OPERATIONS.values()) >= 100


@pytest.mark.parametrize("trial", OPERATIONS, indirect=True)
def test_a_kill_at_a_random_moment_costs_nothing(trial: Trial) -> None:
    """Moments are spread evenly over the time that the operation takes, each at random within its share."""
    rng = random.Random(0)
    for number in range(trial.operation.kills):
        moment = trial.seconds * (number + rng.random()) / trial.operation.kills
        while not trial.kill(kill_after=moment):  # it was faster than expected
            moment *= 0.8


@pytest.mark.parametrize("trial", STEPPED, indirect=True)
def test_a_kill_before_any_step_costs_nothing(trial: Trial) -> None:
    """A step is what it does to a file below its folder: open it for writing, rename, remove, make a folder."""
    steps = next(step for step in itertools.count(1) if not trial.kill(kill_at=step))
    assert 3 < steps < 100


# ---- leftovers ---------------------------------------------------------------------------------------------------


def test_a_leftover_is_removed_by_the_next_who_writes_the_file(tmp_path: Path) -> None:
    for name in ("x.pth", "x.json"):
        leftover = tmp_path / f".{name}.abcd1234.part" / "new"
        leftover.mkdir(parents=True)
        (leftover / name).write_bytes(b"half")
    with atomic_write(tmp_path / "x.pth") as file:
        file.write(b"whole")
    assert sorted(path.name for path in tmp_path.iterdir()) == [".x.json.abcd1234.part", "x.pth"]


def test_what_a_living_process_writes_is_not_taken_for_a_leftover(tmp_path: Path) -> None:
    target = tmp_path / "x.pth"
    with atomic_write(target) as first:
        first.write(b"first")
        with atomic_write(target) as second:
            second.write(b"second")
        assert target.read_bytes() == b"second"
    assert target.read_bytes() == b"first"
    assert list(tmp_path.iterdir()) == [target]


@pytest.mark.parametrize("moment", ["before it is opened", "before it is locked"])
def test_a_folder_that_is_swept_away_before_it_is_locked_is_made_anew(
    moment: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fcntl = pytest.importorskip("fcntl")
    target, where, name = tmp_path / "x.pth", *((os, "open") if moment.endswith("opened") else (fcntl, "flock"))
    function, swept = getattr(where, name), []

    def late(*arguments: object, **more: object) -> object:
        monkeypatch.setattr(where, name, function)
        swept.extend(tmp_path.iterdir())
        sweep(target)  # as another process would, in this moment
        assert list(tmp_path.iterdir()) == []
        return function(*arguments, **more)

    monkeypatch.setattr(where, name, late)
    with atomic_write(target) as file:
        file.write(b"whole")
    assert len(swept) == 1
    assert target.read_bytes() == b"whole"


def test_writers_in_each_other_s_way_all_succeed(tmp_path: Path) -> None:
    target, failures = tmp_path / "x.pth", []

    def write_often(content: bytes) -> None:
        try:
            for _ in range(50):
                with atomic_write(target) as file:
                    file.write(content)
        except OutputError as error:
            failures.append(error)

    threads = [threading.Thread(target=write_often, args=(bytes([number]) * 1000,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert len(set(target.read_bytes())) == 1
    assert list(tmp_path.iterdir()) == [target]


# ---- what belongs together ---------------------------------------------------------------------------------------


def test_files_that_belong_together_appear_in_their_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names, moved, move = ["x.pth", "x.safetensors", "x.json"], [], Path.replace

    def noted(source: Path, target: Path) -> Path:
        written = [path.name for path in tmp_path.rglob("x.*") if path.is_file()]
        assert sorted(written) == sorted(names), "one is at its path before the others are written"
        moved.append(target.name)
        return move(source, target)

    monkeypatch.setattr(Path, "replace", noted)
    write_together({tmp_path / name: name.encode() for name in names})
    assert moved == names
    assert {path.name: path.read_bytes().decode() for path in tmp_path.iterdir()} == {name: name for name in names}


def test_where_one_of_them_cannot_be_written_none_changes(tmp_path: Path) -> None:
    (tmp_path / "x.pth").write_bytes(b"an earlier result")
    contents = {tmp_path / name: b"new" for name in ("x.pth", "x" * 300, "x.json")}
    with pytest.raises(OutputError, match=r"/x+: cannot be written \(File name too long\); nothing was left behind"):
        write_together(contents)
    assert (tmp_path / "x.pth").read_bytes() == b"an earlier result"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["x.pth"]


@pytest.mark.parametrize(
    "write", [lambda path: write_together({path: b"x"}), lambda path: atomic_write(path).__enter__()]
)
def test_where_nothing_can_be_written_no_folder_stays(write: Callable[[Path], object], tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    for path in (tmp_path / "file" / "x", tmp_path / "new" / "deep" / ("x" * 300) / "x"):
        with pytest.raises(OutputError, match=r": cannot be written \(.*\); nothing was left behind"):
            write(path)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_results_are_as_readable_as_other_files_and_whoever_wrote_them(tmp_path: Path) -> None:
    def privately(path: Path) -> None:
        path.write_bytes(b"x")
        path.chmod(0o600)

    (tmp_path / "other").write_bytes(b"")
    write_together({tmp_path / "x.pth": privately, tmp_path / "x.json": b"x"})
    with atomic_write(tmp_path / "x"):
        pass
    assert len({path.stat().st_mode for path in tmp_path.iterdir()}) == 1


def test_files_may_be_written_by_functions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All are on the disk before the first appears, once each."""
    done, sync, move = [], os.fsync, Path.replace
    monkeypatch.setattr(os, "fsync", lambda number: (sync(number), done.append("synced")))
    monkeypatch.setattr(Path, "replace", lambda source, target: (move(source, target), done.append(target.name)))
    write_together({tmp_path / "x.pth": lambda path: path.write_bytes(b"weights"), tmp_path / "x.json": b"record"})
    assert done == ["synced", "synced", "x.pth", "x.json"]
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {"x.pth": b"weights", "x.json": b"record"}


def test_files_of_one_name_are_all_of_one_writer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second waits until the first has moved all of its files."""
    pytest.importorskip("fcntl")
    move, first_moved = Path.replace, threading.Event()

    def slowly(source: Path, target: Path) -> Path:
        moved = move(source, target)
        if threading.current_thread() is first:
            first_moved.set()
            time.sleep(0.2)
        return moved

    def write(content: bytes) -> None:
        write_together({tmp_path / name: content for name in ("x.pth", "x.safetensors", "x.json")})

    monkeypatch.setattr(Path, "replace", slowly)
    first = threading.Thread(target=write, args=(b"first",))
    first.start()
    assert first_moved.wait(60)
    write(b"second")
    first.join()
    assert {path.read_bytes() for path in tmp_path.iterdir()} == {b"second"}


@pytest.mark.parametrize(("error", "raised"), [(OSError("no room"), OutputError), (ValueError("odd"), ValueError)])
def test_a_function_that_fails_leaves_nothing(error: Exception, raised: type[Exception], tmp_path: Path) -> None:
    def fail(path: Path) -> None:
        path.write_bytes(b"half")
        raise error

    (tmp_path / "x.json").write_bytes(b"an earlier result")
    with pytest.raises(raised):
        write_together({tmp_path / "x.pth": fail, tmp_path / "x.json": b"new"})
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {"x.json": b"an earlier result"}


def test_a_file_that_does_not_reach_the_disk_is_named_and_none_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sync = os.fsync

    def fail(number: int) -> None:
        if os.fstat(number).st_size == len(b"weights"):
            raise OSError(errno.ENOSPC, "No space left on device")
        sync(number)

    monkeypatch.setattr(os, "fsync", fail)
    (tmp_path / "x.json").write_bytes(b"an earlier result")
    with pytest.raises(OutputError, match=r"x\.safetensors: cannot be written \(No space left on device\); nothing"):
        write_together({tmp_path / "x.pth": b"", tmp_path / "x.safetensors": b"weights", tmp_path / "x.json": b"new"})
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {"x.json": b"an earlier result"}
