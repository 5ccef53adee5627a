"""From a Paddle program, in either dialect, to the graph form."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from converter.formats.pdmodel import Program
from converter.graph.dialects import spell
from converter.graph.form import Graph, Node, Parameter, UncoveredError, check_graph, reachable
from converter.graph.refine import Context, VariantError, constants_of, refined
from converter.graph.simplify import simplify


def graph_from_program(program: Program, names: Mapping[str, str] | None = None, file: str = "the program") -> Graph:
    """The graph of a Paddle program.

    Args:
        program: as `read_pdmodel` or `read_pir` gives it.
        names: variable → structured name, as far as they are known.
        file: what to call the program in messages.

    Raises:
        UncoveredError: it has operators that the tables do not cover; all are listed, with counts.
        FormatError: it is inconsistent.
    """
    spelled = spell(program)
    live = reachable(spelled.nodes, spelled.outputs)
    context = Context(spelled, constants_of(live))
    nodes: list[Node] = []
    uncovered = Counter[str]()
    for node in live:
        try:
            nodes += refined(node, context)
        except VariantError as variant:
            uncovered[str(variant)] += 1
    if uncovered:
        raise UncoveredError(uncovered)
    names = names or {}
    parameters = {
        each.name: Parameter(names.get(each.name), each.shape or (), each.dtype or "float32")
        for each in program.parameters
    }
    graph = simplify(Graph(spelled.inputs, spelled.outputs, tuple(nodes), parameters), context.rank)
    check_graph(graph, file)
    return graph
