"""A network as reading sees it: a callable from array to array, what its input looks like, what its classes mean."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from paddle2torch.architectures.records import (
    BoxPostprocessing,
    Direction,
    Postprocessing,
    Preprocessing,
    TextPostprocessing,
    read_postprocessing,
)
from paddle2torch.converter.mapping.labels import direction_of
from paddle2torch.converter.support.errors import SourceError
from paddle2torch.converter.support.interrupts import raise_pending
from paddle2torch.converter.tasks import find_task

if TYPE_CHECKING:
    from torch import nn

    from paddle2torch.converter.conversion.convert import Conversion
    from paddle2torch.converter.zoo.download import Fetcher

Run = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Network:
    """What the steps of reading need of a network.

    Attributes:
        name: what messages call it.
        task: "det", "cls" or "rec".
        run: float32 (N, 3, H, W) → a detector's maps (N, 1, H, W), a classifier's (N, classes) or a recogniser's
            (N, T, classes) probabilities.
        preprocessing: how an image becomes its input.
        labels: a text per class; detectors have none.
        postprocessing: how its output becomes boxes or text, where it is not as usual.
    """

    name: str
    task: str
    run: Run
    preprocessing: Preprocessing
    labels: Sequence[str] | None = None
    postprocessing: Postprocessing | None = None

    @property
    def boxes(self) -> BoxPostprocessing:
        """How a detector's map becomes boxes."""
        return self.postprocessing if isinstance(self.postprocessing, BoxPostprocessing) else BoxPostprocessing()

    @property
    def direction(self) -> Direction:
        """In which a recogniser's text is read; that of its labels where nothing is said."""
        if isinstance(self.postprocessing, TextPostprocessing):
            return self.postprocessing.direction
        return direction_of(self.labels)


if TYPE_CHECKING:
    Model = str | Path | nn.Module | Network


def open_network(
    model: Model,
    task: str,
    *,
    dictionary: Path | None = None,
    fetcher: Fetcher | None = None,
) -> Network:
    """The network of whatever a user names.

    Args:
        model: a zoo name, a tarball, folder or checkpoint of Paddle's (converted in memory), a converted `.pth` or
            `.safetensors` or whatever else `load_model` takes, a module, or a network, which is returned as it is.
        task: what it is wanted for: "det", "cls" or "rec".
        dictionary: file of a recogniser's characters, in place of those that come with it.
        fetcher: gets what is downloaded; `users_fetcher()` where None.

    Raises:
        SourceError: there is no such model, or it is not for the task, or its labels are not known.
        MappingError: its tensors fit no architecture, or the dictionary does not fit its classes.
        DownloadError, ArchiveError, FormatError: see `paddle2torch.converter.sources.load_source`.
    """
    network = model if isinstance(model, Network) else _opened(model, dictionary, fetcher)
    if network.task != task:
        raise SourceError(
            f"{network.name}: is for another task ({find_task(network.task).title}); "
            f"wanted here: {find_task(task).title}"
        )
    if find_task(task).labelled and network.labels is None:
        raise SourceError(f"{network.name}: nothing tells what its classes stand for; give its dictionary (--dict)")
    return network


def _opened(model: str | Path | nn.Module, dictionary: Path | None, fetcher: Fetcher | None) -> Network:
    if not isinstance(model, str | Path):
        return from_module(model, dictionary=dictionary)
    if _is_converted(str(model)):
        return from_module(_load(model), str(model), dictionary)
    return from_conversion(convert_source(str(model), dictionary, fetcher))


def _is_converted(text: str) -> bool:
    """Whether it is for `load_model`; a zoo name wins over a folder of that name."""
    from paddle2torch.architectures.hub import is_converted
    from paddle2torch.converter.zoo.catalog import load_zoo

    return is_converted(text) and text not in load_zoo()


def _load(path: str | Path) -> nn.Module:
    from paddle2torch.architectures import load_model

    try:
        return load_model(path)
    except (OSError, ValueError, ImportError) as error:
        raise SourceError(str(error)) from error


def users_fetcher() -> Fetcher:
    """Who gets files where nothing else is said: the user's cache, and PADDLE2TORCH_MIRROR as on the command line."""
    from paddle2torch.converter.conversion.choice import Access

    return Access(mirror=os.environ.get("PADDLE2TORCH_MIRROR") or None).fetcher()


