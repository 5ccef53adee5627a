"""The zoo: what `model_zoo.yaml` lists, what its lock file pins, and how their loaders report mistakes."""

from __future__ import annotations

import hashlib
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from paddle2torch.architectures.records import GRAPH
from paddle2torch.architectures.registry import get
from paddle2torch.converter.support.blob import FileState
from paddle2torch.converter.support.errors import SourceError, ZooError
from paddle2torch.converter.zoo.catalog import (
    EMBEDDED,
    GENERATIONS,
    Dictionary,
    Model,
    Zoo,
    load_zoo,
    parse_zoo,
    zoo_path,
)
from paddle2torch.converter.zoo.download import Fetched, Fetcher
from paddle2torch.converter.zoo.lock import KnownFile, lock_path, measure, read_lock, write_lock

LATER = "3bb7e3df14f4627c8a65b4338aa4e4945ed995a9256622b8d8e2df4169e577d6"
"""sha256 over the sorted URLs of upstream's later models, of text and its direction, one a line."""
URLS_OF_THE_LIST = "c23a657138969db07b0c1f93bf4eaf6b9e6c82dfaeee7dc8a87e472c80d32d3f"
"""sha256 over the sorted tarball URLs of upstream's list, one a line."""


@pytest.fixture(scope="module")
def zoo() -> Zoo:
    return load_zoo()


def listed(zoo: Zoo) -> list[Model]:
    """The models of upstream's list of 2022."""
    found = [model for model in zoo.models.values() if model.generation in ("PP-OCRv3", "PP-OCRv2", "v2.0")]
    return [model for model in found if "/paddle3.0.0/" not in model.artifacts["inference"].url]


def places(model: Model) -> set[str]:
    """All URLs of a model's files."""
    return {url for each in model.artifacts.values() for url in (each.url, *each.alternatives)}


# ---- what the file lists -----------------------------------------------------------------------------------------


def test_every_model_and_url_of_the_list_is_there(zoo: Zoo) -> None:
    urls = sorted(artifact.url for model in listed(zoo) for artifact in model.artifacts.values())
    assert len(listed(zoo)) == 44
    assert len(set(urls)) == len(urls) == 90
    assert hashlib.sha256("\n".join(urls).encode()).hexdigest() == URLS_OF_THE_LIST


def test_every_later_model_and_url_is_there(zoo: Zoo) -> None:
    """Three of the list of 2022 are released anew, under other names."""
    old = {model.name for model in listed(zoo) if not model.aliases}
    later = [model for model in zoo.models.values() if model.name not in old and model.generation != "embedded"]
    assert Counter((model.generation, model.task) for model in later) == {
        ("PP-OCRv6", "det"): 3,
        ("PP-OCRv6", "rec"): 3,
        ("PP-OCRv5", "det"): 2,
        ("PP-OCRv5", "rec"): 13,
        ("PP-OCRv4", "det"): 4,
        ("PP-OCRv4", "rec"): 11,
        ("PP-OCRv3", "det"): 2,
        ("PP-OCRv3", "rec"): 12,
        ("SVTRv2", "rec"): 2,
        ("PP-LCNet", "cls"): 3,
    }
    urls = sorted(set().union(*map(places, later)))
    assert hashlib.sha256("\n".join(urls).encode()).hexdigest() == LATER
    assert [model.name for model in later if "trained" not in model.artifacts] == [
        f"{language}_PP-OCRv4_rec" for language in ("korean", "japan", "ta", "te", "ka", "arabic", "devanagari")
    ]


def test_the_newest_generation_comes_first(zoo: Zoo) -> None:
    assert tuple(dict.fromkeys(model.generation for model in zoo.models.values())) == GENERATIONS


def test_models_by_task_and_generation(zoo: Zoo) -> None:
    counts = Counter((model.generation, model.task) for model in listed(zoo))
    assert counts == {
        ("PP-OCRv3", "det"): 3,
        ("PP-OCRv3", "rec"): 2,
        ("PP-OCRv2", "det"): 1,
        ("PP-OCRv2", "rec"): 1,
        ("v2.0", "det"): 2,
        ("v2.0", "rec"): 34,
        ("v2.0", "cls"): 1,
    }
    assert Counter(kind for model in listed(zoo) for kind in model.artifacts) == {
        "inference": 44,
        "trained": 44,
        "pretrained": 2,
    }


