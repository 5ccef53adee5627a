"""Loading a published model: from its folder, from the Hub, and where next to nothing else is installed."""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from paddle2torch.architectures import load_model
from paddle2torch.architectures.hub import is_converted
from paddle2torch.converter.conversion.convert import convert
from paddle2torch.converter.sources import load_source
from paddle2torch.converter.writing import artifacts
from paddle2torch.converter.zoo.catalog import load_zoo
from paddle2torch.converter.zoo.download import Fetcher
from support import http_server
from support.checkpoints import random_tensors, write_checkpoint
from support.http_server import Page
from support.hub_server import Hub, Repository, running

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the files of a publication that loading looks at."""
    folder = tmp_path_factory.mktemp("published")
    path = write_checkpoint(folder / "mine.pdparams", random_tensors("rec_mobilenet_v3_bilstm_ctc", classes=11))
    pth, weights, record = artifacts.write(convert(load_source(str(path), load_zoo(), Fetcher())), folder / "mine")
    weights.rename(weights.with_name("model.safetensors"))
    pth.rename(pth.with_name(f"mine-{hashlib.sha256(pth.read_bytes()).hexdigest()[:8]}.pth"))
    record.rename(record.with_name("config.json"))
    return folder / "mine"


def copy(folder: Path, target: Path, *but: str) -> Path:
    """The folder without the files of these suffixes."""
    target.mkdir()
    for path in folder.iterdir():
        if path.suffix not in but:
            (target / path.name).write_bytes(path.read_bytes())
    return target


# ---- a folder ----------------------------------------------------------------------------------------------------


def test_a_folder_loads_from_its_safetensors(published: Path, tmp_path: Path) -> None:
    folder = copy(published, tmp_path / "model")
    (pth,) = folder.glob("*.pth")
    pth.write_bytes(b"broken")
    model = load_model(folder)
    assert not model.training
    assert model.metadata == json.loads((folder / "config.json").read_text())
    state = load_file(folder / "model.safetensors")
    assert all(torch.equal(tensor, state[key]) for key, tensor in model.state_dict().items())


def test_a_folder_without_safetensors_loads_from_its_pth(published: Path, tmp_path: Path) -> None:
    model = load_model(copy(published, tmp_path / "model", ".safetensors"))
    assert model.metadata["parameters"]["classes"] == 11


def test_config_describes_a_safetensors_that_says_nothing_itself(published: Path, tmp_path: Path) -> None:
    folder = copy(published, tmp_path / "model")
    save_file(load_file(folder / "model.safetensors"), folder / "model.safetensors")
    assert load_model(folder).metadata["name"] == "mine"


@pytest.mark.parametrize("name", ["weights.pth", "mine-0123.pth", "mine-0123ABCD.pth", "pytorch_model.bin"])
def test_of_a_folder_only_known_names_are_looked_at(name: str, tmp_path: Path) -> None:
    torch.save({}, tmp_path / name)
    with pytest.raises(FileNotFoundError, match=r"has neither model\.safetensors nor NAME-xxxxxxxx\.pth"):
        load_model(tmp_path)


def test_a_name_that_no_file_can_have_is_no_file() -> None:
    assert not is_converted("x" * 5000)
    with pytest.raises(FileNotFoundError, match="x: there is no such file; a model of the zoo"):
        load_model("x" * 5000)


def test_a_folder_with_several_models_asks_for_one(tmp_path: Path) -> None:
    for name in ("a-01234567.pth", "b-01234567.pth"):
        torch.save({}, tmp_path / name)
    with pytest.raises(ValueError, match=r"holds a-01234567\.pth and b-01234567\.pth; name one of them"):
        load_model(tmp_path)


def test_a_pickle_that_runs_something_is_refused(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
            return Path.touch, (tmp_path / "ran",)

    (tmp_path / "evil-01234567.pth").write_bytes(pickle.dumps(Evil()))
    with pytest.raises(ValueError, match="not a file that torch.load"):
        load_model(tmp_path)
    assert not (tmp_path / "ran").exists()


# ---- where next to nothing is installed --------------------------------------------------------------------------

# Refuses every import but those of the standard library, of the packages named, and of what they require.
ONLY = """
import importlib.metadata, re, sys
def closure(names):
    seen = set()
    while names:
        name = re.sub(r"[-_.]+", "-", names.pop()).lower()
        if name not in seen:
            seen.add(name)
            try:
                required = importlib.metadata.requires(name) or []
            except importlib.metadata.PackageNotFoundError:
                required = []
            names += [re.match(r"[\\w.-]+", text)[0] for text in required if "extra ==" not in text]
    return seen
