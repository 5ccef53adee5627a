"""`.pdiparams.info`: structured names, and nothing but a table of facts."""

from __future__ import annotations

import pickle

import numpy as np
import pytest

from paddle2torch.converter.formats.info import read_info
from paddle2torch.converter.support.errors import FormatError
from support.format_samples import blob

FACTS = {"stop_gradient": False, "trainable": True}


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_structured_names_in_the_files_order(protocol: int) -> None:
    content = {
        "conv2d_0.w_0": {"structured_name": "backbone.conv.weight", **FACTS},
        "tmp_0": FACTS,
        "batch_norm_0.b_0": {"structured_name": "backbone.bn.bias", **FACTS},
    }
    assert list(read_info(blob(pickle.dumps(content, protocol))).items()) == [
        ("conv2d_0.w_0", "backbone.conv.weight"),
        ("batch_norm_0.b_0", "backbone.bn.bias"),
    ]


REFUSED = {
    "a list": (pickle.dumps(["conv2d_0.w_0"], 2), "should hold a table from variables to their facts"),
    "names alone": (pickle.dumps({"w": "name"}, 2), "should hold a table from variables to their facts"),
    "a number as name": (
        pickle.dumps({"w": {"structured_name": 3}}, 2),
        "a name is a int, which is not printable text",
    ),
    "a name with a line end": (pickle.dumps({"w\n": {"structured_name": "a"}}, 2), r"a name is 'w\\n', which is not"),
    "a checkpoint": (pickle.dumps({"w": np.zeros(2)}, 2), "holds arrays: it is a checkpoint"),
    "a callable": (pickle.dumps({"w": {"structured_name": print}}, 2), "asks for '__builtin__.print'"),
    "cut short": (pickle.dumps({"w": FACTS}, 2)[:-3], "ends in the middle|damaged"),
    "parameters": (bytes(16) + b"\x06\0\0\0\x08\x05\x10\x03", "is Paddle inference parameters, not"),
    "text": (b"conv2d_0.w_0 backbone.conv.weight", "is not a pickle of protocol 2 to 5"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_anything_else_is_refused(case: str) -> None:
    data, message = REFUSED[case]
    with pytest.raises(FormatError, match=message):
        read_info(blob(data))
