"""The result for people and for programs: the console table, `parity.json` and the self-contained `parity.html`."""

from __future__ import annotations

import base64
import io
import json
import math
import re
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import asdict
from html import escape
from importlib import resources
from pathlib import Path
from string import Template
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from paddle2torch.converter.parity.compare import Deviation
from paddle2torch.converter.parity.result import CaseResult, Folding, LayerResult, ParityResult, Third
from paddle2torch.converter.support.files import atomic_write
from paddle2torch.converter.support.table import table_lines
from paddle2torch.converter.tasks import Answer

SCHEMA_VERSION = 1
SHOWN_LAYERS = 8
SHOWN_WIDTH = 960  # pixels; wider images are made smaller for the report
MAP_COLOUR = (226, 60, 40)
MAP_OPACITY = 0.65


# ---- console -----------------------------------------------------------------------------------------------------


def format_table(result: ParityResult) -> str:
    """The result as text for a terminal: the worst layers first, and what does not hold."""
    lines = [
        f"{result.name}: {status(result)}",
        *(f"  {line}" for line in result.failures),
        f"  {result.source.name} in {_engine(result)}"
        + (f" (program of {result.reference.name})" if result.reference != result.source else "")
        + f" against {result.weights.name} in torch {result.versions['torch']}",
        f"  {len(result.worst)} layers of {result.architecture} on {len(result.cases)} batches;"
        f" tolerance {result.tolerance:g} in double precision",
        *_third_line(result),
        *_folding_line(result),
        "",
        *table_lines(_layer_rows(result), indent=2),
        "",
        *table_lines(_answer_rows(result), indent=2),
    ]
    return "\n".join(lines)


def _engine(result: ParityResult) -> str:
    """What PyTorch was compared with, with its version."""
    version = result.versions.get("paddlepaddle")
    return f"PaddlePaddle {version}" if result.engine == "Paddle" else f"{result.engine} of the program, run by PyTorch"


def _third_line(result: ParityResult) -> list[str]:
    if result.worst_third is None:
        return []
    return [
        "  the released graph, run by PyTorch, is a third implementation: worst error to either "
        f"{_number(result.worst_third)}"
    ]


def _folding_line(result: ParityResult) -> list[str]:
    return [] if result.folding is None else [f"  {_folding(result.folding)}"]


def _folding(folding: Folding) -> str:
    return (
        f"{folding.layers} layers of training were folded as the program has them; in double precision that changes "
        f"{_number(folding.error)} at most"
    )


def status(result: ParityResult) -> str:
    """One phrase: passed or failed, and the figure that says by how much."""
    return f"{'passed' if result.passed else 'FAILED'}, worst layer {_figure(result.worst[0].difference)}"


def _layer_rows(result: ParityResult) -> list[tuple[str, ...]]:
    worst = result.worst
    shown = worst[:SHOWN_LAYERS]
    pre_activation = next(row for row in worst if row.layer.pre_activation)
    rows: list[tuple[str, ...]] = [
        ("WORST LAYERS", "OPERATOR", "LARGEST", "MEAN", "SINGLE", f"{result.engine.upper()}'S ROUNDING")
    ]
    rows += [_layer_row(row, row.layer.module) for row in shown]
    rows.append(_layer_row(pre_activation, f"before the last activation: {pre_activation.layer.module}"))
    output = max((case.output for case in result.cases), key=lambda difference: difference.error)
    rows.append(("final output", "", _number(output.max_error), _number(output.mean_error), "", ""))
    return rows


def _layer_row(row: LayerResult, name: str) -> tuple[str, ...]:
    difference = row.difference
    figures = (difference.max_error, difference.mean_error, row.single.max_error, row.rounding)
    return name, row.layer.operator, *map(_number, figures)


def _answer_rows(result: ParityResult) -> list[tuple[str, ...]]:
    rows = [("BATCH", "IMAGE", "", result.engine.upper(), "PYTORCH")]
    for case in result.cases:
        for index, answer in enumerate(case.answers, 1):
            rows.append((case.case.name, str(index), _agreement(answer), answer.reference, answer.candidate))
    return [tuple(_shortened(cell) for cell in row) for row in rows]


def _agreement(answer: Answer) -> str:
    if answer.overlap is not None:
        return f"{'=' if answer.agrees else '≠'} overlap {answer.overlap:.4f}"
    if answer.undecided and answer.agrees:
        return "= (rounding decides)"
    return "=" if answer.agrees else "≠"