installed = closure({installed!r})
allowed = {{"architectures"}} if {ours} else set()
for module, owners in importlib.metadata.packages_distributions().items():
    if any(re.sub(r"[-_.]+", "-", owner).lower() in installed for owner in owners):
        allowed.add(module)
class Only:
    def find_spec(self, name, path=None, target=None):
        top = name.partition(".")[0]
        if top not in allowed and top not in sys.stdlib_module_names:
            raise ModuleNotFoundError(f"{{name}} is not installed here", name=name)
sys.meta_path.insert(0, Only())
for module in ("paddle2torch", "paddle", "yaml", "huggingface_hub", "numpy"):
    try:
        __import__(module)
    except ModuleNotFoundError:
        continue
    raise SystemExit(f"{{module}} could be imported")
"""


@pytest.fixture
def copied(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `architectures/` as it is when somebody copied it out of here, under a name of its own."""
    folder = tmp_path_factory.mktemp("copied")
    (folder / "architectures").symlink_to(ROOT / "architectures")
    return folder


def run_with_only(installed: list[str], ours: Path | None, code: str, folder: Path) -> None:
    """Run code in a new process, in the folder, where only these distributions (and perhaps our package) exist."""
    environment = {**os.environ, "PYTHONPATH": str(ours or "")}
    script = ONLY.format(installed=installed, ours=ours is not None) + code
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", script],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


LOAD = """
from architectures import load_model
model = load_model({what!r})
import torch
assert model(torch.zeros(1, 3, 32, 64)).shape[2] == 11
assert model.metadata["name"] == "mine"
"""


@pytest.mark.parametrize("dropped", [(), (".safetensors",)], ids=["safetensors", "pth"])
def test_it_loads_where_only_torch_safetensors_and_this_package_are(
    dropped: tuple[str, ...], published: Path, copied: Path, tmp_path: Path
) -> None:
    folder = copy(published, tmp_path / "model", *dropped)
    run_with_only(["torch", "safetensors"], copied, LOAD.format(what=str(folder)), tmp_path)


def test_the_pth_loads_where_only_torch_is(published: Path) -> None:
    code = "import torch, glob; state = torch.load(*glob.glob('*.pth'), weights_only=True); assert len(state) > 200"
    run_with_only(["torch"], None, code, published)


def test_the_safetensors_load_where_only_safetensors_and_torch_are(published: Path) -> None:
    code = "from safetensors.torch import load_file; assert len(load_file('model.safetensors')) > 200"
    run_with_only(["torch", "safetensors"], None, code, published)


# ---- the Hub -----------------------------------------------------------------------------------------------------


@pytest.fixture
def hub() -> Iterator[Hub]:
    with running() as server:
        yield server


@pytest.fixture
def repository(hub: Hub, published: Path) -> Repository:
    """acme/mine, with one commit."""
    found = hub.repositories.setdefault("acme/mine", Repository())
    found.commit({path.name: path.read_bytes() for path in published.iterdir()} | {"run_me.py": b"1 / 0"}, "first")
    return found


LOCATE = """
import sys
from paddle2torch.architectures.hub import locate
try:
    place = locate(sys.argv[1])
    print(place.origin["commit"], place.weights.name)
except Exception as error:
    print(f"{type(error).__name__}: {error}")
"""


@pytest.fixture
def ask(hub: Hub, tmp_path: Path) -> Callable[..., str]:
    """Run a script with an address in a process whose Hub is the stand-in; what it prints."""
    pytest.importorskip("huggingface_hub")

    def ask(address: str, script: str = LOCATE, **environment: str) -> str:
        environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("HF_")},
            "HF_ENDPOINT": hub.url,
            "HF_HOME": str(tmp_path / "home"),
            "HF_HUB_DISABLE_XET": "1",
            **environment,
        }
        command = [sys.executable, "-c", script, address]
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout.strip()

    return ask


def fetched(hub: Hub) -> set[str]:
    """The files that were asked for."""
    return {request.rpartition("/")[2] for request in hub.requests if "/resolve/" in request}


def test_a_model_of_the_hub_loads_and_says_which_commit_it_is(
    hub: Hub, repository: Repository, ask: Callable[..., str]
) -> None:
    script = (
        "import json, sys; from paddle2torch import load_model; print(json.dumps(load_model(sys.argv[1]).metadata))"
    )
    metadata = json.loads(ask("hf:acme/mine", script))
    assert metadata["hub"] == {"repository": "acme/mine", "revision": "main", "commit": repository.head}
    assert metadata["parameters"]["classes"] == 11
    assert fetched(hub) == {"model.safetensors", "config.json"}


