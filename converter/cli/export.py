"""Onwards, to other runtimes: export."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from paddle2torch.converter.cli.common import choosing_with_labels, fetching, note, open_zoo, output_to
from paddle2torch.converter.conversion.choice import Access, Choice

if TYPE_CHECKING:
    from torch import nn

FORMATS = ("onnx", "torchscript", "pt2")


@click.command()
@click.argument("sources", nargs=-1, required=True, metavar="SOURCE...")
@click.option(
    "--format",
    "formats",
    type=click.Choice(FORMATS),
    multiple=True,
    default=("onnx",),
    show_default=True,
    help="What to write; may be repeated.",
)
@output_to("exported")
@choosing_with_labels
@fetching
def export(sources: tuple[str, ...], formats: tuple[str, ...], output: Path, choice: Choice, access: Access) -> None:
    """Write models for ONNX, TorchScript or torch.export.

    A SOURCE is a converted .pth or .safetensors, a folder made by publish, a model of the Hub (hf:ORG/NAME), or what
    convert takes. For each, NAME.onnx, NAME.torchscript or NAME.pt2 is written. It takes any batch size and any width
    (of a detector, any height and width that are multiples of 32) and holds preprocessing and labels. Before, it is
    compared with the PyTorch module on several shapes; where the two disagree, nothing is written.
    """
    from paddle2torch.converter.release.export import export_model, write_export
    from paddle2torch.converter.support.names import result_names

    for text, name in result_names(sources, open_zoo(), choice.branch).items():
        model, metadata = open_model(text, choice, access, name)
        if metadata["task"] == "rec" and metadata["labels"] is None:
            note(f"{metadata['name']}: no labels are known, so the file will hold none; give them with --dict")
        for format in formats:
            note(f"writing {metadata['name']} as {format}")
            exported = export_model(model, metadata, format)
            click.echo(write_export(exported, output))
            note(
                f"  does the same as the module on {len(exported.comparisons)} batches of other shapes than it was"
                f" traced at; largest error {exported.error:.1e}"
            )


def open_model(text: str, choice: Choice, access: Access, name: str) -> tuple[nn.Module, dict[str, Any]]:
    """The network of a source and its metadata, under the name of its result."""
    from paddle2torch.architectures.hub import is_converted

    if is_converted(text):
        from paddle2torch.converter.conversion.convert import given_labels
        from paddle2torch.converter.release.export import open_converted

        choice.require_none(text, "dictionary")
        model, metadata = open_converted(text, name)
        if choice.dictionary is not None:
            labels = given_labels(choice.dictionary, metadata["task"], metadata["parameters"])
            metadata["labels"] = labels.labels
        return model, metadata
    from paddle2torch.converter.writing import artifacts

    fetcher = access.fetcher()
    conversion = choice.convert(choice.load(text, open_zoo(), fetcher, name), fetcher)
    return conversion.build(), artifacts.metadata(conversion)