def test_a_plain_entry(zoo: Zoo) -> None:
    model = zoo.get("ch_PP-OCRv3_det")
    assert (model.task, model.generation, model.size) == ("det", "PP-OCRv3", "3.8M")
    assert model.languages == ("Chinese", "English", "multilingual")
    assert model.names == ("ch_PP-OCRv3_det", "PP-OCRv3_mobile_det")
    assert model.architecture == "det_mobilenet_v3_rsefpn"
    assert model.artifacts["trained"].url == (
        "https://paddleocr.bj.bcebos.com/PP-OCRv3/chinese/ch_PP-OCRv3_det_distill_train.tar"
    )
    assert model.dictionary is None


def test_group_defaults_and_patterns_are_filled_in(zoo: Zoo) -> None:
    model = zoo.get("rs_latin_mobile_v2.0_rec")
    assert model.description == "Lightweight model for Serbian (Latin) recognition"
    assert model.revisions == ("2.0",)
    assert model.artifacts["inference"].url == (
        "https://paddleocr.bj.bcebos.com/dygraph_v2.0/multilingual/rs_latin_mobile_v2.0_rec_infer.tar"
    )
    upstream = "https://raw.githubusercontent.com/PaddlePaddle/PaddleOCR"
    assert model.dictionary == Dictionary(
        f"{upstream}/v2.6.0/ppocr/utils/dict/rs_dict.txt",
        tuple(f"{upstream}/{branch}/ppocr/utils/dict/rs_dict.txt" for branch in ("release/2.6", "main")),
        space=False,
    )


def test_the_misspelt_url_has_its_alternative(zoo: Zoo) -> None:
    artifact = zoo.get("ch_PP-OCRv2_rec").artifacts["inference"]
    folder = "https://paddleocr.bj.bcebos.com/PP-OCRv2/chinese"
    assert artifact.url == f"{folder}/ch_PP-OCRv2_infer.tar"
    assert artifact.alternatives == (f"{folder}/ch_PP-OCRv2_rec_infer.tar",)


def test_rows_of_both_revisions_are_one_entry(zoo: Zoo) -> None:
    both = {model.name for model in listed(zoo) if model.revisions == ("2.0", "2.1")}
    assert both == {
        f"{name}_mobile_v2.0_rec" for name in ("en_number", "french", "german", "korean", "japan", "te", "ta")
    }
    only_new = {model.name for model in listed(zoo) if model.revisions == ("2.1",)}
    assert only_new == {
        f"{name}_mobile_v2.0_rec" for name in ("chinese_cht", "ka", "latin", "arabic", "cyrillic", "devanagari")
    }


def test_every_architecture_is_known_and_takes_the_parameters(zoo: Zoo) -> None:
    assert [model.name for model in zoo.models.values() if model.architecture == GRAPH] == [
        "ch_SVTRv2_rec",
        "ch_RepSVTR_rec",
    ]
    for model in zoo.models.values():
        if model.architecture == GRAPH:
            continue
        architecture = get(model.architecture)
        assert architecture.task == model.task, model.name
        assert model.parameters.keys() <= architecture.parameters.keys(), model.name


def test_only_these_dictionaries_do_not_fit_their_released_heads(zoo: Zoo, mirror: Path) -> None:
    def classes(dictionary: Dictionary) -> int:
        [place] = [url for url in (dictionary.url, *dictionary.alternatives) if "/release/2.6/" in url]
        file = mirror / place.removeprefix("https://raw.githubusercontent.com/")
        return 1 + file.read_bytes().count(b"\n") + dictionary.space

    unfit = [
        model.name
        for model in zoo.models.values()
        if model.dictionary and model.generation != "embedded"
        if classes(model.dictionary) != model.parameters.get("classes", classes(model.dictionary))
    ]
    assert unfit == ["german_mobile_v2.0_rec", "ru_mobile_v2.0_rec"]
    assert classes(zoo.get("ch_PP-OCRv3_rec").dictionary) == 6625


