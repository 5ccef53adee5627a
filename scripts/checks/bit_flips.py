"""What becomes of a file in which one bit is wrong: how many of many random ones are told, and which are not.

    python scripts/checks/bit_flips.py [--count 200] [--seed 1] [--row NAME ...]

The embedded model in every form in which weights come and go, a bit of it flipped at a time, is read again as a user
would. Per form the table has how many flips were told (an error, or a warning), how many changed nothing (the tensors
are the same), and how many gave other tensors without a word. Where the form has a digest, checksum or known hash, no
flip may do the latter; where none exists, that is what the figure is there to show.

Exit status: 0 none was silent where something exists that tells; 1 some were.
"""

from __future__ import annotations

import argparse
import hashlib
import logging
import random
import shutil
import sys
import tarfile
import tempfile
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

import paddle2torch
from paddle2torch.architectures.hub import CONFIG
from paddle2torch.converter.support.errors import ConverterError
from paddle2torch.converter.zoo.cache import Cache
from paddle2torch.converter.zoo.catalog import Artifact
from paddle2torch.converter.zoo.download import Fetcher

NAME = "embedded_rec"
URL = f"https://server.example/models/{NAME}_infer.tar"
TOLD, HARMLESS, SILENT = "told", "harmless", "silent"

State = Mapping[str, Tensor]


@dataclass(frozen=True)
class Row:
    """A form of a model.

    Attributes:
        guard: what tells a flip; None where nothing exists that could.
        file: of which a bit is flipped.
        load: what a user gets of it.
    """

    guard: str | None
    file: Path
    load: Callable[[], State]


def rows(folder: Path) -> dict[str, Row]:
    """All forms, each in a folder of its own."""
    converted = {path.suffix: path for path in paddle2torch.convert(NAME).save(folder / "converted")}
    artifact = _embedded("inference")
    tarball = Fetcher().fetch(artifact).path
    checkpoint = Fetcher().fetch(_embedded("trained")).path
    return {
        ".safetensors": _loaded("the digest in its header", converted[".safetensors"]),
        ".pth": _loaded("the checksums of its members", converted[".pth"]),
        ".pth, published": _published(converted[".pth"], converted[".json"], folder / "published"),
        ".tar by name, from a mirror": _mirrored(tarball, folder / "mirror"),
        ".tar by name, from the cache": _cached(tarball, folder / "cache"),
        ".tar by path": _by_path(_copied(tarball, folder / "tar"), None),
        ".pdiparams": _by_path(next(_unpacked(tarball, folder / "infer").glob("*.pdiparams")), None),
        ".pdparams": _by_path(next(_unpacked(checkpoint, folder / "train").glob("best_accuracy.pdparams")), None),
    }


def _embedded(kind: str) -> Artifact:
    from paddle2torch.converter.zoo.catalog import load_zoo

    return load_zoo().get(NAME).artifacts[kind]


def _copied(path: Path, folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return Path(shutil.copyfile(path, folder / path.name))


def _unpacked(tarball: Path, folder: Path) -> Path:
    with tarfile.open(tarball) as tar:
        tar.extractall(folder, filter="data")
    return next(folder.iterdir())


def _loaded(guard: str, path: Path) -> Row:
    return Row(guard, path, lambda: paddle2torch.load_model(path).state_dict())


def _published(pth: Path, sidecar: Path, folder: Path) -> Row:
    folder.mkdir()
    shutil.copyfile(sidecar, folder / CONFIG)
    sha256 = hashlib.sha256(pth.read_bytes()).hexdigest()
    path = Path(shutil.copyfile(pth, folder / f"{NAME}-{sha256[:8]}.pth"))
    return Row("the hash in its name", path, lambda: paddle2torch.load_model(folder).state_dict())


def _by_path(path: Path, guard: str | None) -> Row:
    source = path if path.suffix in (".tar", ".pdparams") else path.parent
    return Row(guard, path, lambda: paddle2torch.convert(source).state_dict())


def _mirrored(tarball: Path, folder: Path) -> Row:
    path = _copied(tarball, folder / "models")
    artifact = Artifact("inference", URL, sha256=hashlib.sha256(path.read_bytes()).hexdigest())
    fetcher = Fetcher(mirror=folder)
    return Row("the zoo's hash", path, lambda: paddle2torch.convert(fetcher.fetch(artifact).path).state_dict())


def _cached(tarball: Path, folder: Path) -> Row:
    cache = Cache(folder)
    path = _copied(tarball, cache.path(URL).parent)
    data = path.read_bytes()
    cache.remember(URL, hashlib.sha256(data).hexdigest(), len(data))
    fetcher = Fetcher(cache_dir=folder, offline=True)
    artifact = Artifact("inference", URL)
    return Row(
        "the hash it was first seen with",
        path,
        lambda: paddle2torch.convert(fetcher.fetch(artifact).path).state_dict(),
    )


class _Warnings(logging.Handler):
    """Counts what is warned of."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.count = 0

    def emit(self, record: logging.LogRecord) -> None:
        self.count += 1


def flip(row: Row, count: int, seed: int, warnings: _Warnings) -> Counter[str]:
    """What became of so many flips, one at a time; the file is whole again afterwards."""
    whole = row.file.read_bytes()
    good = {name: tensor.clone() for name, tensor in row.load().items()}
    generator, outcomes = random.Random(seed), Counter[str]()
    for _ in range(count):
        place = generator.randrange(len(whole) * 8)
        flipped = bytearray(whole)
        flipped[place // 8] ^= 1 << place % 8
        row.file.write_bytes(flipped)
        warnings.count = 0
        try:
            found = row.load()
        except (ConverterError, ValueError):
            outcomes[TOLD] += 1
            continue
        same = found.keys() == good.keys() and all(torch.equal(found[name], good[name]) for name in good)
        outcomes[HARMLESS if same else TOLD if warnings.count else SILENT] += 1
    row.file.write_bytes(whole)
    return outcomes


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=200, help="flips of each form (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--row", dest="names", action="append", metavar="NAME", help="one form; all where not given")
    options = parser.parse_args()
    warnings = _Warnings()
    logger = logging.getLogger("paddle2torch")
    logger.addHandler(warnings)
    logger.propagate = False
    silent = 0
    print("| file | what tells | told | harmless | silent |\n| --- | --- | --- | --- | --- |")
    with tempfile.TemporaryDirectory() as folder:
        for name, row in rows(Path(folder)).items():
            if options.names and name not in options.names:
                continue
            found = flip(row, options.count, options.seed, warnings)
            silent += found[SILENT] if row.guard else 0
            counts = " | ".join(str(found[each]) for each in (TOLD, HARMLESS, SILENT))
            print(f"| {name} | {row.guard or 'nothing exists'} | {counts} |", flush=True)
    return 1 if silent else 0


if __name__ == "__main__":
    sys.exit(main())
