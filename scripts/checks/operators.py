"""Is Paddle given any operator that does more than compute? Every type that Paddle has, put into harmless programs.

    python scripts/checks/operators.py [--commands]

Needs PaddlePaddle, whose registry and library tell the types, in a process of its own. Each is put into a program of
Paddle 2's form and of Paddle 3's: where no output depends on it, where the output does, and into a block inside. What
Paddle would be given is then built as `verify` builds it. An operator that the tables have may be in that where the
output depends on it; every other one is refused by its type, or left out. With --commands, those of
tests/hostile_operators.txt also go through `verify`, in the embedded model's programs; Paddle is not started.

Exit status: 0 all were kept from Paddle, 1 some were not; they are listed.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import mmap
import re
import subprocess
import sys
import tarfile
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest.mock import patch

from paddle2torch.converter.formats.pdmodel import message_class, read_pdmodel
from paddle2torch.converter.formats.pir import read_pir
from paddle2torch.converter.graph.checked import checked_program
from paddle2torch.converter.graph.dialects import LEGACY, PIR
from paddle2torch.converter.support.blob import Blob
from paddle2torch.converter.support.errors import ConverterError

ROOT = Path(__file__).resolve().parents[2]
EMBEDDED = ROOT / "converter" / "zoo" / "embedded"
HOSTILE = ROOT / "tests" / "hostile_operators.txt"
REGISTRY = """
import json, sys
from paddle.base import core
json.dump([sorted(core.get_all_op_names()), sorted(core._get_registered_phi_kernels())], sys.stdout)
"""
DIALECTS = ("builtin", "pd_op", "cf", "cinn_op", "cinn_runtime", "custom_op", "custom_kernel", "onednn_op", "pd_kernel")
PLACES = ("nothing depends on it", "the output depends on it", "in a block inside")
NUMBERS = {"builtin": "0", "pd_op": "1"}  # by which an `inference.json` refers to dialects
OWN = ("feed", "fetch", "data", "combine")  # a network's inputs and outputs, and what makes lists of values
LONGEST_TOLD = 80  # characters of a type in a message
REFUSED, LEFT_OUT, OF_THE_TABLES, GIVEN = "refused", "left out", "computes, and is kept", "GIVEN TO PADDLE"


# ---- which there are ---------------------------------------------------------------------------------------------


def legacy_types() -> set[str]:
    """Those of a `.pdmodel`: registered operators, and kernels, which an operator may be called after."""
    run = subprocess.run([sys.executable, "-P", "-c", REGISTRY], check=True, capture_output=True, text=True)
    operators, kernels = json.loads(run.stdout)
    return {*operators, *kernels, *hostile()}


def pir_types() -> set[str]:
    """Those of an `inference.json`, DIALECT.NAME, as far as they stand in Paddle's library."""
    spec = importlib.util.find_spec("paddle")
    if spec is None or spec.origin is None:
        raise SystemExit("operators.py: PaddlePaddle is not installed")
    pattern = re.compile(rb"\0((?:%s)\.\w+)(?=\0)" % "|".join(DIALECTS).encode())
    found: set[str] = set()
    for library in Path(spec.origin).parent.rglob("libpaddle*.so"):
        with library.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            found |= {name.decode() for name in pattern.findall(content)}
    return found | {name if "." in name else f"pd_op.{name}" for name in hostile()}


def hostile() -> list[str]:
    """The types of the list in the tests."""
    return [line.split()[1] for line in HOSTILE.read_text().splitlines() if line[0] != "#"]


# ---- programs ----------------------------------------------------------------------------------------------------


def add_legacy(content: bytes, kind: str, place: str) -> bytes:
    """A `.pdmodel` with one operator more."""
    program: Any = message_class("Program").FromString(content)
    main = program.blocks[0]
    block = main if place != PLACES[2] else program.blocks.add(idx=len(program.blocks), parent_idx=0)
    fetch = next(number for number, op in enumerate(main.ops) if op.type == b"fetch")
    value = main.ops[fetch].inputs[0].arguments[0]
    later = list(main.ops)[fetch:] if block is main else []
    del main.ops[len(main.ops) - len(later) :]
    extra = block.ops.add(type=kind.encode())
    extra.inputs.add(parameter=b"X", arguments=[value])
    extra.outputs.add(parameter=b"Out", arguments=[value if place == PLACES[1] else b"hostile_out"])
    extra.attrs.add(name=b"file_path", type=2, s=b"/nowhere")
    main.vars.add().CopyFrom(next(each for each in main.vars if each.name == value))
    main.vars[-1].name = b"hostile_out"
    main.ops.extend(later)
    return bytes(program.SerializeToString())


def add_pir(content: bytes, kind: str, place: str) -> bytes:
    """An `inference.json` with one operator more."""
    data = json.loads(content)
    block = data["program"]["regions"][0]["blocks"][0]
    ops = block["ops"]
    fetch = next(number for number, op in enumerate(ops) if op["#"] == "1.fetch")
    value = ops[fetch]["I"][0]["%"]
    maker = next(op for op in ops if any(each["%"] == value for each in _results(op)))
    dialect, _, name = kind.partition(".")
    result = {"%": 900_000, "TT": next(each["TT"] for each in _results(maker) if each["%"] == value)}
    text = {"N": "file_path", "AT": {"#": "0.a_str", "D": "/nowhere"}}
    extra = {"#": f"{NUMBERS.get(dialect, dialect)}.{name}", "A": [text], "I": [{"%": value}], "O": [result]}
    if place == PLACES[2]:
        maker["regions"] = [{"#": "region_1", "blocks": [{"#": "block_1", "args": [], "ops": [extra]}]}]
    else:
        ops.insert(fetch, extra)
    if place == PLACES[1]:
        ops[fetch + 1]["I"][0]["%"] = 900_000
    return json.dumps(data).encode()


