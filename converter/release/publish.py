"""Publishing: for every model a folder that is a Hugging Face model repository, and lists of what a release holds.

    OUTPUT/NAME/            model.safetensors, NAME-xxxxxxxx.pth, config.json, labels.txt, README.md, parity.json, …
    OUTPUT/index.json       the models with their files, for programs
    OUTPUT/SHA256SUMS       for `sha256sum -c`

The same source and versions give the same bytes. What SHA256SUMS vouches for is known to be ours and may be replaced;
anything else in the way is the user's and stays.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from paddle2torch.architectures.hub import CONFIG, WEIGHTS
from paddle2torch.converter.conversion.choice import Access, Choice
from paddle2torch.converter.release.card import LICENCE, card
from paddle2torch.converter.support.digests import sha256_of
from paddle2torch.converter.support.errors import ConverterError, OutputError, ParityError
from paddle2torch.converter.support.files import remove_folder, replace_folder, staging, write_together
from paddle2torch.converter.support.scratch import Scratch
from paddle2torch.converter.writing import artifacts
from paddle2torch.converter.zoo.cache import read_json
from paddle2torch.converter.zoo.catalog import load_zoo

if TYPE_CHECKING:
    from paddle2torch.converter.conversion.convert import Conversion
    from paddle2torch.converter.parity.result import ParityResult
    from paddle2torch.converter.parity.verifier import Verifier
    from paddle2torch.converter.zoo.catalog import Zoo
    from paddle2torch.converter.zoo.download import Fetcher

SCHEMA_VERSION = 1
LABELS, CARD, PARITY, IMAGE = "labels.txt", "README.md", "parity.json", "parity.png"
INDEX, SUMS = "index.json", "SHA256SUMS"

THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")

Files = dict[str, tuple[int, str]]
"""File name → size in bytes and sha256."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Options:
    """How to publish: data that travels between processes.

    Attributes:
        output: folder of the release.
        access: where source files come from.
        kind: which tarball; "inference" by default.
        organisation: whose the repositories on the Hub are, for the model cards; None where there are none.
        dry_run: go through everything in a temporary folder, and leave `output` alone.
    """

    output: Path
    access: Access = field(default_factory=Access)
    kind: str | None = None
    organisation: str | None = None
    dry_run: bool = False


@dataclass(frozen=True)
class Publication:
    """What became of one model.

    Attributes:
        name: of the model.
        outcome: "published", "unchanged" (the folder was there already, the same to the byte), "would be published"
            or "refused".
        files: of its folder.
        parity: the result of the comparison, one phrase.
        error: why it was refused, for a person; empty otherwise.
        exit_code: that of the error; 0 without.
    """

    name: str
    outcome: str
    files: Files = field(default_factory=dict)
    parity: str = ""
    error: str = ""
    exit_code: int = 0

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(size for size, _ in self.files.values())


def publish_one(name: str, options: Options, verifier: Verifier | None = None) -> Publication:
    """Convert, prove and publish one model of the zoo; idempotent, and complete or not at all.

    A model that turns out not to compute what Paddle computes is also withdrawn, where an earlier publication of it is
    there; after any other error that one stays.

    Args:
        name: in the zoo.
        options: how.
        verifier: one that `verifying` gave; None to have a Paddle process for this model alone.

    Returns:
        What became of it: no ConverterError is raised.
    """
    try:
        with ExitStack() as stack:
            return publish_or_raise(name, options, verifier or stack.enter_context(verifying(options)))
    except ConverterError as error:
        return refused(name, error)


def refused(name: str, error: ConverterError) -> Publication:
    """What became of a model that could not be published."""
    return Publication(name, "refused", error=str(error), exit_code=error.exit_code)


def publish_or_raise(name: str, options: Options, verifier: Verifier) -> Publication:
    """`publish_one`, with the error for those who know what to do about it.

    Raises:
        ConverterError: the model cannot be converted, proved or written.
    """
    try:
        return _publish(name, options, verifier)
    except ParityError as error:
        withdrawn = not options.dry_run and _withdraw(options.output / name)
        raise ParityError(f"{error}; its earlier publication was withdrawn" if withdrawn else str(error)) from error


