"""The way through: a source's tensors → branch → architecture → state dict → module, with labels and metadata."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from paddle2torch.architectures.matching import Fit, Shape, empty_network, infer_parameters
from paddle2torch.architectures.records import GRAPH, Postprocessing, Preprocessing
from paddle2torch.architectures.registry import Architecture
from paddle2torch.converter.conversion.network import NamedNetwork, Network
from paddle2torch.converter.conversion.usage import (
    Instructions,
    Sides,
    instructions_of,
    note_usage,
    postprocessing_of,
    require_height,
    stated_sides,
    with_sides,
)
from paddle2torch.converter.conversion.values import require_sound
from paddle2torch.converter.graph.naming import named
from paddle2torch.converter.mapping.branches import census, choose
from paddle2torch.converter.mapping.config import Config
from paddle2torch.converter.mapping.labels import NO_LABELS, Labels, match_class_names, match_labels, read_dictionary
from paddle2torch.converter.mapping.recognition import describe, find_architecture, identify, module_shapes
from paddle2torch.converter.mapping.rules import Mapped, assign, execute, plan
from paddle2torch.converter.sources import Source
from paddle2torch.converter.support.errors import MappingError, SourceError
from paddle2torch.converter.support.given import read_given
from paddle2torch.converter.support.names import with_branch
from paddle2torch.converter.tasks import find_task
from paddle2torch.converter.tasks.det import BOTH_MAPS
from paddle2torch.converter.tasks.task import Value

if TYPE_CHECKING:
    from torch import nn

    from paddle2torch.architectures.graph.form import Graph
    from paddle2torch.converter.graph.conformity import Rewriting
    from paddle2torch.converter.zoo.catalog import Dictionary
    from paddle2torch.converter.zoo.download import Fetcher

SIDE = 64  # pixels of a sample image, where any will do
AS_GRAPH = "\n  --as-graph converts an inference model by its graph alone"


@dataclass(frozen=True)
class Conversion:
    """A converted model and the record of its conversion.

    Attributes:
        source: what was converted.
        name: stem of the output files.
        network: what it is.
        postprocessing: how its output becomes boxes or text; None for classifiers.
        mapped: the state dict, with the origin of each tensor.
        branch: of a training checkpoint; empty for none.
        branches: all that the checkpoint holds.
        tensors: structured name without the branch's prefix → array, what was mapped. Read-only arrays share memory
            with the state dict where the layouts agree.
        recognised_by: how the architecture was recognised; None where it was given.
        labels: what the classes stand for, or why that is not known; None for detectors.
        notes: what the user should know.
        outputs: what the network returns, where that is several tensors; empty otherwise.
        rewritings: where the source's program writes in another way what the network computes.
    """

    source: Source
    name: str
    network: Network
    mapped: Mapped
    branch: str
    branches: tuple[str, ...]
    tensors: dict[str, np.ndarray]
    recognised_by: str | None
    labels: Labels | None
    notes: tuple[str, ...]
    postprocessing: Postprocessing | None = None
    outputs: tuple[Value, ...] = ()
    rewritings: tuple[Rewriting, ...] = ()

    @property
    def state(self) -> dict[str, Any]:
        """The state dict: every tensor of the module, in the module's order."""
        return self.mapped.state

    @property
    def origins(self) -> dict[str, str]:
        """Module key → structured name in Paddle, for every tensor that was read."""
        return self.mapped.origins

    def build(self) -> nn.Module:
        """The module with the converted weights, in evaluation mode and in memory of its own."""
        model = self.network.build_empty()
        model.load_state_dict({key: value.clone() for key, value in self.state.items()}, strict=True, assign=True)
        return model.eval()


