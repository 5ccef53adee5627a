"""README and docs: every command is checked and run, every code block too, and the site is built, warnings as errors."""

from __future__ import annotations

import configparser
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tarfile
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner
from PIL import Image

from conftest import MIRROR_VARIABLE
from paddle2torch.cli import main
from paddle2torch.converter.zoo.catalog import load_zoo
from support.documents import (
    PAGES,
    PYTHON,
    ROOT,
    SHELL,
    Block,
    all_options,
    blocks,
    commands,
    invocations,
    unknown_options,
)
from support.hub_server import ORGANISATION, TOKEN, running

EMBEDDED = ROOT / "converter" / "zoo" / "embedded"
# Words in a command that is not run here, and why.
NOT_RUN = {
    r"^(\S+=\S+ )?make ": "CI runs some of them, tests the parts of the others",
    r"^\.ci/": "that is CI",
    r"^pip ": "the packages are here; the extras are compared with setup.cfg",
    r"^dask ": "test_batch has a cluster",
    "--scheduler": "test_batch has a cluster",
    "--all": "test_batch has a smaller zoo",
    "rapidocr": "no dependency; scripts/checks/rapidocr.py checks it",
    "make_golden": "takes released programs",
    "scripts.checks.sensitivity": "takes a minute",
}
MIRRORED = "|".join(re.escape(model.name) for model in load_zoo() if model.generation != "embedded")
# Pages of which nothing is run here, and why.
NOT_FOLLOWED = {"benchmarks": "takes most of an hour; test_bench and test_optimize have the parts"}
# What needs models that a mirror has: their names, files made of them, and commands that default to them.
NEEDS_MIRROR = re.compile(rf"{MIRRORED}|/srv/paddle|\bread (?!.*--det none)|\bverify output/(?!.*--reference)")
# What a reader fills in, and less of what takes long.
REPLACED = {"hf_…": TOKEN, "ORG": ORGANISATION}
SHORTER = {"scripts.examples.fine_tune": " --steps 25"}
PACKAGES = {"how-to/read": "cv2", "how-to/export": "onnxruntime", "how-to/publish": "huggingface_hub"}
# Options in prose that are other programs'.
FOREIGN_OPTIONS = {"--strict", "--extra"}


def name(page: Path) -> str:
    return page.relative_to(ROOT).as_posix().removeprefix("docs/").removesuffix(".md")


every_page = pytest.mark.parametrize("page", PAGES, ids=name)


# ---- cheap: nothing is run ---------------------------------------------------------------------------------------


def test_commands_are_found() -> None:
    found = {name(page): len(commands(page)) for page in PAGES}
    assert found["README"] >= 20
    assert all(found[page] for page in found if page.startswith("how-to/"))


@every_page
def test_every_command_and_option_exists(page: Path) -> None:
    for command in commands(page):
        for arguments in invocations(command):
            assert not unknown_options(arguments), command


@every_page
def test_every_make_target_exists(page: Path) -> None:
    targets = re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    for command in commands(page):
        if match := re.search(r"\bmake (\w+)", command):
            assert match[1] in targets, command


@every_page
def test_every_extra_exists(page: Path) -> None:
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    named = re.findall(r"pip install '\.\[([\w,]+)\]'", page.read_text(encoding="utf-8"))
    assert {extra for names in named for extra in names.split(",")} <= set(setup["options.extras_require"])


@every_page
def test_options_in_prose_exist(page: Path) -> None:
    prose = re.findall(r"`(?:paddle2torch )?(--[a-z][\w-]*)[^`\n]*`", page.read_text(encoding="utf-8"))
    assert set(prose) <= all_options() | FOREIGN_OPTIONS


@every_page
def test_excerpts_are_those_of_the_file(page: Path) -> None:
    for block in blocks(page):
        if block.file:
            source = textwrap.dedent((ROOT / block.file).read_text(encoding="utf-8"))
            inner = re.sub(r"^    ", "", source, flags=re.MULTILINE)
            assert block.text in source or block.text in inner, block.file


# ---- the site ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The rendered site; a warning ends the build."""
    for module in ("material", "mkdocstrings_handlers"):
        if importlib.util.find_spec(module) is None:
            pytest.skip("mkdocs-material or mkdocstrings is missing: pip install 'paddle2torch[docs]'")
    folder = tmp_path_factory.mktemp("site")
    # Not --quiet, with which mkdocs does not count warnings either.
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    built = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert built.returncode == 0, built.stderr
    return folder


def test_every_page_is_built(site: Path) -> None:
    pages = [page for page in PAGES if ROOT / "docs" in page.parents]
    assert [name(page) for page in pages if not (site / f"{name(page)}.html").is_file()] == []


