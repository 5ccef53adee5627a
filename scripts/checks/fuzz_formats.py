#!/usr/bin/env python3
"""Fuzz what reads files of others, guided by coverage: any exception but those that were foreseen is a finding.

    python scripts/checks/fuzz_formats.py [--reader NAME ...] [--seconds N] [--findings DIR] [--corpus DIR]
        [--seeds DIR]

Needs atheris (`pip install atheris`; Linux and macOS). Each reader runs in a process of its own for N seconds, starting
from samples made here and cut from the embedded model, from what --seeds holds, and from what earlier runs left in
--corpus. A line for each tells how often it was executed. An input that makes a reader raise anything else, or an error
that nobody foresaw, take longer than a few seconds or more than a gigabyte is kept as DIR/READER-crash-*, -timeout-*
or -oom-*.

Two targets go further than reading. "program" makes the graph of a program, builds it again and traces it; "trace"
takes the bytes for choices of operators, operands and attributes, and traces the graph that they make.

Exit status: 0 nothing found, 1 findings, 2 the command line is off or atheris is missing, 3 a reader could not be run.
"""

from __future__ import annotations

import argparse
import gzip
import io
import json
import os
import pickle
import re
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from paddle2torch.architectures.graph.form import Graph

ROOT = Path(__file__).resolve().parents[2]
EMBEDDED = ROOT / "converter" / "zoo" / "embedded"

MAX_LENGTH = 4096
MAX_MEGABYTES = 1024
MAX_SECONDS_PER_INPUT = 5
FOUND, UNUSABLE, BROKEN = 1, 2, 3
MEMORY = Path("/dev/shm")  # where files that are written thousands of times belong

STATE = {"b": np.arange(2, dtype="f4"), "w": np.arange(6, dtype="f2").reshape(2, 3), "s": np.array(2, "i8")}


# ---- samples -----------------------------------------------------------------------------------------------------


def embedded(tarball: str, member: str) -> bytes:
    """A file of the embedded model."""
    with tarfile.open(EMBEDDED / f"embedded_rec_{tarball}.tar") as tar:
        stream = tar.extractfile(f"embedded_rec_{tarball}/{member}")
        assert stream is not None
        return stream.read()


def sample_program() -> bytes:
    """A program with a parameter, an input, and an operator that has an attribute of every type."""
    from paddle2torch.converter.formats.pdmodel import message_class

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


def embedded_program() -> bytes:
    """The first operators of the embedded model's program, and what they name."""
    from paddle2torch.converter.formats.pdmodel import message_class

    program = message_class("Program").FromString(embedded("infer", "inference.pdmodel"))
    block = program.blocks[0]
    del block.ops[4:]
    named = {name for op in block.ops for side in (op.inputs, op.outputs) for slot in side for name in slot.arguments}
    for index in reversed(range(len(block.vars))):
        if block.vars[index].name not in named:
            del block.vars[index]
    return program.SerializeToString()


def programs() -> list[bytes]:
    return [sample_program(), embedded_program()]


def embedded_state() -> dict[str, np.ndarray]:
    """The smallest tensors of the embedded checkpoint."""
    from paddle2torch.converter.formats.pdparams import read_pdparams
    from paddle2torch.converter.support.blob import Blob

    state = read_pdparams(Blob("sample", memoryview(embedded("train", "best_accuracy.pdparams"))))
    return {name: np.array(state[name]) for name in sorted(state, key=lambda name: state[name].nbytes)[:4]}


def parameters() -> list[bytes]:
    from paddle2torch.converter.formats.pdiparams import write_pdiparams

    return [write_pdiparams(STATE)]


def infos() -> list[bytes]:
    """One by hand, and the first entries of the embedded model's."""
    facts = {name: {"structured_name": f"fc.{name}", "trainable": True, "stop_gradient": False} for name in STATE}
    released = pickle.loads(embedded("infer", "inference.pdiparams.info"))  # made here, so it may be trusted
    few = dict(list(released.items())[:8])
    return [pickle.dumps(content, protocol) for content in (facts, few) for protocol in (2, 4)]


