"""The command line: `paddle2torch`, or `python -m converter`.

Results go to stdout, progress and notes to stderr. What a command needs is imported when it runs, so that `--help`
and `list` need neither torch nor paddle.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from converter import __version__
from converter.errors import ConverterError, DownloadError, ParityError

if TYPE_CHECKING:
    from converter.convert import Conversion
    from converter.download import Fetcher
    from converter.parity.prover import Prover
    from converter.zoo import Model, Zoo

INTERRUPTED = 130
KINDS = ("inference", "trained", "pretrained")
TASKS = ("det", "rec", "cls")
KIND_ORDER = {kind: i for i, kind in enumerate(KINDS)}


class Group(click.Group):
    """Turns our errors into one message and an exit code, unless --debug asks for the traceback."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except ConverterError as error:
            if ctx.params.get("debug"):
                raise
            click.echo(f"error: {error}", err=True)
            ctx.exit(error.exit_code)
        except KeyboardInterrupt:
            click.echo("interrupted", err=True)
            ctx.exit(INTERRUPTED)


class NoteFormatter(logging.Formatter):
    """Library notes as a person reads them: `warning: …`, or plain text for information."""

    def format(self, record: logging.LogRecord) -> str:
        text = record.getMessage()
        return f"{record.levelname.lower()}: {text}" if record.levelno >= logging.WARNING else text


@click.group(cls=Group, context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
@click.version_option(__version__, prog_name="paddle2torch")
def main(debug: bool) -> None:
    """Take PaddleOCR weights to PyTorch, with proof.

    \b
    Examples:
      paddle2torch list --task rec
      paddle2torch convert ch_PP-OCRv3_rec
      paddle2torch convert my_model/best_accuracy.pdparams --dict my_dict.txt
    """
    handler = logging.StreamHandler()
    handler.setFormatter(NoteFormatter())
    logger = logging.getLogger("converter")
    logger.handlers[:] = [handler]
    logger.setLevel(logging.INFO)


# ---- options that several commands share -------------------------------------------------------------------------

Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]


def together(*options: Decorator) -> Decorator:
    """Several options as one decorator, in the order given."""

    def decorate(command: Callable[..., Any]) -> Callable[..., Any]:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


fetching = together(
    click.option(
        "--mirror",
        metavar="DIR_OR_URL",
        envvar="PADDLE2TORCH_MIRROR",
        help="Folder or base URL in place of scheme and host of every URL; or PADDLE2TORCH_MIRROR.",
    ),
    click.option("--cache", type=click.Path(path_type=Path, file_okay=False), help="Folder for downloaded files."),
    click.option("--offline", is_flag=True, help="Use what the cache has; reach no server."),
)
choosing = together(
    click.option("--kind", type=click.Choice(KINDS), help="Which tarball of a zoo model.  [default: inference]"),
    click.option("--member", metavar="NAME", help="Which checkpoint of an archive that holds several."),
    click.option("--branch", metavar="NAME", help="Which network of a distilled checkpoint, e.g. Student or Teacher."),
    click.option("--architecture", metavar="NAME", help="What the model is, where that cannot be recognised."),
)
describing = together(
    click.option(
        "--dict", "dictionary", type=click.Path(path_type=Path, dir_okay=False), help="The recogniser's characters."
    ),
    click.option(
        "--config",
        "config_file",
        type=click.Path(path_type=Path, dir_okay=False),
        help="The PaddleOCR .yml that the model was trained with.",
    ),
)
referring = click.option(
    "--reference",
    metavar="SOURCE",
    help="Inference model (folder, tarball or zoo name) whose program runs the weights.",
)
as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


def open_zoo() -> Zoo:
    from converter.zoo import load_zoo

    return load_zoo()


def open_fetcher(mirror: str | None, cache: Path | None, offline: bool) -> Fetcher:
    from converter.download import Fetcher

    return Fetcher(cache_dir=cache, mirror=mirror, offline=offline)


def print_json(value: Any) -> None:
    click.echo(json.dumps(value, ensure_ascii=False, indent=1))


def note(text: str) -> None:
    click.echo(text, err=True)


# ---- the zoo -----------------------------------------------------------------------------------------------------


