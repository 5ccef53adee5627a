"""What Paddle is given: operators of the tables, as far as the outputs depend on them, and nothing else of a program."""

from __future__ import annotations

import json
import subprocess
import sys
import tarfile
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from paddle2torch.architectures.graph.form import Graph, Node
from paddle2torch.cli import main
from paddle2torch.converter.formats.pdiparams import write_pdiparams
from paddle2torch.converter.formats.pdmodel import Program, message_class, read_pdmodel, rebuilt_pdmodel
from paddle2torch.converter.formats.pir import read_pir, rebuilt_pir
from paddle2torch.converter.graph.checked import checked_program, needed
from paddle2torch.converter.graph.dialects import LEGACY, PIR
from paddle2torch.converter.graph.program import UncoveredError, graph_from_program
from paddle2torch.converter.parity.programs import PreparedProgram
from paddle2torch.converter.parity.reference import PaddleWorker
from paddle2torch.converter.support.blob import Blob
from paddle2torch.converter.support.errors import FormatError, MappingError, PaddleError
from support.format_samples import (
    attribute,
    blob,
    field,
    operator,
    pir_attribute,
    pir_operator,
    pir_parameter,
    pir_program,
    pir_type,
    program,
    variable,
)
from support.graphs import EMBEDDED
from support.upstream import program_folder

HOSTILE = [
    line.split()[1]
    for line in (Path(__file__).parent / "hostile_operators.txt").read_text().splitlines()
    if line[0] != "#"
]
needs_paddle = pytest.mark.skipif(find_spec("paddle") is None, reason="PaddlePaddle is not installed")


def legacy(*further: bytes, inner: tuple[bytes, ...] = ()) -> bytes:
    """`relu(x + w)`, with further operators before the fetch, and others in a block of their own."""
    variables = [
        variable("feed", None, kind=9),
        variable("fetch", None, kind=10),
        variable("w", (3,)),
        variable("unread", (2,)),
        *(variable(name, (-1, 3), persistable=False) for name in ("x", "sum", "y", "extra")),
    ]
    operators = [
        operator("feed", {"X": ["feed"]}, {"Out": ["x"]}, [attribute("col", 0, field(3, 0))]),
        operator("elementwise_add", {"X": ["x"], "Y": ["w"]}, {"Out": ["sum"]}, [attribute("axis", 0, field(3, -1))]),
        operator("relu", {"X": ["sum"]}, {"Out": ["y"]}, [attribute("op_callstack", 5, field(8, "line 1"))]),
        *further,
        operator("fetch", {"X": ["y"]}, {"Out": ["fetch"]}, [attribute("col", 0, field(3, 0))]),
    ]
    data = program(variables, operators)
    body = field(1, 1) + field(2, 0) + b"".join(field(4, each) for each in inner)
    return field(1, body).join([data, b""]) if inner else data


def pir(*further: dict) -> bytes:
    """The same in Paddle 3's form."""
    return pir_program(
        [
            pir_parameter(1, "w", (3,)),
            pir_parameter(2, "unread", (2,)),
            pir_operator("1.data", (), {3: pir_type((-1, 3))}, [pir_attribute("name", "0.a_str", "x")]),
            pir_operator("1.add", (3, 1), {4: pir_type((-1, 3))}),
            pir_operator("1.relu", (4,), {5: pir_type((-1, 3))}),
            *further,
            pir_operator("1.fetch", (5,), {6: pir_type((-1, 3))}, [pir_attribute("col", "0.a_i32", 0)]),
        ]
    )


def check(data: bytes, read: Callable[[Blob], Program], **options: object):
    file = blob(data, "model")
    return checked_program(file, read(file), "model.tar", **options)


