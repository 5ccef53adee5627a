"""Released programs and what stands beside them: each is read as it is, and what its `inference.yml` says is followed."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from paddle2torch.architectures.records import BoxPostprocessing, Size
from paddle2torch.converter.conversion.as_graph import convert_graph
from paddle2torch.converter.conversion.convert import Conversion, convert
from paddle2torch.converter.formats.pdiparams import write_pdiparams
from paddle2torch.converter.formats.pdmodel import Program, read_pdmodel
from paddle2torch.converter.formats.pir import read_pir
from paddle2torch.converter.sources import Source, load_source
from paddle2torch.converter.support.blob import Blob
from paddle2torch.converter.zoo.catalog import load_zoo
from paddle2torch.converter.zoo.download import Fetcher
from support.upstream import PROGRAMS_VARIABLE, program_folder

FOLDER = os.environ.get(PROGRAMS_VARIABLE)
NAMES = sorted(path.name for path in Path(FOLDER).iterdir() if path.is_dir()) if FOLDER else []

LINE = Size("height", 48, 320)
ANGLE = Size("stretch", 80, 160)
PAGE_960 = Size("multiple_long_up", multiple=128, long_side=960)
PAGE_736 = Size("multiple_at_least", multiple=32, short_side=736, long_side=4000)
DEGREES = ("0", "90", "180", "270")
# By their inference.yml: the size, the order of the channels, and the boxes or labels (or how many there are).
TOLD = {
    "PP-LCNet_x0_25_textline_ori": (ANGLE, "RGB", ("0", "180")),
    "PP-LCNet_x0_25_textline_ori.2025-05": (ANGLE, "RGB", ("0", "180")),
    "PP-LCNet_x1_0_doc_ori": (Size("crop", 224, 224, short_side=256), "RGB", DEGREES),
    "PP-OCRv5_mobile_det": (PAGE_960, "BGR", BoxPostprocessing(0.3, 0.6, 1000, 1.5)),
    "PP-OCRv5_server_det": (PAGE_960, "BGR", BoxPostprocessing(0.3, 0.6, 1000, 1.5)),
    "PP-OCRv6_tiny_det": (PAGE_736, "BGR", BoxPostprocessing(0.2, 0.4, 3000, 1.4)),
    "PP-OCRv6_small_det": (PAGE_736, "BGR", BoxPostprocessing(0.2, 0.45, 3000, 1.4)),
    "PP-OCRv5_mobile_rec": (LINE, "BGR", 18385),
    "PP-OCRv5_server_rec": (LINE, "BGR", 18385),
    "PP-OCRv6_tiny_rec": (LINE, "BGR", 6906),
    "PP-OCRv6_small_rec": (LINE, "BGR", 18710),
}
# Networks of other tasks, whose settings are others' too.
OTHER_TASKS = {"PP-DocLayout-S", "SLANet_plus", "SLANet_plus_pir"}


def read(folder: Path) -> Program:
    legacy = folder / "inference.pdmodel"
    return read_pdmodel(Blob.open(legacy)) if legacy.exists() else read_pir(Blob.open(folder / "inference.json"))


@pytest.fixture
def exported(name: str, tmp_path: Path) -> Path:
    """The folder of an exported model: program and settings as released, and some weights."""
    folder = tmp_path / name
    shutil.copytree(program_folder(name), folder, ignore=shutil.ignore_patterns("names.json"))
    arrays = {each.name: np.full(each.shape, 0.5, each.dtype) for each in read(folder).parameters}
    (folder / "inference.pdiparams").write_bytes(write_pdiparams(arrays))
    return folder


@pytest.mark.skipif(not NAMES, reason=f"{PROGRAMS_VARIABLE} names no folder")
def test_all_settings_are_of_the_table() -> None:
    assert {name for name in NAMES if (program_folder(name) / "inference.yml").exists()} == TOLD.keys() | OTHER_TASKS


@pytest.mark.parametrize("name", NAMES)
def test_every_program_is_read(name: str) -> None:
    program = read(program_folder(name))
    assert program.parameters
    assert all(each.shape and each.dtype for each in program.parameters)
    assert program.operators


@pytest.mark.parametrize("way", [convert, convert_graph])
@pytest.mark.parametrize("name", TOLD)
def test_what_settings_say_is_followed(name: str, way: Callable[[Source], Conversion], exported: Path) -> None:
    size, order, meaning = TOLD[name]
    conversion = way(load_source(str(exported), load_zoo(), Fetcher(offline=True)))
    preprocessing = conversion.network.preprocessing
    assert (preprocessing.size, preprocessing.channel_order) == (size, order)
    if isinstance(meaning, BoxPostprocessing):
        assert conversion.postprocessing == meaning
    elif isinstance(meaning, int):
        assert len(conversion.labels.labels) == meaning
    else:
        assert tuple(conversion.labels.labels) == meaning
    assert any(note.startswith("the preprocessing is that of inference.yml") for note in conversion.notes)
