"""Converted weights back into a module."""

from __future__ import annotations

import hashlib
import json
import logging
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING

from .digest import digest_of
from .hub import CONFIG, locate
from .records import GRAPH, HubOrigin, Metadata, Value
from .state_files import HEADER_KEY, StateDict, StateFile, printable, read_state_file, require_plain

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from .graph.form import Graph
    from .matching import Expected, Fit
    from .registry import Architecture

__all__ = ["GRAPH", "HEADER_KEY", "Weights", "build_model", "load_model", "read_state", "read_weights"]

logger = logging.getLogger(__name__)

Shapes = dict[str, tuple[int, ...]]

COUNTER = "num_batches_tracked"
# How the names of all tensors of the registry's networks begin, or those of one part.
ROOT = "backbone"
LONGEST_METADATA = 16 << 20  # bytes; those of released models have up to half a million
EPSILON = 1e-5  # of batch norms; a variance below its negative has no root
# As `publish` names a `.pth`.
_HASH_IN_NAME = re.compile(r"-([0-9a-f]{8})\.pth")


@dataclass(frozen=True)
class Weights:
    """A converted file, read and identified.

    Attributes:
        file: what was read.
        architecture: name.
        parameters: of the architecture.
        state: the tensors, under the module's names and with the types that they have in the file.
        metadata: what the file says of itself, checked; None where it came without.
    """

    file: Path
    architecture: str
    parameters: Mapping[str, Value]
    state: dict[str, Tensor]
    metadata: Metadata | None


def load_model(
    path: str | PathLike[str],
    *,
    device: torch.device | str | int | None = None,
    dtype: torch.dtype | None = None,
    check: bool = True,
) -> nn.Module:
    """The network of a `.pth` or `.safetensors`, in evaluation mode.

    Also of a folder that `publish` made, and of such a folder on the Hugging Face Hub: `hf:ORG/NAME`, or
    `hf:ORG/NAME@REVISION` (see `paddle2torch.architectures.hub.locate`); the metadata then tell the commit under "hub".

    It is an `OCRModel`, or a `torch.fx.GraphModule` where the model was converted by its graph (`--as-graph`).

    A `.safetensors` of ours says itself which network it holds; for a `.pth` the `.json` beside it says so. Without
    either, as with other people's converted files, the architecture is recognised from names and shapes. What training
    leaves is taken too: state dicts in dictionaries of a checkpoint, and names with the prefixes of DataParallel,
    torch.compile, Lightning or a running average.

    The module has the attribute `metadata`: the content of the `.json` (architecture, preprocessing, labels, …), or an
    empty dict where the file came without. Its tensors are its own: whoever writes to the file, even with what was
    loaded from it, changes nothing.

    Args:
        path: of the file or folder, or an address on the Hub.
        device: where to put the network; the CPU by default.
        dtype: of its floating-point tensors; float32 by default, whatever the file has.
        check: whether to compare the tensors with the digest and the checksums that the files have of them.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is damaged, or not what its name says; no architecture, or more than one, has exactly its
            tensors; a tensor is not of numbers that the network can have; or what the file says of itself is not
            possible.
    """
    return build_model(read_weights(path, check=check), dtype).to(device)


def read_weights(path: str | PathLike[str], *, check: bool = True) -> Weights:
    """Read a `.pth` (a state dict; nothing in it is executed) or `.safetensors`, ours or anyone's.

    Args:
        path: see `load_model`.
        check: see `load_model`.

    Raises:
        FileNotFoundError, ValueError: see `load_model`.
    """
    place = locate(path)
    with _telling(str(place.weights)):
        file = read_state_file(place.weights, check)
        metadata = _metadata(file, place.sidecar)
        weights = _recognised(file) if metadata is None else _described(file, metadata)
        require_plain(place.weights, weights.state)
        _tell_of_values(place.weights, weights)
        if check:
            _check_name(place.weights)
            _check_digest(file, weights)
    if metadata is not None and place.origin:
        return replace(weights, metadata=replace(metadata, hub=HubOrigin(**place.origin)))
    return weights


def read_state(path: str | PathLike[str], names: Mapping[str, object]) -> dict[str, Tensor]:
    """The tensors of a `.pth` or `.safetensors`, whatever network they are of.

    Args:
        path: of the file.
        names: what the tensors are expected to be called. Of several sets in the file, that with most of them is taken.

    Raises:
        ValueError: the file is neither, or damaged, or a tensor is not simply its values.
    """
    path = Path(path)
    with _telling(str(path)):
        root = next(iter(names), ROOT).partition(".")[0]
        state = dict(_nearest(read_state_file(path), root, names).tensors)
        require_plain(path, state)
    return state