def convert(
    source: Source,
    *,
    architecture: str | None = None,
    parameters: Mapping[str, Any] | None = None,
    branch: str | None = None,
    dictionary: Path | None = None,
    config: Config | None = None,
    fetcher: Fetcher | None = None,
) -> Conversion:
    """Convert a source in memory; nothing is written.

    Args:
        source: see `paddle2torch.converter.sources.load_source`.
        architecture: its name, where it is known; the zoo's or the recognised one otherwise.
        parameters: of the architecture, where they are known; otherwise told by the weights.
        branch: of a training checkpoint with several networks.
        dictionary: file of the characters; the configuration's or the zoo's otherwise.
        config: PaddleOCR configuration that the model was trained with; what else is given wins over it.
        fetcher: gets the zoo's dictionary; without one there are no labels.

    Raises:
        MappingError: the tensors fit no architecture, or not the given one, contradict the configuration, or hold NaN;
            the network does not compute what the source's own program says; or the dictionary is of another length.
        FormatError: the source's `inference.yml` is damaged, or has a step that is not followed.
        SourceError: the dictionary cannot be read.
    """
    listed = source.model
    told = architecture or (listed.architecture if listed and listed.architecture != GRAPH and not config else None)
    told_network = find_architecture(told) if told else config.architecture if config else None
    source = named(source, told_network)
    branches = census(source.tensors)
    chosen = choose(branches, branch, source.path.name)
    tensors = {name: source.tensors[full] for name, full in chosen.names.items()}
    shapes = {name: array.shape for name, array in tensors.items()}

    # A teacher is a network of its own: what the zoo says is about the exported branch.
    exported = chosen is branches[0]
    given = told_network if architecture or config or exported else None
    followed = config if config and given is config.architecture else None
    if followed:
        parameters = {**followed.parameters, **(parameters or {})}
    graph = _graph(source)
    is_graph = None if graph is None else partial(_is_graph, graph, source.variables or {}, shapes)
    with _pointing_to_the_graph(source), _telling_what_is_given(followed):
        fit = identify(shapes, source.path.name, given, parameters, is_graph)
        entry = fit.architecture
        settled = entry.settle(fit.parameters)
        if followed:
            followed.require_agreement(infer_parameters(entry, module_shapes(shapes, entry)), settled)
        planned = plan(tensors, entry, settled)
    variances = {name for key, name in planned.origins.items() if key.endswith("running_var")}
    value_notes = require_sound({name: tensors[name] for name in planned.origins.values()}, variances, source.path.name)
    instructions = instructions_of(source, config)
    said, told_by = instructions.preprocessing(entry.preprocessing, entry.task)
    sides = (None, None) if graph is None else stated_sides(next(iter(graph.inputs.values())), source)
    require_height(said, told_by, entry.task, sides)
    preprocessing = with_sides(said, entry.task, sides)
    rewritings: tuple[Rewriting, ...] = ()
    if graph is not None:
        rewritings = require_same_graph(source, graph, entry, settled, planned.origins, _shape(entry, sides))
    if graph is None or preprocessing.size != entry.preprocessing.size:  # else the comparison has seen it take them
        _require_taken(entry, settled, preprocessing, told_by or source.path.name)
    mapped = execute(planned)

    notes = _notes(source, [b.name for b in branches], chosen.name, mapped)
    notes += value_notes
    if rewritings:
        apart = max(each.error for each in rewritings)
        notes.append(
            f"the program writes {len(rewritings)} parts of the network in another way ({rewritings[0]}"
            f"{', …' if len(rewritings) > 1 else ''}); run both ways they agree to {apart:.1e}"
        )
    if listed and exported:
        notes += [
            f"the zoo lists {key} = {value} for {listed.name}, this file has {settled[key]}; the file was followed"
            for key, value in listed.parameters.items()
            if settled.get(key, value) != value
        ]
    notes += note_usage(told_by, sides, said, preprocessing)
    notes += [source.known.told] if source.known else []
    outputs = BOTH_MAPS if settled.get("both_maps") else ()
    notes += note_outputs(outputs)
    labels = find_labels(entry.task, settled, source, dictionary, instructions, fetcher)
    return Conversion(
        source=source,
        name=source.name if exported else with_branch(source.name, chosen.name),
        network=NamedNetwork(entry, settled, preprocessing),
        postprocessing=postprocessing_of(entry.task, instructions, labels.labels if labels else None),
        mapped=mapped,
        branch=chosen.name,
        branches=tuple(b.name for b in branches),
        tensors=tensors,
        recognised_by=None if given else describe(fit),
        labels=labels,
        notes=tuple(notes),
        outputs=outputs,
        rewritings=rewritings,
    )


@contextmanager
def _pointing_to_the_graph(source: Source) -> Iterator[None]:
    """Where no architecture fits an inference model, its graph is a way in."""
    try:
        yield
    except MappingError as error:
        if source.program is None:
            raise
        raise MappingError(f"{error}{AS_GRAPH}") from error