def _results(op: dict[str, Any]) -> list[dict[str, Any]]:
    found = op.get("O", [])
    return found if isinstance(found, list) else [found]


def embedded(tarball: str) -> bytes:
    """The embedded model's program."""
    with tarfile.open(EMBEDDED / f"embedded_rec_{tarball}.tar") as tar:
        name = next(each for each in tar.getnames() if each.endswith((".pdmodel", ".json")))
        stream = tar.extractfile(name)
        assert stream is not None
        return stream.read()


def small_legacy() -> bytes:
    """The last operators of the embedded program, fed with what they read."""
    program: Any = message_class("Program").FromString(embedded("infer"))
    main = program.blocks[0]
    feed, last, fetch = main.ops[0], main.ops[-2], main.ops[-1]
    feed.outputs[0].arguments[0] = next(slot.arguments[0] for slot in last.inputs if slot.arguments)
    kept = [feed, last, fetch]
    names = {name for op in kept for side in (op.inputs, op.outputs) for slot in side for name in slot.arguments}
    variables = [each for each in main.vars if each.name in names]
    del main.ops[:], main.vars[:]
    main.ops.extend(kept)
    main.vars.extend(variables)
    return bytes(program.SerializeToString())


def small_pir() -> bytes:
    """The same of Paddle 3's."""
    data = json.loads(embedded("pir"))
    block = data["program"]["regions"][0]["blocks"][0]
    first = next(op for op in block["ops"] if op["#"] == "1.data")
    last, fetch = block["ops"][-2:]
    last["I"][0]["%"] = _results(first)[0]["%"]
    block["ops"] = [first, last, fetch]
    return json.dumps(data).encode()


# ---- what becomes of them ----------------------------------------------------------------------------------------


def outcome(kind: str, place: str, pir: bool, program: bytes) -> str:
    """What becomes of an operator in a small program."""
    read, table = (read_pir, PIR) if pir else (read_pdmodel, LEGACY)
    content = (add_pir if pir else add_legacy)(program, kind, place)
    blob = Blob("model", memoryview(content))
    name = kind.removeprefix("pd_op.").removeprefix("builtin.") if pir else kind
    usual = name.removesuffix("_") if pir else name
    try:
        found = checked_program(blob, read(blob), "model")
    except ConverterError as error:
        told = usual in table or usual in OWN or usual[:LONGEST_TOLD] in str(error)
        return REFUSED if told else f"refused without its name ({error})"
    count = sum(each.type.removeprefix("pd_op.") in (name, usual) for each in found.program.operators)
    count -= sum(each.type.removeprefix("pd_op.") in (name, usual) for each in read(_blob(program)).operators)
    if count <= 0:
        return LEFT_OUT
    return OF_THE_TABLES if usual in OWN or (usual in table and place == PLACES[1]) else GIVEN


def _blob(content: bytes) -> Blob:
    return Blob("model", memoryview(content))


def in_programs() -> Iterator[tuple[str, str]]:
    """(what, outcome) of each type in each place, in both forms."""
    for form, types, program in (("pdmodel", legacy_types(), small_legacy()), ("json", pir_types(), small_pir())):
        for kind in sorted(types):
            for place in PLACES:
                yield f"{form}: {kind}, {place}", outcome(kind, place, form == "json", program)


def in_commands() -> Iterator[tuple[str, str]]:
    """The same of `verify`, for the types of the list."""
    from click.testing import CliRunner

    from paddle2torch.cli import main
    from paddle2torch.converter.parity.reference import PaddleWorker

    adders: dict[str, Callable[[bytes, str, str], bytes]] = {"infer": add_legacy, "pir": add_pir}
    for tarball, add in adders.items():
        with tempfile.TemporaryDirectory() as folder, tarfile.open(EMBEDDED / f"embedded_rec_{tarball}.tar") as tar:
            tar.extractall(folder, filter="data")
            model = next(Path(folder).iterdir())
            file = next(each for each in model.iterdir() if each.suffix in (".pdmodel", ".json"))
            whole = file.read_bytes()
            for kind in hostile():
                for place in PLACES:
                    named = kind if tarball == "infer" or "." in kind else f"pd_op.{kind}"
                    file.write_bytes(add(whole, named, place))
                    with patch.object(PaddleWorker, "_start"), patch.object(PaddleWorker, "load") as load:
                        result = CliRunner().invoke(main, ["verify", str(model)])
                    refused = result.exit_code in (7, 8) and result.stderr.count("error:") == 1
                    yield f"verify, {tarball}: {kind}, {place}", GIVEN if load.called or not refused else REFUSED


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--commands", action="store_true", help="also through `verify`, which takes minutes")
    options = parser.parse_args()
    found = [*in_programs(), *(in_commands() if options.commands else ())]
    counts = Counter((what.partition(":")[0], result) for what, result in found)
    for (where, result), count in sorted(counts.items()):
        print(f"{count:6} {where:15} {result}")
    bad = [f"{what}: {result}" for what, result in found if result not in (REFUSED, LEFT_OUT, OF_THE_TABLES)]
    print(*bad, sep="\n", end="\n" if bad else "")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
