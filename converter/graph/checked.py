"""What of a program Paddle may be given: the operators that the tables have, as far as its outputs depend on them.

Paddle runs every operator of a program, whether or not an output depends on it, and it has operators that write files,
print, call Python, load libraries and open connections. So a program is never handed on as it came: it is built again
from operators that were checked, and what is checked is what is executed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from paddle2torch.architectures.graph.form import Graph
from paddle2torch.converter.formats.pdmodel import FEEDS, FETCHES, Program, read_pdmodel, rebuilt_pdmodel
from paddle2torch.converter.formats.pir import read_pir, rebuilt_pir
from paddle2torch.converter.graph.dialects import unlisted
from paddle2torch.converter.graph.program import UncoveredError, graph_from_program
from paddle2torch.converter.support.blob import Blob


@dataclass(frozen=True)
class CheckedProgram:
    """A program that was built again from operators that were checked.

    Attributes:
        content: of an `inference.pdmodel` or `inference.json`.
        program: what the content says.
        graph: what the program computes.
        left_out: the operators of the original on which no output depends, by type.
    """

    content: bytes
    program: Program
    graph: Graph
    left_out: Counter[str]


def checked_program(
    blob: Blob, program: Program, file: str, shapes: Mapping[str, tuple[int, ...]] | None = None
) -> CheckedProgram:
    """Check a program, and build it again.

    Args:
        blob: its file.
        program: what was read from that.
        file: what to call the program in messages.
        shapes: parameter → another shape for it; for a `.pdmodel` only.

    Raises:
        UncoveredError: it has operators, in whatever block, that the tables do not have.
        FormatError: it is inconsistent.
    """
    if foreign := unlisted(program):
        raise UncoveredError(file, foreign)
    places = needed(program)
    if program.pir:
        content = rebuilt_pir(blob, places)
        rebuilt = read_pir(Blob(blob.name, memoryview(content)))
    else:
        content = rebuilt_pdmodel(blob, places, shapes)
        rebuilt = read_pdmodel(Blob(blob.name, memoryview(content)))
    graph = graph_from_program(rebuilt, file=file)
    left_out = Counter(each.type for each in (*program.operators, *program.inner))
    left_out.subtract(each.type for each in rebuilt.operators)
    return CheckedProgram(content, rebuilt, graph, +left_out)


def needed(program: Program) -> list[int]:
    """The places of the operators on which the outputs depend: the inputs first, then in their order, the outputs last.

    A variable of a `.pdmodel` may be written several times; the last time before it is read counts.
    """
    feeds = [place for place, each in enumerate(program.operators) if each.type in FEEDS]
    fetches = [place for place, each in enumerate(program.operators) if each.type in FETCHES]
    wanted, found = set(program.fetches), []
    for place in reversed(range(len(program.operators))):
        each = program.operators[place]
        written = {name for names in each.outputs.values() for name in names if name}
        if each.type not in FEEDS | FETCHES and wanted & written:
            found.append(place)
            wanted -= written
            wanted.update(name for names in each.inputs.values() for name in names if name)
    return [*feeds, *found[::-1], *fetches]
