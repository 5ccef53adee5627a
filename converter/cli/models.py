"""The models' commands: inspect, convert, compare."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from paddle2torch.converter.cli.common import (
    KINDS,
    as_json,
    choosing,
    choosing_with_labels,
    everything,
    fetching,
    listing,
    note,
    open_zoo,
    output_to,
    print_json,
    referring,
)
from paddle2torch.converter.cli.spread import Spread, chosen, finish, spreading
from paddle2torch.converter.conversion.choice import Access, Choice

if TYPE_CHECKING:
    from paddle2torch.converter.conversion.inspection import Inspection, WeightsInspection


@click.command()
@click.argument("path", metavar="PATH")
@choosing
@fetching
@as_json
def inspect(path: str, choice: Choice, access: Access, as_json: bool) -> None:
    """Say what a file, folder, tarball or zoo model holds, without converting it; also a converted file."""
    from paddle2torch.architectures.hub import is_converted
    from paddle2torch.converter.conversion.inspection import inspect_source, inspect_weights

    report: Inspection | WeightsInspection
    if is_converted(path) and path not in open_zoo():
        choice.require_none(path)
        report = inspect_weights(path)
    else:
        source = choice.load(path, open_zoo(), access.fetcher())
        report = inspect_source(source, branch=choice.branch, architecture=choice.architecture)
    if as_json:
        print_json(report.as_dict())
    else:
        listing(report.lines())


@click.command()
@click.argument("sources", nargs=-1, metavar="SOURCE...")
@everything
@choosing_with_labels
@fetching
@output_to("converted")
@click.option(
    "--to",
    "target",
    type=click.Choice(("torch", "paddle")),
    default="torch",
    show_default=True,
    help="Which way: paddle turns a converted .pth or .safetensors back into a .pdparams.",
)
@click.option(
    "--fold", "folding", is_flag=True, help="Write the layout for inference: parallel branches as one convolution."
)
@referring
@click.option("--verify", "verifying", is_flag=True, help="Compare with Paddle first, write nothing if it disagrees.")
@spreading
def convert(
    sources: tuple[str, ...],
    everything: bool,
    choice: Choice,
    access: Access,
    output: Path,
    target: str,
    folding: bool,
    reference: str | None,
    verifying: bool,
    spread: Spread,
) -> None:
    """Convert models to PyTorch, or back.

    A SOURCE is a name of the zoo, a tarball, an unpacked folder or a checkpoint file. For each, NAME.pth,
    NAME.safetensors and NAME.json are written, or nothing when anything is amiss.

    With --to paddle a SOURCE is a converted file, and NAME.pdparams is written; with --reference also the folder NAME
    with the reference's program and these weights, which Paddle's predictor runs.
    """
    if reference is not None and not verifying and target == "torch":
        raise click.UsageError("--reference goes with --verify, or with --to paddle")
    if target == "paddle":
        if not sources or everything:
            raise click.UsageError("name a converted .pth or .safetensors")
        for option, given in (("--verify", verifying), ("--fold", folding)):
            if given:
                raise click.UsageError(f"{option} goes with --to torch")
        for text in sources:
            choice.require_none(text)
        convert_back(sources, output, reference, access)
        return
    from paddle2torch.converter.batch.tasks import ConvertTask

    names = chosen(sources, everything, choice.kind, choice.branch)
    finish(
        spread.run(
            [
                ConvertTask(text, choice, access, output, verifying, reference, name, folding)
                for text, name in names.items()
            ]
        )
    )


@click.command()
@click.argument("first", metavar="A")
@click.argument("second", metavar="B")
@choosing
@fetching
@as_json
def compare(first: str, second: str, choice: Choice, access: Access, as_json: bool) -> None:
    """Show where two models' weights differ, tensor by tensor.

    A and B are sources as for convert, converted .pth or .safetensors files, or a zoo name with its kind, such as
    ch_PP-OCRv3_rec:trained. What a conversion makes itself (batch-norm counters, an absent threshold branch) is not
    compared. Exits with 1 when anything differs.
    """
    from paddle2torch.converter.conversion.comparison import compare_tensors

    comparison = compare_tensors(*(comparable(text, choice, access) for text in (first, second)))
    if as_json:
        print_json(asdict(comparison))
    else:
        listing(f"{each.what:<10} {each.name}  {each.detail}" for each in comparison.differences)
        click.echo(f"{comparison.same} tensors are bit-identical, {len(comparison.differences)} differ")
    if comparison.differences:
        click.get_current_context().exit(1)


def comparable(text: str, choice: Choice, access: Access) -> dict[str, Any]:
    """Module key → array of what a file really holds."""
    from paddle2torch.architectures.hub import is_converted

    if is_converted(text) and text not in open_zoo():
        from paddle2torch.converter.writing.to_paddle import state_arrays

        return state_arrays(text)
    name, _, own_kind = text.rpartition(":")
    if own_kind in KINDS and name:
        text, choice = name, replace(choice, kind=own_kind)
    conversion = choice.convert(choice.load(text, open_zoo(), access.fetcher()))
    return {key: conversion.state[key].numpy() for key in conversion.origins}


def convert_back(sources: tuple[str, ...], output: Path, reference: str | None, access: Access) -> None:
    """The way to Paddle."""
    from paddle2torch.converter.sources import load_source
    from paddle2torch.converter.support.names import result_names
    from paddle2torch.converter.writing.to_paddle import read_converted, write_checkpoint, write_inference

    program = load_source(reference, open_zoo(), access.fetcher(), weights=False) if reference else None
    for text, name in result_names(sources).items():
        weights = read_converted(text, name)
        note(f"{weights.name}: {weights.architecture.name}, {len(weights.tensors)} tensors")
        click.echo(write_checkpoint(weights, output))
        if program is not None:
            for path in write_inference(weights, program, output):
                click.echo(path)
