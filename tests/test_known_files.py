"""Known files: what is on record of released files, and what a file at hand is told to be by it."""

from __future__ import annotations

import hashlib
import json
import tarfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from paddle2torch.architectures.records import KNOWN_STATUSES, Metadata, Origin
from paddle2torch.converter.containers.archive import ModelFiles
from paddle2torch.converter.conversion.convert import convert
from paddle2torch.converter.sources import load_source
from paddle2torch.converter.support.blob import Blob, FilePart, FileState
from paddle2torch.converter.support.errors import ZooError
from paddle2torch.converter.writing import artifacts
from paddle2torch.converter.zoo import known as module
from paddle2torch.converter.zoo.catalog import load_zoo, zoo_path
from paddle2torch.converter.zoo.download import Fetcher
from paddle2torch.converter.zoo.known import (
    KnownFiles,
    Seen,
    digest_of_arrays,
    find_others,
    find_weights,
    known_files,
    known_path,
    known_text,
    read_known,
)
from support.checkpoints import random_tensors, write_checkpoint

WEIGHTS, PROGRAM = b"weights", b"program"
ARRAYS = {"a": np.arange(6, dtype=np.float32).reshape(2, 3), "b": np.ones(4, dtype=np.float32)}


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def files(weights: bytes = WEIGHTS, program: bytes = PROGRAM) -> ModelFiles:
    return ModelFiles(
        Path("x"),
        parameters=Blob("x_infer.tar:x_infer/inference.pdiparams", weights),
        program=Blob("x_infer.tar:x_infer/inference.pdmodel", program),
    )


def weights_of(*seen: Seen, name: str = "small", content: bytes = WEIGHTS) -> module.Finding:
    return find_weights(files(content), (name, "small_mobile"), ARRAYS.values(), KnownFiles(seen))


SEEN = Seen("small", "inference.pdiparams", sha256=sha256(WEIGHTS), size=7, seen_from="2022-05", sources=3)

# ---- what a file is ----------------------------------------------------------------------------------------------


def test_a_known_release_is_told_with_when_it_was_seen() -> None:
    found = weights_of(Seen("small", "inference.pdiparams", sha256="0" * 64), SEEN)
    assert (found.status, found.seen) == ("released", SEEN)
    assert found.told == "inference.pdiparams is that of the released small, seen since 2022-05 in 3 sources"
    assert found.record.to_json() == {"status": "released", "model": "small", "seen_from": "2022-05", "sources": 3}


def test_a_release_is_known_by_its_id_in_git_too() -> None:
    blob = hashlib.sha1(b"blob 7\0" + WEIGHTS, usedforsecurity=False).hexdigest()
    assert weights_of(Seen("small", "inference.pdiparams", git=blob)).status == "released"


def test_a_file_of_another_model_is_told_to_be_that_ones() -> None:
    assert weights_of(SEEN, name="large").seen is SEEN


def test_of_models_that_share_a_file_the_one_that_is_meant_is_told() -> None:
    others = [Seen(name, "inference.pdiparams", sha256=sha256(WEIGHTS)) for name in ("large", "small_mobile")]
    assert weights_of(*others).told.startswith("inference.pdiparams is that of the released small_mobile, seen in 1")


def test_the_same_tensors_in_another_file_are_another_export() -> None:
    seen = Seen("small", "inference.pdiparams", sha256="0" * 64, tensors=digest_of_arrays([*ARRAYS.values()][::-1]))
    found = weights_of(seen)
    assert (found.status, found.seen) == ("exported again", seen)
    changed = Seen(
        "small", "inference.pdiparams", sha256="0" * 64, tensors=digest_of_arrays([ARRAYS["a"] + 1, ARRAYS["b"]])
    )
    assert weights_of(changed).status == "different"
    # Hashing takes longer than reading, and a file of twice the size holds other tensors.
    assert weights_of(replace(seen, size=2 * len(WEIGHTS))).status == "different"
    assert weights_of(replace(seen, size=len(WEIGHTS))).status == "exported again"


def test_the_digest_of_values_is_of_types_shapes_and_values_alone() -> None:
    a, b = ARRAYS.values()
    assert digest_of_arrays([a, b]) == digest_of_arrays([b, a])
    others = ([a], [a, b, b], [a.reshape(3, 2), b], [a.astype(np.float64), b], [a.T.copy(), b])
    assert len({digest_of_arrays(each) for each in ([a, b], *others)}) == 1 + len(others)
    assert digest_of_arrays([a.T]) == digest_of_arrays([a.T.copy()])