# ---- looking models up -------------------------------------------------------------------------------------------


def test_a_model_is_found_by_all_its_names_with_the_tarballs_of_that_name_first(zoo: Zoo) -> None:
    new, old, rapid = map(zoo.get, ("PP-OCRv4_mobile_det", "ch_PP-OCRv4_det", "ch_PP-OCRv5_det_mobile"))
    assert (old.name, old.names) == ("ch_PP-OCRv4_det", ("ch_PP-OCRv4_det", "PP-OCRv4_mobile_det"))
    assert places(old) == places(new)
    assert new.artifacts["inference"].url.endswith("/paddle3.0.0/PP-OCRv4_mobile_det_infer.tar")
    assert new.artifacts["inference"].alternatives[-1] == old.artifacts["inference"].url
    assert old.artifacts["inference"].alternatives[0] == new.artifacts["inference"].url
    assert rapid == replace(zoo.get("PP-OCRv5_mobile_det"), name=rapid.name, aliases={"PP-OCRv5_mobile_det": {}})
    assert zoo.find("PP-OCRv5_det") is None
    assert "ch_PP-OCRv4_det" in zoo
    assert "PP-OCRv5_det" not in zoo


def test_names_are_unique_and_every_url_is_one(zoo: Zoo) -> None:
    names = [name for model in zoo.models.values() for name in model.names]
    assert len(names) == len(set(names)) == len({model.name for model in zoo})
    for model in zoo:
        for kind, artifact in model.artifacts.items():
            assert artifact.kind == kind
            assert artifact.url not in artifact.alternatives
            for url in (artifact.url, *artifact.alternatives):
                assert url.startswith(("https://paddle", EMBEDDED)), url
                assert url.endswith((".tar", ".pdparams")), url


def test_an_unknown_name_brings_suggestions(zoo: Zoo) -> None:
    with pytest.raises(SourceError, match=r"^ch_pp-ocrv3_dett: no model .* did you mean ch_PP-OCRv3_det"):
        zoo.get("ch_pp-ocrv3_dett")
    with pytest.raises(SourceError, match="`python -m paddle2torch list` shows all; others .* by its graph"):
        zoo.get("something else")
    with pytest.raises(SourceError, match="did you mean PP-OCRv5_server_det or "):
        zoo.get("PP-OCRv5_det")
    with pytest.raises(SourceError, match="did you mean .*ch_PP-OCRv4_rec"):
        zoo.get("ch_ppocrv4_rec")


def test_filters_narrow_each_other(zoo: Zoo) -> None:
    assert len(zoo.filter()) == 97
    names = [model.name for model in zoo.filter(task="rec", generation="v2.0", language="serbian")]
    assert names == ["rs_latin_mobile_v2.0_rec", "rs_cyrillic_mobile_v2.0_rec"]
    assert zoo.filter(task="cls", generation="PP-OCRv3") == ()


# ---- mistakes ----------------------------------------------------------------------------------------------------

SMALL_ZOO = """
server: https://server.example/
dictionaries: ["https://dictionaries.example/{file}"]
groups:
  a group:
    generation: v2.0
    task: rec
    architecture: some_network
    languages: [English]
    space: true
    models:
      first:
        description: a model
        size: 3M
        dictionary: words.txt
        inference: folder/first.tar
"""


def test_the_small_zoo_is_right() -> None:
    [model] = parse_zoo(SMALL_ZOO, "small.yaml").models.values()
    assert model.artifacts["inference"].url == "https://server.example/folder/first.tar"