@contextmanager
def _telling_what_is_given(config: Config | None) -> Iterator[None]:
    """Where a configuration says what the network is, an error of the tensors may be its fault."""
    try:
        yield
    except MappingError as error:
        if config is None or str(config.path) in str(error):
            raise
        raise MappingError(f"{error}\n  {config.path} says: {config.describe()}") from error


def _graph(source: Source) -> Graph | None:
    from paddle2torch.converter.graph.program import graph_from_program

    return None if source.program is None else graph_from_program(source.program, file=source.path.name)


def _is_graph(graph: Graph, variables: Mapping[str, str], shapes: Mapping[str, Shape], fit: Fit) -> bool:
    """Whether a network computes what a program says, of several that have its tensors.

    Args:
        graph: of the program.
        variables: structured name → variable of the program.
        shapes: of the tensors, by structured name.
        fit: the network.
    """
    from paddle2torch.converter.graph.conformity import check_conformity

    entry, parameters = fit.architecture, fit.architecture.settle(fit.parameters)
    model = empty_network(entry, parameters)
    sources = assign(shapes, entry).sources
    keys = {variables[name]: key for key, names in sources.items() for name in names}
    return bool(check_conformity(graph, model, keys, _shape(entry, (None, None))))


def _shape(entry: Architecture, sides: Sides) -> tuple[int, int, int, int]:
    """Of a batch that both network and program take."""
    from paddle2torch.converter.graph.conformity import input_shape

    count, channels, height, width = input_shape(entry.task, entry.preprocessing)
    return count, channels, sides[0] or height, sides[1] or width


def require_same_graph(
    source: Source,
    graph: Graph,
    entry: Architecture,
    parameters: Mapping[str, Any],
    origins: Mapping[str, str],
    shape: tuple[int, int, int, int],
) -> tuple[Rewriting, ...]:
    """Compare the network with the program that its weights came with, operator by operator.

    Args:
        source: whose program it is.
        graph: of the program.
        entry: the network's architecture.
        parameters: of the architecture.
        origins: module key → structured name.
        shape: of a batch that both take.

    Returns:
        What is written in two ways and computed alike.

    Raises:
        MappingError: they differ; the message lists in what.
    """
    from paddle2torch.converter.graph.conformity import require_conformity

    model = empty_network(entry, parameters)
    variables = source.variables or {}
    keys = {variables[name]: key for key, name in origins.items()}
    return require_conformity(graph, model, keys, shape, source.path.name)


def _require_taken(entry: Architecture, parameters: Mapping[str, Any], preprocessing: Preprocessing, file: str) -> None:
    """Check that the network takes what the preprocessing makes; nothing is computed.

    Raises:
        MappingError: it does not, so that file and weights do not belong together.
    """
    if preprocessing.size == entry.preprocessing.size and dict(parameters) == entry.settle({}):
        return
    from paddle2torch.converter.graph.trace import trace_module

    size = preprocessing.size
    shape = (1, 3, size.height or SIDE, (size.width if size.mode in ("stretch", "crop") else None) or SIDE)
    failure = trace_module(empty_network(entry, parameters), shape).failure
    if failure is not None:
        raise MappingError(
            f"{file}: images come to the network as {size.to_json()} (image_shape, or the program's own size), and "
            f"{entry.name} with these parameters takes none of that size: {failure}"
        )


def _notes(source: Source, branches: list[str], chosen: str, mapped: Mapped) -> list[str]:
    notes = []
    if source.named_by == "graph":
        notes.append("there is no .info that names the tensors; they were named by their places in the graph")
    if len(branches) > 1:
        others = ", ".join(name or "(no prefix)" for name in branches if name != chosen)
        notes.append(f"the checkpoint holds several networks; took {chosen or '(no prefix)'}, there are also: {others}")
    if mapped.ignored:
        reasons = dict.fromkeys(mapped.ignored.values())
        notes += [
            f"left out {sum(given == reason for given in mapped.ignored.values())} tensors: {reason}"
            for reason in reasons
        ]
    if mapped.initialised:
        notes.append(
            f"{len(mapped.initialised)} tensors that training alone uses, and that an inference model lacks, come from "
            "a fixed seed"
        )
    if mapped.widened:
        kinds = ", ".join(sorted(set(mapped.widened.values())))
        notes.append(f"{len(mapped.widened)} tensors stored as {kinds} were widened to float32")
    if mapped.narrowed:
        notes.append(f"{len(mapped.narrowed)} tensors stored as float64 were rounded to float32")
    if source.files.others:
        notes.append(f"passed over in {source.path.name}: {', '.join(source.files.others)}")
    return notes


