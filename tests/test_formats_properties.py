"""What holds of every reader whatever the bytes: writing and reading is identity, and damage is survived."""

from __future__ import annotations

import pickle
import tracemalloc
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as st_numpy

from paddle2torch.converter.formats.info import read_info
from paddle2torch.converter.formats.pdiparams import read_pdiparams, write_pdiparams
from paddle2torch.converter.formats.pdmodel import Variable, read_pdmodel, rebuilt_pdmodel
from paddle2torch.converter.formats.pdparams import read_pdparams, write_pdparams
from paddle2torch.converter.formats.pir import read_pir, rebuilt_pir
from paddle2torch.converter.support.blob import Blob
from paddle2torch.converter.support.errors import FormatError
from support.format_samples import blob, linear_program, operator, pir_linear, program, variable

# Memory that a reader may take: so many bytes for each byte of the file, and some that it always takes.
BYTES_PER_BYTE, BYTES_AT_ALL = 100, 2**20

# An example that takes longer than this many milliseconds fails: nothing here is larger than a few kilobytes.
# The examples are the same at every run, so that what is green stays green; fuzz_formats.py looks further.
lively = settings(deadline=2000, max_examples=100, derandomize=True, suppress_health_check=[HealthCheck.too_slow])

# Keys by which a .pdopt or .states is known; no tensor of a network is called so.
MARKERS = {"LR_Scheduler", "master_weights", "best_model_dict", "epoch", "global_step", "start_epoch"}

CODES = ("?", "i1", "u1", "<i2", "<i4", "<i8", "<f2", "<f4", "<f8")
names = st.text(st.characters(codec="utf-8", exclude_categories=("C", "Z")), max_size=20).filter(
    lambda name: name not in MARKERS
)
tensors = st.sampled_from(CODES).flatmap(
    lambda code: st_numpy.arrays(code, st_numpy.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=4))
)
states = st.dictionaries(names, tensors, max_size=6)


def assert_same(read: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> None:
    """Equal to the bit, NaN included."""
    assert read.keys() == expected.keys()
    for name, array in expected.items():
        assert (read[name].dtype, read[name].shape) == (array.dtype, array.shape)
        assert read[name].tobytes() == array.tobytes()


# ---- writing and reading


@given(states)
@lively
def test_pdiparams_written_is_read(state: dict[str, np.ndarray]) -> None:
    parameters = [Variable(name, str(array.dtype), array.shape, True) for name, array in sorted(state.items())]
    written = write_pdiparams(state)
    assert_same(read_pdiparams(blob(written), parameters), state)
    assert write_pdiparams(read_pdiparams(blob(written), parameters)) == written


@given(st.dictionaries(names, tensors, min_size=1, max_size=6))
@lively
def test_pdparams_written_is_read(state: dict[str, np.ndarray]) -> None:
    written = write_pdparams(state)
    assert_same(read_pdparams(blob(written)), state)
    assert_same(pickle.loads(written), state)


@given(st.dictionaries(names, tensors, min_size=1, max_size=6), st.integers(2, 5))
@lively
def test_pickled_arrays_are_read(state: dict[str, np.ndarray], protocol: int) -> None:
    assert_same(read_pdparams(blob(pickle.dumps(state, protocol))), state)


plain = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**100), 2**100) | st.floats(allow_nan=False) | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner, max_size=3),
    max_leaves=9,
)


@given(
    st.dictionaries(names, st.fixed_dictionaries({"structured_name": names}, optional={"more": plain})),
    st.integers(2, 5),
)
@lively
def test_info_written_is_read(content: dict[str, dict], protocol: int) -> None:
    expected = {variable: facts["structured_name"] for variable, facts in content.items()}
    assert read_info(blob(pickle.dumps(content, protocol))) == expected


shapes = st.lists(st.integers(-1, 2**40), max_size=5).map(tuple)