@pytest.mark.parametrize(
    ("old", "new", "complaint"),
    [
        ("size: 3M", "size: 3", "first, size: expected a size such as 3.8M, found 3"),
        ("size: 3M", "size: 3M\n        sise: 3M", "first, sise: unknown key; did you mean size?"),
        ("size: 3M", "size: 3M\n        colour: red", "first, colour: unknown key; known are generation"),
        ("        description: a model\n", "", "first, description: missing; expected a text"),
        ("size: 3M", "size: 3M\n        aliases: other", "first, aliases: expected a list of names, or a mapping"),
        ("size: 3M", "size: 3M\n        aliases: [a b]", "first, aliases, 'a b': expected a name of letters"),
        ("size: 3M", "size: 3M\n        aliases: [a, a]", "first, aliases, a: stands a second time"),
        ("size: 3M", "size: 3M\n        aliases: [first]", "first, aliases: first is a name of first already"),
        (
            "size: 3M",
            "size: 3M\n        aliases: {other: {trained: a.tar}}",
            "first, aliases, other, trained: the model itself has no such tarball",
        ),
        (
            "size: 3M",
            "size: 3M\n        aliases: {other: {dictionary: a.txt}}",
            "first, aliases, other, dictionary: unknown key; known are inference, trained, pretrained",
        ),
        (
            "size: 3M",
            "size: 3M\n        aliases: {other: {inference: http://a.tar}}",
            "other, inference, url: expected a path",
        ),
        (
            "server: https",
            "places: {models: 3}\nserver: https",
            "the file, places, 'models': expected a name and a URL",
        ),
        ("size: 3M", "size: 3M\n        size: 4M", "line 15, size: stands a second time (first in line 14)"),
        ("task: rec", "task: ocr", "group a group, task: expected one of det, rec, cls, found 'ocr'"),
        ("generation: v2.0", "generation: 2.0", "group a group, generation: expected one of PP-OCRv6"),
        ("languages: [English]", "languages: English", "group a group, languages: expected a list of texts"),
        ("space: true", "space: yes please", "group a group, space: expected true or false, found 'yes please'"),
        ("    space: true\n", "", "first, space: missing; a recogniser needs true or false"),
        ("        dictionary: words.txt\n", "", "first, dictionary: missing; a recogniser needs a text"),
        (
            "task: rec\n    architecture: some_network\n    languages: [English]\n    space: true\n",
            "task: det\n    architecture: some_network\n    languages: [English]\n",
            "first, dictionary: only a recogniser (task: rec) has one; this is task: det",
        ),
        ("size: 3M", "size: 3M\n        revisions: [2.0]", "first, revisions: expected a list of texts, found [2.0]"),
        ("size: 3M", "size: 3M\n        parameters: 63", "first, parameters: expected a mapping"),
        ("      first:", "      first one:", "group a group, 'first one': expected a name of letters"),
        ("inference: folder/first.tar", "inference: {alternatives: [b.tar]}", "first, inference, url: missing"),
        (
            "inference: folder/first.tar",
            "inference: http://x.example/a.tar",
            "first, inference, url: expected a path, an",
        ),
        ("inference: folder/first.tar", "inference: ../../etc/passwd", "first, inference, url: expected a path, an"),
        ("inference: folder/first.tar", "inference: embedded:../x.tar", "first, inference, url: expected a path, an"),
        (
            "inference: folder/first.tar",
            "inference: a/{nmae}.tar",
            "first, inference, url: unknown {nmae}; known is {name}",
        ),
        (
            "inference: folder/first.tar",
            "inference: {url: a.tar, size: 1}",
            "first, inference, size: unknown key; known are url, alternatives",
        ),
        (
            "inference: folder/first.tar",
            "inference: {url: a.tar, alternatives: b.tar}",
            "first, inference, alternatives: expected a list of texts, found 'b.tar'",
        ),
        ("server: https://server.example/", "", "the file, server: missing; expected a text"),
        (
            SMALL_ZOO[SMALL_ZOO.index("    models:") :],
            "    models: {}",
            "group a group, models: expected a mapping of one key or more, found {}",
        ),
        (
            SMALL_ZOO,
            "- a list",
            "the file, content: expected a mapping with server, places, dictionaries, groups, found ['a list']",
        ),
    ],
)
def test_a_mistake_is_reported_with_entry_and_key(old: str, new: str, complaint: str) -> None:
    assert old in SMALL_ZOO
    with pytest.raises(ZooError) as caught:
        parse_zoo(SMALL_ZOO.replace(old, new), "small.yaml")
    assert complaint in str(caught.value)
    assert str(caught.value).startswith("small.yaml: 1 mistake in the zoo, to be corrected:\n")


