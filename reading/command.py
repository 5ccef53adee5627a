"""The command that reads images."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from paddle2torch.converter.cli.common import as_json, fetching, listing, note, print_json
from paddle2torch.converter.conversion.choice import Access
from paddle2torch.converter.support.errors import ConverterError, SourceError
from paddle2torch.reading.defaults import AUTO, open_stages

if TYPE_CHECKING:
    from PIL import Image

    from paddle2torch.reading import Line, Network, Reader
    from paddle2torch.reading.network import Model

NONE = "none"
FORMATS = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".webp": "WEBP"}  # of a drawing


@click.command()
@click.argument("images", nargs=-1, required=True, metavar="IMAGE...", type=click.Path(path_type=Path))
@click.option("--det", metavar="MODEL", default=AUTO, help="Detector; none: an IMAGE is a line.")
@click.option(
    "--cls",
    metavar="MODEL",
    default=AUTO,
    help="Angle classifier, or none.  [default: one where there is a detector]",
)
@click.option("--no-cls", is_flag=True, help="Take every line to be upright.")
@click.option("--doc", metavar="MODEL", help="Classifier of pages, by which each is turned upright first.")
@click.option("--rec", metavar="MODEL", default=AUTO, help="Recogniser.  [default: PP-OCRv6 small, if it can be had]")
@click.option("--dict", "dictionary", type=click.Path(path_type=Path, dir_okay=False), help="Its characters.")
@click.option(
    "--engine", type=click.Choice(("torch", "paddle")), default="torch", show_default=True, help="What computes."
)
@fetching
@as_json
@click.option(
    "--draw",
    "drawing",
    type=click.Path(path_type=Path),
    metavar="OUT",
    help="Image of boxes and texts; of several IMAGEs, a folder for them.",
)
@click.option("--font", type=click.Path(path_type=Path, dir_okay=False), help="Font for the drawing.")
def read(
    images: tuple[Path, ...],
    det: str,
    cls: str,
    no_cls: bool,
    doc: str | None,
    rec: str,
    dictionary: Path | None,
    engine: str,
    access: Access,
    as_json: bool,
    drawing: Path | None,
    font: Path | None,
) -> None:
    """Read the text in images: score, box and text of every line, from top to bottom.

    A MODEL is a zoo name, a Paddle model (tarball, folder, checkpoint) or a converted file; choose the recogniser by
    the script (`paddle2torch list --task rec`). With --engine paddle Paddle's own programs compute what is otherwise
    computed by PyTorch; all other steps are the same.

    \b
    Examples:
      paddle2torch read sign.jpg --rec french_mobile_v2.0_rec --draw sign.png
      paddle2torch read line.png --det none --rec output/best_accuracy.pdparams --dict my_dict.txt
    """
    if no_cls and cls not in (AUTO, NONE):
        raise click.UsageError(f"--no-cls and --cls {cls} contradict each other; leave one of them out")
    targets = drawings(images, drawing) if drawing else {}
    results: list[dict[str, Any]] = []
    failed = 0
    with ExitStack() as stack:
        reader = open_reader(
            None if det == NONE else det,
            None if no_cls or cls == NONE else cls,
            None if doc == NONE else doc,
            rec,
            dictionary,
            engine,
            access,
            stack,
        )
        for path in images:
            try:
                lines = read_one(reader, path, targets.get(path), font)
            except ConverterError as error:
                if len(images) == 1:
                    raise
                told = str(error)
                note(told if str(path) in told else f"{path}: {told}")
                failed += 1
                continue
            results.append({"image": str(path), "lines": [line.as_dict() for line in lines]})
            if not as_json:
                show(path, lines, alone=len(images) == 1)
    if as_json:
        print_json(results)
    if failed:
        raise SourceError(f"{failed} of {len(images)} images could not be read")


def open_reader(
    det: str | None,
    cls: str | None,
    doc: str | None,
    rec: str,
    dictionary: Path | None,
    engine: str,
    access: Access,
    stack: ExitStack,
) -> Reader:
    """The reader, and in `stack` what has to be closed after it."""
    fetcher = access.fetcher()
    if engine == "paddle":
        from paddle2torch.reading.paddle import PaddleSession

        return stack.enter_context(PaddleSession(fetcher)).reader(det, cls, rec, doc=doc, dictionary=dictionary)
    from paddle2torch.reading import Reader
    from paddle2torch.reading.network import open_network

    # Opened here: errors are to name the options of this command, where those of `Reader` name its arguments.
    def opened(model: Model, task: str) -> Network:
        return open_network(model, task, dictionary=dictionary if task == "rec" else None, fetcher=fetcher)

    return Reader(**open_stages(det, cls, doc, rec, opened)._asdict())


def drawings(images: tuple[Path, ...], out: Path) -> dict[Path, Path]:
    """Where each image's drawing goes: `out` itself for one image, a file of its name in that folder for several.

    Raises:
        click.UsageError: the suffix is none of FORMATS.
        SourceError: see `paddle2torch.converter.support.names.result_names`.
    """
    if len(images) == 1 and not out.is_dir():
        if out.suffix.lower() not in FORMATS:
            raise click.UsageError(f"--draw {out}: end its name in one of {', '.join(FORMATS)}")
        return {images[0]: out}
    from paddle2torch.converter.support.names import result_names

    suffixes = {path.suffix.casefold() for path in images} - {""}
    names = result_names([str(path) for path in images], suffixes=tuple(suffixes))
    return {path: out / f"{names[str(path)]}.png" for path in images if str(path) in names}


def read_one(reader: Reader, path: Path, target: Path | None, font: Path | None) -> list[Line]:
    """The lines of an image; with a target they are drawn too."""
    from paddle2torch.converter.ocr.images import load_image
    from paddle2torch.reading.drawing import draw

    pixels = load_image(path)
    lines = reader.read(pixels)
    if target is not None:
        save(draw(pixels, lines, font), target)
        note(f"drawn: {target}")
    return lines


def save(drawing: Image.Image, target: Path) -> None:
    from paddle2torch.converter.support.files import atomic_write

    with atomic_write(target) as file:
        drawing.save(file, format=FORMATS[target.suffix.lower()])


def show(path: Path, lines: list[Line], alone: bool) -> None:
    """The lines for a person."""
    if not alone:
        listing([f"{path}:"])
    for line in lines:
        corners = " ".join(f"{x},{y}" for x, y in line.box)
        listing([f"{line.score:.3f}  {corners}  {line.text}"])
    if not lines:
        note(f"{path}: no text found")
