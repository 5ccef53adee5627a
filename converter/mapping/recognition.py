"""Which architecture is this checkpoint of? Told by names and shapes in Paddle's spelling."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import cache, partial
from typing import Any

from paddle2torch.architectures import matching
from paddle2torch.architectures.matching import Fit, Shape, count, expected_tensors, shorten
from paddle2torch.architectures.registry import Architecture, Count, Present, Size, architectures, get
from paddle2torch.converter.mapping.rules import assign, in_torch_layout
from paddle2torch.converter.support.errors import MappingError

# What people bring that is none of ours: (pattern that some name matches, what it is and what to do).
FOREIGN = (
    (
        r"_quanter|fake_quant|\.quant_|@scale|_quant\.|weight_quant",
        "it is quantised (a slim model), which is not supported; convert the model it was quantised from",
    ),
    (r"^transform\.", "it rectifies its input (STAR-Net, RARE and the like), an academic algorithm not in this list"),
    (
        r"attention_cell|\.decoder\.|rnn_decoder|\.tps\.|f_border|f_score|score_conv|gnn|kie|layoutlm|\.sdmgr|table"
        r"|\.pvam\.|\.gsrm\.|toplayer_|latlayer",
        "it looks like one of upstream's academic or document-structure algorithms, which are not in this list",
    ),
    (r"_moment\d|_velocity_|beta\d_pow", "it is an optimizer's state (.pdopt), not weights; give the .pdparams"),
    (
        r"\.lab\.|\.dw_conv\.|\.conv_kxk\.|blocks[2-6]\.\d|stem\.stem|hgnet|\.pw_conv\.|\.use_lab",
        "it looks like PP-OCRv4 or newer, but has not exactly the tensors of one of those networks in this list",
    ),
)
# What released files are known to lack: (architecture, pattern that all missing names match, what else there is).
INCOMPLETE = (
    (
        "det_pplcnet_v3_rsefpn",
        r"neck\.in[sp]_conv\.\d\.se_block\..*",
        "the training file that was released for PP-OCRv4's detector lacks the neck's squeeze-and-excite layers; "
        "convert the inference model, or PaddleX's PP-OCRv4_mobile_det_pretrained.pdparams",
    ),
)
PART = re.compile(r"(^|\.)(backbone|neck|head)\.")


def module_shapes(shapes: Mapping[str, Shape], architecture: Architecture) -> dict[str, Shape]:
    """Tensors in Paddle's names and layout as an architecture's module would have them."""
    owners = expected_tensors(architecture, {})
    return {
        key: in_torch_layout(shapes[sources[-1]], owners.get(key))
        for key, sources in assign(shapes, architecture).sources.items()
    }


def rank(shapes: Mapping[str, Shape], parameters: Mapping[str, Any] | None = None) -> list[Fit]:
    """The fit of every architecture that has the given parameters, best first.

    Args:
        shapes: structured name → shape, in Paddle's layout.
        parameters: given ones win over those that the shapes tell.
    """
    return matching.rank(_having(parameters), partial(module_shapes, shapes), parameters)


def _having(parameters: Mapping[str, Any] | None) -> list[Architecture]:
    return [each for each in architectures() if (parameters or {}).keys() <= each.parameters.keys()]


def identify(
    shapes: Mapping[str, Shape],
    file: str,
    architecture: Architecture | None = None,
    parameters: Mapping[str, Any] | None = None,
    tells: Callable[[Fit], bool] | None = None,
) -> Fit:
    """The one architecture that has exactly these tensors.

    Args:
        shapes: structured name → shape, in Paddle's layout.
        file: for messages.
        architecture: where it is known; then only its parameters are looked for.
        parameters: given ones win over those that the shapes tell.
        tells: which of several that have these tensors it is, where something else tells that.

    Raises:
        MappingError: none fits, or several do, or the known one has no such parameter.
    """
    if architecture is not None:
        try:
            return _settled(matching.fit(architecture, module_shapes(shapes, architecture), parameters), tells)
        except ValueError as error:
            raise MappingError(str(error)) from error
    shapes_for = cache(partial(module_shapes, shapes))  # a file may have many names that fit nothing
    exact = matching.exact_fits(_having(parameters), shapes_for, parameters)
    if len(exact) > 1 and tells is not None:
        exact = [each for each in exact if tells(each)] or exact
    if len(exact) == 1:
        return _settled(exact[0], tells)
    if exact:
        raise MappingError(
            f"{file}: {' and '.join(each.architecture.name for each in exact)} fit alike; say which with --architecture"
        )
    ranked = matching.rank(_having(parameters), shapes_for, parameters)
    raise MappingError(_no_fit(shapes, file, next(iter(ranked), None)))


def _settled(fit: Fit, tells: Callable[[Fit], bool] | None) -> Fit:
    """The fit with those values for what neither weights nor anything given told that `tells` takes."""
    untold = {
        name: parameter.alternatives
        for name, parameter in fit.architecture.parameters.items()
        if name not in fit.parameters and parameter.told_by is None and len(parameter.alternatives) > 1
    }
    if not untold or tells is None:
        return fit
    chosen = [dict(zip(untold, values, strict=True)) for values in itertools.product(*untold.values())]
    candidates = (replace(fit, parameters={**fit.parameters, **values}) for values in chosen)
    return next(filter(tells, candidates), fit)


def find_architecture(name: str) -> Architecture:
    """`paddle2torch.architectures.registry.get`, with the error of this package.

    Raises:
        MappingError: there is no architecture of that name.
    """
    try:
        return get(name)
    except ValueError as error:
        raise MappingError(str(error)) from error


def describe(fit: Fit) -> str:
    """One line: how well the architecture fits, and what told its parameters."""
    told = [
        f"{name} = {fit.parameters[name]} (from {_place(parameter.told_by)})"
        for name, parameter in fit.architecture.parameters.items()
        if parameter.told_by is not None and name in fit.parameters
    ]
    return f"{len(fit.match.matched)} of {fit.match.total} names and shapes match" + "".join(
        f"; {line}" for line in told
    )


def _place(told_by: Size | Count | Present) -> str:
    return told_by.pattern if isinstance(told_by, Count) else told_by.key


def _known_gap(fit: Fit) -> str | None:
    """What to do where a file lacks just what released ones are known to lack."""
    if list(fit.match.problems()) != ["missing"]:
        return None
    for architecture, pattern, advice in INCOMPLETE:
        if fit.architecture.name == architecture and all(re.fullmatch(pattern, name) for name in fit.match.missing):
            return advice
    return None


def _no_fit(shapes: Mapping[str, Shape], file: str, best: Fit | None) -> str:
    foreign = None if best is None else _known_gap(best)
    if foreign is None:
        foreign = next((text for pattern, text in FOREIGN if any(re.search(pattern, name) for name in shapes)), None)
    if foreign is None and not any(PART.search(name) for name in shapes):
        foreign = (
            "no name begins with backbone, neck or head, so it is not a PP-OCR model; an ImageNet backbone, perhaps"
        )
    if foreign is None and best is not None and list(best.match.problems()) == ["of another shape"]:
        foreign = "all names fit but not the shapes: a pruned model, or one of another width (see --config)"
    lines = [f"{file}: fits no architecture" + (f": {foreign}" if foreign else "")]
    if best is not None and best.match.score > 0:
        problems = best.match.problems()
        lines.append(f"  nearest is {best.architecture.name} ({describe(best)}); {count(problems)}")
        lines += [f"  {what}: {shorten(names)}" for what, names in problems.items()]
    return "\n".join(lines)