def test_all_mistakes_are_reported_at_once() -> None:
    text = (
        SMALL_ZOO.replace("description: a", "descriptoin: a")
        .replace("task: rec", "task: ocr")
        .replace("folder/", "http://")
    )
    with pytest.raises(ZooError) as caught:
        parse_zoo(text, "small.yaml")
    first, *mistakes = str(caught.value).splitlines()
    assert first == "small.yaml: 4 mistakes in the zoo, to be corrected:"
    assert [line.split(":")[0].strip() for line in mistakes] == [
        "group a group, task",
        "first, descriptoin",
        "first, description",
        "first, inference, url",
    ]


def test_a_model_in_two_groups_is_a_mistake() -> None:
    again = SMALL_ZOO[SMALL_ZOO.index("  a group:") :].replace("a group", "another group")
    with pytest.raises(ZooError, match=r"first, group another group: the model stands in an earlier group too"):
        parse_zoo(SMALL_ZOO + again, "small.yaml")


def test_a_name_belongs_to_one_model() -> None:
    second = "      second: {description: b, aliases: [first], dictionary: d.txt, inference: second.tar}\n"
    with pytest.raises(ZooError, match="second, aliases: first is a name of first already"):
        parse_zoo(SMALL_ZOO + second, "small.yaml")
    third = second.replace("second", "third").replace("[first]", "[other]")
    with pytest.raises(ZooError, match="third, aliases: other is a name of second already"):
        parse_zoo(SMALL_ZOO + second.replace("[first]", "[other]") + third, "small.yaml")


def test_what_is_not_yaml_is_one_error(tmp_path: Path) -> None:
    with pytest.raises(ZooError, match=r"^small.yaml at line \d: not YAML"):
        parse_zoo("a: 1\nb: [", "small.yaml")
    with pytest.raises(ZooError, match="cannot be read"):
        load_zoo(tmp_path / "nowhere.yaml")


# ---- lock --------------------------------------------------------------------------------------------------------


def fetched(name: str, size: int = 1234) -> Fetched:
    sha256 = hashlib.sha256(name.encode()).hexdigest()
    return Fetched(Path(name), "https://anywhere.example", sha256, size, FileState(0, 0, size, 0))


def test_measuring_takes_what_comes_whatever_is_pinned(tmp_path: Path) -> None:
    second = "      second: {description: b, size: 1M, dictionary: d.txt, inference: folder/second.tar}\n"
    pins = {("first", "inference"): KnownFile("0" * 64, 1)}
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "first.tar").write_bytes(b"tarball")
    small, fetcher = parse_zoo(SMALL_ZOO + second, "small.yaml", pins), Fetcher(cache_dir=tmp_path, mirror=tmp_path)
    measured, failures = measure(small, fetcher)
    assert {key: file.size for key, file in measured.items()} == {("first", "inference"): 7}
    assert [str(failure).split(":")[0] for failure in failures] == ["second.tar"]
    assert measure(small, fetcher, names=["second"])[0] == {}
    with pytest.raises(SourceError, match="third: no model of that name"):
        measure(small, fetcher, names=["third"])


def test_the_zoo_and_its_lock_file_belong_together(zoo: Zoo) -> None:
    """Every pin is that of a tarball that the zoo lists, and every tarball of this package is pinned, rightly."""
    pins = read_lock(lock_path(zoo_path()))
    artifacts = zoo.tarballs
    assert pins.keys() <= artifacts.keys()
    assert pins == {
        key: KnownFile(each.sha256, each.size) for key, each in artifacts.items() if each.sha256 is not None
    }
    embedded = {key: each for key, each in artifacts.items() if each.url.startswith(EMBEDDED)}
    files = Fetcher(offline=True).fetch_all([replace(each, size=None, sha256=None) for each in embedded.values()])
    assert {key: KnownFile(file.sha256, file.size) for key, file in zip(embedded, files, strict=True)} == {
        key: pins[key] for key in embedded
    }