def _shortened(text: str, limit: int = 40) -> str:
    return text if len(text) <= limit else text[: limit - 1] + "…"


def _number(value: float) -> str:
    return f"{value:.1e}" if math.isfinite(value) else "–"


def _figure(difference: Deviation) -> str:
    return difference.problem or _number(difference.error)


# ---- parity.json -------------------------------------------------------------------------------------------------


def to_json(result: ParityResult, command: str | None = None) -> dict[str, Any]:
    """Every figure, as plain JSON values; a figure that means nothing is null, with the problem beside it.

    Args:
        result: what was found.
        command: the command line that asked for it.
    """
    divergence = result.divergence
    return {
        "schema_version": SCHEMA_VERSION,
        "name": result.name,
        "task": result.task,
        "architecture": result.architecture,
        "parameters": result.parameters,
        "passed": result.passed,
        "failures": result.failures,
        "tolerance": result.tolerance,
        "compared_with": result.engine,
        "worst_error_of_the_graph": None if result.worst_third is None else _finite(result.worst_third),
        "worst_error": _finite(result.worst[0].difference.error),
        "worst_layer": result.worst[0].layer.module,
        "worst_single_precision_error": _finite(max(row.single.max_error for row in result.worst)),
        "first_divergence": None
        if divergence is None
        else {
            "batch": divergence.case.name,
            "layer": _layer_json(divergence.result),
            "error_before": None if divergence.before is None else _finite(divergence.before.difference.error),
            "error_after": None if divergence.after is None else _finite(divergence.after.difference.error),
        },
        "source": asdict(result.source),
        "reference": asdict(result.reference),
        "weights": asdict(result.weights),
        "versions": result.versions,
        "folding": None if result.folding is None else asdict(result.folding),
        "command": command,
        "batches": [_case_json(case) for case in result.cases],
    }


def _case_json(case: CaseResult) -> dict[str, Any]:
    return {
        "name": case.case.name,
        "shape": list(case.case.array.shape),
        "response": _finite(case.response),
        "output": _difference_json(case.output),
        "graph_output": _third_json(case.third),
        "output_steepness": _finite(case.steepness),
        "answers": [asdict(answer) for answer in case.answers],
        "layers": [_layer_json(row) for row in case.layers],
    }


def _layer_json(row: LayerResult) -> dict[str, Any]:
    return {
        "module": row.layer.module,
        "operator": row.layer.operator,
        "value": row.layer.value,
        "parameters": list(row.layer.parameters),
        "before_last_activation": row.layer.pre_activation,
        "shape": list(row.shape),
        **_difference_json(row.difference),
        "single_precision": _difference_json(row.single),
        "reference_rounding": _finite(row.rounding),
        "graph": _third_json(row.third),
    }


def _third_json(third: Third | None) -> dict[str, Any] | None:
    """The graph beside Paddle."""
    if third is None:
        return None
    return {"pytorch": _difference_json(third.module), "paddle": _difference_json(third.paddle)}


def _difference_json(difference: Deviation) -> dict[str, Any]:
    return {
        "max_error": _finite(difference.max_error),
        "mean_error": _finite(difference.mean_error),
        "problem": difference.problem,
    }


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def write_report(result: ParityResult, folder: Path, command: str | None = None) -> list[Path]:
    """Write `parity.json` and `parity.html`; the page needs nothing else, no network and no script.

    Args:
        result: what was found.
        folder: made if need be.
        command: the command line that asked for it.

    Returns:
        The two paths.

    Raises:
        OutputError: a file could not be written.
    """
    content = {
        "parity.json": json.dumps(to_json(result, command), ensure_ascii=False, indent=1, allow_nan=False) + "\n",
        "parity.html": to_html(result, command),
    }
    for name, text in content.items():
        with atomic_write(folder / name) as file:
            file.write(text.encode("utf-8", "backslashreplace"))
    return [folder / name for name in content]


# ---- parity.html -------------------------------------------------------------------------------------------------


