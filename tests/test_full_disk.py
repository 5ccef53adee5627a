"""A full disk and a folder that cannot be written: one clear line, the exit code for it, and nothing left behind."""

from __future__ import annotations

import gzip
import resource
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from paddle2torch.converter import zoo
from paddle2torch.converter.support.errors import OutputError
from paddle2torch.converter.writing import artifacts
from paddle2torch.converter.zoo.catalog import load_zoo, zoo_path
from support import http_server, victims
from support.http_server import Page, Server
from support.victims import Victims

EMBEDDED = Path(zoo.__file__).parent / "embedded"
MODEL = "ch_PP-OCRv3_det"
TARBALL = load_zoo().get(MODEL).artifacts["inference"].url.removeprefix("https://paddleocr.bj.bcebos.com")
CANNOT_BE_WRITTEN = OutputError.exit_code

# In a mount namespace of its own, where it may mount without being root: a disk of 64 KiB, one of 3 MiB (which holds
# one of the embedded model's two files of weights), and one that is read-only.
DISKS = {"tiny": "size=64k", "small": "size=3m", "read-only": "ro"}
UNSHARE = ("unshare", "--user", "--map-root-user", "--mount")
MOUNT = " && ".join(f'mkdir -p "$0/{name}" && mount -t tmpfs -o {how} none "$0/{name}"' for name, how in DISKS.items())


@pytest.fixture(scope="module")
def disks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("disks")


@pytest.fixture(scope="module")
def commands(disks: Path) -> Iterator[Victims]:
    """Runs command lines where those disks are mounted."""
    within = (*UNSHARE, "sh", "-c", f'{MOUNT} && exec "$@"', str(disks))
    try:
        trial = subprocess.run([*within, "true"], check=False, capture_output=True, text=True)
    except FileNotFoundError:
        pytest.skip("there is no unshare command here to mount a small disk with (it is Linux's)")
    if trial.returncode:
        pytest.skip(f"no small disk can be mounted here: {trial.stderr.strip()}")
    with victims.ready(*within) as ready:
        yield ready


@pytest.fixture
def server() -> Iterator[Server]:
    with http_server.running() as server:
        yield server


@pytest.fixture
def refused(commands: Victims, disks: Path) -> Callable[..., str]:
    """Runs a command that is to fail for want of room; returns the line that it says so with."""

    def run(disk: str, *arguments: str) -> str:
        ending = commands.run(list(arguments), zoo_path(), disks / disk)
        *notes, line = ending.said.splitlines()
        assert ending.status == CANNOT_BE_WRITTEN, ending.said
        assert not any("error" in note or "Traceback" in note for note in notes), ending.said
        assert ending.left == []
        return line

    return run


# ---- a full disk -------------------------------------------------------------------------------------------------


def test_a_download_that_will_not_fit_is_not_begun(server: Server, disks: Path, refused: Callable[..., str]) -> None:
    server.pages[TARBALL] = Page(bytes(200_000))
    line = refused("tiny", "download", MODEL, "--mirror", server.url, "--cache", str(disks / "tiny"))
    assert line.startswith(f"error: {disks}/tiny/")
    assert "200000 bytes are needed and 65536 are free; free the disk" in line


def test_a_download_that_fills_the_disk_is_taken_back(server: Server, disks: Path, refused: Callable[..., str]) -> None:
    server.pages[TARBALL] = Page(bytes(200_000), gzipped=True)  # so that its size is not known beforehand
    line = refused("tiny", "download", MODEL, "--mirror", server.url, "--cache", str(disks / "tiny"))
    assert "cannot be written (No space left on device); free the disk, or choose another cache with --cache" in line


@pytest.mark.parametrize("disk", ["tiny", "small"])
def test_a_conversion_that_fills_the_disk_is_taken_back(disk: str, disks: Path, refused: Callable[..., str]) -> None:
    """On the small disk, one file of weights has room and the other has not; neither appears."""
    output = disks / disk / "new" / "converted"
    line = refused(disk, "convert", "embedded_rec", "--kind", "trained", "--output", str(output))
    assert line.startswith(f"error: {output}/embedded_rec.")
    assert "cannot be written (No space left on device); nothing was left behind; make room there" in line


def test_unpacking_needs_no_room_but_the_results_do(disks: Path, tmp_path: Path, refused: Callable[..., str]) -> None:
    archive = tmp_path / "model.tar.gz"
    archive.write_bytes(gzip.compress((EMBEDDED / "embedded_rec_train.tar").read_bytes(), 1))
    line = refused("small", "convert", str(archive), "--output", str(disks / "small"))
    assert line.startswith(f"error: {disks}/small/model.")
    assert "cannot be written (No space left on device)" in line


def test_converting_back_on_a_full_disk_is_taken_back(
    commands: Victims, disks: Path, tmp_path: Path, refused: Callable[..., str]
) -> None:
    assert commands.run(["convert", "embedded_rec", "--output", str(tmp_path)], zoo_path(), tmp_path).status == 0
    line = refused("tiny", "convert", "--to", "paddle", str(tmp_path / "embedded_rec.pth"), "--output", f"{disks}/tiny")
    assert f"error: {disks}/tiny/embedded_rec.pdparams: cannot be written (No space left on device)" in line


# ---- read-only ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("what", "arguments"),
    [
        ("--output", ["convert", "embedded_rec", "--kind", "trained", "--output"]),
        ("--cache", ["download", MODEL, "--mirror", "SERVER", "--cache"]),
    ],
)
def test_a_read_only_folder_is_one_clear_line(
    what: str, arguments: list[str], server: Server, disks: Path, refused: Callable[..., str]
) -> None:
    server.pages[TARBALL] = Page(b"tarball")
    given = [server.url if argument == "SERVER" else argument for argument in arguments]
    line = refused("read-only", *given, str(disks / "read-only"))
    assert f"error: {disks}/read-only/" in line
    assert "cannot be written (Read-only file system)" in line


# ---- where nothing can be mounted --------------------------------------------------------------------------------


def test_files_that_may_not_grow_are_taken_back(tmp_path: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    try:
        with pytest.raises(OutputError, match=r"x.pth: cannot be written \(File too large\); nothing was left behind"):
            artifacts.write_files({"weight": torch.zeros(50_000)}, {"name": "x"}, tmp_path / "new" / "folder")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert list(tmp_path.iterdir()) == []
