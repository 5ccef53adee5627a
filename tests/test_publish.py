"""A release: what each model's folder holds, that it is the same every time, and what is not published."""

from __future__ import annotations

import io
import json
import logging
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import yaml
from click.testing import CliRunner
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file

from paddle2torch.cli import main
from paddle2torch.converter.conversion.convert import Conversion, convert
from paddle2torch.converter.mapping.labels import Labels
from paddle2torch.converter.parity.report import IMAGE_SIZE, PLOT_BOX, to_png
from paddle2torch.converter.parity.result import ParityResult
from paddle2torch.converter.release import hub_push
from paddle2torch.converter.release import publish as publishing
from paddle2torch.converter.release.card import LANGUAGES, SIZES, _origin
from paddle2torch.converter.release.publish import Options, Publication, publish_one
from paddle2torch.converter.sources import load_source
from paddle2torch.converter.support.errors import OutputError, PaddleError, ParityError
from paddle2torch.converter.support.files import replace_folder, staging
from paddle2torch.converter.support.terminal import clean_lines
from paddle2torch.converter.zoo.catalog import Zoo, load_zoo
from paddle2torch.converter.zoo.download import Fetcher

pytestmark = pytest.mark.skipif(find_spec("paddle") is None, reason="PaddlePaddle is not installed")

NAME = "embedded_rec"
ALWAYS = {"model.safetensors", "config.json", "README.md", "parity.json", "parity.html", "parity.png"}


class Recorded:
    """A verifier that has a real result ready."""

    def __init__(self, result: ParityResult) -> None:
        self.result = result

    def verify(self, conversion: Conversion, *, weights: Path) -> ParityResult:
        assert weights.is_file()
        return replace(self.result, name=conversion.name)


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A release of the sample, made once, with Paddle's own result."""
    output = tmp_path_factory.mktemp("release") / "out"
    publication = publish_one(NAME, Options(output))
    publishing.write_lists(output, [NAME])
    assert (publication.outcome, publication.error) == ("published", "")
    return output


@pytest.fixture(scope="module")
def result() -> ParityResult:
    with publishing.verifying(Options(Path())) as verifier:
        return verifier.verify(
            convert(load_source(NAME, load_zoo(), Fetcher(offline=True)), fetcher=Fetcher(offline=True))
        )


@pytest.fixture
def verifier(result: ParityResult) -> Recorded:
    return Recorded(result)


@pytest.fixture
def failing(result: ParityResult) -> Recorded:
    return Recorded(replace(result, tolerance=1e-19))


@pytest.fixture
def three(monkeypatch: pytest.MonkeyPatch) -> Zoo:
    """A zoo that has the sample under three names."""
    sample = load_zoo().get(NAME)
    zoo = Zoo({name: replace(sample, name=name) for name in ("first", "second", "third")})
    monkeypatch.setattr(publishing, "load_zoo", lambda: zoo)
    return zoo