@main.command("list")
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
        (m.name, m.task, m.release, m.size, ", ".join(sorted(m.artifacts, key=KIND_ORDER.get)), ", ".join(m.languages))
        for m in models
    ]
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    for row in rows:
        click.echo("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
    note(f"{len(models)} models")


@main.command()
@click.argument("name")
@as_json
def info(name: str, as_json: bool) -> None:
    """Show all that the zoo says of one model."""
    model = open_zoo().get(name)
    if as_json:
        print_json(asdict(model))
        return
    for line in describe(model):
        click.echo(line)


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
    for kind in sorted(model.artifacts, key=KIND_ORDER.get):
        artifact = model.artifacts[kind]
        facts += [(kind, artifact.url)] + [("", f"or {url}") for url in artifact.alternatives]
        facts += [("", f"sha256 {artifact.sha256}")] if artifact.sha256 else []
    if model.dictionary:
        facts.append(("dictionary", model.dictionary.url + (" + space" if model.dictionary.space else "")))
        facts += [("", f"or {url}") for url in model.dictionary.alternatives]
    return [model.name, *(f"  {key:<12}  {value}" for key, value in facts)]


@main.command()
@click.argument("names", nargs=-1, required=True, metavar="NAME...")
@click.option("--kind", "kinds", type=click.Choice(KINDS), multiple=True, help="Which tarballs.  [default: inference]")
@click.option("--jobs", type=click.IntRange(1, 32), default=4, show_default=True, help="Downloads at a time.")
@click.option("--accept-changed", is_flag=True, help="Take a file that differs from the one seen before.")
@fetching
def download(
    names: tuple[str, ...],
    kinds: tuple[str, ...],
    jobs: int,
    accept_changed: bool,
    mirror: str | None,
    cache: Path | None,
    offline: bool,
) -> None:
    """Fetch tarballs into the cache, and print where they lie."""
    from converter.download import Fetcher
    from converter.errors import SourceError

    zoo = open_zoo()
    artifacts = []
    for name in names:
        model = zoo.get(name)
        for kind in kinds or ("inference",):
            if kind not in model.artifacts:
                raise SourceError(
                    f"{name}: the zoo lists no {kind} tarball for it; it lists: {', '.join(model.artifacts)}"
                )
            artifacts.append(model.artifacts[kind])
    fetcher = Fetcher(cache_dir=cache, mirror=mirror, offline=offline, accept_changed=accept_changed)
    for fetched in fetcher.fetch_all(artifacts, jobs=jobs):
        click.echo(fetched.path)


@main.group()
def cache() -> None:
    """Look after downloaded files."""


located = click.option("--cache", "folder", type=click.Path(path_type=Path, file_okay=False), help="Another folder.")


@cache.command("list")
@located
@as_json
def cache_list(folder: Path | None, as_json: bool) -> None:
    """List the downloaded files, unfinished ones too."""
    from converter.cache import Cache

    entries = Cache(folder).entries()
    if as_json:
        print_json([{"url": e.url, "path": str(e.path), "size": e.size, "complete": bool(e.record)} for e in entries])
        return
    for entry in entries:
        click.echo(f"{entry.size:>12,}  {entry.url}" + ("" if entry.record else "  (unfinished)"))
    note(f"{len(entries)} files, {sum(entry.size for entry in entries):,} bytes in {Cache(folder).folder}")


@cache.command("clean")
@click.argument("words", nargs=-1, metavar="[WORD]...")
@click.option("--forget", is_flag=True, help="Forget the first seen hashes too.")
@located
def cache_clean(words: tuple[str, ...], forget: bool, folder: Path | None) -> None:
    """Remove downloaded files, all or those whose URL has one of the WORDs.

    The hash that a URL was first seen with stays known, so that a changed file is still noticed.
    """
    from converter.cache import Cache

    removed = Cache(folder).clean(lambda entry: not words or any(word in entry.url for word in words), forget=forget)
    note(f"removed {len(removed)} files, {sum(entry.size for entry in removed):,} bytes")


@main.group("zoo")
def zoo_group() -> None:
    """Look after model_zoo.yaml."""


@zoo_group.command()
@click.argument("names", nargs=-1, metavar="[NAME]...")
@click.option("--jobs", type=click.IntRange(1, 32), default=4, show_default=True, help="Downloads at a time.")
@fetching
def lock(names: tuple[str, ...], jobs: int, mirror: str | None, cache: Path | None, offline: bool) -> None:
    """Fetch tarballs and write their sha256 and size into model_zoo.yaml; comments and order stay."""
    from converter.zoo import zoo_path
    from converter.zoo_lock import lock_zoo, measure

    measured, errors = measure(open_zoo(), open_fetcher(mirror, cache, offline), names or None, jobs)
    for name, kind in lock_zoo(zoo_path(), measured):
        click.echo(f"{name} {kind} {measured[name, kind].sha256}")
    note(f"{len(measured)} tarballs measured")
    for error in errors:
        note(f"error: {error}")
    if errors:
        raise DownloadError(f"{len(errors)} tarballs could not be fetched; the others were measured")


# ---- models ------------------------------------------------------------------------------------------------------


@main.command()
@click.argument("path", metavar="PATH")
@choosing
@fetching
@as_json
def inspect(
    path: str,
    kind: str | None,
    member: str | None,
    branch: str | None,
    architecture: str | None,
    mirror: str | None,
    cache: Path | None,
    offline: bool,
    as_json: bool,
) -> None:
    """Say what a file, folder, tarball or zoo model holds, without converting it."""
    from converter.inspection import inspect_source
    from converter.source import load_source

    source = load_source(path, open_zoo(), open_fetcher(mirror, cache, offline), kind, member)
    report = inspect_source(source, branch=branch, architecture=architecture)
    if as_json:
        print_json(report.as_dict())
    else:
        for line in report.lines():
            click.echo(line)


@main.command()
@click.argument("sources", nargs=-1, required=True, metavar="SOURCE...")
@choosing
@describing
@fetching
@click.option(
    "--output",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("converted"),
    show_default=True,
    help="Folder for the results.",
)
@click.option(
    "--to",
    "target",
    type=click.Choice(("torch", "paddle")),
    default="torch",
    show_default=True,
    help="Which way: paddle turns a converted .pth or .safetensors back into a .pdparams.",
)
@referring
@click.option("--verify", "proving", is_flag=True, help="Compare with Paddle first, and write nothing if it disagrees.")
def convert(
    sources: tuple[str, ...],
    kind: str | None,
    member: str | None,
    branch: str | None,
    architecture: str | None,
    dictionary: Path | None,
    config_file: Path | None,
    mirror: str | None,
    cache: Path | None,
    offline: bool,
    output: Path,
    target: str,
    reference: str | None,
    proving: bool,
) -> None:
    """Convert models to PyTorch, or back.

    A SOURCE is a name of the zoo, a tarball, an unpacked folder or a checkpoint file. For each, NAME.pth,
    NAME.safetensors and NAME.json are written, or nothing when anything is amiss.

    With --to paddle a SOURCE is a converted file, and NAME.pdparams is written; with --reference also the folder NAME
    with the reference's program and these weights, which Paddle's predictor runs.
    """
    if target == "paddle":
        convert_back(sources, output, reference, open_fetcher(mirror, cache, offline))
        return
    from converter import artifacts
    from converter.config import read_config
    from converter.convert import convert as convert_source
    from converter.source import load_source

    zoo, fetcher = open_zoo(), open_fetcher(mirror, cache, offline)
    config = read_config(config_file, branch) if config_file else None
    with ExitStack() as stack:
        prover = stack.enter_context(open_prover(zoo, fetcher, reference)) if proving else None
        for text in sources:
            source = load_source(text, zoo, fetcher, kind, member)
            note(f"converting {source.path.name}")
            conversion = convert_source(
                source,
                architecture=architecture,
                branch=branch,
                dictionary=dictionary,
                config=config,
                fetcher=fetcher,
            )
            report_conversion(conversion)
            result = None
            if prover is not None:
                note("comparing with Paddle, layer by layer")
                result = prover.prove(conversion)
                if not result.passed:
                    raise ParityError(prover.table(result) + "\n  nothing was written")
            for path in artifacts.write(conversion, output):
                click.echo(path)
            if prover is not None:
                for line in prover.summary(result):
                    click.echo(line)


@main.command()
@click.argument("sources", nargs=-1, metavar="SOURCE...")
@click.option("--all", "everything", is_flag=True, help="Every model of the zoo.")
@choosing
@describing
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
    kind: str | None,
    member: str | None,
    branch: str | None,
    architecture: str | None,
    dictionary: Path | None,
    config_file: Path | None,
    reference: str | None,
    weights: Path | None,
    images: tuple[Path, ...],
    tolerance: float | None,
    report: Path | None,
    summary_file: Path | None,
    mirror: str | None,
    cache: Path | None,
    offline: bool,
) -> None:
    """Prove that PyTorch computes what Paddle computes.

    Paddle runs the released program (or --reference) with the SOURCE's weights, PyTorch the converted module, on the
    same pictures; every layer, the output and the answer are compared. Exits with 0 only when all hold for every
    SOURCE; all are tried.
    """
    from converter.config import read_config
    from converter.convert import convert as convert_source
    from converter.source import load_source

    if not sources and not everything:
        raise click.UsageError("name a SOURCE, or give --all")
    if weights is not None and len(sources) != 1:
        raise click.UsageError("--weights goes with one SOURCE")
    zoo, fetcher = open_zoo(), open_fetcher(mirror, cache, offline)
    if everything:
        sources = tuple(name for name, model in zoo.models.items() if (kind or "inference") in model.artifacts)
    config = read_config(config_file, branch) if config_file else None
    verdicts: list[dict[str, Any]] = []
    with open_prover(zoo, fetcher, reference) as prover:
        for text in sources:
            try:
                source = load_source(text, zoo, fetcher, kind, member)
                conversion = convert_source(
                    source,
                    architecture=architecture,
                    branch=branch,
                    dictionary=dictionary,
                    config=config,
                    fetcher=fetcher,
                )
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