@contextmanager
def verifying(options: Options) -> Iterator[Verifier]:
    """A verifier that always computes with one thread: sums split among threads round differently."""
    import torch

    from paddle2torch.converter.parity.verifier import Verifier

    before = {variable: os.environ.get(variable) for variable in THREAD_VARIABLES}
    threads = torch.get_num_threads()
    try:
        os.environ.update(dict.fromkeys(THREAD_VARIABLES, "1"))
        torch.set_num_threads(1)
        with Verifier(load_zoo(), options.access.fetcher()) as verifier:
            yield verifier
    finally:
        torch.set_num_threads(threads)
        for variable, value in before.items():
            if value is None:
                os.environ.pop(variable, None)
            else:
                os.environ[variable] = value


def _publish(name: str, options: Options, verifier: Verifier) -> Publication:
    conversion = _convert(name, load_zoo(), options.access.fetcher(), options.kind)
    target = options.output / name
    with _temporary_folder() if options.dry_run else staging(target) as folder:
        result = _make(conversion, verifier, folder, options.organisation)
        files = describe(folder)
        unchanged = target.is_dir() and describe(target) == files
        if not unchanged:
            _require_own_folder(target)
        if not (unchanged or options.dry_run):
            replace_folder(folder, target)
    outcome = "unchanged" if unchanged else "would be published" if options.dry_run else "published"
    return Publication(name, outcome, files, _status(result))


def _convert(name: str, zoo: Zoo, fetcher: Fetcher, kind: str | None) -> Conversion:
    zoo.get(name)  # raises where it is no name but a path
    choice = Choice(kind=kind)
    return choice.convert(choice.load(name, zoo, fetcher), fetcher)


@contextmanager
def _temporary_folder() -> Iterator[Path]:
    with Scratch() as folder:
        inside = Path(folder, "model")  # the scratch folder itself is locked, see `Scratch`
        inside.mkdir()
        yield inside


# ---- one model's folder ------------------------------------------------------------------------------------------


def _make(conversion: Conversion, verifier: Verifier, folder: Path, organisation: str | None) -> ParityResult:
    """Fill a model's folder; the parity is that of the very file that is published.

    Raises:
        ParityError: the model does not compute what Paddle computes.
    """
    from paddle2torch.converter.parity.report import to_png, write_report

    pth, weights, metadata = artifacts.write(conversion, folder)
    state = pth.rename(folder / f"{conversion.name}-{sha256_of(pth)[:8]}.pth")
    weights = weights.rename(folder / WEIGHTS)
    metadata.rename(folder / CONFIG)
    result = verifier.verify(conversion, weights=weights)
    if not result.passed:
        raise ParityError(f"{conversion.name}: parity {_status(result)}; {result.failures[0]}")
    write_report(result, folder)
    contents = {IMAGE: to_png(result)}
    if conversion.labels is not None and conversion.labels.labels is not None:
        contents[LABELS] = "".join(f"{label}\n" for label in conversion.labels.labels).encode()
    names = {"weights": WEIGHTS, "state": state.name, "image": IMAGE}
    contents[CARD] = card(conversion, result, names, organisation).encode()
    write_together({folder / name: content for name, content in contents.items()})
    return result


def _status(result: ParityResult) -> str:
    from paddle2torch.converter.parity.report import status

    return status(result)


