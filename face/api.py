"""What one does with models in Python, in a line each: the functions behind the commands' names."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from paddle2torch.converter.conversion.choice import Access, Choice
from paddle2torch.converter.support.arguments import in_python

if TYPE_CHECKING:
    from torch import Tensor, nn

    from paddle2torch.converter.conversion.convert import Conversion
    from paddle2torch.converter.parity.result import ParityResult

File = str | os.PathLike[str]


@dataclass(frozen=True)
class Converted:
    """A converted model, in memory.

    Attributes:
        conversion: how it came about: source, architecture, origins of the tensors, notes.
        access: where further files (a reference program) come from.
    """

    conversion: Conversion
    access: Access

    @cached_property
    def model(self) -> nn.Module:
        """The network with the converted weights, in evaluation mode."""
        return self.conversion.build()

    @property
    def metadata(self) -> dict[str, Any]:
        """The content of the `.json` that `save` writes."""
        from paddle2torch.converter.writing.artifacts import metadata

        return metadata(self.conversion)

    def state_dict(self) -> dict[str, Tensor]:
        """The network's state dict."""
        return dict(self.conversion.state)

    def save(self, folder: File = "converted") -> list[Path]:
        """Write `NAME.pth`, `NAME.safetensors` and `NAME.json`, all or none.

        Returns:
            Their paths.

        Raises:
            OutputError: they cannot be written.
        """
        from paddle2torch.converter.writing.artifacts import write

        with in_python():
            return write(self.conversion, Path(folder))

    def verify(self, reference: str | None = None, images: Sequence[File] = ()) -> ParityResult:
        """Compare with Paddle, layer by layer; see `verify` for arguments, result and errors."""
        return _compare(self.conversion, self.access, reference, images=images)


def convert(
    source: File,
    *,
    kind: str | None = None,
    member: str | None = None,
    branch: str | None = None,
    architecture: str | None = None,
    dictionary: File | None = None,
    config: File | None = None,
    as_graph: bool = False,
    fold: bool = False,
    mirror: str | None = None,
    cache: File | None = None,
    offline: bool = False,
) -> Converted:
    """Convert a model in memory.

    Args:
        source: a name of the zoo, a tarball, an unpacked folder or a checkpoint file.
        kind: which tarball of a zoo model: "inference" (the default), "trained" or "pretrained".
        member: which checkpoint of an archive that holds several.
        branch: which network of a distilled checkpoint, such as "Student" or "Teacher".
        architecture: what the model is, where that cannot be recognised.
        dictionary: file of the recogniser's characters.
        config: the PaddleOCR `.yml` that the model was trained with.
        as_graph: whether to convert an inference model by its graph alone.
        fold: whether to give a checkpoint the layout of inference: parallel branches and norms as one convolution.
        mirror: folder or base URL in place of scheme and host of every URL; PADDLE2TORCH_MIRROR by default.
        cache: folder for downloads; PADDLE2TORCH_CACHE, or the platform's, by default.
        offline: whether to reach no server.

    Raises:
        ConverterError: a subclass for each kind of mistake, with one line that says what to do.
    """
    from paddle2torch.converter.zoo.catalog import load_zoo

    access = _access(mirror, cache, offline)
    choice = Choice(kind, member, branch, architecture, _path(dictionary), _path(config), as_graph)
    with in_python():
        fetcher = access.fetcher()
        conversion = choice.convert(choice.load(os.fspath(source), load_zoo(), fetcher), fetcher)
        return Converted(_fold(conversion) if fold else conversion, access)


def verify(
    source: File,
    *,
    weights: File | None = None,
    images: Sequence[File] = (),
    tolerance: float | None = None,
    reference: str | None = None,
    **choice: Any,
) -> ParityResult:
    """Compare a model's conversion with Paddle, layer by layer; needs the extra `parity`.

    Args:
        source: see `convert`, as are further keyword arguments.
        weights: a converted file to check in place of the conversion.
        images: files to compare on; rendered text and noise by default.
        tolerance: largest relative error allowed for a layer in double precision.
        reference: inference model whose program runs the weights; "graph" compares with the program's graph in place
            of Paddle.

    Returns:
        The result, whose `passed` tells the outcome.

    Raises:
        ConverterError: see `convert`; PaddleError where Paddle is missing or crashed.
    """
    converted = convert(source, **choice)
    return _compare(
        converted.conversion, converted.access, reference, weights=weights, images=images, tolerance=tolerance
    )


def export(source: File, folder: File = "exported", formats: Iterable[str] = ("onnx",)) -> list[Path]:
    """Write a converted model for another runtime, after comparing with the module.

    Args:
        source: a converted `.pth` or `.safetensors`, a published folder, or `hf:ORG/NAME`.
        folder: for the results.
        formats: "onnx" (needs the extra `export`), "torchscript" or "pt2".

    Returns:
        The paths written.

    Raises:
        ConverterError: the file is not such a model, or what was exported does not compute what the module computes.
    """
    from paddle2torch.converter.release.export import export_model, open_converted, write_export

    with in_python():
        model, metadata = open_converted(source)
        return [write_export(export_model(model, metadata, each), Path(folder)) for each in formats]


def _access(mirror: str | None, cache: File | None, offline: bool) -> Access:
    return Access(mirror or os.environ.get("PADDLE2TORCH_MIRROR") or None, _path(cache), offline)


def _fold(conversion: Conversion) -> Conversion:
    from paddle2torch.converter.conversion.fold import fold

    return fold(conversion).conversion


def _path(file: File | None) -> Path | None:
    return None if file is None else Path(file)


def _compare(
    conversion: Conversion,
    access: Access,
    reference: str | None,
    *,
    weights: File | None = None,
    images: Sequence[File] = (),
    tolerance: float | None = None,
) -> ParityResult:
    from paddle2torch.converter.parity.verifier import Verifier
    from paddle2torch.converter.zoo.catalog import load_zoo

    with in_python(), Verifier(load_zoo(), access.fetcher(), reference) as verifier:
        return verifier.verify(
            conversion, weights=_path(weights), images=[Path(image) for image in images], tolerance=tolerance
        )
