"""The release: publish."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from paddle2torch.converter.batch.run import Outcome
from paddle2torch.converter.cli.common import KINDS, everything, fetching, listing, note, output_to
from paddle2torch.converter.cli.spread import Spread, chosen, finish, spreading
from paddle2torch.converter.conversion.choice import Access
from paddle2torch.converter.support.table import table_lines

if TYPE_CHECKING:
    from paddle2torch.converter.release.publish import Publication


@click.command()
@click.argument("names", nargs=-1, metavar="NAME...")
@everything
@click.option("--kind", type=click.Choice(KINDS), help="Which tarball.  [default: inference]")
@output_to("release")
@click.option(
    "--push-to-hub",
    "organisation",
    metavar="ORG",
    help="Push each model to ORG/NAME on the Hugging Face Hub; HF_TOKEN or `hf auth login` says who you are.",
)
@click.option(
    "--dry-run", is_flag=True, help="Convert and verify, say what would be published, write and send nothing."
)
@fetching
@spreading
def publish(
    names: tuple[str, ...],
    everything: bool,
    kind: str | None,
    output: Path,
    organisation: str | None,
    dry_run: bool,
    access: Access,
    spread: Spread,
) -> None:
    """Make models of the zoo into Hugging Face model repositories, each with its proof.

    Every NAME is converted, compared with Paddle, and becomes the folder OUTPUT/NAME: weights, configuration, labels,
    model card, and the figures of the comparison. index.json and SHA256SUMS list the release. A model that does not
    agree with Paddle is not published; the others are.
    """
    from paddle2torch.converter.batch.tasks import PublishTask
    from paddle2torch.converter.release import publish as publishing
    from paddle2torch.converter.release.hub_push import Hub

    hub = Hub(organisation) if organisation and not dry_run else None
    publishing.require_own_lists(output)
    options = publishing.Options(output, access, kind, organisation, dry_run)
    outcomes = spread.run([PublishTask(name, options) for name in chosen(names, everything, kind)])
    publications = [publication(outcome) for outcome in outcomes]
    if not dry_run:
        publishing.write_lists(output, [each.name for each in publications if not each.error])
    listing(summary(publications))
    for each in publications if dry_run else ():
        for name, (size, _) in each.files.items():
            where = f"{organisation}/{each.name}/{name}" if organisation else output / each.name / name
            note(f"  {size:>12,}  {where}")
    if hub is not None:
        for each in publications:
            if not each.error:
                listing([hub.push(output / each.name)])
    finish(outcomes, rows=False)


def publication(outcome: Outcome) -> Publication:
    """What became of one model."""
    from paddle2torch.converter.release.publish import Publication

    if outcome.report is not None:
        return outcome.report.data["publication"]
    return Publication(outcome.name, "refused", error=outcome.error, exit_code=outcome.exit_code)


def summary(publications: list[Publication]) -> list[str]:
    """A table of what became of each model."""
    rows = [("NAME", "OUTCOME", "FILES", "BYTES", "PARITY")]
    rows += [(p.name, p.outcome, str(len(p.files)), f"{p.size:,}", p.parity or p.error) for p in publications]
    return table_lines(rows)
