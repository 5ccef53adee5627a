#!/usr/bin/env python3
"""Fuzz the readers of model files, guided by coverage: any exception but FormatError is a finding.

    python scripts/fuzz_formats.py [READER ...] [--seconds N] [--corpus DIR] [--seeds DIR]

Needs atheris (`pip install atheris`, Linux and macOS). Each reader runs in a process of its own, starting from small
samples made here, from what --seeds holds, and from what earlier runs left in --corpus. A finding is written to
`crash-*`, `timeout-*` or `oom-*` in the current folder; the exit status is then not 0.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import pickle
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

try:
    import atheris
except ImportError:
    sys.exit("fuzz_formats.py: atheris is not installed; pip install atheris")

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

with atheris.instrument_imports(include=["converter"]):
    from converter.blob import Blob
    from converter.errors import FormatError
    from converter.formats.info import read_info
    from converter.formats.pdiparams import read_pdiparams, write_pdiparams
    from converter.formats.pdmodel import Variable, message_class, read_pdmodel, with_parameter_shapes
    from converter.formats.pdparams import read_pdparams, write_pdparams
    from converter.formats.pir import read_pir

MAX_LENGTH = 4096
MAX_MEGABYTES = 1024
MAX_SECONDS_PER_INPUT = 5

STATE = {"b": np.arange(2, dtype="f4"), "w": np.arange(6, dtype="f2").reshape(2, 3), "s": np.array(2, "i8")}
PARAMETERS = [Variable(name, None, None, True) for name in STATE]


def sample_program() -> bytes:
    """A program with a parameter, an input, and an operator that has an attribute of every type."""
    program = message_class("Program")()
    block = program.blocks.add(idx=0, parent_idx=-1)
    for name, persistable in (("w", True), ("x", False)):
        variable = block.vars.add(name=name.encode(), persistable=persistable)
        variable.type.type = 7
        variable.type.dense_tensor.tensor.data_type = 5
        variable.type.dense_tensor.tensor.dims.extend((2, 3))
    operator = block.ops.add(type=b"conv2d")
    operator.inputs.add(parameter=b"Input", arguments=[b"x", b"w"])
    operator.outputs.add(parameter=b"Output", arguments=[b"x"])
    for kind in range(18):
        attribute = operator.attrs.add(name=b"a%d" % kind, type=kind, i=1, f=0.5, s=b"text", b=True, l=2**40)
        attribute.ints.extend((1, 2))
        attribute.scalar.type = 2
        attribute.scalar.i = 7
        attribute.scalars.add(type=4).c.r = 1.0
        attribute.scalars[0].c.i = 2.0
    return program.SerializeToString()


def sample_checkpoints() -> list[bytes]:
    """One of each form and pickle protocol."""
    parts = {
        "p.0": STATE["b"],
        "UnpackBigParamInfor@@": {"p": {"OriginShape": (2, 1), "slices": ["p.0"]}},
    }
    pairs = {"state_dict": {name: (f"linear.{name}", array) for name, array in STATE.items()}, "epoch": 3}
    wide = {"v": np.arange(3, dtype="u2"), "big": np.arange(3, dtype=">f4"), "scalar": np.float32(1)}
    return [
        write_pdparams(STATE),
        *(pickle.dumps(content, protocol) for content in (STATE, parts, pairs, wide) for protocol in (2, 3, 4, 5)),
    ]


def sample_pir() -> bytes:
    """A program with a parameter, an input, and an operator that has attributes of most types."""
    tensor = {"#": "0.t_dtensor", "D": [{"#": "0.t_f32"}, [-1, 3], "NCHW", [], 0]}
    contents = {
        "0.a_i32": 1,
        "0.a_f32": 0.5,
        "0.a_bool": True,
        "0.a_str": "x",
        "1.a_intarray": [1],
        "0.a_c64": [0.5, 1.0],
    }
    contents |= {
        "1.a_scalar": ["float32", 1.0],
        "0.a_type": {"#": "0.t_f32"},
        "0.a_array": [{"#": "0.a_f64", "VD": "INF"}],
    }
    attributes = [{"N": "name", "AT": {"#": kind, "D": data}} for kind, data in contents.items()]
    operators = [
        {"#": "p", "A": [0, 1, 1, "w"], "O": {"%": 1, "TT": tensor}, "OA": [1, 0, 1]},
        {"#": "1.data", "A": attributes[3:4], "I": [], "O": [{"%": 2, "TT": tensor}]},
        {
            "#": "1.any",
            "A": attributes,
            "I": [{"%": 1}, {"%": 0}],
            "O": [{"%": 3, "TT": {"#": "0.t_vec", "D": [tensor]}}],
        },
    ]
    regions = [{"#": "region_0", "blocks": [{"#": "block_0", "args": [], "ops": operators}]}]
    return json.dumps({"base_code": {"magic": "pir", "version": 1}, "program": {"regions": regions}}).encode()


@dataclass(frozen=True)
class Target:
    """What is fuzzed: a reader, and samples to start from."""

    read: Callable[[Blob], object]
    samples: Callable[[], list[bytes]]


INFO = {name: {"structured_name": f"fc.{name}", "trainable": True, "stop_gradient": False} for name in STATE}
TARGETS: Mapping[str, Target] = {
    "pdmodel": Target(read_pdmodel, lambda: [sample_program()]),
    "shapes": Target(lambda blob: with_parameter_shapes(blob, {"w": (3, 4)}), lambda: [sample_program()]),
    "pdiparams": Target(lambda blob: read_pdiparams(blob, PARAMETERS), lambda: [write_pdiparams(STATE)]),
    "info": Target(read_info, lambda: [pickle.dumps(INFO, protocol) for protocol in (2, 4)]),
    "pdparams": Target(read_pdparams, sample_checkpoints),
    "pir": Target(read_pir, lambda: [sample_pir()]),
}


def fuzz(name: str, corpus: Path, seeds: Path | None, seconds: int) -> None:
    """Fuzz one reader; ends the process."""
    target = TARGETS[name]
    corpus.mkdir(parents=True, exist_ok=True)
    for index, sample in enumerate(target.samples()):
        (corpus / f"sample-{index}").write_bytes(sample)

    def one_input(data: bytes) -> None:
        with contextlib.suppress(FormatError):
            target.read(Blob(name, memoryview(data)))

    limits = [
        f"-max_total_time={seconds}",
        f"-max_len={MAX_LENGTH}",
        f"-rss_limit_mb={MAX_MEGABYTES}",
        f"-timeout={MAX_SECONDS_PER_INPUT}",
        "-print_final_stats=1",
    ]
    atheris.Setup([sys.argv[0], *limits, str(corpus), *([str(seeds)] if seeds else [])], one_input)
    atheris.Fuzz()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("readers", nargs="*", metavar="READER", help=f"any of {', '.join(TARGETS)}; all when none")
    parser.add_argument("--seconds", type=int, default=60, help="time for each reader (default: %(default)s)")
    parser.add_argument("--corpus", type=Path, help="folder that keeps what was found; a temporary one when not given")
    parser.add_argument("--seeds", type=Path, help="folder with further files to start from, which is left as it is")
    arguments = parser.parse_args()
    if unknown := set(arguments.readers) - set(TARGETS):
        parser.error(f"there is no reader {', '.join(sorted(unknown))}")
    readers = arguments.readers or list(TARGETS)
    with contextlib.ExitStack() as stack:
        corpus = arguments.corpus or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        if len(readers) == 1:
            fuzz(readers[0], corpus / readers[0], arguments.seeds, arguments.seconds)
        options = [f"--seconds={arguments.seconds}", f"--corpus={corpus}"]
        options += [f"--seeds={arguments.seeds}"] if arguments.seeds else []
        return max(subprocess.run([sys.executable, __file__, reader, *options]).returncode for reader in readers)


if __name__ == "__main__":
    sys.exit(main())
