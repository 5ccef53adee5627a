"""What `paddle2torch.converter.batch.run` runs: converting, verifying and publishing one model each.

What many tasks of a process need (the zoo, a Paddle process) is made once and kept for all of them.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, fields, is_dataclass, replace
from functools import cache
from multiprocessing.util import Finalize
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from paddle2torch.converter.batch.run import Report
from paddle2torch.converter.conversion.choice import Access, Choice
from paddle2torch.converter.support.errors import ParityError

if TYPE_CHECKING:
    from paddle2torch.converter.conversion.convert import Conversion
    from paddle2torch.converter.parity.verifier import Verifier
    from paddle2torch.converter.release.publish import Options
    from paddle2torch.converter.zoo.catalog import Zoo

logger = logging.getLogger(__name__)

# Attributes that hold what the user wrote, a name or a path.
TEXTS = frozenset({"text", "reference", "mirror"})


@dataclass(frozen=True)
class ConvertTask:
    """Convert one model and write its files.

    Attributes:
        text: the SOURCE.
        choice: how to read it.
        access: where files come from.
        output: folder for the results.
        verify: whether to compare with Paddle first, and to write nothing if it disagrees.
        reference: for that; see `paddle2torch.converter.parity.verifier.Verifier`.
        result: name of the result, where it has to be told apart from others'; see
            `paddle2torch.converter.support.names.result_names`.
        fold: whether to write the layout of inference.
    """

    text: str
    choice: Choice
    access: Access
    output: Path
    verify: bool = False
    reference: str | None = None
    result: str | None = None
    fold: bool = False

    @property
    def name(self) -> str:
        return self.text

    def run(self) -> Report:
        """Do it.

        Raises:
            ConverterError: any; nothing has been written then.
        """
        from paddle2torch.converter.writing import artifacts

        verifier = _verifier(self.access, self.reference) if self.verify else None  # Paddle starts while we convert
        conversion = _convert(self.text, self.choice, self.access, self.result)
        lines: list[str] = []
        if verifier is not None:
            logger.info("comparing with %s, layer by layer", verifier.engine)
            result = verifier.verify(conversion)
            if not result.passed:
                raise ParityError(verifier.table(result) + "\n  nothing was written")
            lines = verifier.summary(result)
        if self.fold:
            conversion = _fold(conversion)
        paths = artifacts.write(conversion, self.output)
        summary = lines[0].partition(": ")[2] if lines else f"{len(conversion.mapped.used)} tensors"
        return Report(summary, (*map(str, paths), *lines))


@dataclass(frozen=True)
class VerifyTask:
    """Compare one model with Paddle.

    Attributes:
        text, choice, access, reference, result: as for `ConvertTask`.
        weights: a converted file to check in place of a conversion.
        images: the user's images.
        tolerance: largest relative error allowed for a layer.
        report: folder for `NAME/parity.json` and `.html`.
        command: that asked for it, for the report.
    """

    text: str
    choice: Choice
    access: Access
    reference: str | None = None
    weights: Path | None = None
    images: tuple[Path, ...] = ()
    tolerance: float | None = None
    report: Path | None = None
    command: str | None = None
    result: str | None = None

    @property
    def name(self) -> str:
        return self.text

    def run(self) -> Report:
        """Do it.

        Raises:
            ConverterError: any but that of a model that does not pass.
        """
        verifier = _verifier(self.access, self.reference)
        source = self.choice.load(self.text, _zoo(), _fetcher(self.access), self.result)
        conversion = self.choice.convert(source, _fetcher(self.access))
        result = verifier.verify(conversion, weights=self.weights, images=self.images, tolerance=self.tolerance)
        paths = verifier.report(result, self.report, self.command) if self.report else []
        return Report(
            summary=verifier.summary(result)[0].partition(": ")[2],
            results=(verifier.table(result), *map(str, paths)),
            passed=result.passed,
            exit_code=0 if result.passed else ParityError.exit_code,
            data=verifier.figures(result),
        )


T = TypeVar("T")


def absolute(task: T) -> T:
    """The task with paths that mean the same in another working folder."""
    return _map_paths(task)


def _map_paths(value: Any) -> Any:
    if isinstance(value, Path):
        return value.absolute()
    if isinstance(value, tuple):
        return tuple(map(_map_paths, value))
    if is_dataclass(value) and not isinstance(value, type):
        found = {each.name: _map_paths(getattr(value, each.name)) for each in fields(value)}
        found |= {name: _absolute_text(found[name]) for name in TEXTS & found.keys() if found[name] is not None}
        return replace(value, **found)
    return value


def _absolute_text(text: str) -> str:
    """A word of the user's that may be a path, and then is one from here."""
    prefix, colon, rest = text.partition(":")
    if text in _zoo() or "://" in text:
        return text
    if colon and prefix == "graph":
        return f"{prefix}:{_absolute_text(rest)}"
    return str(Path(text).absolute()) if Path(text).exists() else text