def write_json(value: Any, path: Path) -> None:
    from converter.files import atomic_write

    with atomic_write(path) as file:
        file.write((json.dumps(value, ensure_ascii=False, indent=1) + "\n").encode())


def open_prover(zoo: Zoo, fetcher: Fetcher, reference: str | None) -> Prover:
    from converter.parity.prover import Prover

    return Prover(zoo, fetcher, reference)


@main.command()
@click.argument("first", metavar="A")
@click.argument("second", metavar="B")
@choosing
@fetching
@as_json
def compare(
    first: str,
    second: str,
    kind: str | None,
    member: str | None,
    branch: str | None,
    architecture: str | None,
    mirror: str | None,
    cache: Path | None,
    offline: bool,
    as_json: bool,
) -> None:
    """Show where two models' weights differ, tensor by tensor.

    A and B are sources as for convert, converted .pth or .safetensors files, or a zoo name with its kind, such as
    ch_PP-OCRv3_rec:trained. What a conversion makes itself (batch-norm counters, an absent threshold branch) is not
    compared. Exits with 1 when anything differs.
    """
    from converter.comparison import compare as compare_tensors

    fetcher = open_fetcher(mirror, cache, offline)
    options = {"member": member, "branch": branch, "architecture": architecture}
    comparison = compare_tensors(*(comparable(text, fetcher, kind, **options) for text in (first, second)))
    if as_json:
        print_json(asdict(comparison))
    else:
        for difference in comparison.differences:
            click.echo(f"{difference.what:<10} {difference.name}  {difference.detail}")
        click.echo(f"{comparison.same} tensors are bit-identical, {len(comparison.differences)} differ")
    if comparison.differences:
        click.get_current_context().exit(1)


