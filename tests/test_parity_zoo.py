"""With a mirror of the zoo: a tarball of each architecture and kind against Paddle, and how much of what could be wrong is noticed."""

from __future__ import annotations

import importlib
import os
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType

import pytest
import torch

from paddle2torch.converter.conversion.convert import Conversion, convert
from paddle2torch.converter.parity.inputs import default_cases, image_cases
from paddle2torch.converter.parity.programs import find_reference
from paddle2torch.converter.parity.reference import PaddleWorker
from paddle2torch.converter.parity.verify import verify
from paddle2torch.converter.sources import load_source
from paddle2torch.converter.tasks import find_task
from paddle2torch.converter.zoo.catalog import load_zoo
from paddle2torch.converter.zoo.download import Fetcher
from support.mirror import Tarball, smallest

pytestmark = pytest.mark.skipif(find_spec("paddle") is None, reason="PaddlePaddle is not installed")

IMAGES_VARIABLE = "PADDLE2TORCH_IMAGES"
PROGRAMS_VARIABLE = "PADDLE2TORCH_PROGRAMS"
# In single precision, where nothing is judged: what the frameworks' rounding made of the released models. Generated
# recurrent weights are chaotic, no bound holds for them.
SINGLE_PRECISION = 1e-4
ARCHITECTURES = (
    "ch_PP-OCRv3_det",
    "ch_ppocr_mobile_v2.0_det",
    "ch_ppocr_server_v2.0_det",
    "ch_PP-OCRv3_rec",
    "ch_PP-OCRv2_rec",
    "french_mobile_v2.0_rec",
    "ch_ppocr_server_v2.0_rec",
    "ch_ppocr_mobile_v2.0_cls",
)
# Networks of distilled checkpoints beside the one that is exported, and the program of those that are in no tarball.
BRANCHES = [
    ("ch_PP-OCRv3_det", "Student2", None),
    ("ch_PP-OCRv3_det", "Teacher", "ch_PP-OCRv3_det_teacher"),
    ("ch_PP-OCRv2_det", "student2_model", None),
    ("ch_PP-OCRv2_det", "teacher_model", None),
    ("ch_PP-OCRv3_rec", "Teacher", None),
    ("ch_PP-OCRv2_rec", "Teacher", None),
]
# What upstream's images say, as the released models read it.
SAYINGS = {
    "imgs_words_french_1.jpg": ("french_mobile_v2.0_rec", "de l'amendement,"),
    "imgs_words_french_2.jpg": ("french_mobile_v2.0_rec", "au développement."),
    "imgs_words_japan_1.jpg": ("japan_mobile_v2.0_rec", "したがって"),
    "imgs_words_en_word_10.png": ("en_number_mobile_v2.0_rec", "PAIN"),
    "imgs_words_en_word_19.png": ("en_number_mobile_v2.0_rec", "SLOW"),
    "imgs_words_en_word_201.png": ("en_number_mobile_v2.0_rec", "HOUSE"),
    "imgs_words_en_word_336.png": ("en_number_mobile_v2.0_rec", "SUPER"),
    "imgs_words_en_word_52.png": ("en_number_mobile_v2.0_rec", "Future"),
}


@pytest.fixture(scope="module")
def worker() -> Iterator[PaddleWorker]:
    with PaddleWorker() as started:
        yield started


def converted(name: str, mirror: Path, kind: str = "inference", branch: str | None = None) -> Conversion:
    fetcher = Fetcher(mirror=str(mirror))
    return convert(load_source(name, load_zoo(), fetcher, kind), branch=branch, fetcher=fetcher)


@pytest.mark.parametrize("tarball", smallest(), ids=lambda tarball: f"{tarball.model}-{tarball.kind}")
def test_the_smallest_tarball_of_each_architecture_and_kind_passes(
    tarball: Tarball, mirror: Path, worker: PaddleWorker
) -> None:
    conversion = converted(tarball.model, mirror, tarball.kind)
    reference = find_reference(conversion, load_zoo(), Fetcher(mirror=str(mirror)))
    result = verify(conversion, reference=reference, worker=worker)
    assert result.passed, result.failures
    if tarball.released:
        assert max(row.single.max_error for row in result.worst) < SINGLE_PRECISION


@pytest.mark.parametrize(("name", "branch", "program"), BRANCHES)
def test_every_other_network_of_a_distilled_checkpoint_passes(
    name: str, branch: str, program: str | None, mirror: Path, worker: PaddleWorker
) -> None:
    conversion, fetcher = converted(name, mirror, "trained", branch), Fetcher(mirror=str(mirror))
    if program is None:
        reference = find_reference(conversion, load_zoo(), fetcher)
    elif folder := os.environ.get(PROGRAMS_VARIABLE):
        reference = load_source(str(Path(folder) / program), load_zoo(), fetcher, weights=False)
    else:
        pytest.skip(f"{PROGRAMS_VARIABLE} does not name a folder with programs that are in no tarball")
    result = verify(conversion, reference=reference, worker=worker)
    assert result.passed, result.failures


@pytest.mark.parametrize("image", SAYINGS)
def test_the_released_recognisers_read_the_same(image: str, mirror: Path, worker: PaddleWorker) -> None:
    folder = os.environ.get(IMAGES_VARIABLE)
    if not folder:
        pytest.skip(f"{IMAGES_VARIABLE} does not name a folder with the images of upstream's documentation")
    name, saying = SAYINGS[image]
    conversion = converted(name, mirror)
    cases = image_cases(find_task("rec"), conversion.network.preprocessing, [Path(folder) / image])[:1]
    (answer,) = verify(conversion, cases=cases, worker=worker).cases[0].answers
    assert (answer.reference, answer.candidate) == (saying, saying)


@pytest.fixture
def sensitivity(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The script that breaks networks and counts what is noticed."""
    monkeypatch.syspath_prepend(Path(__file__).parents[1])
    return importlib.import_module("scripts.checks.sensitivity")


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_every_tensor_and_constant_is_noticed(
    name: str, mirror: Path, worker: PaddleWorker, sensitivity: ModuleType
) -> None:
    conversion = converted(name, mirror)
    architecture = conversion.network
    cases = default_cases(find_task(architecture.task), architecture.preprocessing)[-1:]
    with torch.inference_mode():
        probe = sensitivity.Probe(conversion, conversion.source, worker, cases)
        tallies = {kind: change(probe) for kind, change in sensitivity.LOCAL_CHANGES.items()}
    shifted = tallies[sensitivity.SHIFTED]
    assert shifted.total == len(conversion.origins) - sum(key.startswith("head.thresh") for key in conversion.origins)
    for kind, tally in tallies.items():
        unexplained = [what for what in tally.missed if not sensitivity.reason(kind, what)]
        assert not unexplained, kind
