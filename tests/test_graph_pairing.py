"""Names from the graph alone: as the `.info` gives them, or a refusal."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from torch import nn

from paddle2torch.architectures.registry import get
from paddle2torch.converter.graph.pairing import AmbiguousError, _shapes, names_from_graph, pair_keys
from paddle2torch.converter.graph.program import graph_from_program
from paddle2torch.converter.graph.trace import trace_module
from paddle2torch.converter.mapping.rules import module_name
from paddle2torch.converter.support.errors import MappingError
from support.graphs import EMBEDDED, embedded, families, released, tarballs

WITH_INFO = [path for path in (EMBEDDED / "embedded_rec_infer.tar", *tarballs().values()) if released(path).names]


@pytest.mark.parametrize("path", WITH_INFO, ids=lambda path: path.stem)
def test_the_graph_gives_the_names_that_the_info_gives(path: Path) -> None:
    model = released(path)
    found = names_from_graph(graph_from_program(model.program), path.name)
    renames = found.architecture.renames  # a parameter may have a second name in a program
    assert {variable: module_name(name, renames) for variable, name in found.names.items()} == {
        variable: module_name(model.names[variable], renames) for variable in model.arrays
    }


def test_each_family_is_recognised_with_its_sizes() -> None:
    for architecture, path in families().items():
        model = released(path)
        found = names_from_graph(graph_from_program(model.program), path.name)
        assert found.architecture.name == architecture
        assert (found.parameters.get("classes", 1),) in {array.shape for array in model.arrays.values()}


def test_paddle_3s_form_gives_the_same_tensors() -> None:
    old, new = embedded("legacy"), embedded("pir")
    names = names_from_graph(new.graph(), "x").names
    tensors = {names[variable]: array for variable, array in new.arrays.items()}
    assert tensors.keys() == old.tensors().keys()
    assert all(np.array_equal(array, tensors[name]) for name, array in old.tensors().items())


def test_the_architecture_may_be_given_and_must_then_fit() -> None:
    graph, network = embedded("pir").graph(), get("rec_mobilenet_v3_bilstm_ctc")
    assert names_from_graph(graph, "x", network).architecture is network
    with pytest.raises(MappingError, match=r"x: without its \.info .* none of the 1 networks is connected like this"):
        names_from_graph(graph, "x", get("cls_mobilenet_v3"))
    with pytest.raises(MappingError, match="none of the 1 networks"):
        names_from_graph(graph, "x", network, {"classes": 64})


def test_a_network_that_is_none_of_ours_is_refused_with_what_to_do() -> None:
    nodes = embedded().graph().nodes[:10]
    cut = replace(embedded().graph(), nodes=nodes, outputs=nodes[-1].outputs)
    with pytest.raises(
        MappingError, match=r"none of the \d+ networks .* get the \.pdiparams\.info, or convert .* --as-graph"
    ):
        names_from_graph(cut, "x")


def test_a_wrong_activation_does_not_spoil_the_names() -> None:
    """Telling what is wrong is for conformity; the names must be right for that."""
    graph = embedded().graph()
    nodes = tuple(replace(node, type="relu") if node.type == "hard_swish" else node for node in graph.nodes)
    assert names_from_graph(replace(graph, nodes=nodes), "x").names == names_from_graph(graph, "x").names


class Parallel(nn.Module):
    """Two convolutions side by side, which only what comes before or after could tell apart."""

    def __init__(self, swapped: bool = False, tails: tuple[int, int] = (1, 1)) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 1)
        self.left, self.right = nn.Conv2d(4, 4, 1), nn.Conv2d(4, 4, 1)
        self.left_tail, self.right_tail = (nn.Conv2d(4, 4, kernel, padding=kernel // 2) for kernel in tails)
        self.swapped = swapped

    def forward(self, x):
        x = self.stem(x)
        if self.swapped:  # another order of execution
            right = self.right_tail(self.right(x).relu())
            return self.left_tail(self.left(x)) + right
        return self.left_tail(self.left(x)) + self.right_tail(self.right(x).relu())


def paired(one: nn.Module, other: nn.Module) -> dict[str, str] | None:
    return pair_keys(*(trace_module(each.eval(), (1, 3, 4, 4)) for each in (one, other)), _shapes, strict=True)


def test_operators_that_cannot_be_told_apart_are_refused() -> None:
    with pytest.raises(AmbiguousError, match=r"those of left\.weight, "):
        paired(Parallel(), Parallel())


def test_neighbours_tell_operators_apart_whatever_the_order_of_execution() -> None:
    pairs = paired(Parallel(tails=(1, 3)), Parallel(swapped=True, tails=(1, 3)))
    assert pairs == {key: key for key in Parallel().state_dict()}


def test_other_shapes_and_connections_pair_nothing() -> None:
    assert paired(Parallel(tails=(1, 3)), Parallel(tails=(3, 5))) is None
    assert paired(Parallel(), nn.Sequential(*(nn.Conv2d(3 if not i else 4, 4, 1) for i in range(5)))) is None
