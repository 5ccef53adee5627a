"""What the networks are compared on."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from paddle2torch.architectures.records import Size
from paddle2torch.architectures.registry import architectures, get, list_models
from paddle2torch.converter.parity.inputs import default_cases, image_cases
from paddle2torch.converter.parity.verify import blank
from paddle2torch.converter.tasks import find_task


@pytest.mark.parametrize("name", list_models())
def test_the_default_is_text_at_two_batch_sizes_and_two_sizes_and_noise(name: str) -> None:
    architecture = get(name)
    first, second, noise = default_cases(find_task(architecture.task), architecture.preprocessing)
    assert first.name.startswith("text")
    assert noise.name.startswith("noise")
    assert len(first.array) != len(second.array)
    assert first.array.shape[2:] != second.array.shape[2:] or architecture.preprocessing.size.mode in (
        "stretch",
        "crop",
    )
    for case in (first, second, noise):
        assert len(case.images) == len(case.array)
        assert case.array.dtype == np.float32
        assert [image.shape for image in case.images] == [(*case.array.shape[2:], 3)] * len(case.array)


@pytest.mark.parametrize("task", ["rec", "cls"])
def test_one_of_the_widths_is_odd(task: str) -> None:
    architecture = next(entry for entry in architectures() if entry.task == task)
    cases = default_cases(find_task(task), architecture.preprocessing)
    assert any(case.array.shape[3] % 2 for case in cases)


def test_no_two_images_are_alike() -> None:
    architecture = get("det_mobilenet_v3_rsefpn")
    for case in default_cases(find_task("det"), architecture.preprocessing):
        rows = case.array.reshape(len(case.array), -1)
        assert len(np.unique(rows, axis=0)) == len(rows)


def test_they_are_the_same_at_every_call() -> None:
    architecture = get("cls_mobilenet_v3")
    again = default_cases(find_task("cls"), architecture.preprocessing)
    for case, other in zip(default_cases(find_task("cls"), architecture.preprocessing), again, strict=True):
        np.testing.assert_array_equal(case.array, other.array)


def test_images_of_the_user_take_the_place_of_the_text(tmp_path: Path) -> None:
    for name, width in (("a.png", 200), ("b.png", 640)):
        Image.new("RGB", (width, 32), "white").save(tmp_path / name)
    record = get("rec_mobilenet_v3_bilstm_ctc").preprocessing
    first, second, noise = image_cases(find_task("rec"), record, [tmp_path / "a.png", tmp_path / "b.png"])
    assert [first.name, second.name] == ["a.png", "b.png"]
    assert [first.array.shape[3], second.array.shape[3]] == [320, 640]
    assert noise.name.startswith("noise")


def test_a_blank_image_has_the_mean_colour_of_its_own() -> None:
    array = np.random.default_rng(0).normal(size=(2, 3, 4, 5)).astype(np.float32)
    blanked = blank(array)
    assert (blanked.shape, blanked.dtype) == (array.shape, array.dtype)
    np.testing.assert_allclose(blanked.std((2, 3)), 0, atol=1e-7)
    np.testing.assert_allclose(blanked.mean((2, 3)), array.mean((2, 3)), atol=1e-6)


@pytest.mark.parametrize(
    ("task", "size"),
    [
        ("det", Size("multiple_at_least", multiple=32, short_side=736, long_side=4000)),
        ("det", Size("multiple_long_up", multiple=128, long_side=960)),
        ("det", Size("stretch", 736, 1280)),
        ("rec", Size("height", 48, 320)),
        ("rec", Size("height_padded", 32, 100)),
        ("cls", Size("crop", 224, 224, short_side=256)),
    ],
)
def test_they_have_the_size_of_the_input_without_opencv(task: str, size: Size, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cv2", None)
    record = replace(next(entry for entry in architectures() if entry.task == task).preprocessing, size=size)
    for case in default_cases(find_task(task), record):
        assert [image.shape for image in case.images] == [(*case.array.shape[2:], 3)] * len(case.array)
        assert not size.height or case.array.shape[2] == size.height