# ---- what is refused ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", HOSTILE)
def test_no_operator_that_does_more_than_compute_is_given_to_paddle(kind: str) -> None:
    """Whether an output depends on it or not, in the main block, in a block of its own, and in Paddle 3's form."""
    dead = operator(kind, {"X": ["w"]}, {"Out": ["extra"]}, [attribute("file_path", 2, field(5, "/etc/passwd"))])
    live = operator(kind, {"X": ["y"]}, {"Out": ["y"]})
    name = kind if "." in kind else f"1.{kind}"
    for each in (legacy(dead), legacy(live), legacy(inner=(dead,))):
        refused(each, read_pdmodel, kind)
    for written in (name, name + "_"):
        dead_pir = pir_operator(
            written, (1,), {7: pir_type((3,))}, [pir_attribute("file_path", "0.a_str", "/etc/passwd")]
        )
        refused(pir(dead_pir), read_pir, kind)
        body = {"#": "region_1", "blocks": [{"#": "block_1", "args": [], "ops": [dead_pir]}]}
        refused(pir({**pir_operator("1.while", (1,), {}), "regions": [body]}), read_pir, kind)


def refused(data: bytes, read: Callable[[Blob], Program], kind: str) -> None:
    with pytest.raises(UncoveredError, match=rf"(?<![\w/]){kind}(?![\w/])"):
        check(data, read)
    with pytest.raises(UncoveredError):
        graph_from_program(read(blob(data)))


@pytest.mark.parametrize("kind", ["pd_op.relu", "relu_", "1.relu", "Relu"])
def test_names_of_the_other_form_are_none_of_this_one(kind: str) -> None:
    refused(
        legacy(operator(kind, {"X": ["w"]}, {"Out": ["extra"]})),
        read_pdmodel,
        kind.removeprefix("pd_op.").removesuffix("_"),
    )


@pytest.mark.parametrize("kind", ["0.relu", "3.relu", "relu", "1.relu__", "1.feed_", "1.1.relu", "fetch"])
def test_names_of_other_dialects_are_none_of_paddle_3s(kind: str) -> None:
    with pytest.raises(UncoveredError):
        check(pir(pir_operator(kind, (1,), {7: pir_type((3,))})), read_pir)


def test_a_filled_slot_that_no_row_names_is_refused() -> None:
    extra = operator("relu", {"X": ["w"], "Path": ["w"]}, {"Out": ["y"]})
    with pytest.raises(UncoveredError, match=r"relu with operand Path \(1\)"):
        check(legacy(extra), read_pdmodel)
    with pytest.raises(UncoveredError, match=r"relu with operand 1 \(1\)"):
        check(pir().replace(b'"I": [{"%": 4}]', b'"I": [{"%": 4}, {"%": 1}]'), read_pir)


@pytest.mark.parametrize("reference", [
    attribute("sub_block", 8, field(12, 1)), attribute("blocks", 10, field(14, 1)),
    attribute("shape", 13, field(17, "w")), attribute("shapes", 14, field(18, "w")),
])  # fmt: skip
def test_attributes_that_refer_elsewhere_are_refused(reference: bytes) -> None:
    read = operator("relu", {"X": ["y"]}, {"Out": ["y"]}, [reference])
    with pytest.raises(FormatError, match="of a relu is no value, but refers to a block or variable"):
        check(legacy(read), read_pdmodel)


def test_variables_that_are_no_tensors_are_refused() -> None:
    data = legacy(operator("relu", {"X": ["y"]}, {"Out": ["y"]})).replace(b"extra", b"extra")
    scopes = message_class("Program").FromString(data)
    next(each for each in scopes.blocks[0].vars if each.name == b"y").type.type = 11
    with pytest.raises(FormatError, match="variable 'y' is no tensor, but an operator's value"):
        check(scopes.SerializeToString(), read_pdmodel)


def test_by_products_may_not_be_read() -> None:
    """A mask that overwrites a value, say: the graph would see nothing of it."""
    dropout = operator(
        "dropout", {"X": ["x"]}, {"Out": ["extra"], "Mask": ["sum"]}, [attribute("dropout_prob", 1, field(4, 0.5))]
    )
    read = operator("elementwise_add", {"X": ["extra"], "Y": ["sum"]}, {"Out": ["y"]})
    with pytest.raises(FormatError, match="reads the value 'sum'"):
        check(legacy(dropout, read), read_pdmodel)
    with pytest.raises(FormatError, match="reads the value 'sum@2', which nothing computes"):
        graph_from_program(read_pdmodel(blob(legacy(dropout, read))))


