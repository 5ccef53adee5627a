"""Values that no network computes with are refused, odd ones are told; each tensor by its name."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result

from paddle2torch.cli import main
from paddle2torch.converter.conversion.values import look_at
from support.checkpoints import Tensors, random_tensors, write_checkpoint

NAME = "rec_mobilenet_v3_bilstm_ctc"
VARIANCE = "backbone.conv1.bn._variance"
FATAL, NOTES = "fatal", "notes"


def put(name: str, value: float) -> Callable[[Tensors], None]:
    def change(tensors: Tensors) -> None:
        tensors[name] = tensors[name].copy()
        tensors[name].flat[1] = value

    return change


def in_double(tensors: Tensors) -> None:
    tensors |= {name: array.astype(np.float64) for name, array in tensors.items()}


def too_large(tensors: Tensors) -> None:
    in_double(tensors)
    tensors["head.fc.bias"][1] = 1e300


def in_half(tensors: Tensors) -> None:
    tensors |= {name: array.astype(np.float16) for name, array in tensors.items()}


def converted(tmp_path: Path, change: Callable[[Tensors], None], *options: str) -> Result:
    tensors = random_tensors(NAME, classes=11)
    change(tensors)
    path = write_checkpoint(tmp_path / "mine.pdparams", tensors)
    command = options or ("convert", "--output", str(tmp_path / "out"))
    return CliRunner().invoke(main, [command[0], str(path), *command[1:]])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (put("head.fc.bias", np.nan), "1 tensors hold NaN (head.fc.bias)"),
        (put("head.fc.bias", -np.inf), "1 tensors hold infinity (head.fc.bias)"),
        (put(VARIANCE, -0.5), f"1 tensors hold negative variances ({VARIANCE})"),
        (too_large, "1 tensors hold values too large for float32 (head.fc.bias)"),
    ],
)
def test_what_no_network_computes_with_is_refused(
    change: Callable[[Tensors], None], message: str, tmp_path: Path
) -> None:
    result = converted(tmp_path, change)
    assert result.exit_code == 8
    assert f"error: mine.pdparams: {message}; the network would answer NaN to every image" in result.stderr
    assert not (tmp_path / "out").exists()
    # To look is allowed.
    assert f"values: {message}" in converted(tmp_path, change, "inspect").stdout


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (put(VARIANCE, -1e-9), f"1 tensors hold variances just below zero ({VARIANCE})"),
        (put("head.fc.bias", 1e-40), "1 tensors hold denormal values (head.fc.bias): 1 below 1.2e-38"),
        (in_double, "tensors stored as float64 were rounded to float32"),
        (in_half, "tensors stored as float16 were widened to float32"),
    ],
)
def test_what_is_odd_is_told(change: Callable[[Tensors], None], message: str, tmp_path: Path) -> None:
    result = converted(tmp_path, change)
    assert result.exit_code == 0, result.stderr
    assert message in result.stderr


def test_sound_values_are_not_spoken_of(tmp_path: Path) -> None:
    words = converted(tmp_path, lambda _: None).stderr
    assert not any(word in words for word in ("hold", "float64", "widened", "denormal"))


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_all_widths_are_looked_at(dtype: type[np.floating]) -> None:
    found = look_at(
        {name: np.array([1, value], dtype) for name, value in {"a": np.inf, "b": np.nan, "c": 1}.items()}, ()
    )
    assert set(found.fatal) == {"1 tensors hold infinity (a)", "1 tensors hold NaN (b)"}


@pytest.mark.parametrize(("constants", "place"), [(False, FATAL), (True, NOTES)])
def test_infinity_may_be_a_mask_of_a_program(constants: bool, place: str) -> None:
    found = look_at({"mask": np.array([0, -np.inf], np.float32)}, (), constants)
    assert getattr(found, place) == ("1 tensors hold infinity (mask)",)


@pytest.mark.parametrize("array", [np.zeros(0, np.float32), np.zeros((2, 0)), np.array([7]), np.array([True])])
def test_empty_arrays_and_integers_are_sound(array: np.ndarray) -> None:
    assert look_at({"x": array}, {"x"}) == look_at({}, ())
