"""The Paddle model to compare with: the source's own, or another program with the source's weights in it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from paddle2torch.architectures.graph.form import Graph
from paddle2torch.architectures.graph.module import module_keys
from paddle2torch.architectures.registry import Size
from paddle2torch.converter.conversion.fold import Folded, fold
from paddle2torch.converter.conversion.network import GraphNetwork, NamedNetwork
from paddle2torch.converter.graph.trace import trace_graph
from paddle2torch.converter.parity.paddle_worker import STEM
from paddle2torch.converter.sources import Source, load_source
from paddle2torch.converter.support.errors import DownloadError, OutputError, SourceError
from paddle2torch.converter.writing.programs import keys_by_variable, layout_of, with_weights

if TYPE_CHECKING:
    from paddle2torch.converter.conversion.convert import Conversion
    from paddle2torch.converter.zoo.catalog import Model, Zoo
    from paddle2torch.converter.zoo.download import Fetcher


@dataclass(frozen=True)
class PreparedProgram:
    """A program with the weights that are to be verified in it.

    Attributes:
        file: where the program is from, for messages.
        form: "pdmodel" or "pir".
        graph: what it computes.
        arrays: by program parameter, in Paddle's layout.
        keys: state dict key by program parameter.
        contents: of the program's file and of the `.pdiparams`.
    """

    file: str
    form: str
    graph: Graph
    arrays: dict[str, np.ndarray]
    keys: dict[str, str]
    contents: tuple[bytes | memoryview, bytes | memoryview]
    _bounded: set[tuple[int, ...]] = field(default_factory=set)

    def require_bounded(self, inputs: np.ndarray) -> None:
        """See that the program, checked for another size of images, does not grow beyond bounds with these.

        Args:
            inputs: that it is to be run with, (N, C, H, W).

        Raises:
            FormatError: it does.
        """
        shape = (1, *inputs.shape[1:])
        if shape not in self._bounded:
            trace_graph(self.graph, {}, shape, self.file)
            self._bounded.add(shape)

    def write(self, folder: Path) -> None:
        """Lay out `inference.pdmodel` or `inference.json`, and `inference.pdiparams`.

        Raises:
            OutputError: the folder cannot be written.
        """
        suffixes = ("pdmodel" if self.form == "pdmodel" else "json", "pdiparams")
        try:
            for suffix, content in zip(suffixes, self.contents, strict=True):
                (folder / f"{STEM}.{suffix}").write_bytes(content)
        except OSError as error:
            raise OutputError(f"{folder}: Paddle's copy of the model cannot be written ({error.strerror})") from error


def find_reference(conversion: Conversion, zoo: Zoo, fetcher: Fetcher) -> Source:
    """The inference model whose program runs the conversion's weights.

    That is the source itself where it is an inference model; otherwise the zoo's tarball of the same model, or of any
    other model of the same architecture.

    Raises:
        SourceError: the zoo has none, or none that can be fetched.
    """
    if has_program(conversion.source):
        return conversion.source
    failures = []
    for model in _same_architecture(conversion, zoo):
        try:
            return load_source(model.name, zoo, fetcher, "inference")
        except (DownloadError, SourceError) as error:
            failures.append(f"\n  {error}")
    name = conversion.network.name
    if failures:
        raise SourceError(f"no inference model of {name} could be fetched to compare with{''.join(failures)}")
    raise SourceError(
        f"the zoo lists no inference model of {name} to run these weights in Paddle; export one with PaddleOCR's"
        " tools/export_model.py and give its folder with --reference"
    )


def has_program(source: Source) -> bool:
    """Whether the source holds an inference program, so that Paddle can run it."""
    return source.files.program is not None or source.files.pir is not None


def _same_architecture(conversion: Conversion, zoo: Zoo) -> Iterator[Model]:
    """Models of the zoo with an inference tarball of this architecture: the conversion's own, then those of the same
    widths and class count. After two the embedded one comes, which no network is needed for, before all others are
    asked for one by one."""
    own = conversion.source.model
    models = [
        model
        for model in zoo.models.values()
        if model.architecture == conversion.network.name and "inference" in model.artifacts
    ]
    released = [model for model in models if model.generation != "embedded"]
    released.sort(key=lambda model: (own is None or own.name not in model.names, _differing(conversion, model)))
    if own is not None and released and own.name in released[0].names:
        released[0] = own  # under the name that it was asked for by
    embedded = [model for model in models if model.generation == "embedded"]
    yield from [*released[:2], *embedded, *released[2:]]


def _differing(conversion: Conversion, model: Model) -> int:
    """How many sizes of a model of the zoo are not those of a conversion of the same architecture."""
    network = conversion.network
    assert isinstance(network, NamedNetwork)  # a graph has a program of its own
    entry = network.architecture
    sizes = [name for name, parameter in entry.parameters.items() if isinstance(parameter.told_by, Size)]
    settled = entry.settle(model.parameters)
    return sum(settled[name] != network.parameters[name] for name in sizes)


def prepare_program(conversion: Conversion, reference: Source) -> PreparedProgram:
    """The reference program with the conversion's weights; built again from operators that were checked.

    The weights are those of the source as they lie in its file, untouched by the rules: for the source's own program
    the very bytes, for another program the source's arrays in Paddle's layout, with the program's class count changed
    to theirs.

    Args:
        conversion: what is to be verified.
        reference: an inference model of the same architecture.

    Raises:
        MappingError: the reference is of another architecture, or has operators that Paddle is not given.
        SourceError: the reference has no program.
        FormatError: the reference's program is inconsistent.
    """
    network = conversion.network
    if isinstance(network, GraphNetwork):
        keys = module_keys(network.graph)
    elif isinstance(network, NamedNetwork):
        available = [*conversion.origins, *conversion.mapped.folded]
        keys = keys_by_variable(reference, network.architecture, available)
    arrays = {name: _source_array(conversion, key) for name, key in keys.items()}
    same = reference.files.parameters if reference is conversion.source else None
    checked, parameters = with_weights(reference, arrays, same)
    form = "pir" if checked.program.pir else "pdmodel"
    return PreparedProgram(reference.path.name, form, checked.graph, arrays, keys, (checked.content, parameters))


def in_layout_of(reference: Source, conversion: Conversion) -> Folded | None:
    """The conversion of a training checkpoint, folded as far as a reference's program is; None where that is not.

    Raises:
        MappingError: the reference is of another architecture; or see `fold`.
    """
    network = conversion.network
    if reference is conversion.source or not isinstance(network, NamedNetwork) or not has_program(reference):
        return None
    layout = layout_of(reference, network.architecture, network.parameters)
    if layout.keys() <= conversion.state.keys():
        return None
    folded = fold(conversion, layout)
    return folded if folded.layers else None


def _source_array(conversion: Conversion, key: str) -> np.ndarray:
    """The array that a module's tensor was read from, as it lies in the source; or that was folded from several."""
    if key in conversion.mapped.folded:
        return conversion.state[key].numpy()
    return conversion.tensors[conversion.origins[key]].astype(np.float32, copy=False)