@pytest.mark.parametrize(("place", "change"), [
    ("a type", lambda ops: ops[4]["O"][0]["TT"].update({"#": "0.t_pointer"})),
    ("an attribute", lambda ops: ops[4]["A"].append(pir_attribute("a", "0.a_pointer", 1))),
    ("an attribute in a list", lambda ops: ops[4]["A"].append(pir_attribute("a", "0.a_array", [{"#": "9.a_str"}, {"#": "x"}]))),
    ("an attribute of a result", lambda ops: ops[4].update(OA=[pir_attribute("a", "1.a_mesh", 1)])),
    ("a parameter's shares", lambda ops: ops[0].update(DA=[1])),
    ("a parameter's flags", lambda ops: ops[0].update(OA=[[]])),
])  # fmt: skip
def test_parts_of_unknown_kinds_are_refused(place: str, change: Callable[[list[dict]], object]) -> None:
    content = json.loads(pir())
    change(content["program"]["regions"][0]["blocks"][0]["ops"])
    with pytest.raises(FormatError):
        check(json.dumps(content).encode(), read_pir)


# ---- what is built -----------------------------------------------------------------------------------------------


def test_a_program_is_built_from_what_its_outputs_depend_on() -> None:
    dead = operator("exp", {"X": ["sum"]}, {"Out": ["extra"]})
    found = check(legacy(dead, dead), read_pdmodel)
    assert [each.type for each in found.program.operators] == ["feed", "elementwise_add", "relu", "fetch"]
    assert found.left_out == {"exp": 2}
    assert [each.name for each in found.program.parameters] == ["w"]
    assert found.program.variables.keys() == {"feed", "fetch", "w", "x", "sum", "y"}
    assert b"line 1" not in found.content


def test_the_same_in_the_form_of_paddle_3() -> None:
    dead = pir_operator("1.exp", (4,), {7: pir_type((-1, 3))})
    found = check(pir(dead), read_pir)
    assert [each.type for each in found.program.operators] == ["pd_op.data", "pd_op.add", "pd_op.relu", "pd_op.fetch"]
    assert found.left_out == {"pd_op.exp": 1}
    assert [each.name for each in found.program.parameters] == ["w"]
    assert json.loads(found.content)["base_code"] == {"magic": "pir", "trainable": True, "version": 1}


def test_what_is_not_read_is_not_written() -> None:
    """Fields that the schema does not have, and other blocks, in both forms."""
    dead = operator("exp", {"X": ["w"]}, {"Out": ["extra"]})
    hidden = field(99, "hidden")
    live = operator("tanh", {"X": ["sum"]}, {"Out": ["y"]}, [attribute("any", 0, hidden)]) + hidden
    data = legacy(live, inner=(dead,)) + hidden
    found = check(data, read_pdmodel)
    assert b"hidden" not in found.content
    assert len(message_class("Program").FromString(found.content).blocks) == 1
    assert found.left_out == {"exp": 1, "relu": 1}
    content = json.loads(pir())
    content["program"]["hidden"] = content["hidden"] = 1
    for each in content["program"]["regions"][0]["blocks"][0]["ops"]:
        each["hidden"] = {"hidden": 1}
    assert b"hidden" not in check(json.dumps(content).encode(), read_pir).content


def test_inputs_come_first_and_outputs_last() -> None:
    """So that nothing computed is overwritten by an input, nor an output taken before it is computed."""
    feed = operator("feed", {"X": ["feed"]}, {"Out": ["extra"]}, [attribute("col", 0, field(3, 1))])
    early = operator("fetch", {"X": ["y"]}, {"Out": ["fetch"]}, [attribute("col", 0, field(3, 1))])
    last = operator("tanh", {"X": ["sum"]}, {"Out": ["y"]})
    kinds = [each.type for each in check(legacy(feed, early, last), read_pdmodel).program.operators]
    assert kinds == ["feed", "feed", "elementwise_add", "tanh", "fetch", "fetch"]


def test_the_last_time_a_variable_is_written_counts() -> None:
    read = read_pdmodel(
        blob(legacy(operator("tanh", {"X": ["y"]}, {"Out": ["y"]}), operator("exp", {"X": ["x"]}, {"Out": ["y"]})))
    )
    assert [read.operators[place].type for place in needed(read)] == ["feed", "exp", "fetch"]


