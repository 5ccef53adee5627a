"""Networks that return several tensors: named, and told which the pipeline takes."""

from __future__ import annotations

import pytest

from paddle2torch.architectures.graph.form import Graph, Node, Parameter
from paddle2torch.architectures.graph.module import owners
from paddle2torch.converter.conversion.convert import note_outputs
from paddle2torch.converter.tasks import find_task
from paddle2torch.converter.tasks.det import BOTH_MAPS


def test_the_refined_map_is_told_from_the_mean_that_is_made_of_it() -> None:
    task = find_task("det")
    assert task.several(2, derived=True) == BOTH_MAPS
    assert [each.name for each in task.several(2, derived=False) or ()] == ["maps_1", "maps_2"]
    assert [each.name for each in task.several(3, derived=True) or ()] == ["maps_1", "maps_2", "maps_3"]
    (note,) = note_outputs(BOTH_MAPS)
    assert "0: cbn_maps, the refined map, from which PaddleOCR's inference takes its boxes; 1: maps," in note
    assert note_outputs(()) == []


@pytest.mark.parametrize("name", ["rec", "cls"])
def test_no_other_network_returns_several(name: str) -> None:
    assert find_task(name).several(2, derived=True) is None


def test_a_parameter_that_no_layer_has_belongs_to_itself() -> None:
    graph = Graph(
        inputs={"x": (-1, 3, -1, -1)},
        outputs=("y",),
        nodes=(
            Node("conv2d", {"x": ("x",), "weight": ("w",)}, ("c",),
                 {"stride": [1, 1], "padding": [0, 0], "dilation": [1, 1], "groups": 1}),
            Node("multiply", {"x": ("c",), "y": ("s",)}, ("y",), {"axis": -1}),
        ),
        parameters={"w": Parameter("conv.weight", (4, 3, 1, 1), "float32"), "s": Parameter("lab.scale", (1,), "float32")},
    )  # fmt: skip
    assert owners(graph) == {"conv.weight": "conv", "lab.scale": "lab.scale"}
