"""Which program runs the weights of a checkpoint."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from paddle2torch.architectures.registry import get
from paddle2torch.converter.conversion.network import NamedNetwork
from paddle2torch.converter.parity import programs
from paddle2torch.converter.zoo.catalog import load_zoo


@pytest.mark.parametrize(
    ("architecture", "parameters", "first"),
    [
        ("det_pplcnet_v4_replkfpn", {"width": 32, "out_channels": 64, "kernel_size": 5}, "PP-OCRv6_tiny_det"),
        ("det_pplcnet_v4_replkfpn", {}, "PP-OCRv6_small_det"),
        ("rec_pplcnet_v3_svtr_ctc", {"classes": 18385}, "PP-OCRv5_mobile_rec"),
        ("rec_pplcnet_v3_svtr_ctc", {"classes": 97}, "en_PP-OCRv4_mobile_rec"),
    ],
)
def test_a_checkpoint_runs_in_a_program_of_its_own_sizes(
    architecture: str, parameters: dict[str, int], first: str
) -> None:
    entry = get(architecture)
    network = NamedNetwork(entry, entry.settle(parameters), entry.preprocessing)
    conversion = SimpleNamespace(source=SimpleNamespace(model=None), network=network)
    assert next(programs._same_architecture(conversion, load_zoo())).name == first
