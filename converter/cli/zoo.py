"""The zoo's commands: list, info, zoo lock."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from paddle2torch.converter.cli.common import KINDS, TASKS, as_json, fetching, listing, note, open_zoo, print_json
from paddle2torch.converter.conversion.choice import Access
from paddle2torch.converter.support.errors import DownloadError
from paddle2torch.converter.support.table import table_lines

if TYPE_CHECKING:
    from paddle2torch.converter.zoo.catalog import Model


@click.command("list")
@click.option("--task", type=click.Choice(TASKS), help="Only detectors, recognisers or classifiers.")
@click.option("--release", help="Only one release: PP-OCRv3, PP-OCRv2, v2.0 or embedded.")
@click.option("--language", help="Only models for that language.")
@as_json
def list_command(task: str | None, release: str | None, language: str | None, as_json: bool) -> None:
    """List the models of the zoo."""
    models = open_zoo().filter(task=task, release=release, language=language)
    if as_json:
        print_json([asdict(model) for model in models])
        return
    rows = [("NAME", "TASK", "RELEASE", "SIZE", "TARBALLS", "LANGUAGES")]
    rows += [
        (m.name, m.task, m.release, m.size, ", ".join(sorted(m.artifacts, key=KINDS.index)), ", ".join(m.languages))
        for m in models
    ]
    listing(table_lines(rows))
    note(f"{len(models)} models")


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


def describe(model: Model) -> list[str]:
    """A model's entry, for a person."""
    parameters = ", ".join(f"{key} = {value}" for key, value in model.parameters.items())
    facts = [
        ("task", model.task),
        ("release", ", ".join([model.release, *(f"list {revision}" for revision in model.revisions)])),
        ("languages", ", ".join(model.languages)),
        ("description", model.description),
        ("listed size", model.size),
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