@contextmanager
def _telling(file: str) -> Iterator[None]:
    """Turns whatever a file makes readers raise into ValueError."""
    try:
        yield
    except (ValueError, OSError, ImportError):
        raise
    except Exception as error:
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise ValueError(f"{file}: cannot be read as weights ({printable(reason)}); convert the model again") from error


# ---- what a file says of itself ----------------------------------------------------------------------------------


def _metadata(file: StateFile, sidecar: Path) -> Metadata | None:
    """Of the header, or of the file beside; None where there are none, or others'."""
    if file.header is not None:
        header = file.header.encode()
        if len(header) > LONGEST_METADATA:
            raise ValueError(f"{file.path}: its metadata are larger than those of any model; convert the model again")
        return Metadata.from_json(_parsed(header, str(file.path)), str(file.path))
    if not sidecar.is_file():
        return None
    if sidecar.stat().st_size > LONGEST_METADATA:
        raise ValueError(f"{sidecar}: is larger than the metadata of any model; remove it, or convert the model again")
    content = _parsed(sidecar.read_bytes(), str(sidecar))
    ours = isinstance(content, dict) and {"architecture", "parameters"} <= content.keys()
    return Metadata.from_json(content, str(sidecar)) if ours else None


def _parsed(text: bytes, file: str) -> object:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(
            f"{file}: its metadata are no JSON ({printable(str(error))}); convert the model again"
        ) from error


def _described(file: StateFile, metadata: Metadata) -> Weights:
    """The weights of the network that the metadata name.

    Raises:
        ValueError: there is no such network, or the tensors are not its own.
    """
    from .matching import count, match, shorten

    graph = metadata.graph
    expected = _expected(file, metadata) if graph is None else _expected_by_graph(file.path, graph)
    root = next(iter(expected), ROOT).partition(".")[0]
    names = {name for name in expected if not name.endswith(COUNTER)}
    chosen = file.choose(root, lambda found: {n for n in found.tensors if not n.endswith(COUNTER)} == names)
    chosen = chosen or _nearest(file, root, expected)
    problems = match(_shapes(chosen), expected).problems()
    if problems:
        listed = shorten(printable(name) for names in problems.values() for name in names)
        parameters = "".join(f", {name} = {value}" for name, value in metadata.parameters.items())
        raise ValueError(
            f"{file.path}: its tensors are not those of {metadata.architecture}{printable(parameters)}, which its "
            f"metadata name: {count(problems)} ({listed}); convert the model again"
        )
    return Weights(file.path, metadata.architecture, metadata.parameters, dict(chosen.tensors), metadata)


def _expected(file: StateFile, metadata: Metadata) -> dict[str, Expected]:
    """The tensors of a network of the registry."""
    from .matching import expected_tensors
    from .registry import get

    try:
        architecture = get(metadata.architecture)
        if architecture.task != metadata.task:
            raise ValueError(f"{architecture.name} is for the task {architecture.task}, not {metadata.task}")
        _check_parameters(file, architecture, metadata.parameters)
        return expected_tensors(architecture, metadata.parameters)
    except Exception as error:  # impossible parameters make constructors raise nearly anything
        reason = printable(str(error).partition("\n")[0])
        raise ValueError(f"{file.path}: its metadata name no network: {reason}; convert the model again") from error


def _check_parameters(file: StateFile, architecture: Architecture, parameters: Mapping[str, Value]) -> None:
    """Raise ValueError where parameters cannot be those of the file's tensors, before a network is made of them."""
    from .matching import infer_parameters

    candidates = [_shapes(found) for found in file.candidates(ROOT)]
    largest = max((size for shapes in candidates for shape in shapes.values() for size in shape), default=0)
    told = [infer_parameters(architecture, shapes) for shapes in candidates]
    known = architecture.settle({})
    for name, value in architecture.settle(parameters).items():
        if not _like(value, known[name]):
            raise ValueError(f"its parameter {name} is {value!r}, one like {known[name]!r} was expected")
        values = {one[name] for one in told if name in one}
        if values and value not in values:
            raise ValueError(f"its parameter {name} is {value!r}, and the tensors are of {values.pop()}")
        # Whatever it counts or measures, it shows in the size of a tensor.
        if any(abs(number) > max(largest, 1) for number in _numbers(value)):
            raise ValueError(f"its parameter {name} is {value!r}, and no tensor has more than {largest} values a side")