def test_what_is_measured_is_pinned_and_the_rest_stays(tmp_path: Path, zoo: Zoo) -> None:
    path, lock = tmp_path / "zoo.yaml", tmp_path / "zoo.lock.json"
    path.write_bytes(zoo_path().read_bytes())
    assert lock_path(path) == lock
    measured = {
        (model.name, kind): fetched(f"{model.name} {kind}") for model in zoo.models.values() for kind in model.artifacts
    }
    keys = list(measured)
    assert write_lock(lock, load_zoo(path), measured) == tuple(keys)
    assert path.read_bytes() == zoo_path().read_bytes()
    assert read_lock(lock) == {key: KnownFile(file.sha256, file.size) for key, file in measured.items()}
    locked = load_zoo(path)
    assert {
        (model.name, artifact.kind): KnownFile(artifact.sha256, artifact.size)
        for model in locked.models.values()
        for artifact in model.artifacts.values()
    } == read_lock(lock)
    assert without_pins(locked) == without_pins(zoo)

    assert write_lock(lock, locked, {keys[1]: measured[keys[1]], keys[5]: fetched("new", 99)}) == (keys[5],)
    assert read_lock(lock) == {
        key: KnownFile(file.sha256, file.size) for key, file in {**measured, keys[5]: fetched("new", 99)}.items()
    }
    before = lock.read_bytes()
    assert write_lock(lock, load_zoo(path), {}) == ()
    assert lock.read_bytes() == before


def test_a_name_with_tarballs_of_its_own_has_pins_of_its_own(tmp_path: Path) -> None:
    path, lock = tmp_path / "zoo.yaml", tmp_path / "zoo.lock.json"
    path.write_text(SMALL_ZOO.replace("size: 3M", "size: 3M\n        aliases: {other: {inference: other.tar}}"))
    own, others = fetched("own"), fetched("others")
    write_lock(lock, load_zoo(path), {("first", "inference"): own, ("other", "inference"): others})
    for name, file in (("first", own), ("other", others)):
        assert load_zoo(path).get(name).artifacts["inference"].sha256 == file.sha256
    assert write_lock(lock, load_zoo(path), {}) == ()
    assert read_lock(lock).keys() == {("first", "inference"), ("other", "inference")}


def test_pins_of_what_the_zoo_no_longer_lists_go(tmp_path: Path) -> None:
    path, lock = tmp_path / "zoo.yaml", tmp_path / "zoo.lock.json"
    path.write_text(SMALL_ZOO)
    write_lock(lock, load_zoo(path), {("first", "inference"): fetched("x")})
    path.write_text(SMALL_ZOO.replace("first:", "second:"))
    assert load_zoo(path).get("second").artifacts["inference"].sha256 is None
    write_lock(lock, load_zoo(path), {})
    assert read_lock(lock) == {}


@pytest.mark.parametrize(
    "content",
    [
        "{",
        "[]",
        '{"first": 3}',
        '{"first": {"inference": 3}}',
        '{"first": {"inference": {}}}',
        '{"first": {"inference": {"size": -1, "sha256": "%s"}}}' % ("0" * 64),
        '{"first": {"inference": {"size": true, "sha256": "%s"}}}' % ("0" * 64),
        '{"first": {"inference": {"size": 3, "sha256": "%s"}}}' % ("A" * 64),
        "[" * 100_000,
        b"\xff\xfe\xfd",
    ],
)
def test_a_damaged_lock_file_is_one_error(content: str | bytes, tmp_path: Path) -> None:
    (tmp_path / "zoo.yaml").write_text(SMALL_ZOO)
    lock = tmp_path / "zoo.lock.json"
    lock.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(ZooError, match="zoo.lock.json: cannot be read as the lock of a zoo") as caught:
        load_zoo(tmp_path / "zoo.yaml")
    assert "\n" not in str(caught.value)


def without_pins(zoo: Zoo) -> dict[str, Model]:
    return {
        model.name: replace(
            model, artifacts={k: replace(a, sha256=None, size=None) for k, a in model.artifacts.items()}
        )
        for model in zoo.models.values()
    }