def to_html(result: ParityResult, command: str | None = None) -> str:
    """The report as one page."""
    package = resources.files(__package__)
    return Template((package / "report.html").read_text(encoding="utf-8")).substitute(
        style=(package / "report.css").read_text(encoding="utf-8"),
        name=escape(result.name),
        status=escape(status(result)),
        outcome="passed" if result.passed else "failed",
        architecture=escape(result.architecture),
        layers=len(result.worst),
        tolerance=f"{result.tolerance:g}",
        failures=_list(result.failures),
        chart=_chart(result),
        engine=escape(result.engine),
        cases="\n".join(_case_html(result, case) for case in result.cases),
        rows="\n".join(_table_row(row, result.tolerance) for row in _in_order(result)),
        facts=_facts(result, command),
    )


def _list(lines: Iterable[str]) -> str:
    items = "".join(f"<li>{escape(line)}</li>" for line in lines)
    return f'<ul class="failures">{items}</ul>' if items else ""


def _in_order(result: ParityResult) -> list[LayerResult]:
    """Every layer at its worst over the batches, in execution order."""
    worst = {row.layer.module: row for row in result.worst}
    return [worst[row.layer.module] for row in result.cases[0].layers]


def _facts(result: ParityResult, command: str | None) -> str:
    files = [
        ("Paddle weights", result.source),
        ("Paddle program", result.reference),
        ("PyTorch weights", result.weights),
    ]
    facts = [(what, f"{file.name}" + (f" · sha256 {file.sha256}" if file.sha256 else "")) for what, file in files]
    facts += [("Parameters", ", ".join(f"{key} = {value}" for key, value in result.parameters.items()))]
    facts += [("Versions", ", ".join(f"{name} {version}" for name, version in result.versions.items()))]
    if result.worst_third is not None:
        facts += [("Released graph, run by PyTorch", f"worst error to Paddle or PyTorch {_number(result.worst_third)}")]
    facts += [("Folding", _folding(result.folding))] if result.folding else []
    facts += [("Command", command)] if command else []
    return "".join(f"<dt>{escape(what)}</dt><dd>{escape(text)}</dd>" for what, text in facts)


def _table_row(row: LayerResult, tolerance: float) -> str:
    figures = (row.difference.max_error, row.difference.mean_error, row.single.max_error, row.rounding)
    cells = "".join(f"<td>{_number(value)}</td>" for value in figures)
    shape = " × ".join(map(str, row.shape))
    bad = "" if row.difference.error <= tolerance else ' class="bad"'
    mark = " <small>before the last activation</small>" if row.layer.pre_activation else ""
    problem = f" <small>{escape(row.difference.problem)}</small>" if row.difference.problem else ""
    name = f"<th>{escape(row.layer.module)}{mark}{problem}</th>"
    return f"<tr{bad}>{name}<td>{escape(row.layer.operator)}</td><td>{shape}</td>{cells}</tr>"


# The page's chart is 0…100 in both directions and is stretched to the page; all text lies over it as HTML, so that it
# keeps its size. The image has the same points at a fixed size.

LOWEST_DECADE = -17
SERIES: tuple[tuple[str, Callable[[LayerResult], float]], ...] = (
    ("rounding", lambda row: row.rounding),
    ("single", lambda row: row.single.max_error),
    ("double", lambda row: row.difference.max_error),
)


class _Plot:
    """Where errors stand: layers from left to right in execution order, decades from top to bottom.

    Args:
        result: what was found.
        width, height: of the plotting area, in any unit.
    """

    def __init__(self, result: ParityResult, width: float, height: float) -> None:
        self.rows = _in_order(result)
        self.width, self.height = width, height
        finite = [value for _, get in SERIES for row in self.rows if 0 < (value := get(row)) < math.inf]
        self._top = max(0, math.ceil(math.log10(max(finite, default=1.0))))
        self.limit = self.y(result.tolerance)
        self.ticks = {decade: self.y(10.0**decade) for decade in range(self._top, LOWEST_DECADE, -3)}
        self.points = {
            name: [(self.width * (i + 0.5) / len(self.rows), self.y(get(row))) for i, row in enumerate(self.rows)]
            for name, get in SERIES
        }

    def y(self, value: float) -> float:
        decade = math.log10(value) if value > 0 else LOWEST_DECADE
        return self.height * min(max((self._top - decade) / (self._top - LOWEST_DECADE), 0.0), 1.0)

    def parts(self) -> dict[str, int]:
        """The network's parts, "backbone" first, and how many layers each has."""
        return Counter(row.layer.module.partition(".")[0] for row in self.rows)


