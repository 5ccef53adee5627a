#!/usr/bin/env python3
"""Does RapidOCR's PyTorch engine take converted weights, and compute with them what our networks compute?

    pip install . rapidocr
    python -m scripts.checks.rapidocr page.jpg [--rec NAME] [--mirror DIR_OR_URL] [--output FOLDER]

Without images those in the folder $PADDLE2TORCH_IMAGES are read. A detector, a classifier and a recogniser are
converted and put into the folder under the names by which RapidOCR picks its networks. RapidOCR then reads each image
twice: with its own network classes, which load our files strictly, and with our modules in their place. The table has,
per image, the largest relative difference between the two networks of a stage on the very same input, and whether
boxes, angles and text come out the same. Exits with 1 if anything differs.

Detector and classifier need nothing but their names. Of recognisers RapidOCR's list of stems lacks those of this zoo,
though it has classes for all their parts; this script tells it how they are built.
"""

from __future__ import annotations

import argparse
import copy
import os
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from paddle2torch.architectures import load_model
from paddle2torch.converter.conversion.choice import Access, Choice
from paddle2torch.converter.parity.compare import measure
from paddle2torch.converter.support.errors import ConverterError, MappingError
from paddle2torch.converter.writing import artifacts
from paddle2torch.converter.zoo.catalog import load_zoo

try:
    from rapidocr import EngineType, RapidOCR
    from rapidocr.inference_engine.pytorch.networks.main import ModelLoader
except ImportError as error:
    sys.exit(f"this check needs RapidOCR ({error}): pip install . rapidocr")

# Model of the zoo → the stem by which RapidOCR knows its network.
STEMS = {
    "ch_PP-OCRv3_det": "multi_PP-OCRv3_det_mobile",
    "ch_ppocr_mobile_v2.0_cls": "ch_ppocr_mobile_v2.0_cls_mobile",
}
# Architecture → backbone and neck of a recogniser, as RapidOCR's list would have them.
RECOGNISERS = {
    "rec_mobilenet_v3_bilstm_ctc": {
        "Backbone": {"name": "MobileNetV3", "model_name": "small", "scale": 0.5, "small_stride": [1, 2, 2, 2]},
        "Neck": {"name": "SequenceEncoder", "encoder_type": "rnn", "hidden_size": 48},
    },
    "rec_mobilenet_v1_enhance_svtr_ctc": {
        "Backbone": {
            "name": "MobileNetV1Enhance", "scale": 0.5, "last_conv_stride": [1, 2], "last_pool_type": "avg",
        },
        "Neck": {
            "name": "SequenceEncoder", "encoder_type": "svtr",
            "dims": 64, "depth": 2, "hidden_dims": 120, "use_guide": True,
        },
    },
}  # fmt: skip
STAGES = ("det", "cls", "rec")
# Both are single precision, in another order of operations (batch norms, LSTM directions).
TOLERANCE = 1e-4
SUFFIXES = (".jpg", ".jpeg", ".png")


@dataclass
class Watched:
    """A stage's engine: gives what `answering` computes, and notes how far the two networks are apart.

    Attributes:
        theirs: RapidOCR's own engine.
        ours: our network.
        answering: which of the two the pipeline goes on with.
        errors: largest relative difference, per batch.
    """

    theirs: Callable[[np.ndarray], np.ndarray]
    ours: torch.nn.Module
    answering: str = "theirs"
    errors: list[float] = field(default_factory=list)

    def __call__(self, batch: np.ndarray) -> np.ndarray:
        theirs = self.theirs(batch)
        with torch.inference_mode():
            ours = self.ours(torch.from_numpy(batch)).numpy()
        self.errors.append(measure(ours, theirs).error)
        return theirs if self.answering == "theirs" else ours


@dataclass(frozen=True)
class Row:
    """What one image showed.

    Attributes:
        image: its name.
        errors: stage → largest difference between the two networks; a stage that was not reached is missing.
        lines: what RapidOCR read with its own network classes.
        same: whether it read the same, in the same places, with our modules.
    """

    image: str
    errors: Mapping[str, float]
    lines: tuple[str, ...]
    same: bool

    @property
    def passed(self) -> bool:
        return self.same and all(error <= TOLERANCE for error in self.errors.values())


def convert_models(names: Mapping[str, str], folder: Path, access: Access) -> dict[str, Path]:
    """Stage → the converted `.pth`, named as RapidOCR wants it, with our `.json` beside it.

    Args:
        names: stage → model of the zoo.
        folder: where.
        access: where the models come from.
    """
    zoo, fetcher, choice = load_zoo(), access.fetcher(), Choice()
    paths = {}
    for stage, name in names.items():
        conversion = choice.convert(choice.load(name, zoo, fetcher), fetcher)
        record = artifacts.metadata(conversion) | {"name": STEMS.get(name, name)}
        paths[stage], *_ = artifacts.write_files(conversion.state, record, folder)
    return paths


def write_dictionary(labels: list[str], folder: Path) -> Path:
    """The characters, one a line; RapidOCR adds blank and space itself."""
    characters = labels[1:-1] if labels[-1] == " " else labels[1:]
    path = folder / "characters.txt"
    path.write_text("".join(f"{character}\n" for character in characters), encoding="utf-8")
    return path


