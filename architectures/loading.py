"""Converted weights back into a module."""

from __future__ import annotations

import json
import zipfile
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .hub import locate

if TYPE_CHECKING:
    from torch import Tensor, nn

# The key of the safetensors header, and the version of what stands below it.
HEADER_KEY = "paddle2torch"
# The architecture of networks that were converted by their graph, which the metadata then hold under the same name.
GRAPH = "graph"


@dataclass(frozen=True)
class Weights:
    """A converted file, read and identified.

    Attributes:
        architecture: name.
        parameters: of the architecture.
        state: the tensors as they stand in the file, mapped into memory.
        metadata: the content of our `.json`; empty where the file came without.
    """

    architecture: str
    parameters: dict[str, Any]
    state: dict[str, Tensor]
    metadata: dict[str, Any]


def read_weights(path: str | PathLike[str]) -> Weights:
    """Read a `.pth` (a plain state dict; nothing in it is executed) or `.safetensors`, ours or anyone's.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is neither, or no single architecture has its tensors.
    """
    place = locate(path)
    state, metadata = _read(place.weights)
    metadata = metadata or _account_in(place.account)
    name, parameters = _identify(place.weights, state, metadata)
    return Weights(name, parameters, state, {**metadata, "hub": place.origin} if place.origin else metadata)


def load_model(path: str | PathLike[str]) -> nn.Module:
    """The network of a converted `.pth` or `.safetensors`, in evaluation mode on the CPU.

    Also of a folder that `publish` made, and of such a folder on the Hugging Face Hub: `hf:ORG/NAME`, or
    `hf:ORG/NAME@REVISION` (see `paddle2torch.architectures.hub.locate`); the metadata then tell the commit under "hub".

    It is an `OCRModel`, or a `torch.fx.GraphModule` where the model was converted by its graph (`--as-graph`).

    A `.safetensors` of ours says itself which network it holds; for a `.pth` the `.json` beside it says so. Without
    either, as with other people's converted files, the architecture is recognised from names and shapes.

    The module has the attribute `metadata`: the content of the `.json` (architecture, preprocessing, labels, …), or an
    empty dict where the file came without.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: no architecture, or more than one, has exactly the file's tensors; or the file is not what its
            name says.
    """
    import torch

    from .registry import get

    weights = read_weights(path)
    if GRAPH in weights.metadata:
        model = _graph_module(weights.metadata[GRAPH], str(path))
    else:
        model = get(weights.architecture).build_empty(weights.parameters)
    # Counters are made where a file lacks them, as files from elsewhere may.
    counters = [key for key in model.state_dict() if key.endswith("num_batches_tracked")]
    state = {key: torch.zeros((), dtype=torch.long) for key in counters} | weights.state
    try:
        model.load_state_dict(state, strict=True, assign=True)
    except RuntimeError as error:
        raise ValueError(f"{path}: its tensors are not those of {weights.architecture}: {error}") from error
    model.metadata = weights.metadata
    return model.eval()


def _graph_module(graph: Any, file: str) -> nn.Module:
    from .graph.form import graph_from_json
    from .graph.module import graph_to_module

    return graph_to_module(graph_from_json(graph, file))


def read_state(path: str | PathLike[str]) -> dict[str, Tensor]:
    """The tensors of a `.pth` or `.safetensors`, whatever network they are of.

    Raises:
        ValueError: the file is neither.
    """
    return _read(Path(path))[0]


def _read(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    if path.suffix == ".safetensors":
        return _read_safetensors(path)
    return _read_pth(path)


def _read_safetensors(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    try:
        from safetensors import SafetensorError, safe_open
    except ImportError as error:
        raise ImportError(
            f"{path}: reading .safetensors needs the package safetensors: pip install safetensors"
        ) from error
    try:
        with safe_open(path, framework="pt") as file:
            metadata = _account((file.metadata() or {}).get(HEADER_KEY, "{}"))
            return {key: file.get_tensor(key) for key in file.keys()}, metadata  # noqa: SIM118 (not a dict)
    except SafetensorError as error:
        raise ValueError(f"{path}: not a safetensors file ({error})") from error


def _read_pth(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    import torch

    try:
        # Only the zip format, since PyTorch 1.6, can be mapped.
        state = torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except Exception as error:  # a broken file makes torch's unpickler raise nearly anything
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise ValueError(f"{path}: not a file that torch.load(weights_only=True) takes ({reason})") from error
    if isinstance(state, dict) and isinstance(state.get("state_dict"), dict):
        state = state["state_dict"]
    if not isinstance(state, dict) or not all(isinstance(value, torch.Tensor) for value in state.values()):
        raise ValueError(f"{path}: not a state dict, that is, a dict of tensors; save `model.state_dict()`")
    return dict(state), {}


def _account_in(path: Path) -> dict[str, Any]:
    return _account(path.read_text(encoding="utf-8")) if path.is_file() else {}


def _account(text: str) -> dict[str, Any]:
    """Our account of a conversion, or nothing where the text is something else."""
    try:
        content = json.loads(text)
    except ValueError:
        return {}
    ours = isinstance(content, dict) and "architecture" in content and isinstance(content.get("parameters"), dict)
    return content if ours else {}


def _identify(path: Path, state: dict[str, Tensor], metadata: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    from .matching import count, exact_fits, rank
    from .registry import architectures

    if metadata:
        return metadata["architecture"], metadata["parameters"]
    shapes = {key: tuple(tensor.shape) for key, tensor in state.items()}
    exact = exact_fits(architectures(), lambda _: shapes)
    if len(exact) == 1:
        return exact[0].architecture.name, exact[0].parameters
    if exact:
        raise ValueError(
            f"{path}: fits {' and '.join(fit.architecture.name for fit in exact)} alike; "
            "put the .json of its conversion beside it"
        )
    best = rank(architectures(), lambda _: shapes)[0]
    raise ValueError(
        f"{path}: fits no architecture; nearest is {best.architecture.name} ({count(best.match.problems())})"
    )