def test_what_is_none_of_the_known_releases_is_different() -> None:
    older = Seen("small_mobile", "inference.pdiparams", sha256="1" * 64, seen_from="2021-01")
    found = weights_of(older, SEEN, content=b"other")
    assert found.status == "different"
    assert found.told == (
        "inference.pdiparams is different from each of the 2 known releases of small (seen since 2022-05 in 3 sources)"
    )
    assert "from the one known release of small " in weights_of(SEEN, content=b"other").told
    assert weights_of(Seen("small", "inference.pdiparams", size=8)).status == "different"


def test_what_may_be_a_known_release_or_has_none_is_unknown() -> None:
    assert weights_of(Seen("small", "inference.pdiparams", size=len(WEIGHTS))).status == "unknown"
    assert weights_of(Seen("small", "inference.pdmodel", sha256="0" * 64)).status == "unknown"
    assert weights_of(Seen("large", "inference.pdiparams", sha256="0" * 64)).status == "unknown"
    found = weights_of()
    assert (found.status, found.record.to_json()["model"]) == ("unknown", None)
    assert found.told == "inference.pdiparams is unknown: it is none of the released files on record"


def test_what_only_has_the_name_of_a_release_is_told() -> None:
    other = Seen("small", "inference.pdiparams", sha256=sha256(WEIGHTS), instead="fine-tuned: 258 classes")
    found = weights_of(other)
    assert found.status == "something else"
    assert found.told == "inference.pdiparams is known, and not the released one of small: fine-tuned: 258 classes"
    assert weights_of(other, SEEN).status == "released"
    assert weights_of(other, content=b"other").status == "unknown"


def test_the_other_files_are_told_too() -> None:
    record = KnownFiles((SEEN, Seen("small", "inference.pdmodel", sha256=sha256(PROGRAM))))
    (program,) = find_others(files(), ("small",), record)
    assert (program.file, program.status) == ("inference.pdmodel", "released")
    (program,) = find_others(files(program=b"other"), ("small",), record)
    assert program.status == "different"


def test_a_checkpoint_is_compared_with_those_of_its_model_whatever_they_are_called() -> None:
    seen = [Seen("small", name, sha256=sha256(name.encode())) for name in ("._best.pdparams", "student.pdparams")]
    checkpoint = ModelFiles(Path("x"), checkpoint=Blob("best_accuracy.pdparams", b"student.pdparams"))
    assert find_weights(checkpoint, (), [], KnownFiles(tuple(seen))).status == "released"
    checkpoint = ModelFiles(Path("x"), checkpoint=Blob("best_accuracy.pdparams", b"other"))
    found = find_weights(checkpoint, ("small",), [], KnownFiles(tuple(seen)))
    assert (found.status, found.count) == ("different", 1)


def test_a_file_within_an_archive_is_hashed_to_its_end_and_no_further(tmp_path: Path) -> None:
    path = tmp_path / "x.tar"
    path.write_bytes(b"before" + WEIGHTS + b"behind")
    blob = Blob("x.tar:x/inference.pdiparams", FilePart(path, FileState.of(path), 6, len(WEIGHTS)))
    assert KnownFiles((SEEN,)).find(blob, ()).status == "released"


# ---- the record --------------------------------------------------------------------------------------------------


def test_what_is_written_is_read_again(tmp_path: Path) -> None:
    seen = (
        SEEN,
        Seen("small", "small_infer.tar", size=9, note="packed anew"),
        Seen("large", "x.pdparams", git="a" * 40),
    )
    path = tmp_path / "zoo.known.json"
    path.write_text(known_text(seen))
    assert read_known(path).revisions == seen
    assert len(path.read_text().splitlines()) == len(seen) + 2 + 2 * 2 + 2 * 3
    assert read_known(tmp_path / "none.json") == KnownFiles()