@contextmanager
def known_to_rapidocr(stem: str, metadata: Mapping[str, Any]) -> Iterator[None]:
    """Lets RapidOCR build our recogniser's network for a file of that stem."""
    original = ModelLoader._load_arch_config
    head = {"name": "CTCHead", "out_channels": metadata["parameters"]["classes"], "fc_decay": 0.00001}
    entry = {"model_type": "rec", "algorithm": "CTC", "Head": head, **RECOGNISERS[metadata["architecture"]]}

    def load(loader: ModelLoader, path: Path) -> Any:
        return copy.deepcopy(entry) if path.stem == stem else original(loader, path)

    ModelLoader._load_arch_config = load
    try:
        yield
    finally:
        ModelLoader._load_arch_config = original


def open_rapidocr(paths: Mapping[str, Path], folder: Path) -> tuple[RapidOCR, dict[str, Watched]]:
    """RapidOCR with our files and the preprocessing that our metadata gives, every stage watched."""
    models = {stage: load_model(path) for stage, path in paths.items()}
    records = {stage: model.metadata["preprocessing"] for stage, model in models.items()}
    metadata, size = models["rec"].metadata, records["rec"]["size"]
    if metadata["architecture"] not in RECOGNISERS or metadata["labels"] is None:
        raise MappingError(
            f"--rec {metadata['name']}: needs labels and one of the networks {', '.join(RECOGNISERS)}; it is "
            f"{metadata['architecture']}"
        )
    params = {
        "Global.log_level": "warning",
        "Det.engine_type": EngineType.TORCH,
        "Det.model_path": str(paths["det"]),
        "Det.mean": records["det"]["mean"],
        "Det.std": records["det"]["std"],
        "Det.limit_type": "max",
        "Det.limit_side_len": records["det"]["size"]["limit_side"],
        "Cls.engine_type": EngineType.TORCH,
        "Cls.model_path": str(paths["cls"]),
        "Rec.engine_type": EngineType.TORCH,
        "Rec.model_path": str(paths["rec"]),
        "Rec.rec_keys_path": str(write_dictionary(metadata["labels"], folder)),
        "Rec.rec_img_shape": [3, size["height"], size["width"]],
    }
    engine = RapidOCR(params=params)
    with known_to_rapidocr(paths["rec"].stem, metadata):
        stages = {"det": engine._load_det_model(), "cls": engine._load_cls_model(), "rec": engine._load_rec_model()}
    watched = {}
    for name, stage in stages.items():
        stage.session = watched[name] = Watched(stage.session, models[name])
    return engine, watched


def read(engine: RapidOCR, watched: Mapping[str, Watched], answering: str, image: Path) -> Any:
    """What RapidOCR makes of an image with either kind of network."""
    for stage in watched.values():
        stage.answering = answering
        stage.errors.clear()
    return engine(image)


def check(engine: RapidOCR, watched: Mapping[str, Watched], image: Path) -> Row:
    """Read an image both ways."""
    theirs, ours = (read(engine, watched, answering, image) for answering in ("theirs", "ours"))
    errors = {name: max(stage.errors) for name, stage in watched.items() if stage.errors}
    boxes = [np.zeros(0) if result.boxes is None else np.asarray(result.boxes) for result in (theirs, ours)]
    same = theirs.txts == ours.txts and np.array_equal(*boxes)
    return Row(image.name, errors, theirs.txts or (), same)


def print_table(rows: list[Row]) -> None:
    print(f"{'image':<26}" + "".join(f"{stage:>10}" for stage in STAGES) + "  same  lines")
    for row in rows:
        errors = "".join(f"{row.errors[stage]:>10.1e}" if stage in row.errors else f"{'–':>10}" for stage in STAGES)
        shown = " | ".join(row.lines[:3]) + (" | …" if len(row.lines) > 3 else "")
        print(f"{row.image:<26}{errors}  {'yes' if row.same else 'NO':<4}  {len(row.lines)}: {shown}")


def images_in(folder: str | None) -> list[Path]:
    return sorted(path for path in Path(folder).iterdir() if path.suffix in SUFFIXES) if folder else []


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("images", nargs="*", type=Path)
    parser.add_argument("--rec", default="french_mobile_v2.0_rec", help="recogniser; a v2.0 mobile or PP-OCRv3 one")
    parser.add_argument("--mirror", default=os.environ.get("PADDLE2TORCH_MIRROR"))
    parser.add_argument("--output", type=Path, help="folder for the converted files, to be kept")
    arguments = parser.parse_args()
    images = arguments.images or images_in(os.environ.get("PADDLE2TORCH_IMAGES"))
    if not images:
        parser.error("name an image, or a folder of images with PADDLE2TORCH_IMAGES")
    with tempfile.TemporaryDirectory() as temporary:
        folder = arguments.output or Path(temporary)
        try:
            names = dict(zip(STAGES, (*STEMS, arguments.rec), strict=True))
            paths = convert_models(names, folder, Access(mirror=arguments.mirror))
            engine, watched = open_rapidocr(paths, folder)
        except ConverterError as error:
            sys.exit(f"error: {error}")
        rows = [check(engine, watched, image) for image in images]
    print_table(rows)
    sys.exit(not all(row.passed for row in rows))


if __name__ == "__main__":
    main()