def comparable(
    text: str, fetcher: Fetcher, kind: str | None, member: str | None, branch: str | None, architecture: str | None
) -> dict[str, Any]:
    """Module key → array of what a file really holds."""
    from converter.convert import convert as convert_source
    from converter.source import load_source

    if Path(text).suffix in (".pth", ".safetensors"):
        from converter.to_paddle import state_arrays

        return state_arrays(Path(text))
    name, _, own_kind = text.rpartition(":")
    if own_kind in KINDS and name:
        text, kind = name, own_kind
    source = load_source(text, open_zoo(), fetcher, kind, member)
    conversion = convert_source(source, architecture=architecture, branch=branch)
    return {key: conversion.state[key].numpy() for key in conversion.origins}


def convert_back(sources: tuple[str, ...], output: Path, reference: str | None, fetcher: Fetcher) -> None:
    """The way to Paddle."""
    from converter.source import load_source
    from converter.to_paddle import read_converted, write_checkpoint, write_inference

    program = load_source(reference, open_zoo(), fetcher, weights=False) if reference else None
    for text in sources:
        weights = read_converted(Path(text))
        note(f"{weights.name}: {weights.architecture}, {len(weights.tensors)} tensors")
        click.echo(write_checkpoint(weights, output))
        if program is not None:
            for path in write_inference(weights, program, output):
                click.echo(path)


def report_conversion(conversion: Conversion) -> None:
    """What was done, on stderr."""
    settled = ", ".join(f"{key} = {value}" for key, value in conversion.parameters.items())
    note(f"{conversion.name}: {conversion.architecture.summary} [{conversion.architecture.name}; {settled}]")
    if conversion.evidence:
        note(f"  recognised: {conversion.evidence}")
    note(f"  {len(conversion.origins)} tensors from {conversion.source.path.name}, each used once")
    for text in conversion.notes:
        note(f"  {text}")
    if conversion.labels:
        note(f"  {conversion.labels.note}")
