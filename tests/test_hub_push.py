"""Pushing publications to a stand-in for the Hub, and what is said where that does not work."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from support import http_server
from support.http_server import Page
from support.hub_server import ORGANISATION, TOKEN, Hub, running

pytest.importorskip("huggingface_hub")

FILES = {
    "README.md": b"---\nlicense: apache-2.0\nlanguage: [en]\nlibrary_name: x\npipeline_tag: y\ntags: [z]\n---\n",
    "config.json": b"{}\n",
    "labels.txt": b"blank\n",
    "mine-01234567.pth": b"a state dict" * 1000,
    "model.safetensors": b"tensors" * 1000,
}
DIGEST = hashlib.sha256(FILES["model.safetensors"]).hexdigest()
PUSH = """
import sys
from pathlib import Path
from paddle2torch.converter.support.errors import OutputError
from paddle2torch.converter.release.hub_push import Hub
try:
    print(Hub(sys.argv[1]).push(Path(sys.argv[2])))
except OutputError as error:
    print(f"error: {error}")
"""


@pytest.fixture
def hub() -> Iterator[Hub]:
    with running() as server:
        yield server


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A model's folder."""
    folder = tmp_path / "mine"
    folder.mkdir()
    for name, data in FILES.items():
        (folder / name).write_bytes(data)
    return folder


@pytest.fixture
def push(hub: Hub, folder: Path, tmp_path: Path) -> Callable[..., str]:
    """Push the folder in a process whose Hub is the stand-in; what it says, errors too."""

    def push(organisation: str = ORGANISATION, **environment: str) -> str:
        environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("HF_")},
            "HF_ENDPOINT": hub.url,
            "HF_TOKEN": TOKEN,
            "HF_HOME": str(tmp_path / "home"),
            "HF_HUB_DISABLE_XET": "1",
            **environment,
        }
        command = [sys.executable, "-c", PUSH, organisation, str(folder)]
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout.strip()

    return push


def test_the_repository_holds_what_the_folder_holds(hub: Hub, push: Callable[..., str]) -> None:
    said = push()
    (repository,) = hub.repositories.values()
    assert said == f"{hub.url}/acme/mine/commit/{repository.head}"
    assert repository.files == FILES
    assert repository.messages[0].startswith("Publish mine with paddle2torch ")
    assert len(hub.large) == 2


def test_a_second_push_makes_no_commit(hub: Hub, push: Callable[..., str]) -> None:
    assert push() == push()
    assert len(hub.repositories["acme/mine"].messages) == 1


def test_a_change_is_one_commit_that_takes_stale_files_away(hub: Hub, folder: Path, push: Callable[..., str]) -> None:
    push()
    repository = hub.repositories["acme/mine"]
    repository.commit({**repository.files, "notes.md": b"somebody's"}, "by hand")
    (folder / "labels.txt").unlink()
    (folder / "mine-01234567.pth").rename(folder / "mine-89abcdef.pth")
    push()
    assert len(repository.messages) == 3
    assert sorted(repository.files) == [
        "README.md",
        "config.json",
        "mine-89abcdef.pth",
        "model.safetensors",
        "notes.md",
    ]


def test_without_a_token_nothing_is_asked(hub: Hub, push: Callable[..., str]) -> None:
    said = push(HF_TOKEN="")
    assert said == "error: --push-to-hub: there is no Hugging Face token; log in with `hf auth login`, or set HF_TOKEN"
    assert not any("whoami" in request for request in hub.requests)


@pytest.mark.parametrize(
    ("options", "refusal", "message"),
    [
        ({"HF_TOKEN": "hf_wrong"}, {}, "acme: {url} does not know the Hugging Face token; log in with"),
        ({"organisation": "others"}, {}, "others/mine: {url} does not let this Hugging Face token write there;"),
        ({}, {"POST main": 403}, "acme/mine: {url} does not let this Hugging Face token write there;"),
        ({}, {"POST create": 500}, "acme/mine: {url} answers 500 ("),
        ({}, {f"PUT {DIGEST}": 403}, "acme/mine: {url} does not let this Hugging Face token write there;"),
        ({}, {"POST batch": 401}, "acme/mine: {url} does not know the Hugging Face token;"),
        ({"HF_ENDPOINT": "http://127.0.0.1:9"}, {}, "acme: http://127.0.0.1:9 cannot be reached ("),
    ],
    ids=[
        "wrong token",
        "foreign organisation",
        "read-only token",
        "server error",
        "storage refuses",
        "token expires",
        "no network",
    ],
)
def test_what_the_hub_refuses_is_said_in_a_line(
    options: dict[str, str], refusal: dict[str, int], message: str, hub: Hub, push: Callable[..., str]
) -> None:
    hub.refusal = refusal
    said = push(**options)
    assert said.startswith("error: " + message.format(url=hub.url))
    assert "\n" not in said
    assert all(not repository.messages for repository in hub.repositories.values())


def test_metadata_that_the_hub_does_not_take_are_named(hub: Hub, folder: Path, push: Callable[..., str]) -> None:
    (folder / "README.md").write_text("---\nlicense: apache-2.0\n---\n")
    assert "does not accept it (Invalid metadata in README.md" in push()
    assert hub.large == {}


def test_a_server_that_is_not_the_hub_is_said_in_a_line_without_the_password(push: Callable[..., str]) -> None:
    with http_server.running() as server:
        server.pages["/api/whoami-v2"] = Page(b"<!DOCTYPE html>")
        said = push(HF_ENDPOINT=server.url.replace("http://", "http://user:s3cr3t@"))
    assert said.startswith(f"error: acme: {server.url} ")
    assert "s3cr3t" not in said


def test_without_huggingface_hub_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    from paddle2torch.converter.release.hub_push import Hub as Pushing
    from paddle2torch.converter.support.errors import MissingPackageError

    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(MissingPackageError, match=r"pip install 'paddle2torch\[hub\]'"):
        Pushing("acme")