def _like(value: Value, default: object) -> bool:
    """Whether a parameter's value is of its default's kind."""
    kinds: tuple[tuple[type, ...], ...] = ((bool,), (int, float), (str,), (tuple, list))
    kind = next((kind for kind in kinds if isinstance(default, kind)), None)
    return kind is None or next((other for other in kinds if isinstance(value, other)), None) == kind


def _numbers(value: Value) -> Iterator[float]:
    if isinstance(value, tuple):
        for each in value:
            yield from _numbers(each)
    elif isinstance(value, int | float):
        yield value


def _expected_by_graph(path: Path, graph: Graph) -> dict[str, Expected]:
    """The tensors of a network that is given by its graph."""
    from .graph.form import GraphError
    from .graph.module import check_operators, lay_out
    from .matching import Expected

    try:
        check_operators(graph)
        origins = lay_out(graph).origins
    except GraphError as error:
        raise ValueError(f"{path}: its graph cannot be used: {error.problem}") from error
    shapes = {key: graph.parameters[origin.variable].shape for key, origin in origins.items()}
    shapes = {key: shape[::-1] if origins[key].transposed else shape for key, shape in shapes.items()}
    counters = {f"{key.removesuffix('running_mean')}{COUNTER}": () for key in shapes if key.endswith("running_mean")}
    return {key: Expected(shape, "") for key, shape in (shapes | counters).items()}


def _tell_of_values(path: Path, weights: Weights) -> None:
    """Warn of values with which a network answers NaN, as training leaves them where it diverges."""
    graph = weights.metadata is not None and weights.metadata.graph is not None  # in which infinity may be a mask
    found: dict[str, list[str]] = {}
    for name, tensor in weights.state.items():
        if not tensor.is_floating_point() or not tensor.numel():
            continue
        if tensor.isnan().any():
            found.setdefault("NaN", []).append(name)
        elif not graph and tensor.isinf().any():
            found.setdefault("infinity", []).append(name)
        elif name.endswith("running_var") and tensor.min() < -EPSILON:
            found.setdefault("negative variances", []).append(name)
    for what, names in found.items():
        more = f" and {len(names) - 1} more" if len(names) > 1 else ""
        logger.warning("%s: holds %s (%s%s), so that the network answers NaN", path, what, printable(names[0]), more)


def _check_name(path: Path) -> None:
    """Of a published `.pth`, whose name has the beginning of its sha256."""
    named = _HASH_IN_NAME.search(path.name)
    if named is None or not (path.parent / CONFIG).is_file():
        return
    with path.open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    if not sha256.startswith(named[1]):
        raise ValueError(
            f"{path}: is damaged: its sha256 begins with {sha256[:8]}, not with {named[1]} as in its name; get it again"
        )


def _check_digest(file: StateFile, weights: Weights) -> None:
    """Compare the tensors with the digest in the metadata.

    A `.safetensors` of ours was written in one piece with it. A `.json` may stay beside a `.pth` that was trained
    further and saved again; damage to that is told by the checksums of its members.
    """
    metadata = weights.metadata
    if metadata is None or metadata.digest is None or digest_of(weights.state) == metadata.digest:
        return
    if file.header is not None:
        raise ValueError(
            f"{file.path}: is damaged: its tensors are not those that were written; get it again, or convert the model "
            "again"
        )
    logger.warning(
        "%s: its tensors are not those that its .json was written for; nothing is wrong if it was trained further",
        file.path,
    )


# ---- recognising -------------------------------------------------------------------------------------------------