@pytest.mark.parametrize(
    "content",
    [
        "{",
        "[]",
        '{"small": 3}',
        '{"small": {"x": 3}}',
        '{"small": {"x": [3]}}',
        '{"small": {"x": [{}]}}',
        '{"small": {"x": [{"sha256": "%s"}]}}' % ("A" * 64),
        '{"small": {"x": [{"sha256": 5}]}}',
        '{"small": {"x": [{"size": true}]}}',
        '{"small": {"x": [{"size": 5, "sources": 0}]}}',
        '{"small": {"x": [{"size": 5, "seen_from": "today"}]}}',
        '{"small": {"x": [{"size": 5, "note": 5}]}}',
        '{"small": {"x": [{"size": 5, "colour": "red"}]}}',
        b"\xff\xfe",
    ],
)
def test_a_damaged_record_is_one_error(content: str | bytes, tmp_path: Path) -> None:
    path = tmp_path / "zoo.known.json"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(ZooError, match="cannot be read as the known files of a zoo") as caught:
        read_known(path)
    assert "\n" not in str(caught.value)


def test_the_record_is_of_models_of_the_zoo_and_is_as_it_is_written() -> None:
    zoo, found = load_zoo(), known_files().revisions
    assert len(found) == 283
    assert {each.model for each in found} <= {name for model in zoo.models.values() for name in model.names}
    assert sum(each.tensors is not None for each in found) == 14
    assert known_path(zoo_path()).read_text(encoding="utf-8") == known_text(found)
    places = {
        url.rpartition("/")[2] for model in zoo for a in model.artifacts.values() for url in (a.url, *a.alternatives)
    }
    packed = {each.file for each in found if each.file.endswith(("_infer.tar", "_train.tar", "_pretrained.pdparams"))}
    assert packed <= places


# ---- where it is told --------------------------------------------------------------------------------------------


def test_a_conversion_tells_and_records_what_its_source_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_checkpoint(tmp_path / "ch_ppocr_mobile_v2.0_cls_train.pdparams", random_tensors("cls_mobilenet_v3"))
    source = load_source(str(path), load_zoo(), Fetcher())
    assert source.names == ("ch_ppocr_mobile_v2.0_cls",)
    assert convert(source).notes[-1].endswith("is unknown: it is none of the released files on record")
    seen = Seen(source.names[0], "best_accuracy.pdparams", sha256=sha256(path.read_bytes()), seen_from="2021-01")
    monkeypatch.setattr(module, "known_files", lambda: KnownFiles((seen,)))
    conversion = convert(load_source(str(path), load_zoo(), Fetcher()))
    assert "is that of the released ch_ppocr_mobile_v2.0_cls" in conversion.notes[-1]
    _, _, record = artifacts.write(conversion, tmp_path / "out")
    origin = Metadata.from_json(json.loads(record.read_text()), "x").source
    assert origin is not None
    assert origin.known == seen_as(seen)


def seen_as(seen: Seen) -> object:
    return module.Finding("x", "released", seen).record


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"status": "good"}, "'source.known.status' is 'good', one of released, "),
        ({"model": 3}, "'source.known.model' is 3, text was expected"),
        ({"sources": 0}, "'source.known.sources' is 0, an integer from 1"),
        ({"colour": "red"}, "'source.known' has 'colour'"),
    ],
)
def test_metadata_with_another_finding_are_refused(change: dict[str, object], complaint: str, tmp_path: Path) -> None:
    path = write_checkpoint(tmp_path / "a.pdparams", random_tensors("cls_mobilenet_v3"))
    _, _, record = artifacts.write(convert(load_source(str(path), load_zoo(), Fetcher())), tmp_path / "out")
    content = json.loads(record.read_text())
    content["source"]["known"] |= change
    with pytest.raises(ValueError, match=complaint):
        Metadata.from_json(content, "x")


def test_this_packages_own_model_has_nothing_on_record() -> None:
    source = load_source("embedded_rec", load_zoo(), Fetcher(offline=True))
    assert source.known is None
    assert "known" not in Origin("x", "0" * 64).to_json()
    assert "released" in KNOWN_STATUSES


def test_released_weights_of_the_mirror_are_known(mirror: Path, tmp_path: Path) -> None:
    name, zoo, fetcher = "french_mobile_v2.0_rec", load_zoo(), Fetcher(mirror=str(mirror))
    source = load_source(name, zoo, fetcher)
    assert source.known is not None
    assert (source.known.status, source.known.record.model) == ("released", name)
    with tarfile.open(source.path) as archive:
        archive.extractall(tmp_path, filter="data")
    (folder,) = tmp_path.iterdir()
    given = load_source(str(folder), zoo, fetcher)
    assert given.known == source.known
    generated = load_source("german_mobile_v2.0_rec", zoo, fetcher)
    assert generated.known is not None
    assert generated.known.status == "different"