def note_outputs(outputs: tuple[Value, ...]) -> list[str]:
    """What a user should know of a network that returns several tensors."""
    if not outputs:
        return []
    told = "; ".join(f"{place}: {each.name}, {each.meaning}" for place, each in enumerate(outputs))
    return [f"the network returns {len(outputs)} tensors: {told}"]


def find_labels(
    task: str,
    parameters: Mapping[str, Any],
    source: Source,
    dictionary: Path | None,
    instructions: Instructions,
    fetcher: Fetcher | None,
) -> Labels | None:
    """What the classes stand for; None for detectors.

    The first of these tells it: the dictionary given, the configuration, the `inference.yml`, the zoo.

    Raises:
        MappingError: a dictionary was given for what is no recogniser, or one of another length; or the configuration
            has one of another length, or names of more or fewer classes.
        SourceError: the dictionary cannot be read, or the configuration's is not there.
    """
    if dictionary is not None:
        return given_labels(dictionary, task, parameters)
    classes, config, settings = parameters.get("classes", 0), instructions.config, instructions.settings
    if not find_task(task).reads:
        named = instructions.class_names(task) if find_task(task).labelled else None
        if named is not None:
            found = match_class_names(*named, classes)
            return _required(found, config, "Global.label_list") if config and config.class_names else found
        known = find_task(task).labels_of(parameters)
        return None if known is None else Labels(known, "labels: text angle in degrees")
    released = source.model.dictionary if source.model is not None and fetcher is not None else None
    if config is not None and config.dictionary is None:
        return match_labels(list(config.characters), classes, False, f"{config.path.name}, which names no dictionary")
    if config is not None:
        return _configured(config, classes, released, fetcher)
    if settings is not None and settings.characters is not None:
        return match_labels(settings.characters, classes, None, settings.file)
    if released is not None and fetcher is not None:
        return _from_file(fetcher.fetch(released).path, classes, released.space)
    return Labels(None, f"{NO_LABELS}no dictionary is known for this model; give one with --dict")


def _from_file(path: Path, classes: int, space: bool | None) -> Labels:
    return match_labels(read_dictionary(read_given(path, "dictionary"), path.name), classes, space, path.name)


def _configured(config: Config, classes: int, released: Dictionary | None, fetcher: Fetcher | None) -> Labels:
    """The labels by the dictionary that a configuration names; a released model's is known where it is not there."""
    path = config.find_dictionary()
    if path is None and released is not None and fetcher is not None and config.names(released.url):
        path = fetcher.fetch(released).path
    if path is None:
        raise SourceError(
            f"{config.path}: Global.character_dict_path is {config.dictionary!r:.120}, which is not there; put it "
            "there, or give it with --dict"
        )
    keys = f"Global.character_dict_path (with use_space_char {str(config.space).lower()})"
    return _required(_from_file(path, classes, config.space), config, keys)


def _required(labels: Labels, config: Config, key: str) -> Labels:
    """Labels that a configuration tells.

    Raises:
        MappingError: it does not tell as many as there are classes.
    """
    if labels.labels is None:
        problem = labels.note.removeprefix(NO_LABELS)
        raise MappingError(f"{config.path}: {key} does not go with the weights: {problem}; nothing was written")
    return labels


def given_labels(dictionary: Path, task: str, parameters: Mapping[str, Any]) -> Labels:
    """What the classes stand for by a dictionary that the user insists on.

    Raises:
        SourceError: it cannot be read.
        FormatError: it is no UTF-8 text.
        MappingError: it is of another length, or the model is no recogniser.
    """
    if not find_task(task).reads:
        raise MappingError(f"--dict {dictionary}: only recognisers have a dictionary; leave it out")
    data = read_given(dictionary, "dictionary")
    labels = match_labels(read_dictionary(data, dictionary.name), parameters["classes"], None, dictionary.name)
    if labels.labels is None:
        raise MappingError(f"--dict: {labels.note.removeprefix(NO_LABELS)}; nothing was written")
    return labels