def content(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def record(release: Path) -> dict[str, object]:
    return json.loads((release / NAME / "config.json").read_text())


# ---- a model's folder --------------------------------------------------------------------------------------------


def test_the_folder_is_a_model_repository(release: Path) -> None:
    names = {path.name for path in (release / NAME).iterdir()}
    (pth,) = (name for name in names if name.endswith(".pth"))
    assert re.fullmatch(rf"{NAME}-[0-9a-f]{{8}}\.pth", pth)
    assert names == ALWAYS | {pth, "labels.txt"}


def test_torch_hub_takes_the_pth_by_the_hash_in_its_name(release: Path, tmp_path: Path) -> None:
    (pth,) = (release / NAME).glob("*.pth")
    state = torch.hub.load_state_dict_from_url(pth.as_uri(), str(tmp_path), check_hash=True, progress=False)
    assert state.keys() == load_file(release / NAME / "model.safetensors").keys()
    damaged = tmp_path / "other" / pth.name
    damaged.parent.mkdir()
    damaged.write_bytes(pth.read_bytes() + b"\0")
    with pytest.raises(RuntimeError, match="invalid hash value"):
        torch.hub.load_state_dict_from_url(damaged.as_uri(), str(tmp_path / "again"), check_hash=True, progress=False)


def test_no_name_of_the_zoo_hides_the_hash_from_torch_hub() -> None:
    for name in load_zoo().models:
        assert torch.hub.HASH_REGEX.search(f"{name}-0123abcd.pth")[1] == "0123abcd"


def test_all_forms_hold_the_same_tensors_and_metadata(release: Path) -> None:
    (pth,) = (release / NAME).glob("*.pth")
    state, other = torch.load(pth, weights_only=True), load_file(release / NAME / "model.safetensors")
    assert all(torch.equal(state[key], other[key]) for key in state.keys() | other.keys())
    with safe_open(release / NAME / "model.safetensors", framework="pt") as file:
        assert json.loads(file.metadata()["paddle2torch"]) == record(release)


def test_labels_stand_line_by_line(release: Path) -> None:
    lines = (release / NAME / "labels.txt").read_bytes().decode().split("\n")
    assert lines.pop() == ""
    assert lines == record(release)["labels"]
    assert lines[0] == "blank"


def test_the_parity_is_that_of_the_very_file(release: Path) -> None:
    parity = json.loads((release / NAME / "parity.json").read_text())
    assert parity["passed"]
    assert parity["weights"]["name"] == "model.safetensors"
    assert parity["weights"]["sha256"] == publishing.sha256_of(release / NAME / "model.safetensors")


def plotted(image: bytes) -> bytes:
    """What is drawn between the axes."""
    with Image.open(io.BytesIO(image)) as image:
        assert image.size == IMAGE_SIZE
        return image.crop(PLOT_BOX).tobytes()


def test_the_image_shows_every_layer(release: Path, result: ParityResult) -> None:
    first, *rest = result.cases[0].layers
    worse = replace(first, difference=replace(first.difference, max_error=1e-9))
    other = replace(result, cases=(replace(result.cases[0], layers=(worse, *rest)), *result.cases[1:]))
    assert plotted(to_png(other)) != plotted(to_png(result))
    assert plotted(to_png(replace(result, tolerance=1e-9))) != plotted(to_png(result))
    assert plotted((release / NAME / "parity.png").read_bytes())


def test_nothing_tells_of_this_machine_or_of_the_time(release: Path) -> None:
    for name, data in content(release).items():
        assert str(Path.home()).encode() not in data, name
        assert str(release.parent).encode() not in data, name
        assert not re.search(rb"20\d\d-\d\d-\d\d|\d\d:\d\d:\d\d", data) or name.endswith(
            (".png", ".pth", ".safetensors")
        )


# ---- the card ----------------------------------------------------------------------------------------------------


def card_of(release: Path) -> tuple[dict[str, object], str]:
    _, metadata, body = (release / NAME / "README.md").read_text(encoding="utf-8").split("---\n", 2)
    return yaml.safe_load(metadata), body


def test_the_card_has_the_metadata_that_the_hub_wants(release: Path) -> None:
    metadata, _ = card_of(release)
    assert metadata == {
        "license": "apache-2.0",
        "language": ["en"],
        "library_name": "paddle2torch",
        "pipeline_tag": "image-to-text",
        "tags": ["OCR", "PaddleOCR", "embedded", "text-recognition", "pytorch"],
    }
    cards = pytest.importorskip("huggingface_hub").ModelCard
    assert cards.load(release / NAME / "README.md").data.to_dict() == metadata


def test_the_card_tells_figures_and_origin(release: Path) -> None:
    _, body = card_of(release)
    parity = json.loads((release / NAME / "parity.json").read_text())
    assert f"{parity['worst_error']:.1e} at `{parity['worst_layer']}`" in body
    assert f"torch {torch.__version__}" in body
    assert record(release)["source"]["sha256"] in body
    assert "Class 0 is the CTC blank" in body
    assert "](parity.png)" in body


def test_the_code_in_the_card_runs(release: Path) -> None:
    _, body = card_of(release)
    blocks = re.findall(r"```python\n(.*?)```", body, re.DOTALL)
    assert len(blocks) == 4
    blocks[0] += "assert output.shape[2] == 63\n"
    blocks += ["assert len(state) > 200 and len(labels) == 63 + 1 and isinstance(text, str)\n"]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    subprocess.run([sys.executable, "-c", "".join(blocks)], cwd=release, env=environment, check=True)


def test_with_an_organisation_the_card_says_where_on_the_hub(tmp_path: Path, verifier: Recorded) -> None:
    publish_one(NAME, Options(tmp_path, organisation="acme"), verifier)
    text = (tmp_path / NAME / "README.md").read_text()
    (pth,) = (tmp_path / NAME).glob("*.pth")
    assert f'load_model("hf:acme/{NAME}")' in text
    assert f"https://huggingface.co/acme/{NAME}/resolve/main/{pth.name}" in text


def test_names_of_others_do_nothing_in_the_card() -> None:
    name = "![x](https://evil.example/a.png) <img src=x>\n# `Trust` [me](//evil.example) | \x1b[2J &lt; *all*"
    source = SimpleNamespace(url=None, path=Path("x.tar"), sha256="0" * 64)
    text = _origin(SimpleNamespace(source=source, notes=(f"passed over in x.tar: {name}",)))  # type: ignore[arg-type]
    assert len(text.splitlines()) == 4
    note = text.splitlines()[2]
    assert re.search(r"(?<!\\)[\[\]<>`*#|!&]", note) is None
    assert "https://" not in note
    assert clean_lines(text) == text


def test_every_language_and_size_of_the_zoo_is_known() -> None:
    from paddle2torch.architectures.registry import architectures

    assert {language for model in load_zoo().models.values() for language in model.languages} <= LANGUAGES.keys()
    assert {entry.preprocessing.size.mode for entry in architectures()} <= SIZES.keys()


def test_unknown_labels_are_said_to_be_unknown(
    tmp_path: Path, verifier: Recorded, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = publishing._convert
    unknown = Labels(None, "no labels bundled: my.txt with 3 characters makes 4 classes, the head has 63; give another")
    monkeypatch.setattr(publishing, "_convert", lambda *given: replace(real(*given), labels=unknown))
    assert publish_one(NAME, Options(tmp_path), verifier).outcome == "published"
    assert not (tmp_path / NAME / "labels.txt").exists()
    assert "not known: my.txt with 3 characters makes 4 classes, the head has 63." in (
        tmp_path / NAME / "README.md"
    ).read_text().replace("\n", " ")


# ---- the release -------------------------------------------------------------------------------------------------


def test_sha256sum_agrees(release: Path) -> None:
    checked = subprocess.run(["sha256sum", "-c", "SHA256SUMS"], cwd=release, capture_output=True, text=True, check=True)
    assert {line.partition(": ")[0] for line in checked.stdout.splitlines()} == content(release).keys() - {"SHA256SUMS"}


def test_the_index_lists_models_and_files(release: Path) -> None:
    (model,) = json.loads((release / "index.json").read_text())["models"]
    assert (model["name"], model["languages"], model["licence"]) == (NAME, ["English"], "apache-2.0")
    assert model["architecture"] == "rec_mobilenet_v3_bilstm_ctc"
    assert model["parity"]["passed"]
    files = content(release / NAME)
    assert {name: file["size"] for name, file in model["files"].items()} == {name: len(d) for name, d in files.items()}


def run_alone(output: Path, seed: str, threads: str) -> subprocess.Popen[bytes]:
    environment = {
        **os.environ,
        "PYTHONHASHSEED": seed,
        "OMP_NUM_THREADS": threads,
        "TZ": "Asia/Tokyo" if seed == "1" else "UTC",
    }
    environment["PYTHONPATH"] = str(Path(__file__).parents[1])
    return subprocess.Popen(
        [sys.executable, "-m", "paddle2torch", "publish", NAME, "--output", str(output)],
        cwd=output.parent,
        env=environment,
    )


def test_every_run_gives_the_same_bytes(release: Path, tmp_path: Path) -> None:
    runs = [run_alone(tmp_path / "a", "1", "1"), run_alone(tmp_path / "b", "2", "4")]
    assert [run.wait(300) for run in runs] == [0, 0]
    first = content(tmp_path / "a")
    assert [name for name, data in content(tmp_path / "b").items() if first[name] != data] == []
    assert [name for name, data in content(release).items() if first[name] != data] == []


def test_a_second_run_changes_nothing(tmp_path: Path, verifier: Recorded) -> None:
    def state() -> dict[Path, tuple[int, int]]:
        return {path: (path.stat().st_ino, path.stat().st_mtime_ns) for path in tmp_path.rglob("*") if path.is_file()}

    publish_one(NAME, Options(tmp_path), verifier)
    publishing.write_lists(tmp_path, [NAME])
    before = state()
    assert publish_one(NAME, Options(tmp_path), verifier).outcome == "unchanged"
    publishing.write_lists(tmp_path, [NAME])
    assert state() == before


def release_of(output: Path, provers: Mapping[str, Recorded], **options: object) -> dict[str, Publication]:
    """Publish several models, each with a verifier of its own, and list them."""
    outcomes = {name: publish_one(name, Options(output, **options), verifier) for name, verifier in provers.items()}
    publishing.write_lists(output, [name for name, outcome in outcomes.items() if not outcome.error])
    return outcomes


def listed(output: Path) -> list[str]:
    return [model["name"] for model in json.loads((output / "index.json").read_text())["models"]]


def test_what_fails_is_not_published_and_the_others_are(
    three: Zoo, tmp_path: Path, verifier: Recorded, failing: Recorded
) -> None:
    outcomes = release_of(tmp_path, {"first": verifier, "second": failing, "third": verifier})
    assert sorted(path.name for path in tmp_path.iterdir()) == ["SHA256SUMS", "first", "index.json", "third"]
    assert listed(tmp_path) == ["first", "third"]
    assert outcomes["second"].exit_code == ParityError.exit_code
    assert re.match(r"second: parity FAILED, worst layer 1\.\de-14; .*first divergence at", outcomes["second"].error)


def test_what_no_longer_agrees_is_withdrawn(three: Zoo, tmp_path: Path, verifier: Recorded, failing: Recorded) -> None:
    release_of(tmp_path, {"first": verifier, "second": verifier})
    outcomes = release_of(tmp_path, {"second": failing})
    assert outcomes["second"].error.endswith("its earlier publication was withdrawn")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["SHA256SUMS", "first", "index.json"]
    assert listed(tmp_path) == ["first"]


def test_without_a_result_nothing_is_published_and_what_was_stays(
    three: Zoo, tmp_path: Path, verifier: Recorded, monkeypatch: pytest.MonkeyPatch
) -> None:
    release_of(tmp_path, {"first": verifier})

    def missing(self: Recorded, conversion: Conversion, *, weights: Path) -> ParityResult:
        raise PaddleError("PaddlePaddle is not installed")

    monkeypatch.setattr(Recorded, "verify", missing)
    outcomes = release_of(tmp_path, {"first": verifier, "second": verifier})
    assert {outcome.exit_code for outcome in outcomes.values()} == {PaddleError.exit_code}
    assert listed(tmp_path) == ["first"]
    assert not (tmp_path / "second").exists()


def test_an_earlier_publication_of_ours_is_replaced(tmp_path: Path, verifier: Recorded) -> None:
    release_of(tmp_path, {NAME: verifier})
    assert release_of(tmp_path, {NAME: verifier}, organisation="acme")[NAME].outcome == "published"
    assert "acme" in (tmp_path / NAME / "README.md").read_text()
    subprocess.run(["sha256sum", "--quiet", "-c", "SHA256SUMS"], cwd=tmp_path, check=True)


@pytest.mark.parametrize("touched", ["README.md", "notes.txt", "sub/notes.txt"])
def test_what_the_user_changed_or_added_stays(
    touched: str, tmp_path: Path, verifier: Recorded, failing: Recorded
) -> None:
    release_of(tmp_path, {NAME: verifier})
    path = tmp_path / NAME / touched
    path.parent.mkdir(exist_ok=True)
    path.write_text("mine")
    for options, result in (({"organisation": "acme"}, verifier), ({}, failing)):
        outcome = release_of(tmp_path, {NAME: result}, **options)[NAME]
        assert outcome.outcome == "refused"
        assert path.read_text() == "mine"
    assert listed(tmp_path) == []


def test_a_file_in_the_folders_place_stays(tmp_path: Path, verifier: Recorded) -> None:
    (tmp_path / NAME).write_text("mine")
    assert "is in the way of the model's folder" in publish_one(NAME, Options(tmp_path), verifier).error
    assert (tmp_path / NAME).read_text() == "mine"


@pytest.mark.parametrize("name", ["index.json", "SHA256SUMS"])
def test_lists_of_the_users_are_not_overwritten(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text('{"mine": true}')
    result = CliRunner().invoke(main, ["publish", NAME, "--output", str(tmp_path)])
    assert result.exit_code == OutputError.exit_code
    assert f"{name}: is not of a release made here" in result.stderr
    assert content(tmp_path) == {name: b'{"mine": true}'}


# ---- complete or not at all --------------------------------------------------------------------------------------


def test_an_error_midway_leaves_nothing(tmp_path: Path, failing: Recorded) -> None:
    publish_one(NAME, Options(tmp_path / "new" / "out"), failing)
    assert list(tmp_path.iterdir()) == []


def test_leftovers_of_a_killed_run_are_taken_away(tmp_path: Path) -> None:
    killed = "import os; from pathlib import Path; from paddle2torch.converter.support.files import staging\nwith staging(Path('model')): os.kill(os.getpid(), 9)"
    subprocess.run([sys.executable, "-c", killed], cwd=tmp_path, check=False)
    assert [path.name[:7] for path in tmp_path.iterdir()] == [".model."]
    with staging(tmp_path / "model") as mine, staging(tmp_path / "model"):
        assert mine.is_dir()  # what a living process makes is left alone
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_moved_leaves_the_old_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "model"
    target.mkdir()
    (target / "old").touch()
    rename = Path.rename

    def refuse(self: Path, to: Path) -> Path:
        if self.name == "new":
            raise OSError(28, "No space left on device")
        return rename(self, to)

    monkeypatch.setattr(Path, "rename", refuse)
    with pytest.raises(OutputError, match="No space left"), staging(target) as made:
        replace_folder(made, target)
    assert [path.name for path in tmp_path.rglob("*")] == ["model", "old"]


def test_threads_of_the_caller_are_as_before(verifier: Recorded, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    monkeypatch.delenv("MKL_NUM_THREADS", raising=False)
    threads = torch.get_num_threads()
    with publishing.verifying(Options(Path())):
        assert (os.environ["OMP_NUM_THREADS"], os.environ["MKL_NUM_THREADS"], torch.get_num_threads()) == ("1", "1", 1)
    assert (os.environ["OMP_NUM_THREADS"], torch.get_num_threads()) == ("2", threads)
    assert "MKL_NUM_THREADS" not in os.environ


# ---- the command -------------------------------------------------------------------------------------------------


@pytest.fixture
def run(verifier: Recorded, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., tuple[int, str]]]:
    """The command with the recorded result."""

    class Verifying:
        def __init__(self, options: Options) -> None: ...

        def __enter__(self) -> Recorded:
            return verifier

        def __exit__(self, *details: object) -> None: ...

    monkeypatch.setattr(publishing, "verifying", Verifying)

    def run(*arguments: str) -> tuple[int, str]:
        outcome = CliRunner().invoke(main, ["publish", *arguments])
        return outcome.exit_code, outcome.output

    yield run
    logging.getLogger("converter").handlers.clear()


def test_one_table_and_an_exit_code(run: Callable[..., tuple[int, str]], tmp_path: Path) -> None:
    code, text = run(NAME, "embedded_rek", NAME, "--output", str(tmp_path))
    assert code == 3
    assert re.search(rf"^{NAME} +published +8 +4,\d\d\d,\d\d\d +passed, worst layer", text, re.MULTILINE)
    assert re.search(r"^embedded_rek +refused +0 +0 +.*did you mean embedded_rec\?", text, re.MULTILINE)
    assert len(re.findall(rf"^{NAME} ", text, re.MULTILINE)) == 1
    assert listed(tmp_path) == [NAME]


def test_a_dry_run_tells_and_writes_nothing(
    run: Callable[..., tuple[int, str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(publishing, "staging", None)  # which would write in the release's folder meanwhile
    output = tmp_path / "out"
    code, text = run(NAME, "--output", str(output), "--dry-run")
    assert code == 0
    assert "would be published" in text
    assert re.search(rf"^ +[\d,]{{9}}  {output}/{NAME}/model.safetensors$", text, re.MULTILINE)
    assert list(tmp_path.iterdir()) == []
    code, text = run(NAME, "--output", str(output), "--dry-run", "--push-to-hub", "acme")
    assert code == 0
    assert f"  acme/{NAME}/model.safetensors" in text
    assert list(tmp_path.iterdir()) == []


def test_only_names_of_the_zoo_are_published(run: Callable[..., tuple[int, str]], tmp_path: Path) -> None:
    (tmp_path / "mine.pdparams").touch()
    code, text = run(str(tmp_path / "mine.pdparams"), "--output", str(tmp_path / "out"))
    assert code == 3
    assert "no model of that name in the zoo" in text


def test_what_was_published_is_pushed_and_nothing_else(
    run: Callable[..., tuple[int, str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pushed = []

    class Recording:
        def __init__(self, organisation: str) -> None:
            assert not list(tmp_path.iterdir())  # a missing token shows before anything is made

        def push(self, folder: Path) -> str:
            assert (tmp_path / "SHA256SUMS").is_file()
            pushed.append(folder)
            return f"https://hub/acme/{folder.name}/commit/1"

    monkeypatch.setattr(hub_push, "Hub", Recording)
    code, text = run(NAME, "nothing", "--output", str(tmp_path), "--push-to-hub", "acme")
    assert code == 3
    assert pushed == [tmp_path / NAME]
    assert f"\nhttps://hub/acme/{NAME}/commit/1\n" in text