@dataclass(frozen=True)
class PublishTask:
    """Publish one model of the zoo.

    Attributes:
        name: in the zoo.
        options: see `paddle2torch.converter.release.publish.publish_one`.
    """

    name: str
    options: Options

    def run(self) -> Report:
        """Do it.

        Raises:
            ConverterError: any; the model is not published then.
        """
        from paddle2torch.converter.release.publish import publish_or_raise

        publication = publish_or_raise(self.name, self.options, _publishing(self.options))
        return Report(f"{publication.outcome}: parity {publication.parity}", data={"publication": publication})


def _fold(conversion: Conversion) -> Conversion:
    """Fold, and say what came of it."""
    from paddle2torch.converter.conversion.fold import fold

    folded = fold(conversion)
    logger.info("  %s", folded.note)
    return folded.conversion


def _convert(text: str, choice: Choice, access: Access, name: str | None) -> Conversion:
    """Convert, and say what was done."""
    source = choice.load(text, _zoo(), _fetcher(access), name)
    logger.info("converting %s", source.path.name)
    conversion = choice.convert(source, _fetcher(access))
    settled = ", ".join([conversion.network.name, *(f"{k} = {v}" for k, v in conversion.network.parameters.items())])
    lines = [f"{conversion.name}: {conversion.network.summary} [{settled}]"]
    lines += [f"  recognised: {conversion.recognised_by}"] if conversion.recognised_by else []
    lines += [f"  {len(conversion.mapped.used)} tensors from {source.path.name}, each used once"]
    lines += [f"  {text}" for text in conversion.notes]
    lines += [f"  {conversion.labels.note}"] if conversion.labels else []
    for line in lines:
        logger.info("%s", line)
    return conversion


# ---- kept for all tasks of a process -----------------------------------------------------------------------------

_kept = ExitStack()
Finalize(None, lambda: release(), exitpriority=10)  # also where a process of a pool ends


@contextmanager
def releasing() -> Iterator[None]:
    """What tasks in this process share is given up at the end."""
    try:
        yield
    finally:
        release()


def release() -> None:
    """End the Paddle process, where there is one; at once where the program was interrupted."""
    _verifier.cache_clear()
    _publishing.cache_clear()
    _kept.__exit__(*sys.exc_info())


@cache
def _zoo() -> Zoo:
    from paddle2torch.converter.zoo.catalog import load_zoo

    return load_zoo()


_fetcher = cache(Access.fetcher)


@cache
def _verifier(access: Access, reference: str | None) -> Verifier:
    from paddle2torch.converter.parity.verifier import Verifier

    return _kept.enter_context(Verifier(_zoo(), _fetcher(access), reference))


@cache
def _publishing(options: Options) -> Verifier:
    from paddle2torch.converter.release.publish import verifying

    return _kept.enter_context(verifying(options))
