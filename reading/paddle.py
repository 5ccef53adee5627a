"""The same reading with Paddle's own programs in place of the modules, to compare the two.

    with PaddleSession() as paddle:
        lines = paddle.reader(rec="french_mobile_v2.0_rec").read("sign.jpg")

Needs `pip install 'paddle2torch[parity]'`.
"""

from __future__ import annotations

import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from paddle2torch.converter.parity.programs import find_reference, in_layout_of, prepare_program
from paddle2torch.converter.parity.reference import PaddleWorker
from paddle2torch.converter.support.scratch import Scratch
from paddle2torch.reading.defaults import AUTO, open_stages
from paddle2torch.reading.network import Network, convert_source, from_conversion, users_fetcher
from paddle2torch.reading.reader import Reader

if TYPE_CHECKING:
    from paddle2torch.converter.parity.programs import PreparedProgram
    from paddle2torch.converter.parity.reference import ReferenceProgram
    from paddle2torch.converter.zoo.download import Fetcher
    from paddle2torch.reading.network import Model


class PaddleSession:
    """A Paddle process that computes networks; a context manager.

    Args:
        fetcher: gets what has to be downloaded; `paddle2torch.reading.network.users_fetcher()` where None.
    """

    def __init__(self, fetcher: Fetcher | None = None) -> None:
        self._fetcher = fetcher
        self._stack = ExitStack()
        self._loaded: Path | None = None
        self._program: ReferenceProgram | None = None

    def __enter__(self) -> PaddleSession:
        self._worker = self._stack.enter_context(PaddleWorker())
        self._folder = Path(self._stack.enter_context(Scratch()))
        return self

    def __exit__(self, *details: object) -> None:
        self._stack.close()

    def reader(
        self,
        det: str | None = AUTO,
        cls: str | None = AUTO,
        rec: str = AUTO,
        *,
        doc: str | None = None,
        dictionary: Path | None = None,
        **settings: Any,
    ) -> Reader:
        """A `Reader` whose networks Paddle computes; see there for the arguments and `open` for the errors."""

        def opened(model: Model, task: str) -> Network:
            return self.open(str(model), dictionary=dictionary if task == "rec" else None)

        stages = open_stages(det, cls, doc, rec, opened)
        return Reader(**stages._asdict(), **settings)

    def open(self, model: str, *, dictionary: Path | None = None) -> Network:
        """A Paddle model as a network that Paddle computes.

        Args:
            model: a zoo name, a tarball, folder or checkpoint. A checkpoint runs in the program of a model of its
                architecture.
            dictionary: file of a recogniser's characters.

        Raises:
            SourceError, DownloadError, MappingError: see `paddle2torch.reading.network.open_network`.
            PaddleError: later, when the network runs: Paddle is missing, or refuses the program.
        """
        from paddle2torch.converter.zoo.catalog import load_zoo

        fetcher = self._fetcher or users_fetcher()
        conversion = convert_source(model, dictionary, fetcher)
        reference = find_reference(conversion, load_zoo(), fetcher)
        folded = in_layout_of(reference, conversion)
        prepared = prepare_program(conversion if folded is None else folded.conversion, reference)
        folder = Path(tempfile.mkdtemp(dir=self._folder))
        prepared.write(folder)
        return from_conversion(conversion, lambda inputs: self._run(folder, prepared, inputs))

    def _run(self, folder: Path, prepared: PreparedProgram, inputs: np.ndarray) -> np.ndarray:
        """The process holds one program at a time; reading asks each of its three for many batches in a row."""
        prepared.require_bounded(inputs)
        if self._loaded != folder:
            self._program = self._worker.load(folder, prepared.form)
            self._loaded = folder
        assert self._program is not None
        output = self._program.fetches[0]
        return self._worker.run(inputs, [output])[output]
