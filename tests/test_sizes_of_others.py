"""Sizes of images that a file of others asks for, and that its network was not made for: one line, at once."""

from __future__ import annotations

import numpy as np
import pytest

import paddle2torch
from paddle2torch.architectures.preprocessing import DETECTION
from paddle2torch.converter.mapping.exported import read_settings
from paddle2torch.converter.release.export import export_model
from paddle2torch.converter.support.blob import Blob
from paddle2torch.converter.support.errors import FormatError, OutputError, SourceError
from paddle2torch.reading.network import torch_run


def test_what_a_network_raises_over_its_input_is_one_line() -> None:
    run = torch_run(paddle2torch.convert("embedded_rec").model)
    assert run(np.zeros((1, 3, 32, 64), np.float32)).shape[-1] == 63
    for height in (1, 512):
        with pytest.raises(
            SourceError, match=rf"^the network takes no images of {height} × 64 pixels \(.*\); that size"
        ):
            run(np.zeros((1, 3, height, 64), np.float32))


@pytest.mark.parametrize("height", [1, 512])
def test_a_network_is_not_exported_for_images_that_it_does_not_take(height: int) -> None:
    converted = paddle2torch.convert("embedded_rec")
    metadata = converted.metadata
    metadata["preprocessing"]["size"] = {"mode": "height", "height": height, "width": 320}
    with pytest.raises(OutputError, match=rf"^embedded_rec: the network takes no images of {height} × "):
        export_model(converted.model, metadata, "torchscript")


@pytest.mark.parametrize("steps", [
    "[{DecodeImage: {}}, {DetResizeForTest: {image_shape: [4096, 4096]}}]",
    "[{DecodeImage: {}}, {DetResizeForTest: {image_shape: [2048, 512], keep_ratio: true}}]",
])  # fmt: skip
def test_settings_of_huge_images_are_refused(steps: str) -> None:
    content = Blob("inference.yml", f"PreProcess: {{transform_ops: {steps}}}".encode())
    told = read_settings(content).usage.steps
    with pytest.raises(FormatError, match="image_shape is .*; expected a height and width of at most 1048576 pixels"):
        told.preprocessing(DETECTION, "det")
