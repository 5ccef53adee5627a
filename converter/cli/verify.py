"""The proof: verify."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Any

import click

from paddle2torch.converter.batch.run import Outcome
from paddle2torch.converter.cli.common import choosing_with_labels, everything, fetching, referring, write_json
from paddle2torch.converter.cli.spread import Spread, chosen, finish, spreading
from paddle2torch.converter.conversion.choice import Access, Choice
from paddle2torch.converter.support.terminal import without_users


@click.command()
@click.argument("sources", nargs=-1, metavar="SOURCE...")
@everything
@choosing_with_labels
@referring
@click.option(
    "--weights",
    type=click.Path(path_type=Path, dir_okay=False, exists=True),
    help="Check this converted .pth or .safetensors, ours or anyone's, in place of a conversion.",
)
@click.option(
    "--image",
    "images",
    type=click.Path(path_type=Path, dir_okay=False),
    multiple=True,
    help="An image of yours in place of the rendered text; may be repeated.",
)
@click.option("--tolerance", type=float, help="Largest relative error allowed for a layer, in double precision.")
@click.option(
    "--report", type=click.Path(path_type=Path, file_okay=False), help="Folder for NAME/parity.json and parity.html."
)
@click.option(
    "--summary", "summary_file", type=click.Path(path_type=Path, dir_okay=False), help="File for all results as JSON."
)
@fetching
@spreading
def verify(
    sources: tuple[str, ...],
    everything: bool,
    choice: Choice,
    reference: str | None,
    weights: Path | None,
    images: tuple[Path, ...],
    tolerance: float | None,
    report: Path | None,
    summary_file: Path | None,
    access: Access,
    spread: Spread,
) -> None:
    """Prove that PyTorch computes what Paddle computes.

    Paddle runs the released program (or --reference) with the SOURCE's weights, PyTorch the converted module, on the
    same images; every layer, the output and the answer are compared. The program's graph, run by PyTorch, is a third
    implementation. Exits with 0 only when all hold for every SOURCE; all are tried.
    """
    from paddle2torch.converter.batch.tasks import VerifyTask

    if weights is not None and len(sources) != 1:
        raise click.UsageError("--weights goes with one SOURCE")
    command = without_users(shlex.join(["paddle2torch", *sys.argv[1:]]))
    outcomes = spread.run(
        [
            VerifyTask(text, choice, access, reference, weights, images, tolerance, report, command, name)
            for text, name in chosen(sources, everything, choice.kind, choice.branch).items()
        ]
    )
    if summary_file is not None:
        write_json(
            {"passed": all(each.passed for each in outcomes), "models": [*map(summary_entry, outcomes)]}, summary_file
        )
    finish(outcomes)


def summary_entry(outcome: Outcome) -> dict[str, Any]:
    """The figures of one model, or why there are none."""
    if outcome.report is not None:
        return outcome.report.data
    return {"name": outcome.name, "passed": False, "error": outcome.error}