def _chart(result: ParityResult) -> str:
    plot = _Plot(result, 100, 100)
    rows = plot.rows
    grid = "".join(f'<path class="grid" d="M0 {y:.2f}H100"/>' for y in plot.ticks.values())
    ticks = "".join(f'<span style="top:{y:.2f}%">10<sup>{d}</sup></span>' for d, y in plot.ticks.items())
    limit = f'<path class="tolerance" d="M0 {plot.limit:.2f}H100"/>'
    points = "".join(_points(name, places) for name, places in plot.points.items())
    targets = "".join(
        f'<rect x="{100 * i / len(rows):.3f}" y="0" width="{100 / len(rows):.3f}" height="100">'
        f"<title>{escape(row.layer.module)}: {_figure(row.difference)}, single precision"
        f" {_number(row.single.max_error)}, rounding of {result.engine} {_number(row.rounding)}</title></rect>"
        for i, row in enumerate(rows)
    )
    return (
        f'<div class="chart"><div class="ticks">{ticks}</div><div class="plot">'
        f'<svg viewBox="0 0 100 100" preserveAspectRatio="none" role="img" aria-label="Error of every layer">'
        f"{grid}{points}{limit}{targets}</svg></div>"
        f'<div class="parts">{_parts(plot)}</div></div>'
    )


def _points(name: str, places: list[tuple[float, float]]) -> str:
    """Dots: lines of no length, whose round ends stay round however the chart is stretched."""
    return f'<path class="dots {name}" d="{"".join(f"M{x:.2f} {y:.2f}h0" for x, y in places)}"/>'


def _parts(plot: _Plot) -> str:
    """The parts of the network below the chart, each as wide as it has layers; narrow ones go without a name."""
    return "".join(
        f'<span style="flex:{count}" title="{escape(part)}">'
        f"{escape(part) if count >= len(plot.rows) / 30 else ''}</span>"
        for part, count in plot.parts().items()
    )


def _case_html(result: ParityResult, case: CaseResult) -> str:
    show = _line_html if case.maps is None else _map_html
    figures = "\n".join(show(case, index, answer, result.engine) for index, answer in enumerate(case.answers))
    return (
        f"<section><h3>{escape(case.case.name)}</h3><p>{case.response:.0%} of the reference's values before the last"
        f" activation come from what is in the image; final output: {_figure(case.output)}.</p>{figures}</section>"
    )


def _line_html(case: CaseResult, index: int, answer: Answer, engine: str) -> str:
    pixels = _data_uri(case.case.images[index])
    return (
        f'<figure class="line"><img src="{pixels}" alt="image {index + 1} of the batch">'
        f"<figcaption>{_answer_html(answer, engine)}</figcaption></figure>"
    )


def _map_html(case: CaseResult, index: int, answer: Answer, engine: str) -> str:
    assert case.maps is not None
    pixels = case.case.images[index]
    shown = {"Input": pixels} | {
        owner: _with_map(pixels, maps[index, 0]) for owner, maps in zip((engine, "PyTorch"), case.maps, strict=True)
    }
    images = "".join(
        f'<div>{owner}<img src="{_data_uri(image)}" alt="image {index + 1}: {owner}"></div>'
        for owner, image in shown.items()
    )
    return f'<figure class="maps">{images}<figcaption>{_answer_html(answer, engine)}</figcaption></figure>'


def _answer_html(answer: Answer, engine: str) -> str:
    agreement = "same" if answer.agrees else "different"
    detail = "" if answer.overlap is None else f", overlap {answer.overlap:.4f}"
    detail += f", the rounding of {engine} decides it" if answer.undecided else ""
    return (
        f"<div><b>{escape(engine)}</b><q>{escape(answer.reference)}</q></div>"
        f"<div><b>PyTorch</b><q>{escape(answer.candidate)}</q></div>"
        f'<span class="{agreement}">{agreement}{detail}</span>'
    )


def _with_map(pixels: np.ndarray, values: np.ndarray) -> np.ndarray:
    """The image, at the map's size, coloured where the map says text.

    Args:
        pixels: uint8 (H, W, 3).
        values: float (h, w), 0 to 1.

    Returns:
        uint8 (h, w, 3).
    """
    resized = np.asarray(Image.fromarray(pixels).resize(values.shape[::-1]), np.float32)
    weight = np.nan_to_num(values)[:, :, None] * MAP_OPACITY
    return (resized * (1 - weight) + np.asarray(MAP_COLOUR, np.float32) * weight).astype(np.uint8)


