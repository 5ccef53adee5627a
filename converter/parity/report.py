"""A verdict for people and for programs: the console table, `parity.json` and the self-contained `parity.html`."""

from __future__ import annotations

import base64
import io
import json
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from html import escape
from importlib import resources
from pathlib import Path
from string import Template
from typing import Any

import numpy as np
from PIL import Image

from converter.files import atomic_write
from converter.parity.compare import Answer, Difference
from converter.parity.result import CaseResult, LayerResult, ParityResult

SCHEMA_VERSION = 1
SHOWN_LAYERS = 8
SHOWN_PICTURE_WIDTH = 960  # pixels; wider pictures are made smaller for the report
MAP_COLOUR = (226, 60, 40)
MAP_OPACITY = 0.65


# ---- console -----------------------------------------------------------------------------------------------------


def format_table(result: ParityResult) -> str:
    """The verdict as text for a terminal: the worst layers first, and what does not hold."""
    lines = [
        f"{result.name}: {verdict(result)}",
        *(f"  {line}" for line in result.failures),
        f"  {result.source.name} in PaddlePaddle {result.versions['paddlepaddle']}"
        + (f" (program of {result.reference.name})" if result.reference != result.source else "")
        + f" against {result.weights.name} in torch {result.versions['torch']}",
        f"  {len(result.worst)} layers of {result.architecture} on {len(result.cases)} batches;"
        f" tolerance {result.tolerance:g} in double precision",
        "",
        *_indented(_layer_rows(result)),
        "",
        *_indented(_answer_rows(result)),
    ]
    return "\n".join(lines)


def verdict(result: ParityResult) -> str:
    """One phrase: passed or failed, and the figure that says by how much."""
    return f"{'passed' if result.passed else 'FAILED'}, worst layer {_figure(result.worst[0].difference)}"


def _layer_rows(result: ParityResult) -> list[tuple[str, ...]]:
    worst = result.worst
    shown = worst[:SHOWN_LAYERS]
    pre_activation = next(row for row in worst if row.layer.pre_activation)
    rows: list[tuple[str, ...]] = [("WORST LAYERS", "OPERATOR", "LARGEST", "MEAN", "SINGLE", "PADDLE'S ROUNDING")]
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
    rows = [("BATCH", "PICTURE", "", "PADDLE", "PYTORCH")]
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


