"""What the commands share: options, the things they stand for, and output."""

from __future__ import annotations

import functools
import json
import sys
from collections.abc import Callable, Iterable
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from paddle2torch.converter.conversion.choice import Access, Choice
from paddle2torch.converter.support.terminal import bare, clean, clean_json, message

if TYPE_CHECKING:
    from paddle2torch.converter.zoo.catalog import Zoo

KINDS = ("inference", "trained", "pretrained")
TASKS = ("det", "rec", "cls")

Command = Callable[..., Any]
Decorator = Callable[[Command], Command]


def gathering(name: str, kind: type, *options: Decorator) -> Decorator:
    """Several options as one decorator, and their values as one argument of the command.

    Args:
        name: of the command's argument.
        kind: dataclass whose fields are the options.
        options: in the order of the help text.
    """

    def decorate(command: Command) -> Command:
        @functools.wraps(command)
        def gathered(**values: Any) -> Any:
            given = {field.name: values.pop(field.name) for field in fields(kind) if field.name in values}
            return command(**values, **{name: kind(**given)})

        decorated: Command = gathered
        for option in reversed(options):
            decorated = option(decorated)
        return decorated

    return decorate


fetching = gathering(
    "access",
    Access,
    click.option(
        "--mirror",
        metavar="DIR_OR_URL",
        envvar="PADDLE2TORCH_MIRROR",
        help="Folder or base URL in place of scheme and host of every URL; or PADDLE2TORCH_MIRROR.",
    ),
    click.option("--cache", type=click.Path(path_type=Path, file_okay=False), help="Folder for downloaded files."),
    click.option("--offline", is_flag=True, help="Use what the cache has; reach no server."),
)
_choices = (
    click.option("--kind", type=click.Choice(KINDS), help="Which tarball of a zoo model.  [default: inference]"),
    click.option("--member", metavar="NAME", help="Which checkpoint of an archive that holds several."),
    click.option("--branch", metavar="NAME", help="Which network of a distilled checkpoint, e.g. Student or Teacher."),
    click.option("--architecture", metavar="NAME", help="What the model is, where that cannot be recognised."),
)
_descriptions = (
    click.option(
        "--dict", "dictionary", type=click.Path(path_type=Path, dir_okay=False), help="The recogniser's characters."
    ),
    click.option(
        "--config",
        type=click.Path(path_type=Path, dir_okay=False),
        help="The PaddleOCR .yml that the model was trained with.",
    ),
)
_as_graph = click.option(
    "--as-graph", is_flag=True, help="Convert an inference model by its graph alone, whatever network it is."
)
choosing = gathering("choice", Choice, *_choices)
choosing_with_labels = gathering("choice", Choice, *_choices, *_descriptions, _as_graph)
referring = click.option(
    "--reference",
    metavar="SOURCE",
    help="Inference model (folder, tarball or zoo name) whose program runs the weights; `graph`, or `graph:SOURCE`, "
    "compares with the program's graph in place of Paddle.",
)
everything = click.option("--all", "everything", is_flag=True, help="Every model of the zoo.")
as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


def output_to(folder: str) -> Decorator:
    """The option for where results go, `folder` by default."""
    return click.option(
        "--output",
        type=click.Path(path_type=Path, file_okay=False),
        default=Path(folder),
        show_default=True,
        help="Folder for the results.",
    )


def open_zoo() -> Zoo:
    from paddle2torch.converter.zoo.catalog import load_zoo

    return load_zoo()


def print_json(value: Any) -> None:
    """A result for programs, whole however long it is."""
    click.echo(clean_json(json.dumps(value, ensure_ascii=False, indent=1)), file=bare(sys.stdout))


def write_json(value: Any, path: Path) -> None:
    from paddle2torch.converter.support.files import atomic_write

    with atomic_write(path) as file:
        file.write((clean_json(json.dumps(value, ensure_ascii=False, indent=1)) + "\n").encode())


def listing(lines: Iterable[str]) -> None:
    """Results for a person, each on one line, as many as anybody reads."""
    if text := "\n".join(map(clean, lines)):
        click.echo(text)


def note(text: str) -> None:
    """Something for the person, on stderr."""
    click.echo(message(text), err=True)