def _recognised(file: StateFile) -> Weights:
    """The weights of whatever network has exactly these tensors.

    Raises:
        ValueError: none has, or several have.
    """
    from .circulating import own_shapes, own_tensors
    from .matching import count, exact_fits, expected_tensors, rank, shorten
    from .registry import architectures
    from .seeding import seeded

    def fits(found: StateDict) -> list[Fit]:
        return exact_fits(architectures(), partial(own_shapes, _shapes(found)))

    chosen = file.choose(ROOT, lambda found: bool(fits(found)))
    if chosen is None:
        candidates = [_shapes(found) for found in file.candidates(ROOT)]
        ranked = [rank(architectures(), partial(own_shapes, shapes))[0] for shapes in candidates]
        best = max(ranked, key=lambda fit: fit.match.score)
        if not best.match.matched:
            raise ValueError(
                f"{file.path}: fits no architecture: none of its {len(candidates[0])} tensors "
                f"({shorten(map(printable, candidates[0]))}) has the name and shape of a known network's"
            )
        problems = best.match.problems()
        listed = shorten(printable(name) for names in problems.values() for name in names)
        raise ValueError(
            f"{file.path}: fits no architecture; nearest is {best.architecture.name} ({count(problems)}): {listed}"
        )
    exact = fits(chosen)
    if len(exact) > 1:
        raise ValueError(
            f"{file.path}: fits {' and '.join(fit.architecture.name for fit in exact)} alike; put the .json of its "
            "conversion beside it"
        )
    entry, parameters = exact[0].architecture, exact[0].parameters
    state = own_tensors(chosen.tensors, entry)
    lacking = [key for key in expected_tensors(entry, parameters) if key not in state and not key.endswith(COUNTER)]
    if lacking:  # of what the architecture has for training alone, or the fit would not be exact
        logger.warning(
            "%s: lacks %d tensors that training alone uses; they come from a fixed seed", file.path, len(lacking)
        )
        state = seeded(entry, parameters, lacking) | state
    return Weights(file.path, entry.name, parameters, state, None)


def _shapes(found: StateDict) -> Shapes:
    return {name: tuple(tensor.shape) for name, tensor in found.tensors.items()}


def _nearest(file: StateFile, root: str, names: Mapping[str, object]) -> StateDict:
    """The set that has most of these names; the first of equals."""
    return max(file.candidates(root), key=lambda found: len(names.keys() & found.tensors.keys()))


# ---- the module --------------------------------------------------------------------------------------------------


def build_model(weights: Weights, dtype: torch.dtype | None = None) -> nn.Module:
    """The network of weights that were read, on the CPU; see `load_model` for what it is, `dtype` and errors."""
    import torch

    dtype = torch.float32 if dtype is None else dtype
    if not isinstance(dtype, torch.dtype) or not dtype.is_floating_point:
        raise ValueError(f"dtype: a type of floating-point numbers is wanted, such as torch.float16, not {dtype!r}")
    with _telling(str(weights.file)):
        model = _network(weights)
        model.load_state_dict(_assignable(str(weights.file), model, weights.state, dtype), strict=True, assign=True)
    # A module takes any attribute; its annotations know of tensors and modules only.
    model.metadata = weights.metadata.to_json() if weights.metadata is not None else {}  # type: ignore[assignment]
    return model.eval()


def _network(weights: Weights) -> nn.Module:
    """The module, without values."""
    if weights.metadata is not None and weights.metadata.graph is not None:
        from .graph.module import graph_to_module

        return graph_to_module(weights.metadata.graph)
    from .registry import get

    return get(weights.architecture).build_empty(weights.parameters)


def _assignable(file: str, model: nn.Module, state: Mapping[str, Tensor], dtype: torch.dtype) -> dict[str, Tensor]:
    """The tensors as the module is to have them: of its types, and each with memory of its own.

    Counters of batches are made where a file lacks them, as files from elsewhere may.

    Raises:
        ValueError: a tensor is of another kind than the module's, or too large for the type.
    """
    import torch

    found, owners = {}, set[int]()
    for name, wanted in model.state_dict().items():
        if name not in state:
            if not name.endswith(COUNTER):
                raise ValueError(f"{file}: lacks {name}, which the network has")
            found[name] = torch.zeros((), dtype=wanted.dtype)
            continue
        given = state[name].detach()
        if given.is_floating_point() != wanted.is_floating_point():
            raise ValueError(f"{file}: {name} is of type {given.dtype}, {wanted.dtype} was expected")
        tensor = given.to(dtype if wanted.is_floating_point() else wanted.dtype).contiguous()
        if tensor.dtype != given.dtype and not _fits(given, tensor):
            raise ValueError(
                f"{file}: {name} has values too large for {tensor.dtype}; load it with dtype={given.dtype}"
            )
        memory = tensor.untyped_storage()
        if memory.data_ptr() in owners or memory.nbytes() != tensor.nbytes:
            tensor = tensor.clone()
        owners.add(tensor.untyped_storage().data_ptr())
        found[name] = tensor
    return found


def _fits(given: Tensor, tensor: Tensor) -> bool:
    """Whether no value became infinite, or another integer, in another type."""
    import torch

    if not given.is_floating_point():
        return torch.equal(tensor.to(given.dtype), given)
    return bool(torch.isfinite(tensor).all() or not torch.isfinite(given).all())