@given(st.dictionaries(names, st.tuples(shapes, shapes), min_size=1, max_size=6))
@lively
def test_new_shapes_are_read_back(parameters: dict[str, tuple]) -> None:
    before = program(
        [variable(name, shape) for name, (shape, _) in parameters.items()], [operator("any", {"X": parameters}, {})]
    )
    changed = rebuilt_pdmodel(blob(before), [0], {name: shape for name, (_, shape) in parameters.items()})
    assert {each.name: each.shape for each in read_pdmodel(blob(changed)).parameters} == {
        name: shape for name, (_, shape) in parameters.items()
    }


# ---- damage

STATE = {"b": np.arange(3, dtype="<f4"), "w": np.arange(6, dtype="<f8").reshape(2, 3), "s": np.array(2, "<i8")}
PARAMETERS = [Variable(name, None, None, True) for name in STATE]
INFO = {name: {"structured_name": f"fc.{name}", "trainable": True, "stop_gradient": False} for name in STATE}
CUT = {
    "p.0": STATE["b"],
    "p.1": STATE["b"],
    "UnpackBigParamInfor@@": {"p": {"OriginShape": (2, 3), "slices": ["p.0", "p.1"]}},
}
PAIRS = {"state_dict": {name: (f"linear.{name}", array) for name, array in STATE.items()}, "epoch": 3}

Read = Callable[[Blob], object]
SAMPLES: dict[str, tuple[bytes, Read]] = {
    "pdmodel": (linear_program(), read_pdmodel),
    "pdmodel built again": (linear_program(), lambda file: rebuilt_pdmodel(file, [1], {"w": (3, 4)})),
    "pdiparams": (write_pdiparams(STATE), lambda file: read_pdiparams(file, PARAMETERS)),
    "info": (pickle.dumps(INFO, 2), read_info),
    "pdparams as written here": (write_pdparams(STATE), read_pdparams),
    **{f"pdparams of protocol {number}": (pickle.dumps(STATE, number), read_pdparams) for number in (2, 3, 4, 5)},
    "pdparams in parts": (pickle.dumps(CUT, 2), read_pdparams),
    "pir": (pir_linear(), read_pir),
    "pir built again": (pir_linear(), lambda file: rebuilt_pir(file, [1])),
    "pdparams of pairs": (pickle.dumps(PAIRS, 4), read_pdparams),
}


def survives(read: Read, data: bytes) -> None:
    """Reads, or says what is wrong in one printable line; in memory that the file's size bounds."""
    tracemalloc.start()
    try:
        read(blob(data))
    except FormatError as error:
        assert str(error).isprintable()
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert peak < BYTES_PER_BYTE * len(data) + BYTES_AT_ALL


@pytest.mark.parametrize("sample", SAMPLES)
def test_undamaged_samples_are_read(sample: str) -> None:
    data, read = SAMPLES[sample]
    assert read(blob(data))


@pytest.mark.parametrize("sample", SAMPLES)
def test_every_truncation_is_survived(sample: str) -> None:
    data, read = SAMPLES[sample]
    for length in range(len(data)):
        survives(read, data[:length])


@pytest.mark.parametrize("sample", SAMPLES)
@given(st.data())
@lively
def test_changed_bytes_are_survived(sample: str, data: st.DataObject) -> None:
    original, read = SAMPLES[sample]
    damaged = bytearray(original)
    places = st.integers(0, len(original) - 1)
    for place, value in data.draw(st.dictionaries(places, st.integers(0, 255), min_size=1, max_size=4)).items():
        damaged[place] = value
    survives(read, bytes(damaged))


@pytest.mark.parametrize("sample", SAMPLES)
@given(st.data())
@lively
def test_removed_and_inserted_bytes_are_survived(sample: str, data: st.DataObject) -> None:
    original, read = SAMPLES[sample]
    place = data.draw(st.integers(0, len(original)))
    removed = data.draw(st.integers(0, 9))
    inserted = data.draw(st.binary(max_size=9))
    survives(read, original[:place] + inserted + original[place + removed :])


@pytest.mark.parametrize("sample", SAMPLES)
@given(st.binary(max_size=200))
@lively
def test_any_bytes_are_survived(sample: str, data: bytes) -> None:
    original, read = SAMPLES[sample]
    survives(read, original[:2] + data)
