"""From a Paddle program, in either dialect, to the graph form."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from paddle2torch.architectures.graph.form import Graph, GraphError, Node, Parameter, check_graph, reachable
from paddle2torch.converter.formats.pdmodel import Program
from paddle2torch.converter.graph.dialects import UNKNOWN, spell, unlisted
from paddle2torch.converter.graph.refine import Context, VariantError, constants_of, refined
from paddle2torch.converter.graph.simplify import simplify
from paddle2torch.converter.support.boundary import boundary
from paddle2torch.converter.support.errors import FormatError, MappingError

# How many kinds of operators a message lists before it only counts the rest.
SHOWN = 20


class UncoveredError(MappingError):
    """The program has operators that the tables do not cover; the message lists them."""

    def __init__(self, file: str, uncovered: Counter[str]) -> None:
        self.uncovered = uncovered
        super().__init__(
            f"{file}: its program has {uncovered.total()} operators that cannot be turned into PyTorch: "
            f"{counted(uncovered)}; nothing was written; please report them, an operator is a line or two to add"
        )


def counted(operators: Counter[str]) -> str:
    """Kinds of operators with their counts, for people: `exp (2), save (1)`."""
    listed = [f"{name:.80} ({count})" for name, count in sorted(operators.items())]
    more = len(listed) - SHOWN
    return ", ".join(listed[:SHOWN]) + (f" and {more} more kinds" if more > 0 else "")


def graph_from_program(program: Program, names: Mapping[str, str] | None = None, file: str = "the program") -> Graph:
    """The graph of a Paddle program: what its outputs depend on.

    Args:
        program: as `read_pdmodel` or `read_pir` gives it.
        names: variable → structured name, as far as they are known.
        file: what to call the program in messages.

    Raises:
        UncoveredError: it has operators that the tables do not cover, in whatever block and whether or not an output
            depends on them; they are listed, with counts.
        FormatError: it is inconsistent.
    """
    with boundary(file, "a network"):
        graph = _graph(program, names or {}, file)
        try:
            check_graph(graph, file)
        except GraphError as error:
            raise FormatError(file, error.problem) from error
    return graph


def _graph(program: Program, names: Mapping[str, str], file: str) -> Graph:
    spelled = spell(program)
    live = reachable(spelled.nodes, spelled.outputs)
    context = Context(spelled, constants_of(live))
    nodes: list[Node] = []
    uncovered = unlisted(program)
    for node in live:
        if node.type.removeprefix(UNKNOWN) in uncovered:
            continue
        try:
            nodes += refined(node, context)
        except VariantError as variant:
            uncovered[str(variant)] += 1
    if uncovered:
        raise UncoveredError(file, uncovered)
    parameters = {
        each.name: Parameter(names.get(each.name), each.shape or (), each.dtype or "float32")
        for each in program.parameters
    }
    return simplify(Graph(spelled.inputs, spelled.outputs, tuple(nodes), parameters), context.rank)
