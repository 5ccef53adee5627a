"""A graph as a PyTorch module: names, layers, training, export, and what is refused."""

from __future__ import annotations

import copy
import pickle
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from paddle2torch.architectures.graph.form import Graph, Node, Parameter
from paddle2torch.architectures.graph.module import layer_path, module_keys
from paddle2torch.converter.graph.build import build_module
from paddle2torch.converter.parity.graph_engine import GraphReference
from paddle2torch.converter.support.errors import FormatError, MappingError
from support.graphs import EMBEDDED, embedded, pair


def network(dialect: str = "legacy") -> torch.fx.GraphModule:
    model = embedded(dialect)
    return build_module(model.graph(), tensors=model.tensors())


def lines(count: int = 2, width: int = 100) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(0).normal(size=(count, 3, 32, width)).astype(np.float32))


# ---- what it computes, and under which names ---------------------------------------------------------------------


def test_it_computes_what_the_hand_written_network_computes() -> None:
    with torch.inference_mode():
        for image in (lines(), lines(3, 171)):
            expected = pair(EMBEDDED / "embedded_rec_infer.tar").model(image)
            torch.testing.assert_close(network()(image), expected, rtol=0, atol=1e-6)


def test_its_keys_are_the_structured_names_as_pytorch_spells_them() -> None:
    ours = network().state_dict()
    theirs = pair(EMBEDDED / "embedded_rec_infer.tar").model.state_dict()
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[key], theirs[key]) for key in ours)


def test_without_structured_names_keys_are_made_of_the_variables() -> None:
    keys = network("pir").state_dict().keys()
    assert {"conv2d_0.weight", "batch_norm_0.running_var", "lstm_cell_0.weight_ih_l1_reverse", "linear_18.bias"} & keys
    assert not any(key.startswith(("backbone", "neck", "head")) for key in keys)


def test_parametrised_operators_are_real_layers() -> None:
    module = network()
    kinds = {type(each) for each in module.modules() if any(True for _ in each.parameters(recurse=False))}
    assert kinds == {nn.Conv2d, nn.BatchNorm2d, nn.LSTM, nn.Linear}
    assert isinstance(module.get_submodule("neck.encoder.lstm"), nn.LSTM)
    assert "self.head.fc(" in module.code


@pytest.mark.parametrize(("names", "path"), [
    ({"weight": "head.fc.weight", "bias": "head.fc.bias"}, "head.fc"),
    ({"weight": "a.bn.weight", "running_mean": "a.bn._mean", "running_var": "a.bn._variance"}, "a.bn"),
    ({"weight_ih_l0": "n.lstm.0.cell_fw.weight_ih", "bias_hh_l1_reverse": "n.lstm.1.cell_bw.bias_hh"}, "n.lstm"),
    ({"weight_ih_l0": "n.lstm.weight_ih_l0"}, "n.lstm"),
    ({"weight": "a.weight", "bias": "b.bias"}, None),
    ({"weight": "a.kernel"}, None),
    ({"weight": "weight"}, None),
])  # fmt: skip
def test_a_layer_lives_where_its_tensors_say(names: dict[str, str], path: str | None) -> None:
    assert layer_path(names) == path


# ---- what else can be done with it -------------------------------------------------------------------------------


def test_without_tensors_it_takes_no_memory_and_takes_a_state() -> None:
    module = build_module(embedded().graph())
    assert all(tensor.is_meta for tensor in module.state_dict().values())
    module.load_state_dict(network().state_dict(), strict=True, assign=True)
    with torch.inference_mode():
        assert torch.equal(module(lines()), network()(lines()))


def test_it_trains() -> None:
    module = network().train()
    before = module.get_buffer("backbone.conv1.bn.running_mean").clone()
    module(lines()).square().sum().backward()
    assert all(parameter.grad is not None for parameter in module.parameters())
    assert not torch.equal(module.get_buffer("backbone.conv1.bn.running_mean"), before)


def test_it_is_copied_and_pickled() -> None:
    module = network()
    with torch.inference_mode():
        for other in (copy.deepcopy(module), pickle.loads(pickle.dumps(module))):
            assert torch.equal(other(lines()), module(lines()))


def test_it_is_traced_and_exported_and_compiled() -> None:
    module, image = network(), lines(3)
    batch = torch.export.Dim("batch", min=2, max=8)
    exported = torch.export.export(module, (lines(),), dynamic_shapes=({0: batch},)).module()
    compiled = torch.compile(module, backend="eager", dynamic=True)
    with torch.inference_mode():
        expected = module(image)
        torch.testing.assert_close(torch.jit.trace(module, lines())(lines()), module(lines()))
        torch.testing.assert_close(exported(image), expected)
        torch.testing.assert_close(compiled(image), expected)