def _indented(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  " + "  ".join(map(str.ljust, row, widths)).rstrip() for row in rows]


def _number(value: float) -> str:
    return f"{value:.1e}" if math.isfinite(value) else "–"


def _figure(difference: Difference) -> str:
    return difference.problem or _number(difference.error)


# ---- parity.json -------------------------------------------------------------------------------------------------


def to_json(result: ParityResult, command: str | None = None) -> dict[str, Any]:
    """Every figure, as plain JSON values; a figure that means nothing is null, with the problem beside it.

    Args:
        result: the verdict.
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
        "command": command,
        "batches": [_case_json(case) for case in result.cases],
    }


def _case_json(case: CaseResult) -> dict[str, Any]:
    return {
        "name": case.case.name,
        "shape": list(case.case.array.shape),
        "response": _finite(case.response),
        "output": _difference_json(case.output),
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
        "paddle_rounding": _finite(row.rounding),
    }


def _difference_json(difference: Difference) -> dict[str, Any]:
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
        result: the verdict.
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
            file.write(text.encode())
    return [folder / name for name in content]


# ---- parity.html -------------------------------------------------------------------------------------------------


def to_html(result: ParityResult, command: str | None = None) -> str:
    """The report as one page."""
    package = resources.files(__package__)
    return Template((package / "report.html").read_text(encoding="utf-8")).substitute(
        style=(package / "report.css").read_text(encoding="utf-8"),
        name=escape(result.name),
        verdict=escape(verdict(result)),
        outcome="passed" if result.passed else "failed",
        architecture=escape(result.architecture),
        layers=len(result.worst),
        tolerance=f"{result.tolerance:g}",
        failures=_list(result.failures),
        chart=_chart(result),
        cases="\n".join(_case_html(result.task, case) for case in result.cases),
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


# The chart's plotting area is 0…100 in both directions and is stretched to the page; all text lies over it as HTML, so
# that it keeps its size.

LOWEST_DECADE = -17


def _chart(result: ParityResult) -> str:
    rows = _in_order(result)
    series: list[tuple[str, Callable[[LayerResult], float]]] = [
        ("rounding", lambda row: row.rounding),
        ("single", lambda row: row.single.max_error),
        ("double", lambda row: row.difference.max_error),
    ]
    finite = [value for _, get in series for row in rows if 0 < (value := get(row)) < math.inf]
    top = max(0, math.ceil(math.log10(max(finite, default=1.0))))

    def x(index: int) -> float:
        return 100 * (index + 0.5) / len(rows)

    def y(value: float) -> float:
        decade = math.log10(value) if value > 0 else LOWEST_DECADE
        return 100 * min(max((top - decade) / (top - LOWEST_DECADE), 0.0), 1.0)

    decades = range(top, LOWEST_DECADE, -3)
    grid = "".join(f'<path class="grid" d="M0 {y(10.0**d):.2f}H100"/>' for d in decades)
    ticks = "".join(f'<span style="top:{y(10.0**d):.2f}%">10<sup>{d}</sup></span>' for d in decades)
    limit = f'<path class="tolerance" d="M0 {y(result.tolerance):.2f}H100"/>'
    points = "".join(_points(name, [(x(i), y(get(row))) for i, row in enumerate(rows)]) for name, get in series)
    targets = "".join(
        f'<rect x="{100 * i / len(rows):.3f}" y="0" width="{100 / len(rows):.3f}" height="100">'
        f"<title>{escape(row.layer.module)}: {_figure(row.difference)}, single precision"
        f" {_number(row.single.max_error)}, Paddle's rounding {_number(row.rounding)}</title></rect>"
        for i, row in enumerate(rows)
    )
    return (
        f'<div class="chart"><div class="ticks">{ticks}</div><div class="plot">'
        f'<svg viewBox="0 0 100 100" preserveAspectRatio="none" role="img" aria-label="Error of every layer">'
        f"{grid}{points}{limit}{targets}</svg></div>"
        f'<div class="parts">{_parts(rows)}</div></div>'
    )


def _points(name: str, places: list[tuple[float, float]]) -> str:
    """Dots: lines of no length, whose round ends stay round however the chart is stretched."""
    return f'<path class="dots {name}" d="{"".join(f"M{x:.2f} {y:.2f}h0" for x, y in places)}"/>'


def _parts(rows: list[LayerResult]) -> str:
    """The parts of the network below the chart, each as wide as it has layers; narrow ones go without a name."""
    counts: dict[str, int] = {}
    for row in rows:
        part = row.layer.module.partition(".")[0]
        counts[part] = counts.get(part, 0) + 1
    return "".join(
        f'<span style="flex:{count}" title="{escape(part)}">{escape(part) if count >= len(rows) / 30 else ""}</span>'
        for part, count in counts.items()
    )


def _case_html(task: str, case: CaseResult) -> str:
    show = _map_html if task == "det" else _line_html
    figures = "\n".join(show(case, index, answer) for index, answer in enumerate(case.answers))
    return (
        f"<section><h3>{escape(case.case.name)}</h3><p>{case.response:.0%} of Paddle's values before the last"
        f" activation come from what is in the picture; final output: {_figure(case.output)}.</p>{figures}</section>"
    )


def _line_html(case: CaseResult, index: int, answer: Answer) -> str:
    picture = _picture(case.case.pictures[index])
    return (
        f'<figure class="line"><img src="{picture}" alt="picture {index + 1} of the batch">'
        f"<figcaption>{_answer_html(answer)}</figcaption></figure>"
    )


def _map_html(case: CaseResult, index: int, answer: Answer) -> str:
    assert case.maps is not None
    picture = case.case.pictures[index]
    shown = {"Input": picture} | {
        owner: _with_map(picture, maps[index, 0]) for owner, maps in zip(("Paddle", "PyTorch"), case.maps, strict=True)
    }
    images = "".join(
        f'<div>{owner}<img src="{_picture(image)}" alt="picture {index + 1}: {owner}"></div>'
        for owner, image in shown.items()
    )
    return f'<figure class="maps">{images}<figcaption>{_answer_html(answer)}</figcaption></figure>'


def _answer_html(answer: Answer) -> str:
    agreement = "same" if answer.agrees else "different"
    detail = "" if answer.overlap is None else f", overlap {answer.overlap:.4f}"
    detail += ", Paddle's own rounding decides it" if answer.undecided else ""
    return (
        f"<div><b>Paddle</b><q>{escape(answer.reference)}</q></div>"
        f"<div><b>PyTorch</b><q>{escape(answer.candidate)}</q></div>"
        f'<span class="{agreement}">{agreement}{detail}</span>'
    )


def _with_map(picture: np.ndarray, values: np.ndarray) -> np.ndarray:
    """The picture, at the map's size, coloured where the map says text.

    Args:
        picture: uint8 (H, W, 3).
        values: float (h, w), 0 to 1.

    Returns:
        uint8 (h, w, 3).
    """
    resized = np.asarray(Image.fromarray(picture).resize(values.shape[::-1]), np.float32)
    weight = np.nan_to_num(values)[:, :, None] * MAP_OPACITY
    return (resized * (1 - weight) + np.asarray(MAP_COLOUR, np.float32) * weight).astype(np.uint8)


def _picture(picture: np.ndarray) -> str:
    """A data URI of the picture."""
    image = Image.fromarray(np.ascontiguousarray(picture))
    if image.width > SHOWN_PICTURE_WIDTH:
        image = image.resize((SHOWN_PICTURE_WIDTH, max(1, image.height * SHOWN_PICTURE_WIDTH // image.width)))
    stream = io.BytesIO()
    image.save(stream, "JPEG", quality=85)
    return "data:image/jpeg;base64," + base64.b64encode(stream.getvalue()).decode("ascii")
