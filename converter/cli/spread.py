"""Commands that do the same for many models: how the work is spread, and what is said of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import click

from paddle2torch.converter.batch.run import TRIES, Outcome, Task, run_tasks, table
from paddle2torch.converter.cli.common import gathering, listing, note, open_zoo
from paddle2torch.converter.support.errors import ConverterError


@dataclass(frozen=True)
class Spread:
    """Who does the work.

    Attributes:
        jobs: processes at a time.
        scheduler: address of a Dask scheduler, in their place.
    """

    jobs: int = 1
    scheduler: str | None = None

    def run(self, tasks: Sequence[Task]) -> list[Outcome]:
        """Run tasks; what each has to say is printed as it comes in."""
        from paddle2torch.converter.batch.tasks import absolute, releasing

        debug = bool(click.get_current_context().find_root().params.get("debug"))
        if self.scheduler is not None:
            tasks = [absolute(task) for task in tasks]
        progress = _Progress(len(tasks))
        with releasing():
            return run_tasks(tasks, jobs=self.jobs, scheduler=self.scheduler, debug=debug, done=progress)


spreading = gathering(
    "spread",
    Spread,
    click.option("--jobs", type=click.IntRange(1, 64), default=1, show_default=True, help="Models at a time."),
    click.option("--scheduler", metavar="ADDRESS", help="A Dask scheduler whose workers share the files with us."),
)


class _Progress:
    """Prints what comes in, and how much is done of how much."""

    def __init__(self, total: int) -> None:
        self._total, self._seen = total, set[str]()

    def __call__(self, outcome: Outcome) -> None:
        self._seen.add(outcome.name)
        for line in outcome.report.results if outcome.report is not None else ():
            click.echo(line)
        if self._total > 1:
            again = outcome.passing and outcome.tries < TRIES
            word = "" if outcome.passed else "to be tried again: " if again else "error: "
            note(f"[{len(self._seen)}/{self._total}] {outcome.name}: {word}{outcome.summary} ({outcome.seconds:.1f} s)")


class BatchError(ConverterError):
    """Some of many models failed; each has been told of already."""


def chosen(sources: Sequence[str], everything: bool, kind: str | None, branch: str | None = None) -> dict[str, str]:
    """The models to work on, each once, and the names of their results.

    Raises:
        click.UsageError: none were named.
        SourceError: see `paddle2torch.converter.support.names.result_names`.
    """
    if not sources and not everything:
        raise click.UsageError("name a SOURCE, or give --all")
    from paddle2torch.converter.support.names import result_names

    zoo = open_zoo()
    if everything:
        sources = [name for name, model in zoo.models.items() if (kind or "inference") in model.artifacts]
    return result_names(sources, zoo, branch)


def finish(outcomes: Sequence[Outcome], rows: bool = True) -> None:
    """The last word: a table of many, and an error where anything failed.

    Args:
        outcomes: of all.
        rows: whether to print the table.

    Raises:
        ConverterError: with the exit code of the first that failed.
    """
    failed = [outcome for outcome in outcomes if not outcome.passed]
    if rows and len(outcomes) > 1:
        listing(table(outcomes))
    if not failed:
        return
    lines = [f"{len(failed)} of {len(outcomes)} models failed: {', '.join(each.name for each in failed)}"]
    lines += [f"  {each.name}: {each.error}" for each in failed if each.error]
    error = BatchError(failed[0].error if len(outcomes) == 1 and failed[0].error else "\n".join(lines))
    error.exit_code = failed[0].exit_code
    raise error