def test_a_revision_stays_what_it_is(repository: Repository, ask: Callable[..., str]) -> None:
    first = repository.head
    second = repository.commit({**repository.files, "README.md": b"newer"}, "second")
    assert ask(f"hf:acme/mine@{first}") == f"{first} model.safetensors"
    assert ask("hf:acme/mine") == f"{second} model.safetensors"


def test_a_repository_without_safetensors_gives_its_pth(
    hub: Hub, repository: Repository, ask: Callable[..., str]
) -> None:
    files = {name: data for name, data in repository.files.items() if name != "model.safetensors"}
    (pth,) = (name for name in files if name.endswith(".pth"))
    repository.commit({**files, "pytorch_model.bin": b"no", "other.pth": b"no"}, "without")
    assert ask("hf:acme/mine") == f"{repository.head} {pth}"
    assert fetched(hub) == {"config.json", pth}


def test_a_repository_of_something_else_is_no_model(repository: Repository, ask: Callable[..., str]) -> None:
    repository.commit({"config.json": b"{}", "pytorch_model.bin": b"no"}, "something else")
    assert ask("hf:acme/mine").startswith("FileNotFoundError: hf:acme/mine: has neither model.safetensors nor NAME-")


@pytest.mark.parametrize("offline", ["HF_HUB_OFFLINE", "the Hub is down"])
def test_without_a_network_the_cache_is_enough(
    offline: str, hub: Hub, repository: Repository, ask: Callable[..., str]
) -> None:
    first = ask("hf:acme/mine")
    hub.requests.clear()
    environment = {offline: "1"} if offline.startswith("HF") else {"HF_ENDPOINT": "http://127.0.0.1:9"}
    assert ask("hf:acme/mine", **environment) == first
    assert hub.requests == []
    assert ask("hf:acme/other", **environment) == (
        "FileNotFoundError: hf:acme/other: not in the cache, and the Hub cannot be reached or does not give it; check "
        "network and login"
    )


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("hf:acme/none", "hf:acme/none: the Hub has no such model, or hides it from you"),
        ("hf:acme/mine@v9", "hf:acme/mine@v9: acme/mine has no revision v9"),
    ],
)
def test_what_the_hub_does_not_have_is_said_in_a_line(
    address: str, message: str, repository: Repository, ask: Callable[..., str]
) -> None:
    said = ask(address)
    assert said.startswith(f"FileNotFoundError: {message}")
    assert "\n" not in said


@pytest.mark.parametrize("address", ["hf:mine", "hf:acme/mine@", "hf:acme/mine/model.safetensors", "hf:/acme/mine"])
def test_an_address_is_checked_before_anybody_is_asked(address: str) -> None:
    with pytest.raises(ValueError, match=f"{address}: expected hf:ORG/NAME or hf:ORG/NAME@REVISION"):
        load_model(address)


@pytest.mark.parametrize(
    ("command", "message"), [("HEAD", "not in the cache, and the Hub"), ("GET", "cannot be fetched from the Hub (")]
)
def test_a_refusal_is_said_in_a_line(
    command: str, message: str, hub: Hub, repository: Repository, ask: Callable[..., str]
) -> None:
    hub.refusal[f"{command} model.safetensors"] = 403
    said = ask("hf:acme/mine")
    assert said.startswith(f"FileNotFoundError: hf:acme/mine: {message}")
    assert "\n" not in said


def test_without_huggingface_hub_its_name_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(ImportError, match="needs the package huggingface_hub: pip install huggingface_hub"):
        load_model("hf:acme/mine")


class Portal(dict[str, Page]):
    """Whatever is asked for, a page to log in."""

    def get(self, path: str, default: object = None) -> Page:
        return Page(b"<!DOCTYPE html>\x1b[2J s3cr3t")


def test_a_log_in_page_in_place_of_the_hub_is_said_in_a_line(ask: Callable[..., str]) -> None:
    with http_server.running() as server:
        server.pages = Portal()
        said = ask("hf:acme/mine", HF_ENDPOINT=server.url.replace("http://", "http://user:s3cr3t@"))
    assert said.startswith("FileNotFoundError: hf:acme/mine: ")
    assert said.isprintable()
    assert "s3cr3t" not in said