def test_versions_are_kept() -> None:
    pair = field(1, "relu") + field(2, field(1, 7))
    data = legacy() + field(5, field(1, pair))
    found = message_class("Program").FromString(check(data, read_pdmodel).content)
    assert (found.version.version, found.op_version_map.pair[0].op_name) == (0, b"relu")


def test_new_shapes_are_for_parameters_only() -> None:
    assert check(legacy(), read_pdmodel, shapes={"w": (1,), "unread": (7,)}).program.variables["w"].shape == (1,)
    for name in ("x", "feed", "nothing"):
        with pytest.raises(FormatError, match=f"has no parameter {name}, whose shape"):
            rebuilt_pdmodel(blob(legacy()), [0], {name: (1, 3)})


@pytest.mark.parametrize("tarball", ["infer", "pir"])
def test_a_released_program_stays_as_it_is(tarball: str) -> None:
    with tarfile.open(EMBEDDED / f"embedded_rec_{tarball}.tar") as tar:
        name = next(each for each in tar.getnames() if each.endswith((".pdmodel", ".json")))
        file = blob(tar.extractfile(name).read())
    read, build = (read_pir, rebuilt_pir) if tarball == "pir" else (read_pdmodel, rebuilt_pdmodel)
    original = read(file)
    found = checked_program(file, original, "model")
    assert found.program.operators == original.operators
    assert found.program.parameters == original.parameters
    assert not found.left_out
    again = blob(found.content)
    assert build(again, needed(read(again))) == found.content


# What cannot be turned into PyTorch, of the released programs: non-maximum suppression, and loops.
UNCOVERED = {
    "PP-DocLayout-S": {"multiclass_nms3"},
    "SLANet_plus": {
        "while",
        "conditional_block",
        "select_input",
        "set_value",
        "one_hot_v2",
        "reduce_all",
        "reduce_any",
    },
    "SLANet_plus_pir": {"while", "if", "cf.yield", "set_value_with_tensor", "one_hot", "all", "any"},
}


def test_released_programs_are_read_and_built_again_as_they_are() -> None:
    files = [
        file for file in sorted(program_folder(".").glob("*/*")) if file.name in ("inference.pdmodel", "inference.json")
    ]
    for file in files:
        content, name = Blob.open(file), file.parent.name
        original = (read_pir if file.suffix == ".json" else read_pdmodel)(content)
        if name in UNCOVERED:
            with pytest.raises(UncoveredError) as caught:
                checked_program(content, original, name)
            assert caught.value.uncovered.keys() == UNCOVERED[name]
            continue
        found = checked_program(content, original, name)
        assert found.program.operators == original.operators, name
        assert found.program.parameters == original.parameters, name
        assert not found.left_out, name
        # Files of Paddle 3 hold nothing that is left out.
        assert file.suffix == ".pdmodel" or json.loads(found.content) == json.loads(file.read_bytes()), name
    assert len(files) > 50


# ---- Paddle's registry ---------------------------------------------------------------------------------------------

REGISTRY = """
import json, sys
from paddle.base import core
from paddle.base.framework import OpProtoHolder
protos = OpProtoHolder.instance().op_proto_map
json.dump({
    "legacy": sorted(core.get_all_op_names()),
    "attributes": {name: [[each.name, each.type] for each in proto.attrs] for name, proto in protos.items()},
}, sys.stdout)
"""
# How attributes are called that name what lies outside of a program; and the types of those that refer to blocks.
OUTSIDE = (
    "file",
    "path",
    "output_dir",
    "endpoint",
    "epmap",
    "callable",
    "func_name",
    "lambda",
    "program",
    "server",
    "queue",
    "ring_id",
    "nranks",
)
REFERENCES = {8, 10, 13, 14}


@needs_paddle
def test_the_tables_have_no_operator_of_paddles_that_reaches_outside() -> None:
    run = subprocess.run(
        [sys.executable, "-P", "-c", REGISTRY], check=True, capture_output=True, text=True, timeout=300
    )
    registry = json.loads(run.stdout)
    known = set(registry["legacy"])
    assert set(LEGACY) <= known
    assert {each for each in HOSTILE if each in known} > {"save", "py_func", "run_program", "while", "print"}
    assert not set(HOSTILE) & (LEGACY.keys() | PIR.keys())
    for name in LEGACY:
        for attribute_name, kind in registry["attributes"].get(name, ()):
            assert not any(word in attribute_name for word in OUTSIDE), (name, attribute_name)
            assert kind not in REFERENCES, (name, attribute_name)