def checkpoints() -> list[bytes]:
    """One of each form and pickle protocol."""
    from paddle2torch.converter.formats.pdparams import write_pdparams

    parts = {
        "p.0": STATE["b"],
        "UnpackBigParamInfor@@": {"p": {"OriginShape": (2, 1), "slices": ["p.0"]}},
    }
    pairs = {"state_dict": {name: (f"linear.{name}", array) for name, array in STATE.items()}, "epoch": 3}
    wide = {"v": np.arange(3, dtype="u2"), "big": np.arange(3, dtype=">f4"), "scalar": np.float32(1)}
    return [
        write_pdparams(STATE),
        write_pdparams(embedded_state()),
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


def embedded_pir() -> bytes:
    """The first operators of the embedded model's program in Paddle 3's form."""
    program = json.loads(embedded("pir", "inference.json"))
    block = program["program"]["regions"][0]["blocks"][0]
    block["ops"] = block["ops"][:3]
    return json.dumps(program, separators=(",", ":")).encode()


def archives() -> list[bytes]:
    """A small model as .tar (in three variants), .tar.gz and .zip."""
    tars = []
    for variant in (tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
        stream = io.BytesIO()
        with tarfile.open(fileobj=stream, mode="w", format=variant) as tar:
            for name in ("模型/x.pdparams", f"{'long/' * 25}a.txt"):
                member = tarfile.TarInfo(name)
                member.size = 4
                tar.addfile(member, io.BytesIO(b"data"))
        tars.append(stream.getvalue()[: MAX_LENGTH - 1024] + bytes(1024))
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a/x.pdparams", b"data" * 10)
        archive.writestr("a/b.txt", b"")
    return [*tars, gzip.compress(tars[0]), stream.getvalue()]


def configurations() -> list[bytes]:
    return [
        b"Global:\n  character_dict_path: words.txt\n  use_space_char: true\n"
        b"Architecture:\n  model_type: rec\n  algorithm: CRNN\n  Transform:\n"
        b"  Backbone: {name: MobileNetV3, scale: 0.5, model_name: small, small_stride: [1, 2, 2, 2]}\n"
        b"  Neck: {name: SequenceEncoder, encoder_type: rnn, hidden_size: 48}\n  Head: {name: CTCHead}\n",
        b"Architecture:\n  name: DistillationModel\n  Models:\n    Student: &one {model_type: det}\n"
        b"    Teacher: *one\n",
    ]


def all_settings() -> list[bytes]:
    return [
        b"Hpi: {a: &id001 {x: [[1, 3, 48, 160]]}, b: *id001}\nPreProcess:\n  transform_ops:\n"
        b"  - DecodeImage: {img_mode: BGR}\n  - RecResizeImg:\n      image_shape: [3, 48, 320]\n"
        b"PostProcess:\n  name: CTCLabelDecode\n  character_dict:\n  - \xe3\x80\x80\n  - '~'\n  - =\n  - 0\n",
        b"PreProcess:\n  transform_ops:\n  - NormalizeImage: {mean: [0.5, 0.5, 0.5], std: [0.5, 0.5, 0.5], "
        b"scale: 1./255.}\n  - ResizeImage: {size: [192, 48]}\n  - DetResizeForTest: {limit_side_len: 960}\n",
    ]


def small_programs() -> list[bytes]:
    """Programs of sizes that are computed, as attention and resizing have them."""
    from paddle2torch.converter.formats.pdmodel import message_class

    made = []
    for kinds in (
        ("shape", "slice", "reshape2"),
        ("fill_constant", "elementwise_mul", "tile"),
        ("concat", "transpose2", "split"),
    ):
        content = message_class("Program")()
        block = content.blocks.add(idx=0, parent_idx=-1)
        for name, kind in (("feed", 9), ("fetch", 10), ("x", 7), *((f"v{place}", 7) for place in range(len(kinds)))):
            variable = block.vars.add(name=name.encode(), persistable=kind != 7)
            variable.type.type = kind
            if kind == 7:
                variable.type.dense_tensor.tensor.data_type = 5
                variable.type.dense_tensor.tensor.dims.extend((-1, 3, 32, 96))
        chain = [
            ("feed", "feed", "x"),
            *((kind, f"v{place - 1}" if place else "x", f"v{place}") for place, kind in enumerate(kinds)),
        ]
        for kind, source, target in (*chain, ("fetch", f"v{len(kinds) - 1}", "fetch")):
            operator = block.ops.add(type=kind.encode())
            for slot in (b"X", b"Input"):
                operator.inputs.add(parameter=slot, arguments=[source.encode()])
            operator.outputs.add(parameter=b"Out", arguments=[target.encode()])
            for name, values in (
                ("shape", (0, -1)),
                ("axes", (1,)),
                ("starts", (0,)),
                ("ends", (2,)),
                ("repeat_times", (2, 2)),
                ("axis", (0, 2, 1, 3)),
            ):
                operator.attrs.add(name=name.encode(), type=3, ints=values)
            operator.attrs.add(name=b"dtype", type=0, i=3)
            operator.attrs.add(name=b"value", type=1, f=9.0)
        made.append(content.SerializeToString())
    return made


# ---- graphs out of bytes -----------------------------------------------------------------------------------------

SHAPE = (1, 3, 32, 96)
NUMBERS = (0, 1, -1, 2, 3, 8, 64, 65, 1000, -7, 10**5, 10**9, 2**31, 2**62, -(2**63), 10**30)
FRACTIONS = (0.0, 1.0, 0.5, -2.0, 1e9, 1e300, float("inf"), float("nan"))
WORDS = (
    "same",
    "max",
    "avg",
    "nearest",
    "bilinear",
    "bicubic",
    "constant",
    "reflect",
    "float32",
    "int64",
    "bool",
    "odd",
)


class Choices:
    """Bytes as a row of choices; zeros behind their end."""

    def __init__(self, data: bytes) -> None:
        self.data, self.at = data, 0

    @property
    def left(self) -> bool:
        return self.at < len(self.data)

    def number(self, below: int) -> int:
        byte = self.data[self.at] if self.left else 0
        self.at += 1
        return byte % below

    def of(self, values: Sequence[Any]) -> Any:
        return values[self.number(len(values))]


def chosen_graph(choose: Choices) -> Graph:
    """A graph of operators of the table, with operands that are there and attributes of the right kinds."""
    from paddle2torch.architectures.graph.form import Graph, Node, Parameter
    from paddle2torch.architectures.graph.operators import OPERATORS, signature

    kinds = list(OPERATORS)
    parameters = {
        name: Parameter(None, shape, "float32") for name, shape in (("w", (4, 3, 3, 3)), ("b", (3,)), ("m", (96, 8)))
    }
    nodes: list[Node] = []
    values = ["x", *parameters]
    while choose.left and len(nodes) < 60:
        kind = choose.of(kinds)
        expected = signature(kind)
        inputs: dict[str, tuple[str, ...]] = {}
        attributes: dict[str, Any] = {}
        for name in dict.fromkeys((*expected.slots, *expected.attributes)):
            optional = name not in expected.required
            if optional and choose.number(2):
                continue
            if name in expected.slots and (name not in expected.attributes or choose.number(2)):
                count = 1 if expected.slots[name] == "tensor" else 1 + choose.number(4)
                inputs[name] = tuple(values[-1 - choose.number(len(values))] for _ in range(count))
            else:
                attributes[name] = chosen_value(choose, choose.of(expected.attributes[name]))
        outputs = tuple(f"v{len(nodes)}.{part}" for part in range(1 + choose.number(3)))
        nodes.append(Node(kind, inputs, outputs, attributes))
        values += outputs
    return Graph({"x": SHAPE}, (values[-1],), tuple(nodes), parameters)


def chosen_value(choose: Choices, kind: str) -> Any:
    """An attribute of a kind, as the table's signatures call it."""
    if kind.startswith("list") or kind == "Sizes":
        element = "float" if "float" in kind else "int"
        return [chosen_value(choose, element) for _ in range(choose.number(9) * (1 if choose.number(8) else 700))]
    return {
        "None": lambda: None,
        "bool": lambda: bool(choose.number(2)),
        "int": lambda: choose.of(NUMBERS),
        "float": lambda: choose.of(FRACTIONS),
        "Number": lambda: choose.of((*NUMBERS, *FRACTIONS)),
        "str": lambda: choose.of(WORDS),
    }[kind]()


# ---- readers -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Target:
    """What is fuzzed.

    Attributes:
        reader: makes the function that reads bytes; it imports what it needs.
        samples: what to start from.
    """

    reader: Callable[[], Callable[[bytes], object]]
    samples: Callable[[], list[bytes]]


def in_memory(name: str, read: Callable[[Any], object]) -> Callable[[bytes], object]:
    from paddle2torch.converter.support.blob import Blob

    return lambda data: read(Blob(name, memoryview(data)))


def from_disk(name: str, read: Callable[[Path], object]) -> Callable[[bytes], object]:
    path = Path(tempfile.mkdtemp(prefix="fuzz-")) / name

    def write_and_read(data: bytes) -> object:
        path.write_bytes(data)
        return read(path)

    return write_and_read


def pdmodel() -> Callable[[bytes], object]:
    from paddle2torch.converter.formats.pdmodel import read_pdmodel

    return in_memory("pdmodel", read_pdmodel)


def rebuilt() -> Callable[[bytes], object]:
    """Programs built again, with another shape for a parameter."""
    from paddle2torch.converter.formats.pdmodel import rebuilt_pdmodel

    return in_memory("rebuilt", lambda blob: rebuilt_pdmodel(blob, [0], {"w": (3, 4)}))


def pdiparams() -> Callable[[bytes], object]:
    from paddle2torch.converter.formats.pdiparams import read_pdiparams
    from paddle2torch.converter.formats.pdmodel import Variable

    variables = [Variable(name, None, None, True) for name in STATE]
    return in_memory("pdiparams", lambda blob: read_pdiparams(blob, variables))


def info() -> Callable[[bytes], object]:
    from paddle2torch.converter.formats.info import read_info

    return in_memory("info", read_info)


def pdparams() -> Callable[[bytes], object]:
    from paddle2torch.converter.formats.pdparams import read_pdparams

    return in_memory("pdparams", read_pdparams)


def pir() -> Callable[[bytes], object]:
    from paddle2torch.converter.formats.pir import read_pir

    return in_memory("pir", read_pir)


def archive() -> Callable[[bytes], object]:
    from paddle2torch.converter.containers.archive import open_model_files

    return from_disk("model.archive", open_model_files)


def config() -> Callable[[bytes], object]:
    from paddle2torch.converter.mapping.config import read_config

    return from_disk("model.yml", read_config)


def settings() -> Callable[[bytes], object]:
    from paddle2torch.converter.mapping.exported import read_settings

    return in_memory("settings", read_settings)


def yaml_values() -> Callable[[bytes], object]:
    from paddle2torch.converter.support.errors import FormatError
    from paddle2torch.converter.support.safe_yaml import load_yaml

    def read(data: bytes) -> object:
        try:
            return load_yaml(data)
        except ValueError as error:  # what it raises, on purpose and of YAML's own; UnicodeDecodeError is one, too
            raise FormatError("yaml", str(error)) from error

    return read


def program() -> Callable[[bytes], object]:
    """From a program of either form to its trace, as a conversion does it, and to what Paddle would get."""
    from paddle2torch.converter.formats.pdmodel import read_pdmodel
    from paddle2torch.converter.formats.pir import read_pir
    from paddle2torch.converter.graph.checked import checked_program
    from paddle2torch.converter.graph.trace import trace_graph
    from paddle2torch.converter.support.blob import Blob

    def read(blob: Blob) -> object:
        found = (read_pir if blob.head(1) == b"{" else read_pdmodel)(blob)
        return trace_graph(checked_program(blob, found, "program").graph, {}, SHAPE)

    return in_memory("program", read)


def trace() -> Callable[[bytes], object]:
    from paddle2torch.converter.graph.trace import trace_graph

    return lambda data: trace_graph(chosen_graph(Choices(data)), {}, SHAPE)


def dictionary() -> Callable[[bytes], object]:
    from paddle2torch.converter.mapping.labels import read_dictionary

    return lambda data: read_dictionary(data, "dictionary")


TARGETS: Mapping[str, Target] = {
    "pdmodel": Target(pdmodel, programs),
    "rebuilt": Target(rebuilt, programs),
    "pdiparams": Target(pdiparams, parameters),
    "info": Target(info, infos),
    "pdparams": Target(pdparams, checkpoints),
    "pir": Target(pir, lambda: [sample_pir(), embedded_pir()]),
    "archive": Target(archive, archives),
    "config": Target(config, configurations),
    "settings": Target(settings, all_settings),
    "yaml": Target(yaml_values, lambda: [*configurations(), *all_settings()]),
    "program": Target(program, lambda: [embedded_program(), embedded_pir(), *small_programs()]),
    "trace": Target(trace, lambda: [bytes(range(n, n + 200)) for n in (0, 20, 40)]),
    "dictionary": Target(dictionary, lambda: [(EMBEDDED / "embedded_dict.txt").read_bytes(), "é\r\n\n".encode()]),
}


# ---- fuzzing -----------------------------------------------------------------------------------------------------


def fuzz(name: str, options: list[str]) -> None:
    """Fuzz one reader, in this process, with libFuzzer's options; ends the process."""
    import atheris

    with atheris.instrument_imports(include=["paddle2torch.converter"]):
        from paddle2torch.converter.support.boundary import UNFORESEEN
        from paddle2torch.converter.support.errors import ConverterError

        read = TARGETS[name].reader()

    def one_input(data: bytes) -> None:
        try:
            read(data)
        except ConverterError as error:
            if UNFORESEEN in getattr(error, "__notes__", ()):
                raise

    atheris.Setup([sys.argv[0], *options], one_input)
    atheris.Fuzz()


class Outcome(NamedTuple):
    """What came of fuzzing one reader: how often it was executed, the inputs that it failed on, and what was said."""

    executions: int
    findings: list[Path]
    log: str


def fuzz_apart(name: str, seconds: int, findings: Path, folders: list[Path], temporary: str) -> Outcome:
    """Fuzz one reader in a process of its own; the first of the folders takes what is new."""
    for index, sample in enumerate(TARGETS[name].samples()):
        (folders[0] / f"sample-{index}").write_bytes(sample)
    before = set(findings.glob(f"{name}-*"))
    command = [sys.executable, __file__, "--apart", name]
    command += [
        f"-max_total_time={seconds}",
        f"-max_len={MAX_LENGTH}",
        f"-rss_limit_mb={MAX_MEGABYTES}",
        f"-timeout={MAX_SECONDS_PER_INPUT}",
        f"-artifact_prefix={findings}/{name}-",
        "-print_final_stats=1",
        *map(str, folders),
    ]
    environment = {**os.environ, "TMPDIR": temporary}
    process = subprocess.run(
        command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False
    )
    log = process.stdout.decode(errors="replace")
    executions = re.search(r"number_of_executed_units: (\d+)", log)
    return Outcome(int(executions[1]) if executions else 0, sorted(set(findings.glob(f"{name}-*")) - before), log)


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--reader", dest="readers", action="append", choices=TARGETS, help="all where not given")
    parser.add_argument("--seconds", type=int, default=60, help="time for each reader (default: %(default)s)")
    parser.add_argument("--findings", type=Path, default=Path("findings"), help="folder for inputs that fail")
    parser.add_argument("--corpus", type=Path, help="folder that keeps what was found; a temporary one where not given")
    parser.add_argument("--seeds", type=Path, help="folder with further files to start from, which is left as it is")
    return parser.parse_args(arguments)


def main() -> int:
    options = parse()
    if find_spec("atheris") is None:
        print("fuzz_formats.py: atheris is not installed; pip install atheris", file=sys.stderr)
        return UNUSABLE
    options.findings.mkdir(parents=True, exist_ok=True)
    found = broken = False
    with tempfile.TemporaryDirectory(dir=MEMORY if MEMORY.is_dir() else None) as temporary:
        for name in options.readers or TARGETS:
            corpus = (options.corpus or Path(temporary)).resolve() / name
            corpus.mkdir(parents=True, exist_ok=True)
            folders = [corpus, *([options.seeds.resolve()] if options.seeds else [])]
            outcome = fuzz_apart(name, options.seconds, options.findings.resolve(), folders, temporary)
            print(f"{name}: {outcome.executions} executions, {len(outcome.findings)} findings", flush=True)
            for finding in outcome.findings:
                print(f"  {finding}")
            if outcome.findings or not outcome.executions:
                print(outcome.log, file=sys.stderr)
            found |= bool(outcome.findings)
            broken |= not outcome.findings and not outcome.executions
    return FOUND if found else BROKEN if broken else 0


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    if sys.argv[1:2] == ["--apart"]:
        fuzz(sys.argv[2], sys.argv[3:])
    else:
        sys.exit(main())