def test_its_values_can_be_asked_for_as_of_paddle() -> None:
    model = embedded()
    reference = GraphReference(model.graph(), model.tensors())
    assert reference.program.feeds == ("x",)
    last = reference.program.operators[-1]
    assert (last.type, last.result) == ("softmax", reference.program.fetches[0])
    values = reference.run(lines().numpy(), [last.inputs[0], last.result])
    logits, probabilities = (torch.from_numpy(values[name]) for name in (last.inputs[0], last.result))
    torch.testing.assert_close(torch.softmax(logits, -1), probabilities)


# ---- odd graphs --------------------------------------------------------------------------------------------------


def conv(x: str, y: str, stride: int = 1, weight: str = "w") -> Node:
    attributes = {"stride": [stride, stride], "padding": [0, 0], "dilation": [1, 1], "groups": 1}
    return Node("conv2d", {"x": (x,), "weight": (weight,)}, (y,), attributes)


def small(*nodes: Node, name: str | None = "conv.weight") -> Graph:
    parameters = {"w": Parameter(name, (3, 3, 1, 1), "float32")}
    return Graph({"x": (-1, 3, -1, -1)}, (nodes[-1].outputs[0],), nodes, parameters)


WEIGHT = np.arange(9, dtype=np.float32).reshape(3, 3, 1, 1)


def test_a_layer_used_twice_is_one_layer() -> None:
    module = build_module(small(conv("x", "a"), conv("a", "y")), tensors={"conv.weight": WEIGHT})
    assert list(module.state_dict()) == ["conv.weight"]
    assert [node.target for node in module.graph.nodes if node.op == "call_module"] == ["conv", "conv"]


def test_a_parameter_used_in_two_ways_stays_one_parameter() -> None:
    graph = small(conv("x", "a"), conv("a", "y", stride=2))
    module = build_module(graph, tensors={"conv.weight": WEIGHT})
    assert [name for name, _ in module.named_parameters()] == ["conv.weight"]
    image = torch.ones(1, 3, 4, 4)
    weight = torch.from_numpy(WEIGHT)
    expected = nn.functional.conv2d(nn.functional.conv2d(image, weight), weight, stride=2)
    assert torch.equal(module(image), expected)


def test_a_name_that_is_no_layers_stays_the_key() -> None:
    assert module_keys(small(conv("x", "y"), name="stem.kernel")) == {"w": "stem.kernel"}


def test_half_precision_is_widened() -> None:
    module = build_module(small(conv("x", "y")), tensors={"conv.weight": WEIGHT.astype(np.float16)})
    assert module.get_parameter("conv.weight").dtype == torch.float32


def test_missing_and_misshapen_tensors_are_listed() -> None:
    model = embedded()
    tensors = model.tensors()
    tensors.pop("head.fc.bias")
    tensors["head.fc.weight"] = tensors["head.fc.weight"].T
    with pytest.raises(MappingError, match=r"2 tensors .*head\.fc\.(bias \(missing\)|weight \[63, 96\]) → "):
        build_module(model.graph(), tensors=tensors)


@pytest.mark.parametrize(("change", "message"), [
    ({"type": "os.system"}, "there is no operator 'os.system'"),
    ({"attributes": {}}, "conv2d has wrong, missing or computed dilation, groups, padding, stride"),
    ({"attributes": {**conv("x", "y").attributes, "shell": "rm"}}, "has wrong, missing or computed shell"),
    ({"attributes": {**conv("x", "y").attributes, "stride": "wide"}}, "has wrong, missing or computed stride"),
    ({"inputs": {"x": ("x",)}}, "has wrong, missing or computed weight"),
    ({"inputs": {"x": ("x", "x"), "weight": ("w",)}}, "has wrong, missing or computed x"),
])  # fmt: skip
def test_graphs_that_the_table_does_not_know_are_refused(change: dict[str, object], message: str) -> None:
    with pytest.raises(FormatError, match=message):
        build_module(small(replace(conv("x", "y"), **change)))


@pytest.mark.parametrize("name", ["forward.weight", "training", "_parameters", "conv.weight.__class__"])
def test_names_that_a_module_needs_itself_are_refused(name: str) -> None:
    with pytest.raises(FormatError, match="is taken|cannot be built"):
        build_module(small(conv("x", "y"), name=name))
