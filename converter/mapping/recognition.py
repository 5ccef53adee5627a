"""Which architecture is this checkpoint of? From names and shapes in Paddle's spelling, with the evidence."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from paddle2torch.architectures import recognise
from paddle2torch.architectures.recognise import Fit, expected_tensors, may_fit
from paddle2torch.architectures.registry import ARCHITECTURES, Architecture, get
from paddle2torch.converter.mapping.rules import Shape, assign, in_torch_layout, shorten
from paddle2torch.converter.support.errors import MappingError

# What people bring that is none of ours: (pattern that some name matches, what it is and what to do).
FOREIGN = (
    (
        r"_quanter|fake_quant|\.quant_|@scale|_quant\.|weight_quant",
        "it is quantised (a slim model), which is not supported; convert the model it was quantised from",
    ),
    (
        r"\.lab\.|\.dw_conv\.|\.conv_kxk\.|blocks[2-6]\.\d|stem\.stem|hgnet|\.pw_conv\.|\.use_lab",
        "it looks like PP-OCRv4 or newer, which is not in this list",
    ),
    (r"^transform\.", "it rectifies its input (STAR-Net, RARE and the like), an academic algorithm not in this list"),
    (
        r"attention_cell|\.decoder\.|rnn_decoder|\.tps\.|f_border|f_score|score_conv|gnn|kie|layoutlm|\.sdmgr|table",
        "it looks like one of upstream's academic or document-structure algorithms, which are not in this list",
    ),
    (r"_moment\d|_velocity_|beta\d_pow", "it is an optimizer's state (.pdopt), not weights; give the .pdparams"),
)
PART = re.compile(r"(^|\.)(backbone|neck|head)\.")


def fit_source(
    architecture: Architecture, shapes: Mapping[str, Shape], parameters: Mapping[str, Any] | None = None
) -> Fit:
    """How tensors in Paddle's names and layout fit an architecture; parameters that are not given come from shapes."""
    owners = expected_tensors(architecture.name, parameters or {})
    renamed = {}
    for key, sources in assign(shapes, architecture).sources.items():
        renamed[key] = in_torch_layout(shapes[sources[-1]], owners.get(key))
    return recognise.fit(architecture, renamed, parameters)


def rank(shapes: Mapping[str, Shape], parameters: Mapping[str, Any] | None = None) -> list[Fit]:
    """The fit of every architecture that has the given parameters, best first."""
    fits = [fit_source(entry, shapes, parameters) for entry in _having(parameters or {})]
    return sorted(fits, key=lambda fit: -fit.score)


def _having(parameters: Mapping[str, Any]) -> list[Architecture]:
    return [entry for entry in ARCHITECTURES.values() if parameters.keys() <= entry.parameters.keys()]


def _exact_fits(shapes: Mapping[str, Shape], parameters: Mapping[str, Any] | None) -> list[Fit]:
    candidates = [entry for entry in _having(parameters or {}) if may_fit(entry, assign(shapes, entry).sources)]
    return [fit for fit in (fit_source(entry, shapes, parameters) for entry in candidates) if fit.exact]


def identify(
    shapes: Mapping[str, Shape], file: str, name: str | None = None, parameters: Mapping[str, Any] | None = None
) -> Fit:
    """The one architecture that has exactly these tensors.

    Args:
        shapes: structured name → shape, in Paddle's layout.
        file: for messages.
        name: the architecture, where it is known; then only its parameters are looked for.
        parameters: given ones win over those that the shapes tell.

    Raises:
        MappingError: none fits, or several do, or there is no architecture of that name.
    """
    if name is not None:
        if name not in ARCHITECTURES:
            raise MappingError(f"there is no architecture {name!r}; there are: {', '.join(ARCHITECTURES)}")
        unknown = (parameters or {}).keys() - get(name).parameters.keys()
        if unknown:
            raise MappingError(
                f"{name} has no parameter {', '.join(sorted(unknown))}; it has: {', '.join(get(name).parameters)}"
            )
        return fit_source(get(name), shapes, parameters)
    exact = _exact_fits(shapes, parameters)
    if len(exact) == 1:
        return exact[0]
    if exact:
        raise MappingError(
            f"{file}: {' and '.join(fit.architecture for fit in exact)} fit alike; say which with --architecture"
        )
    raise MappingError(_no_fit(shapes, file, next(iter(rank(shapes, parameters)), None)))


def evidence(fit: Fit) -> str:
    """One line: what speaks for this architecture."""
    architecture = get(fit.architecture)
    told = [
        f"{name} = {fit.parameters[name]} (from {parameter.inferred_from[0]})"
        for name, parameter in architecture.parameters.items()
        if parameter.inferred_from and name in fit.parameters
    ]
    total = len(fit.matched) + len(fit.missing) + len(fit.unexpected) + len(fit.mismatched)
    return f"{len(fit.matched)} of {total} names and shapes match" + "".join(f"; {line}" for line in told)


def _no_fit(shapes: Mapping[str, Shape], file: str, best: Fit | None) -> str:
    foreign = next((text for pattern, text in FOREIGN if any(re.search(pattern, name) for name in shapes)), None)
    if foreign is None and not any(PART.search(name) for name in shapes):
        foreign = (
            "no name begins with backbone, neck or head, so it is not a PP-OCR model; an ImageNet backbone, perhaps"
        )
    if foreign is None and best is not None and best.mismatched and not best.missing and not best.unexpected:
        foreign = "all names fit but not the shapes: a pruned model, or one of another width (see --config)"
    lines = [f"{file}: fits no architecture" + (f": {foreign}" if foreign else "")]
    if best is not None and best.score > 0:
        lines.append(
            f"  nearest is {best.architecture} ({evidence(best)}); it lacks {len(best.missing)}, has "
            f"{len(best.unexpected)} more, {len(best.mismatched)} of another shape"
        )
        shown = {
            "missing": list(best.missing),
            "left over": list(best.unexpected),
            "of another shape": [f"{key} {list(a)} ≠ {list(b)}" for key, (a, b) in best.mismatched.items()],
        }
        lines += [f"  {what}: {shorten(names)}" for what, names in shown.items() if names]
    return "\n".join(lines)
