"""Programs without names: which layout of which network they are, and what their tensors are called there."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from paddle2torch.architectures import create_model, list_models
from paddle2torch.architectures.registry import get
from paddle2torch.converter.formats.info import read_info
from paddle2torch.converter.formats.pdmodel import read_pdmodel
from paddle2torch.converter.formats.pir import read_pir
from paddle2torch.converter.graph.conformity import check_conformity, input_shape
from paddle2torch.converter.graph.pairing import _pairing, names_from_graph
from paddle2torch.converter.graph.program import graph_from_program
from paddle2torch.converter.graph.trace import trace_module
from paddle2torch.converter.graph.variants import variants
from paddle2torch.converter.support.blob import Blob
from support.networks import shapes
from support.upstream import program_folder

# The first of each family, in another size than its architecture's usual one where there are several.
SIZES: dict[str, dict[str, Any]] = {
    "det_pplcnet_v4_replkfpn": {"width": 32, "out_channels": 64, "kernel_size": 5},
    "rec_pplcnet_v4_lightsvtr_ctc": {"width": 128, "channels": 192, "hidden": 768},
    "cls_pp_lcnet_textline": {"width": 128},
}


def layouts(name: str) -> Iterator[dict[str, bool]]:
    """All branches, and all folded, of what has both."""
    folded = [parameter for parameter in get(name).parameters if parameter.startswith("folded")]
    yield dict.fromkeys(folded, False)
    if folded:
        yield dict.fromkeys(folded, True)


def few_classes(name: str) -> dict[str, int]:
    return {"classes": 97} if name.startswith("rec") else {}


@pytest.mark.parametrize("name", list_models())
def test_kernels_tell_the_layout_and_the_size(name: str) -> None:
    entry = get(name)
    for layout in layouts(name):
        given = SIZES.get(name, {}) | layout
        model = create_model(name, **given)
        # As in an inference model, which lacks what training alone uses.
        sizes = [
            shape for key, shape in shapes(model).items() if not entry.optional or not key.startswith(entry.optional)
        ]
        found = list(variants(entry, sizes, {}))
        told = {key: value for key, value in given.items() if key.startswith("folded") or key == "kernel_size"}
        assert found
        assert all(told.items() <= each.items() for each in found)
        assert list(variants(entry, [*sizes, (4, 4, 4, 4)], {})) == []
        assert list(variants(entry, sizes[1:], {})) == []


def test_what_is_known_is_not_looked_for() -> None:
    entry = get("det_pplcnet_v4_replkfpn")
    sizes = shapes(create_model(entry.name, folded=True, folded_neck=True, folded_head=True)).values()
    assert {each["width"] for each in variants(entry, sizes, {})} == {32, 48, 128}
    assert [each["width"] for each in variants(entry, sizes, {"width": 48})] == [48]
    assert list(variants(entry, sizes, {"folded": False})) == []


@pytest.mark.parametrize("name", list_models())
def test_a_folded_network_is_paired_with_itself_whatever_its_size(name: str) -> None:
    entry, given = get(name), SIZES.get(name, {}) | few_classes(name)
    model = create_model(name, **given).eval().fold()
    shape = input_shape(entry.task, entry.preprocessing)
    found = _pairing(trace_module(model, shape), entry, shape, {})
    assert found is not None
    assert found.keys == {key: key for key in shapes(model) if not entry.optional or not key.startswith(entry.optional)}
    assert given.items() <= found.parameters.items()


# ---- released programs -----------------------------------------------------------------------------------------------

PROGRAMS = {
    "ch_PP-OCRv4_det": "det_pplcnet_v3_rsefpn",
    "ch_PP-OCRv4_rec": "rec_pplcnet_v3_svtr_ctc",
    "en_PP-OCRv4_rec": "rec_pplcnet_v3_svtr_ctc",
    "ch_PP-OCRv4_server_det": "det_pphgnet_small_lkpan",
    "ch_PP-OCRv4_server_rec": "rec_pphgnet_small_svtr_ctc",
    "PP-OCRv4_mobile_seal_det": "det_pplcnet_v3_rsefpn",
    "PP-OCRv4_server_seal_det": "det_pphgnet_small_lkpan",
    "PP-OCRv5_mobile_det": "det_pplcnet_v3_rsefpn",
    "PP-OCRv5_mobile_rec": "rec_pplcnet_v3_svtr_ctc",
    "korean_PP-OCRv5_mobile_rec": "rec_pplcnet_v3_svtr_ctc",
    "PP-OCRv5_server_det": "det_pphgnet_v2_lkpan",
    "PP-OCRv5_server_rec": "rec_pphgnet_v2_svtr_ctc",
    "PP-OCRv6_tiny_det": "det_pplcnet_v4_replkfpn",
    "PP-OCRv6_small_det": "det_pplcnet_v4_replkfpn",
    "PP-OCRv6_medium_det": "det_pplcnet_v4_replkpan",
    "PP-OCRv6_tiny_rec": "rec_pplcnet_v4_guide_ctc",
    "PP-OCRv6_small_rec": "rec_pplcnet_v4_lightsvtr_ctc",
    "PP-OCRv6_medium_rec": "rec_pplcnet_v4_lightsvtr_ctc",
    "PP-LCNet_x1_0_textline_ori": "cls_pp_lcnet_textline",
    "PP-LCNet_x0_25_textline_ori": "cls_pp_lcnet_textline",
    "PP-LCNet_x0_25_textline_ori.2025-05": "cls_pp_lcnet_textline_2025_05",
    "PP-LCNet_x1_0_doc_ori": "cls_pp_lcnet_page",
    "PP-LCNet_x1_0_table_cls": "cls_pp_lcnet_page",
}
# Spelt in an older way in the programs of those days.
OLD_SPELLINGS = {
    "w": "lab.scale",
    "b": "lab.bias",
    "activation.scale": "act.lab.scale",
    "activation.bias": "act.lab.bias",
}


@pytest.mark.parametrize(("name", "architecture"), PROGRAMS.items(), ids=PROGRAMS)
def test_released_programs_are_recognised_named_and_conform(name: str, architecture: str) -> None:
    folder = program_folder(name)
    legacy = folder / "inference.pdmodel"
    program = read_pdmodel(Blob.open(legacy)) if legacy.exists() else read_pir(Blob.open(folder / "inference.json"))
    graph = graph_from_program(program, file=name)
    found = names_from_graph(graph, name)
    entry = found.architecture
    assert entry.name == architecture
    # How many maps a detector returns is nothing that pairing looks at.
    both = {"both_maps": len(graph.outputs) == 2} if "both_maps" in entry.parameters else {}
    model = entry.build(found.parameters | both).eval()
    assert check_conformity(graph, model, found.keys, input_shape(entry.task, entry.preprocessing))
    if legacy.exists():
        known = read_info(Blob.open(folder / "inference.pdiparams.info"))
        expected = {variable: modern(known[variable]) for variable in found.names}
    else:
        # From the program's last parameter to its first.
        listed = json.loads((folder / "names.json").read_text(encoding="utf-8"))["names"]
        parameters = [variable.name for variable in program.variables.values() if variable.is_parameter]
        expected = dict(zip(parameters, reversed(listed), strict=True))
    assert found.names == expected


def modern(name: str) -> str:
    for old, new in OLD_SPELLINGS.items():
        layer, dot, _ = name.rpartition(f"_conv.{old}")
        if dot and name.endswith(f"_conv.{old}"):
            return f"{layer}_conv.{new}"
    return name