def _data_uri(pixels: np.ndarray) -> str:
    """A data URI of the image."""
    image = Image.fromarray(np.ascontiguousarray(pixels))
    if image.width > SHOWN_WIDTH:
        image = image.resize((SHOWN_WIDTH, max(1, image.height * SHOWN_WIDTH // image.width)))
    stream = io.BytesIO()
    image.save(stream, "JPEG", quality=85)
    return "data:image/jpeg;base64," + base64.b64encode(stream.getvalue()).decode("ascii")


# ---- the image -------------------------------------------------------------------------------------------------

IMAGE_SIZE = (1280, 560)  # pixels
PLOT_BOX = (84, 96, 1256, 500)  # left, top, right, bottom
SMOOTHING = 3  # drawn so many times larger and then made smaller, for smooth edges
LEGEND = {
    "double": "PyTorch against Paddle, double precision: what decides",
    "single": "the same in single precision",
    "rounding": "Paddle's own rounding",
}


def to_png(result: ParityResult) -> bytes:
    """The chart of every layer's error as an image, for places that show no HTML."""
    colours = _palette()
    left, top, right, bottom = PLOT_BOX
    plot = _Plot(result, right - left, bottom - top)
    canvas = _Canvas(IMAGE_SIZE, colours["panel"])
    for decade, y in plot.ticks.items():
        canvas.line(left, top + y, right, top + y, colours["line"])
        canvas.text(left - 12, top + y, f"1e{decade}", colours["muted"], anchor="rm")
    for name, places in plot.points.items():
        for x, y in places:
            canvas.dot(left + x, top + y, colours[name])
    for x in range(left, right, 14):
        canvas.line(x, top + plot.limit, min(x + 8, right), top + plot.limit, colours["bad"], width=2)
    label = f"tolerance for double precision: {result.tolerance:g}"
    canvas.text(right, top + plot.limit - 6, label, colours["bad"], anchor="rb")

    start = float(left)
    for part, count in plot.parts().items():
        end = start + plot.width * count / len(plot.rows)
        canvas.line(start, bottom + 14, end - 2, bottom + 14, colours["muted"], width=2)
        canvas.text(start, bottom + 22, part, colours["muted"], anchor="la", room=end - start)
        start = end

    canvas.text(20, 16, f"{result.name}: error of every layer, {status(result)}", colours["text"], anchor="la", size=22)
    x = left
    for name, words in LEGEND.items():
        canvas.dot(x, 66, colours[name])
        x = canvas.text(x + 10, 66, words, colours["text"], anchor="lm") + 36
    return canvas.png()


def _palette() -> dict[str, str]:
    """The light colours of the page, by name."""
    style = (resources.files(__package__) / "report.css").read_text(encoding="utf-8").partition("@media")[0]
    return dict(re.findall(r"--(\w+): (#\w+);", style))


class _Canvas:
    """A drawing in pixels of the finished image."""

    def __init__(self, size: tuple[int, int], background: str) -> None:
        self._size = size
        self._image = Image.new("RGB", (SMOOTHING * size[0], SMOOTHING * size[1]), background)
        self._draw = ImageDraw.Draw(self._image)

    def line(self, x0: float, y0: float, x1: float, y1: float, colour: str, width: float = 1) -> None:
        self._draw.line([SMOOTHING * v for v in (x0, y0, x1, y1)], colour, round(SMOOTHING * width))

    def dot(self, x: float, y: float, colour: str, radius: float = 4) -> None:
        self._draw.ellipse([SMOOTHING * v for v in (x - radius, y - radius, x + radius, y + radius)], colour)

    def text(
        self, x: float, y: float, text: str, colour: str, *, anchor: str, size: int = 15, room: float = math.inf
    ) -> float:
        """Write a line, unless it needs more room than that; returns where it ends."""
        font = ImageFont.load_default(SMOOTHING * size)
        width = self._draw.textlength(text, font) / SMOOTHING
        if width <= room:
            self._draw.text((SMOOTHING * x, SMOOTHING * y), text, colour, font, anchor)
        return x + width

    def png(self) -> bytes:
        stream = io.BytesIO()
        self._image.resize(self._size, Image.Resampling.LANCZOS).save(stream, "PNG", optimize=True)
        return stream.getvalue()
