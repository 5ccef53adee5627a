"""Verification as the command line does it: one Paddle process for all models, a reference for each, the results."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from importlib import resources
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from paddle2torch.converter import zoo
from paddle2torch.converter.parity.inputs import default_cases, image_cases
from paddle2torch.converter.parity.programs import find_reference
from paddle2torch.converter.parity.reference import PaddleWorker
from paddle2torch.converter.parity.report import format_table, status, to_json, write_report
from paddle2torch.converter.parity.verify import TOLERANCE, ParityResult, verify
from paddle2torch.converter.sources import load_source
from paddle2torch.converter.support.extras import available
from paddle2torch.converter.tasks import find_task

if TYPE_CHECKING:
    from paddle2torch.converter.conversion.convert import Conversion
    from paddle2torch.converter.parity.inputs import Case
    from paddle2torch.converter.sources import Source
    from paddle2torch.converter.zoo.catalog import Zoo
    from paddle2torch.converter.zoo.download import Fetcher

SAMPLE = "sample.png"
GRAPH = "graph"


class Verifier:
    """Verifies conversions; a context manager that owns the Paddle process.

    Args:
        zoo: where reference programs are looked for.
        fetcher: gets them.
        reference: an inference model (folder, tarball or zoo name) whose program runs all weights; "graph" has the
            graph of the program for a reference instead of Paddle, "graph:SOURCE" that of another program.
    """

    def __init__(self, zoo: Zoo, fetcher: Fetcher, reference: str | None = None) -> None:
        self._zoo, self._fetcher = zoo, fetcher
        engine, _, named = (reference or "").partition(":")
        self._without_paddle = engine == GRAPH
        self._named = (named or None) if self._without_paddle else reference
        self._stack = ExitStack()
        self._worker: PaddleWorker | None = None

    def __enter__(self) -> Verifier:
        if not self._without_paddle:
            self._worker = self._stack.enter_context(PaddleWorker())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stack.__exit__(kind, error, traceback)

    @property
    def engine(self) -> str:
        """What PyTorch is compared with, as sentences have it."""
        return "the graph" if self._without_paddle else "Paddle"

    def verify(
        self,
        conversion: Conversion,
        *,
        weights: Path | None = None,
        images: Sequence[Path] = (),
        tolerance: float | None = None,
    ) -> ParityResult:
        """Verify one conversion; see `paddle2torch.converter.parity.verify.verify` for arguments and errors."""
        if self._worker is not None:
            self._worker.wait()  # where there is no Paddle, that is said before anything else is missed
        return verify(
            conversion,
            reference=self._reference(conversion),
            weights=weights,
            images=images,
            cases=None if images else self._cases(conversion),
            tolerance=TOLERANCE if tolerance is None else tolerance,
            worker=self._worker,
            without_paddle=self._without_paddle,
        )

    def _reference(self, conversion: Conversion) -> Source:
        if self._named is not None:
            return load_source(self._named, self._zoo, self._fetcher, weights=False)
        return find_reference(conversion, self._zoo, self._fetcher)

    @staticmethod
    def _cases(conversion: Conversion) -> list[Case]:
        """The default ones; the embedded model also reads its image, where there is OpenCV to resize it."""
        task, record = find_task(conversion.network.task), conversion.network.preprocessing
        cases = default_cases(task, record)
        model = conversion.source.model
        if model is not None and model.generation == "embedded" and available("cv2"):
            with resources.as_file(resources.files(zoo) / "embedded" / SAMPLE) as path:
                cases.insert(0, image_cases(task, record, [path])[0])
        return cases

    @staticmethod
    def table(result: ParityResult) -> str:
        """The result for a terminal."""
        return format_table(result)

    @staticmethod
    def summary(result: ParityResult) -> list[str]:
        """The result in a line, and what was read in the images that are files."""
        lines = [f"{result.name}: parity {status(result)}, {len(result.worst)} layers on {len(result.cases)} batches"]
        lines += [
            f"{case.case.name}: PyTorch reads {answer.candidate}, {result.engine} {answer.reference}"
            for case in result.cases
            if Path(case.case.name).suffix
            for answer in case.answers
        ]
        return lines

    @staticmethod
    def figures(result: ParityResult) -> dict[str, Any]:
        """The figures of a summary of many models."""
        figures = to_json(result)
        return {key: value for key, value in figures.items() if key not in ("batches", "command", "schema_version")}

    @staticmethod
    def report(result: ParityResult, folder: Path, command: str | None = None) -> list[Path]:
        """Write `NAME/parity.json` and `NAME/parity.html`; the command is that which asked for them."""
        return write_report(result, folder / result.name, command)