@needs_paddle
def test_every_operator_that_paddle_has_is_kept_from_it_or_computes() -> None:
    """Of its registry and library, in both forms, in the main block and in one inside."""
    script = Path(__file__).resolve().parent.parent / "scripts" / "checks" / "operators.py"
    run = subprocess.run([sys.executable, str(script)], check=False, capture_output=True, text=True, timeout=300)
    assert run.returncode == 0, run.stdout + run.stderr
    refused = {line.split()[1]: int(line.split()[0]) for line in run.stdout.splitlines() if line.endswith("refused")}
    assert refused["pdmodel"] > 3000
    assert refused["json"] > 3000


# ---- commands ------------------------------------------------------------------------------------------------------


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """The embedded inference model as a folder, with one operator more in its program."""
    folder = tmp_path / "model"
    with tarfile.open(EMBEDDED / "embedded_rec_infer.tar") as tar:
        tar.extractall(tmp_path, filter="data")
    (tmp_path / "embedded_rec_infer").rename(folder)
    return folder


def add_operator(folder: Path, kind: str, **attributes: str) -> None:
    file = folder / "inference.pdmodel"
    content = message_class("Program").FromString(file.read_bytes())
    block = content.blocks[0]
    parameter = next(each.name for each in block.vars if each.persistable and each.type.type == 7)
    extra = block.ops.add(type=kind.encode())
    extra.inputs.add(parameter=b"X", arguments=[parameter])
    for name, value in attributes.items():
        extra.attrs.add(name=name.encode(), type=2, s=value.encode())
    file.write_bytes(content.SerializeToString())


def commands(folder: Path) -> list[list[str]]:
    sample = str(EMBEDDED / "sample.png")
    return [
        ["verify", str(folder)],
        ["convert", str(folder), "--verify", "--output", str(folder.parent / "out")],
        ["verify", "embedded_rec", "--kind", "trained", "--reference", str(folder)],
        ["read", sample, "--det", "none", "--rec", str(folder), "--engine", "paddle"],
    ]


