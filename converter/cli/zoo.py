"""The zoo's commands: list, info, zoo lock."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from paddle2torch.converter.cli.common import KINDS, TASKS, as_json, fetching, listing, note, open_zoo, print_json
from paddle2torch.converter.conversion.choice import Access
from paddle2torch.converter.support.errors import DownloadError
from paddle2torch.converter.support.table import table_lines

if TYPE_CHECKING:
    from paddle2torch.converter.zoo.catalog import Model

COLUMNS = 80
"""Of a terminal that is not wide; the table of the models fits."""


@click.command("list")
@click.option("--task", type=click.Choice(TASKS), help="Only detectors, recognisers or classifiers.")
@click.option("--generation", "--release", help="Only one generation, such as PP-OCRv5.")
@click.option("--language", help="Only models for that language, or part of its name.")
@as_json
def list_command(task: str | None, generation: str | None, language: str | None, as_json: bool) -> None:
    """List the models of the zoo, the newest generation first."""
    zoo = open_zoo()
    models = zoo.filter(task, generation, language)
    nothing = zoo.explain_nothing(task, generation, language)
    if nothing:
        note(nothing)
    if as_json:
        print_json([asdict(model) for model in models])
        return
    if nothing:
        return
    rows = [("NAME", "TASK", "GENERATION", "SIZE", "LANGUAGES")]
    rows += [(model.name, model.task, model.generation, model.size or "-", "") for model in models]
    room = COLUMNS - len(table_lines([*rows, ("", "", "", "", "|")])[-1]) + 1
    told = ["LANGUAGES", *(fitting(model.languages, room) for model in models)]
    listing(table_lines([(*row[:-1], languages) for row, languages in zip(rows, told, strict=True)]))
    note(f"{len(models)} models; `info NAME` tells all of one, its other names too")


@click.command()
@click.argument("name")
@as_json
def info(name: str, as_json: bool) -> None:
    """Show all that the zoo says of one model."""
    model = open_zoo().get(name)
    if as_json:
        print_json(asdict(model))
        return
    listing(describe(model))


def fitting(words: Sequence[str], room: int) -> str:
    """As many words as there is room for, one at least, and the number of the others.

    Args:
        words: in order of importance.
        room: characters.
    """
    for count in range(len(words), 0, -1):
        text = ", ".join(words[:count]) + (f" +{len(words) - count}" if count < len(words) else "")
        if len(text) <= room:
            break
    return text


def describe(model: Model) -> list[str]:
    """A model's entry, for a person."""
    parameters = ", ".join(f"{key} = {value}" for key, value in model.parameters.items())
    facts = [
        ("task", model.task),
        *([("also called", ", ".join(model.aliases))] if model.aliases else []),
        ("generation", ", ".join([model.generation, *(f"list {revision}" for revision in model.revisions)])),
        ("languages", ", ".join(model.languages)),
        ("description", model.description),
        *([("listed size", model.size)] if model.size else []),
        ("architecture", model.architecture + (f" ({parameters})" if parameters else "")),
    ]
    for kind in sorted(model.artifacts, key=KINDS.index):
        artifact = model.artifacts[kind]
        facts += [(kind, artifact.url)] + [("", f"or {url}") for url in artifact.alternatives]
        facts += [("", f"sha256 {artifact.sha256}")] if artifact.sha256 else []
    if model.dictionary:
        facts.append(("dictionary", model.dictionary.url + (" + space" if model.dictionary.space else "")))
        facts += [("", f"or {url}") for url in model.dictionary.alternatives]
    return [model.name, *(f"  {key:<12}  {value}" for key, value in facts)]


@click.group("zoo")
def zoo_group() -> None:
    """Look after model_zoo.yaml and its lock file."""


@zoo_group.command()
@click.argument("names", nargs=-1, metavar="[NAME]...")
@click.option("--jobs", type=click.IntRange(1, 32), default=4, show_default=True, help="Downloads at a time.")
@fetching
def lock(names: tuple[str, ...], jobs: int, access: Access) -> None:
    """Fetch tarballs and write their size and sha256 into model_zoo.lock.json."""
    from paddle2torch.converter.zoo.catalog import zoo_path
    from paddle2torch.converter.zoo.lock import lock_path, measure, write_lock

    zoo = open_zoo()
    measured, errors = measure(zoo, access.fetcher(), names or None, jobs)
    for name, kind in write_lock(lock_path(zoo_path()), zoo, measured):
        click.echo(f"{name} {kind} {measured[name, kind].sha256}")
    note(f"{len(measured)} tarballs measured")
    if errors:
        listed = "".join(f"\n  {error}" for error in errors)
        raise DownloadError(f"{len(errors)} tarballs could not be fetched; the others were measured:{listed}")