def convert_source(text: str, dictionary: Path | None = None, fetcher: Fetcher | None = None) -> Conversion:
    """Find a Paddle model and convert it in memory; see `open_network` for arguments and errors."""
    from paddle2torch.converter.conversion.choice import Choice
    from paddle2torch.converter.zoo.catalog import load_zoo

    fetcher = fetcher or users_fetcher()
    choice = Choice(dictionary=dictionary)
    return choice.convert(choice.load(text, load_zoo(), fetcher), fetcher)


def from_conversion(conversion: Conversion, run: Run | None = None) -> Network:
    """The network of a conversion.

    Args:
        conversion: in memory.
        run: what computes it; the converted module where None.
    """
    return Network(
        conversion.name,
        conversion.network.task,
        run or torch_run(conversion.build()),
        conversion.network.preprocessing,
        conversion.labels.labels if conversion.labels else None,
        conversion.postprocessing,
    )


def from_module(module: nn.Module, name: str | None = None, dictionary: Path | None = None) -> Network:
    """The network of a PyTorch module, which computes where its tensors lie, in their precision, in evaluation mode.

    It may be wrapped, by `optimize`, `torch.compile` or `DataParallel`. The attribute `metadata`, which `load_model`
    gives, says what it is; without it the architecture is recognised.

    Raises:
        SourceError: the module is none of ours, or the dictionary cannot be read.
        MappingError: the dictionary does not fit its classes.
    """
    from paddle2torch.converter.conversion.convert import given_labels

    name = name or type(module).__name__
    inner = unwrapped(module)
    metadata = getattr(inner, "metadata", None) or _recognised(inner, name)
    preprocessing = Preprocessing.from_json(metadata["preprocessing"], name)
    postprocessing = read_postprocessing(metadata.get("postprocessing"), metadata["task"], name)
    network = Network(name, metadata["task"], torch_run(module), preprocessing, metadata["labels"], postprocessing)
    if dictionary is None or not find_task(network.task).reads:
        return network
    labels = given_labels(dictionary, network.task, metadata["parameters"]).labels
    return replace(network, labels=labels, postprocessing=None)  # the direction is that of the labels


def _recognised(module: nn.Module, name: str) -> dict[str, Any]:
    """Metadata as far as names and shapes tell it."""
    from paddle2torch.architectures.matching import exact_fits
    from paddle2torch.architectures.registry import architectures

    shapes = {key: tuple(tensor.shape) for key, tensor in module.state_dict().items()}
    exact = exact_fits(architectures(), lambda _: shapes)
    if len(exact) != 1:
        raise SourceError(
            f"{name}: is none of the known architectures; wrap it: paddle2torch.Network(name, task, run, preprocessing)"
        )
    entry = exact[0].architecture
    return {
        "task": entry.task,
        "preprocessing": entry.preprocessing.to_json(),
        "labels": find_task(entry.task).labels_of(exact[0].parameters),
        "parameters": exact[0].parameters,
    }


def unwrapped(module: nn.Module) -> nn.Module:
    """The network that `optimize`, `torch.compile` or `DataParallel` made this one of, or the module itself."""
    from torch import nn

    for name in ("original", "_orig_mod", "module"):
        inner = getattr(module, name, None)
        if isinstance(inner, nn.Module):
            return unwrapped(inner)
    return module


def torch_run(module: nn.Module) -> Run:
    """A module as a callable from float32 to float32 arrays.

    It is put into evaluation mode, and computes on the device and in the precision of its first tensor; on the CPU and
    in float32 where it has none, as optimised and frozen modules may. Of several results the first is read. What it
    raises over its input is a SourceError.
    """
    import torch

    with suppress(NotImplementedError):  # what torch.export makes stays in the mode that it was exported in
        module.eval()
    tensors = (tensor for tensor in chain(module.parameters(), module.buffers()) if tensor.is_floating_point())
    like = next(tensors, torch.empty(0))

    def run(inputs: np.ndarray) -> np.ndarray:
        try:
            with torch.inference_mode():
                result = module(torch.from_numpy(inputs).to(like))
        except Exception as error:  # what a network's own code raises over sizes that it was not made for
            raise_pending(error)
            reason = (str(error).strip() or type(error).__name__).partition("\n")[0]
            height, width = inputs.shape[2:]
            raise SourceError(
                f"the network takes no images of {height} × {width} pixels ({reason}); that size is its "
                "metadata's or its configuration's: convert the model again"
            ) from error
        return (result[0] if isinstance(result, tuple) else result).float().cpu().numpy()

    return run