@pytest.mark.parametrize("number", range(4))
def test_no_command_gives_paddle_a_program_with_such_an_operator(
    number: int, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(PaddleWorker, "_start", lambda self: None)
    monkeypatch.setattr(PaddleWorker, "wait", lambda self: None)
    monkeypatch.setattr(PaddleWorker, "load", lambda *_: pytest.fail("Paddle was given the program"))
    add_operator(model, "save", file_path=str(model.parent / "victim"))
    result = CliRunner().invoke(main, commands(model)[number])
    assert (result.exit_code, result.stderr.count("error:")) == (MappingError.exit_code, 1)
    assert "save (1)" in result.stderr
    assert not (model.parent / "out").exists()
    assert not (model.parent / "victim").exists()


def test_an_operator_that_nothing_depends_on_is_told_and_left_out(model: Path, tmp_path: Path) -> None:
    add_operator(model, "exp")
    runner = CliRunner()
    assert runner.invoke(main, ["convert", "embedded_rec", "--output", str(tmp_path)]).exit_code == 0
    weights = str(tmp_path / "embedded_rec.pth")
    command = ["convert", "--to", "paddle", weights, "--reference", str(model), "--output", str(tmp_path / "back")]
    result = runner.invoke(main, command)
    assert result.exit_code == 0, result.output
    assert "lacks operators on which no output depends: exp (1)" in result.stderr
    written = read_pdmodel(Blob.open(tmp_path / "back" / "embedded_rec" / "inference.pdmodel"))
    assert "exp" not in {each.type for each in written.operators}


def test_a_program_that_grows_with_the_image_is_refused_before_it_is_run() -> None:
    """It is small at the size that conversion looks at."""
    size = Node("shape", {"x": ("x",)}, ("size",), {})
    width = Node("slice", {"x": ("size",)}, ("width",), {"axes": [0], "starts": [3], "ends": [4], "squeezed": []})
    ratio = Node("scale", {"x": ("width",)}, ("ratio",), {"factor": 1 / 96})
    power = Node("power", {"x": ("ratio",)}, ("times",), {"y": 9})
    nodes = (size, width, ratio, power, Node("tile", {"x": ("x",), "repeats": ("times",)}, ("y",), {}))
    prepared = PreparedProgram("mine.tar", "pir", Graph({"x": (1, 3, -1, -1)}, ("y",), nodes, {}), {}, {}, (b"", b""))
    prepared.require_bounded(np.zeros((2, 3, 64, 96), np.float32))
    with pytest.raises(FormatError, match=r"mine\.tar: refused: it rearranges more elements"):
        prepared.require_bounded(np.zeros((1, 3, 64, 960), np.float32))


# ---- the second line of defence --------------------------------------------------------------------------------------


@needs_paddle
@pytest.mark.skipif(sys.platform != "linux", reason="Landlock is Linux's")
def test_paddles_process_may_write_nowhere_but_in_its_own_folder(tmp_path: Path) -> None:
    """A program that reached Paddle all the same: the kernel keeps it from what it is after."""
    victim, folder = tmp_path / "victim.txt", tmp_path / "program"
    victim.write_text("precious")
    folder.mkdir()
    save = operator("save", {"X": ["w"]}, {}, [
        attribute("file_path", 2, field(5, str(victim))), attribute("overwrite", 6, field(10, 1))])  # fmt: skip
    (folder / "inference.pdmodel").write_bytes(legacy(save))
    arrays = {"w": np.ones(3, np.float32), "unread": np.ones(2, np.float32)}
    (folder / "inference.pdiparams").write_bytes(write_pdiparams(arrays))
    with PaddleWorker() as worker:
        if not worker.confined:
            pytest.skip("this kernel has no Landlock")
        loaded = worker.load(folder, "pdmodel")
        with pytest.raises(PaddleError, match="victim.txt"):
            worker.run(np.ones((1, 3), np.float32), loaded.fetches)
    assert victim.read_text() == "precious"


CONFINED = """
import importlib.util, os, socket, subprocess, sys, threading
spec = importlib.util.spec_from_file_location("paddle_worker", sys.argv[1])
worker = importlib.util.module_from_spec(spec)
spec.loader.exec_module(worker)
outside = sys.argv[2]
landlock = worker.Landlock()
landlock.only_write_below(worker.Path.cwd())
if not landlock.version:
    sys.exit(99)
subprocess.run(["true"], check=True)
landlock.start_no_programs()

def denied(attempt):
    try:
        attempt()
    except PermissionError:
        return
    print("allowed:", attempt.__name__)

def write(): open(outside + "/kept", "w")
def make(): open(outside + "/new", "w")
def remove(): os.remove(outside + "/kept")
def make_folder(): os.mkdir(outside + "/folder")
def link(): os.symlink("kept", outside + "/link")
def rename(): os.rename(outside + "/kept", outside + "/moved")
def start(): subprocess.run(["true"])

for attempt in (write, make, remove, make_folder, link, rename, start):
    denied(attempt)
    thread = threading.Thread(target=denied, args=(attempt,))
    thread.start()
    thread.join()
if landlock.version >= 4:
    def connect(): socket.create_connection(("127.0.0.1", 9))
    def listen(): socket.create_server(("127.0.0.1", 0))
    denied(connect)
    denied(listen)
os.mkdir("own")
open("own/file", "w").write("mine")
os.rename("own/file", "own/other")
open("/dev/null", "w").write("x")
print(open(outside + "/kept").read())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="Landlock is Linux's")
def test_what_is_given_up_is_gone(tmp_path: Path) -> None:
    own, outside = tmp_path / "own", tmp_path / "outside"
    own.mkdir()
    outside.mkdir()
    (outside / "kept").write_text("kept")
    worker = Path(sys.modules[PaddleWorker.__module__].__file__).with_name("paddle_worker.py")
    run = subprocess.run(
        [sys.executable, "-P", "-c", CONFINED, str(worker), str(outside)],
        cwd=own,
        capture_output=True,
        text=True,
        timeout=60,
    )
    if run.returncode == 99:
        pytest.skip("this kernel has no Landlock")
    assert (run.returncode, run.stdout) == (0, "kept\n"), run.stderr
    assert [each.name for each in outside.iterdir()] == ["kept"]
