"""The proof: verify."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from converter.choice import Access, Choice
from converter.cli.common import choosing_with_labels, fetching, note, open_zoo, referring, write_json
from converter.errors import ConverterError, ParityError


@click.command()
@click.argument("sources", nargs=-1, metavar="SOURCE...")
@click.option("--all", "everything", is_flag=True, help="Every model of the zoo.")
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
    help="A picture of yours in place of the rendered text; may be repeated.",
)
@click.option("--tolerance", type=float, help="Largest relative error allowed for a layer, in double precision.")
@click.option(
    "--report", type=click.Path(path_type=Path, file_okay=False), help="Folder for NAME/parity.json and parity.html."
)
@click.option(
    "--summary", "summary_file", type=click.Path(path_type=Path, dir_okay=False), help="File for all verdicts as JSON."
)
@fetching
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
) -> None:
    """Prove that PyTorch computes what Paddle computes.

    Paddle runs the released program (or --reference) with the SOURCE's weights, PyTorch the converted module, on the
    same pictures; every layer, the output and the answer are compared. The program's graph, run by PyTorch, is a third
    witness. Exits with 0 only when all hold for every SOURCE; all are tried.
    """
    from converter.parity.prover import Prover

    if not sources and not everything:
        raise click.UsageError("name a SOURCE, or give --all")
    if weights is not None and len(sources) != 1:
        raise click.UsageError("--weights goes with one SOURCE")
    zoo, fetcher = open_zoo(), access.fetcher()
    if everything:
        sources = tuple(name for name, model in zoo.models.items() if (choice.kind or "inference") in model.artifacts)
    verdicts: list[dict[str, Any]] = []
    with Prover(zoo, fetcher, reference) as prover:
        for text in sources:
            try:
                conversion = choice.convert(choice.load(text, zoo, fetcher), fetcher)
                result = prover.prove(conversion, weights=weights, images=images, tolerance=tolerance)
            except ConverterError as error:
                if len(sources) == 1:
                    raise
                note(f"error: {text}: {error}")
                verdicts.append({"name": text, "passed": False, "error": str(error)})
                continue
            click.echo(prover.table(result))
            verdicts.append(prover.verdict(result))
            for path in prover.report(result, report) if report else ():
                click.echo(path)
    failed = [verdict["name"] for verdict in verdicts if not verdict["passed"]]
    if summary_file is not None:
        write_json({"passed": not failed, "models": verdicts}, summary_file)
    if failed:
        raise ParityError(f"{len(failed)} of {len(verdicts)} models failed: {', '.join(failed)}")