def test_the_site_loads_nothing_from_elsewhere(site: Path) -> None:
    loading = re.compile(
        r"<(?:script|img|iframe|link(?=[^>]*stylesheet)|source)\b[^>]*(?:src|href)=\"?(?:https?:)?//[^>]*>"
    )
    assert [match for page in site.rglob("*.html") for match in loading.findall(page.read_text(encoding="utf-8"))] == []


def test_the_functions_of_the_api_are_shown_with_their_arguments(site: Path) -> None:
    text = re.sub(r"<[^>]+>", "", (site / "api" / "converter.html").read_text(encoding="utf-8"))
    for words in ("wins over a folder of the same name", "without_paddle", "a key of FORMATS", "SchedulerError"):
        assert words in text


# ---- everything is run -------------------------------------------------------------------------------------------


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A clean folder with what the how-tos speak of: a checkpoint and an exported model of one's own, images."""
    with tarfile.open(EMBEDDED / "embedded_rec_train.tar") as tar:
        checkpoint = tar.extractfile("embedded_rec_train/best_accuracy.pdparams").read()
    (tmp_path / "output").mkdir()
    (tmp_path / "output" / "best_accuracy.pdparams").write_bytes(checkpoint)
    with tarfile.open(EMBEDDED / "embedded_rec_infer.tar") as tar:
        tar.extractall(tmp_path, filter="data")
    (tmp_path / "embedded_rec_infer").rename(tmp_path / "model")
    shutil.copy(EMBEDDED / "embedded_dict.txt", tmp_path / "my_dict.txt")
    shutil.copy(EMBEDDED / "sample.png", tmp_path / "line.png")
    with Image.open(tmp_path / "line.png") as line:
        page = Image.new("RGB", (640, 480), "white")
        page.paste(line.convert("RGB"), (60, 80))
        page.save(tmp_path / "page.jpg")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def environment(desk: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, str]]:
    """That of a shell in which this project is installed, with a Hub that is a stand-in."""
    monkeypatch.setenv("PADDLE2TORCH_CACHE", str(desk / "cache"))
    with running() as hub:
        yield {
            **{key: value for key, value in os.environ.items() if not key.startswith("HF_")},
            "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]),
            "PYTHONPATH": str(ROOT),
            "HF_ENDPOINT": hub.url,
            "HF_HOME": str(desk / "home"),
            "HF_HUB_DISABLE_XET": "1",
        }


def is_run(text: str) -> bool:
    """Whether a command or a piece of code is run here and now."""
    if any(re.search(sign, text) for sign in NOT_RUN):
        return False
    return bool(os.environ.get(MIRROR_VARIABLE)) or not NEEDS_MIRROR.search(text)


def prepared(text: str) -> str:
    """A command or a piece of code, with what a reader fills in."""
    text = text.replace("/srv/paddle", os.environ.get(MIRROR_VARIABLE, ""))
    for placeholder, value in REPLACED.items():
        text = text.replace(placeholder, value)
    return text + "".join(more for sign, more in SHORTER.items() if sign in text)


def run_command(command: str, environment: dict[str, str]) -> None:
    """Run a command of the shell; `paddle2torch` in this process, which has imported PyTorch already."""
    if command.startswith("paddle2torch "):
        (arguments,) = invocations(command)
        result = CliRunner().invoke(main, arguments)
        assert result.exit_code == 0, f"{command}: {result.stderr}"
    else:
        run(["bash", "-c", command], command, environment)


def run(arguments: list[str], text: str, environment: dict[str, str]) -> None:
    done = subprocess.run(arguments, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, f"{text}: {done.stderr}"


def run_block(block: Block, desk: Path, environment: dict[str, str]) -> None:
    if block.language == SHELL:
        for command in filter(is_run, block.commands):
            if "somebody_elses.pth" in command:
                run_command("paddle2torch convert ch_PP-OCRv3_rec --output elsewhere", environment)
                shutil.copy(desk / "elsewhere" / "ch_PP-OCRv3_rec.pth", desk / "somebody_elses.pth")
            run_command(prepared(command), environment)
    elif block.language == PYTHON and not block.file and is_run(block.text):
        run([sys.executable, "-c", prepared(block.text)], block.text, environment)


@pytest.mark.parametrize("page", [page for page in PAGES if name(page) not in NOT_FOLLOWED], ids=name)
def test_everything_works_as_written(page: Path, desk: Path, environment: dict[str, str]) -> None:
    """In the page's order, in a clean folder. Without a mirror, what can be done with the embedded model."""
    if name(page) in PACKAGES:
        pytest.importorskip(PACKAGES[name(page)])
    for block in blocks(page):
        run_block(block, desk, environment)
