"""With a mirror of the zoo and upstream's images: the same lines from PyTorch, from Paddle, and from upstream."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from paddle2torch.architectures.preprocessing import RECOGNITION_32
from paddle2torch.converter.zoo.download import Fetcher
from paddle2torch.reading import Line, Reader
from paddle2torch.reading.defaults import CLASSIFIERS, DETECTORS, RECOGNISERS
from paddle2torch.reading.network import Network, open_network
from paddle2torch.reading.paddle import PaddleSession
from support.reading_samples import overlap

IMAGES_VARIABLE = "PADDLE2TORCH_IMAGES"
DETECTOR, CLASSIFIER = "ch_PP-OCRv3_det", "ch_ppocr_mobile_v2.0_cls"
FRENCH, JAPANESE, ENGLISH = "french_mobile_v2.0_rec", "japan_mobile_v2.0_rec", "en_number_mobile_v2.0_rec"

# What PaddleOCR itself prints for doc/imgs/11.jpg with ch_PP-OCRv3_det, as people have logged it: the boxes, in order.
PUBLISHED_BOXES = (
    ((28, 37), (302, 39), (302, 72), (27, 70)),
    ((26, 81), (172, 83), (172, 104), (25, 101)),
    ((28, 115), (330, 115), (330, 132), (28, 132)),
    ((27, 145), (282, 145), (282, 164), (27, 164)),
    ((26, 179), (299, 179), (299, 195), (26, 195)),
    ((26, 210), (233, 210), (233, 227), (26, 227)),
    ((26, 241), (241, 241), (241, 258), (26, 258)),
    ((413, 236), (430, 236), (430, 303), (413, 303)),
    ((23, 271), (180, 269), (180, 289), (24, 290)),
    ((26, 304), (252, 304), (252, 320), (26, 320)),
    ((26, 335), (343, 335), (343, 352), (26, 352)),
    ((27, 366), (281, 366), (281, 383), (27, 383)),
    ((369, 370), (477, 370), (477, 387), (369, 387)),
    ((26, 397), (361, 397), (361, 414), (26, 414)),
    ((28, 429), (372, 429), (372, 445), (28, 445)),
    ((27, 459), (136, 459), (136, 479), (27, 479)),
)
SIGNS = [
    "Palais du LOUVRE",
    "LES ARTS DÉCORATIFS",
    "Musée du LOUVRE",
    "Théâtre",
    "du PALAIS-ROYAL",
]
RECEIPT = {
    "107 State street",
    "Montpelier Vermont",
    "045555",
    "$7.95",
    "$21.40",
    "CASH",
    "THANK YOU",
    "FOR YOUR BUSINESS",
}
LINES = {
    "imgs_words_french_1.jpg": (FRENCH, "de l'amendement,"),
    "imgs_words_french_2.jpg": (FRENCH, "au développement."),
    "imgs_words_japan_1.jpg": (JAPANESE, "したがって"),
    "imgs_words_en_word_10.png": (ENGLISH, "PAIN"),
    "imgs_words_en_word_19.png": (ENGLISH, "SLOW"),
    "imgs_words_en_word_201.png": (ENGLISH, "HOUSE"),
    "imgs_words_en_word_336.png": (ENGLISH, "SUPER"),
    "imgs_words_en_word_52.png": (ENGLISH, "Future"),
}


@pytest.fixture(scope="module")
def images() -> Path:
    folder = os.environ.get(IMAGES_VARIABLE)
    if not folder:
        pytest.skip(f"{IMAGES_VARIABLE} does not name a folder with the images of upstream's documentation")
    return Path(folder)


@pytest.fixture(scope="module")
def fetcher(mirror: Path, tmp_path_factory: pytest.TempPathFactory) -> Fetcher:
    return Fetcher(cache_dir=tmp_path_factory.mktemp("cache"), mirror=str(mirror))


@pytest.fixture(scope="module")
def paddle(fetcher: Fetcher) -> Iterator[PaddleSession]:
    if find_spec("paddle") is None:
        pytest.skip("PaddlePaddle is not installed")
    with PaddleSession(fetcher) as engine:
        yield engine


@pytest.fixture(scope="module")
def detector(fetcher: Fetcher) -> Network:
    return open_network(DETECTOR, "det", fetcher=fetcher)


@pytest.fixture(scope="module")
def classifier(fetcher: Fetcher) -> Network:
    return open_network(CLASSIFIER, "cls", fetcher=fetcher)


def test_the_boxes_are_those_that_upstream_prints(images: Path, detector: Network) -> None:
    anything = Network("x", "rec", lambda inputs: np.float32([[[0, 1]]] * len(inputs)), RECOGNITION_32, ["blank", "x"])
    reader = Reader(detector, None, anything)
    assert tuple(line.box for line in reader.read(images / "imgs_11.jpg")) == PUBLISHED_BOXES


@pytest.mark.parametrize("image", LINES)
def test_lines_of_upstreams_documentation_are_read(image: str, images: Path, fetcher: Fetcher) -> None:
    recogniser, text = LINES[image]
    (line,) = Reader(det=None, rec=recogniser, fetcher=fetcher).read(images / image)
    assert line.text == text


@pytest.mark.parametrize(
    ("image", "recogniser", "expected"),
    [
        ("imgs_french_0.jpg", FRENCH, SIGNS),
        ("imgs_11.jpg", JAPANESE, ["(成品包材)"]),
        ("imgs_en_254.jpg", ENGLISH, RECEIPT),
    ],
)
def test_pytorch_and_paddle_read_the_same_lines(
    image: str,
    recogniser: str,
    expected: list[str],
    images: Path,
    fetcher: Fetcher,
    detector: Network,
    classifier: Network,
    paddle: PaddleSession,
) -> None:
    lines = Reader(detector, classifier, recogniser, fetcher=fetcher).read(images / image)
    assert_alike(lines, paddle.reader(DETECTOR, CLASSIFIER, recogniser).read(images / image))
    assert set(expected) <= {line.text for line in lines}


@pytest.mark.parametrize("image", ["imgs_french_0.jpg", "imgs_11.jpg"])
def test_the_default_models_read_what_paddle_reads_with_them(
    image: str, images: Path, mirror: Path, fetcher: Fetcher, paddle: PaddleSession
) -> None:
    if not [*mirror.glob(f"**/{DETECTORS[0]}_infer.tar")]:
        pytest.skip("the mirror has none of the default models")
    lines = Reader(fetcher=fetcher).read(images / image)
    assert_alike(lines, paddle.reader(DETECTORS[0], CLASSIFIERS[0], RECOGNISERS[0]).read(images / image))
    assert len(lines) > 5
    assert image != "imgs_french_0.jpg" or set(SIGNS) <= {line.text for line in lines}


def assert_alike(lines: Sequence[Line], reference: Sequence[Line]) -> None:
    assert [line.text for line in lines] == [line.text for line in reference]
    for line, other in zip(lines, reference, strict=True):
        assert overlap(np.array(line.box), np.array(other.box)) >= 0.99
        assert line.score == pytest.approx(other.score, abs=1e-3)