def describe(folder: Path) -> Files:
    """Every file below a folder, in the names' order."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): (path.stat().st_size, sha256_of(path)) for path in paths}


def _require_own_folder(folder: Path) -> None:
    if not folder.exists() and not folder.is_symlink():
        return
    if not folder.is_dir():
        raise OutputError(f"{folder}: is in the way of the model's folder; move it, or choose another --output")
    vouched = _read_sums(folder.parent).get(folder.name, {})
    foreign = [name for name, (_, sha256) in describe(folder).items() if vouched.get(name) != sha256]
    if foreign:
        raise OutputError(
            f"{folder / foreign[0]}: is not as {SUMS} has it, so that it may be yours; nothing was replaced; "
            "move the folder, or choose another --output"
        )


def _withdraw(folder: Path) -> bool:
    """Remove an earlier publication where there is one and it is ours."""
    if not folder.is_dir():
        return False
    try:
        _require_own_folder(folder)
        remove_folder(folder)
    except OutputError as error:
        logger.warning("%s", error)
        return False
    return True


# ---- the release -------------------------------------------------------------------------------------------------


def write_lists(output: Path, published: Iterable[str]) -> None:
    """Write `index.json` and `SHA256SUMS` of a release.

    It holds what was published now, and of what was published earlier all that is still as it was.

    Args:
        output: folder of the release.
        published: names of the models whose folders were made, or found unchanged, in this run.

    Raises:
        OutputError: see `paddle2torch.converter.support.files.write_together`.
    """
    earlier = _read_sums(output)
    models: dict[str, Files] = {}
    for name in sorted({*earlier, *published}):
        files = describe(output / name)
        if name in published or earlier[name] == {file: sha256 for file, (_, sha256) in files.items()}:
            models[name] = files
        elif files:
            logger.warning("%s: was changed since it was published, and is left out of %s", output / name, INDEX)
    if not models and not earlier:
        return
    index = {
        "schema_version": SCHEMA_VERSION,
        "models": [_entry(output / name, files) for name, files in models.items()],
    }
    text = (json.dumps(index, ensure_ascii=False, indent=1) + "\n").encode()
    sums = {f"{name}/{file}": sha256 for name, files in models.items() for file, (_, sha256) in files.items()}
    sums[INDEX] = hashlib.sha256(text).hexdigest()
    lines = "".join(f"{sha256}  {path}\n" for path, sha256 in sums.items())
    contents = {output / SUMS: lines.encode(), output / INDEX: text}
    if any(not path.is_file() or path.read_bytes() != content for path, content in contents.items()):
        write_together(contents)


def _entry(folder: Path, files: Mapping[str, tuple[int, str]]) -> dict[str, Any]:
    """A model in `index.json`: what its own files say, and what the zoo says."""
    metadata, parity = read_json(folder / CONFIG), read_json(folder / PARITY)
    model = load_zoo().get(folder.name)
    return {
        "name": folder.name,
        "task": model.task,
        "generation": model.generation,
        "languages": list(model.languages),
        "licence": LICENCE,
        "architecture": metadata["architecture"],
        "parameters": metadata["parameters"],
        "source": metadata["source"],
        "parity": {key: parity[key] for key in ("passed", "tolerance", "worst_error", "worst_layer", "versions")},
        "files": {name: {"size": size, "sha256": sha256} for name, (size, sha256) in files.items()},
    }


def require_own_lists(output: Path) -> None:
    """Raise OutputError where a file of the user's stands in the place of a list."""
    present = [output / name for name in (SUMS, INDEX) if (output / name).exists()]
    if present and not ("models" in read_json(output / INDEX) or INDEX in _read_lines(output)):
        raise OutputError(f"{present[0]}: is not of a release made here; move it, or choose another --output")


def _read_sums(output: Path) -> dict[str, dict[str, str]]:
    """What SHA256SUMS vouches for: model → file → sha256."""
    models: dict[str, dict[str, str]] = {}
    for path, sha256 in _read_lines(output).items():
        name, slash, file = path.partition("/")
        if slash:
            models.setdefault(name, {})[file] = sha256
    return models


def _read_lines(output: Path) -> dict[str, str]:
    try:
        text = (output / SUMS).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return {}
    pairs = (line.partition("  ") for line in text.splitlines())
    return {path: sha256 for sha256, _, path in pairs}
