"""The process that runs Paddle: this file, run as a script; it imports nothing of this package.

It answers requests, one JSON object per line, on stdin and stdout. Arrays travel in .npy files. Whatever Paddle itself
prints goes to stderr, so that it cannot be mistaken for an answer.

    {"command": "load", "folder": FOLDER, "form": "pdmodel" or "pir"}
        -> {"program": {"feeds", "fetches", "parameters", "operators"}}
    {"command": "run", "precision": "single" or "double", "inputs": FILE, "fetch": [VALUE, ...], "outputs": FOLDER}
        -> {"files": [FILE, ...]}

A failed request answers {"error": TEXT} and the process goes on. The first line, sent without a request, is a greeting:
{"versions": {...}, "confined": true or false}, or {"unusable": TEXT} when this Python has no Paddle, or one that is too
old.

Paddle is given checked programs alone. As a second line of defence the process gives up rights where the kernel has
Landlock (Linux 5.13 and later, unless it is switched off). Before it imports anything: to write, make or remove files
outside the folder that it was started in, its scratch folder; from Linux 6.7 on to open TCP connections; from 6.12 on
to send signals to other processes. Once Paddle, which runs `ldd`, is imported: to start programs. Elsewhere it is not
confined. What it may read is not restricted.

A value is named by its variable in a `.pdmodel`, and as "operator.result" (two indices) in an `inference.json`, which
has no variable names.

The program runs as it is, in single precision, and also with every float32 of it (input, parameters, types that
operators ask for) turned into float64. The operators, their attributes and the weights' values stay the same; what goes
is rounding, which otherwise hides differences below 1e-5 and, in recurrent networks, feigns much larger ones.
"""

from __future__ import annotations

import ctypes
import json
import os
import platform
import shutil
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any, ClassVar, TextIO

STEM = "inference"
OLDEST_MAJOR = 3
INSTALL = 'pip install "paddle2torch[parity]"'

# The slots of a .pdmodel operator that hold its result; others (saved means, dropout masks) are by-products.
RESULT_SLOTS = ("Out", "Output", "Y")

# Operators of an inference.json that compute nothing.
PIR_PARAMETER, PIR_FEED, PIR_FETCH = "builtin.parameter", "pd_op.data", "pd_op.fetch"
# How an inference.json spells float32: the type of a value, and what an operator is asked to produce.
PIR_SINGLE_TO_DOUBLE = {
    '"0.t_f32"': '"0.t_f64"',
    '"1.a_dtype","D":"float32"': '"1.a_dtype","D":"float64"',
}


# ---- confinement ---------------------------------------------------------------------------------------------------

# Landlock's rights over files, as bits, and the version of its interface that brought them.
EXECUTE = 1 << 0
WRITE_FILE = 1 << 1
WRITING = {
    1: WRITE_FILE | sum(1 << bit for bit in range(4, 13)),  # remove, and make of every kind
    2: 1 << 13,  # link and rename across folders
    3: 1 << 14,  # truncate
}
TCP, TCP_SINCE = 1 << 0 | 1 << 1, 4  # bind, connect
SCOPES, SCOPES_SINCE = 1 << 0 | 1 << 1, 6  # abstract sockets, signals
# The numbers of its system calls, the same on every kind of processor, and what else they want.
CREATE_RULESET, ADD_RULE, RESTRICT_SELF = 444, 445, 446
ONLY_TELL_VERSION, PATH_BENEATH = 1, 1
PR_SET_NO_NEW_PRIVS = 38


class _PathRule(ctypes.Structure):
    """`landlock_path_beneath_attr`: what stays allowed below a folder, or with a file."""

    _pack_ = 1
    _fields_ = (("allowed", ctypes.c_uint64), ("descriptor", ctypes.c_int32))


class Landlock:
    """Gives up rights of this thread and of those that it will start, for good.

    Attributes:
        version: of the kernel's interface; 0 where there is none, or where it refuses, and nothing is given up.
    """

    def __init__(self) -> None:
        self._system = ctypes.CDLL(None, use_errno=True)
        self.version = 0
        if sys.platform == "linux":
            with suppress(OSError):  # the kernel is older, or was started without it
                self.version = self._call(CREATE_RULESET, None, ctypes.c_size_t(0), ONLY_TELL_VERSION)

    def only_write_below(self, folder: Path) -> None:
        """Give up writing outside a folder, TCP, and signals to others, as far as the kernel knows of them."""
        files = sum(rights for since, rights in WRITING.items() if since <= self.version)
        tcp = TCP if self.version >= TCP_SINCE else 0
        scopes = SCOPES if self.version >= SCOPES_SINCE else 0
        self._give_up(files, tcp, scopes, {folder: files, Path(os.devnull): WRITE_FILE})

    def start_no_programs(self) -> None:
        """Give up starting programs."""
        self._give_up(EXECUTE)

    def _give_up(self, files: int, tcp: int = 0, scopes: int = 0, exceptions: Mapping[Path, int] | None = None) -> None:
        if not self.version:
            return
        # An older kernel takes the structure of a later one whose further parts are zeros.
        rights = (ctypes.c_uint64 * 3)(files, tcp, scopes)
        try:
            ruleset = self._call(CREATE_RULESET, rights, ctypes.c_size_t(ctypes.sizeof(rights)), 0)
            for path, allowed in (exceptions or {}).items():
                descriptor = os.open(path, os.O_PATH)
                self._call(ADD_RULE, ruleset, PATH_BENEATH, ctypes.byref(_PathRule(allowed, descriptor)), 0)
                os.close(descriptor)
            self._system.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
            self._call(RESTRICT_SELF, ruleset, 0)
            os.close(ruleset)
        except OSError as error:
            print(f"not confined: {error}", file=sys.stderr)
            self.version = 0

    def _call(self, number: int, *arguments: Any) -> int:
        result = int(self._system.syscall(number, *arguments))
        if result < 0:
            raise OSError(ctypes.get_errno(), "Landlock refuses")
        return result


# ---- Paddle --------------------------------------------------------------------------------------------------------


class UnusablePaddleError(Exception):
    """This Python has no Paddle, or not one that can serve."""


def import_paddle() -> Any:
    """Import paddle, quietly and in static mode.

    Raises:
        UnusablePaddleError: it is not installed, is too old, or fails to import.
    """
    os.environ.setdefault("GLOG_minloglevel", "1")
    try:
        import paddle
    except ModuleNotFoundError as error:
        if error.name != "paddle":
            raise UnusablePaddleError(f"PaddlePaddle cannot be imported ({error})") from error
        raise UnusablePaddleError(
            f"PaddlePaddle is not installed for {sys.executable}; install it with: {INSTALL}"
        ) from error
    except ImportError as error:
        raise UnusablePaddleError(f"PaddlePaddle cannot be imported ({error})") from error
    if int(paddle.__version__.split(".")[0]) < OLDEST_MAJOR:
        raise UnusablePaddleError(
            f"PaddlePaddle {paddle.__version__} is too old; version {OLDEST_MAJOR} or newer is needed: {INSTALL}"
        )
    paddle.enable_static()
    return paddle


class LoadedProgram:
    """A program in memory, with an executor and parameters of its own.

    Args:
        paddle: the module.
        folder: has `inference.*`.
        double: whether to turn it into double precision.
    """

    def __init__(self, paddle: Any, folder: Path, double: bool) -> None:
        self.paddle = paddle
        self.dtype = "float64" if double else "float32"
        self.executor = paddle.static.Executor(paddle.CPUPlace())
        self.scope = paddle.base.core.Scope()
        with self.active():
            self.program, self.feeds, fetches = self._load(folder, double)
            self._index(fetches)
            if double:
                self._widen_parameters()

    def _mode(self) -> AbstractContextManager[Any]:
        """The setting of Paddle under which such programs are loaded and run."""
        raise NotImplementedError

    def _load(self, folder: Path, double: bool) -> tuple[Any, list[str], list[Any]]:
        """Program, names of the inputs, and outputs."""
        raise NotImplementedError

    def _index(self, fetches: list[Any]) -> None:
        """Set `fetches` and `parameters`, and prepare the naming of values."""
        raise NotImplementedError

    def operators(self) -> list[dict[str, Any]]:
        """The operators in execution order: type, inputs and result."""
        raise NotImplementedError

    def _targets(self, names: list[str]) -> list[Any]:
        """What the executor calls these values."""
        raise NotImplementedError

    fetches: list[str]
    parameters: dict[str, list[int]]

    @contextmanager
    def active(self) -> Iterator[None]:
        """Make this program's mode and parameters Paddle's current ones."""
        with self._mode(), self.paddle.static.scope_guard(self.scope):
            yield

    def _widen_parameters(self) -> None:
        import numpy as np

        for name in self.parameters:
            tensor = self.scope.find_var(name).get_tensor()
            values = np.asarray(tensor)
            if values.dtype == np.float32:
                tensor.set(values.astype(np.float64), self.paddle.CPUPlace())

    def describe(self) -> dict[str, Any]:
        """The program as JSON."""
        return {
            "feeds": self.feeds,
            "fetches": self.fetches,
            "parameters": self.parameters,
            "operators": self.operators(),
        }

    def run(self, inputs: Any, fetch: list[str]) -> list[Any]:
        """The values `fetch` for these inputs."""
        with self.active():
            return self.executor.run(
                self.program, feed={self.feeds[0]: inputs.astype(self.dtype)}, fetch_list=self._targets(fetch)
            )


class PdmodelProgram(LoadedProgram):
    """A `.pdmodel`: variables by name, every one of which can be fetched."""

    def _mode(self) -> AbstractContextManager[Any]:
        return self.paddle.pir_utils.OldIrGuard()

    def _load(self, folder: Path, double: bool) -> tuple[Any, list[str], list[Any]]:
        loaded = self.paddle.static.load_inference_model(str(folder / STEM), self.executor)
        block = loaded[0].global_block()
        if double:
            self._widen_program(block)
        # The executor adds those that a request takes, and returns the results of these as well.
        for place, op in reversed(list(enumerate(block.ops))):
            if op.type == "fetch":
                block._remove_op(place)
        return loaded

    def _widen_program(self, block: Any) -> None:
        # Operators compute in the type of what they are given; these few are told which type to make.
        types = self.paddle.base.core.VarDesc.VarType
        for op in block.ops:
            for attribute in op.attr_names:
                if attribute.endswith("dtype") and op.attr(attribute) == int(types.FP32):
                    op._set_attr(attribute, int(types.FP64))

    def _index(self, fetches: list[Any]) -> None:
        self.fetches = [variable.name for variable in fetches]
        variables = self.program.global_block().vars.values()
        self.parameters = {
            v.name: list(v.shape) for v in variables if v.persistable and v.name not in ("feed", "fetch")
        }

    def operators(self) -> list[dict[str, Any]]:
        return [self._operator(op) for op in self.program.global_block().ops if op.type not in ("feed", "fetch")]

    @staticmethod
    def _operator(op: Any) -> dict[str, Any]:
        results = [name for slot in RESULT_SLOTS if slot in op.output_names for name in op.output(slot)]
        return {"type": op.type, "inputs": list(op.input_arg_names), "result": results[0] if results else None}

    def _targets(self, names: list[str]) -> list[Any]:
        return names


class PirProgram(LoadedProgram):
    """An `inference.json`: values are anonymous, so they are called by the position of their operator."""

    def _mode(self) -> AbstractContextManager[Any]:
        return nullcontext()  # Paddle's default

    def _load(self, folder: Path, double: bool) -> tuple[Any, list[str], list[Any]]:
        if double:
            # Values cannot change their type in memory, but the file is plain text.
            text = (folder / f"{STEM}.json").read_text(encoding="utf-8")
            for single, wide in PIR_SINGLE_TO_DOUBLE.items():
                text = text.replace(single, wide)
            parameters = folder / f"{STEM}.pdiparams"
            folder = Path.cwd() / "double"  # in the scratch folder
            folder.mkdir(exist_ok=True)
            (folder / f"{STEM}.json").write_text(text, encoding="utf-8")
            shutil.copyfile(parameters, folder / parameters.name)
        return self.paddle.static.load_inference_model(str(folder / STEM), self.executor)

    def _index(self, fetches: list[Any]) -> None:
        self._names: dict[Any, str] = {}
        self._values: dict[str, Any] = {}
        self.parameters = {}
        for index, op in enumerate(self._operations()):
            for position, value in enumerate(op.results()):
                name = self._name(op) or f"{index}.{position}"
                self._names[value.id], self._values[name] = name, value
                # Others are states that an operator wants and that no file holds.
                if op.name() == PIR_PARAMETER and value.persistable:
                    self.parameters[name] = list(value.shape)
        self.fetches = [self._names[value.id] for value in fetches]

    @staticmethod
    def _name(op: Any) -> str | None:
        attribute = {PIR_PARAMETER: "parameter_name", PIR_FEED: "name"}.get(op.name())
        return op.attrs()[attribute] if attribute else None

    def _operations(self) -> list[Any]:
        return list(self.program.global_block().ops)

    def operators(self) -> list[dict[str, Any]]:
        passive = (PIR_PARAMETER, PIR_FEED, PIR_FETCH)
        return [self._operator(op) for op in self._operations() if op.name() not in passive]

    def _operator(self, op: Any) -> dict[str, Any]:
        inputs = [self._names[value.id] for value in op.operands_source() if value.initialized()]
        results = [self._names[value.id] for value in op.results()]
        return {"type": op.name().removeprefix("pd_op."), "inputs": inputs, "result": results[0] if results else None}

    def _targets(self, names: list[str]) -> list[Any]:
        # The executor keeps the fetch operators of earlier requests, and would take their results for this one's.
        block = self.program.global_block()
        for op in self._operations():
            if op.name() == PIR_FETCH:
                block.remove_op(op)
        return [self._values[name] for name in names]


class Worker:
    """Holds one model at a time, in both precisions, and runs it."""

    FORMS: ClassVar[dict[str, type[LoadedProgram]]] = {"pdmodel": PdmodelProgram, "pir": PirProgram}

    def __init__(self, paddle: Any) -> None:
        self.paddle = paddle
        self.programs: dict[str, LoadedProgram] = {}

    def load(self, folder: str, form: str) -> dict[str, Any]:
        """Load FOLDER/inference.*, in place of the model held so far, and describe it."""
        kind = self.FORMS[form]
        self.programs = {}
        self.programs = {name: kind(self.paddle, Path(folder), name == "double") for name in ("single", "double")}
        return {"program": self.programs["single"].describe()}

    def run(self, precision: str, inputs: str, fetch: list[str], outputs: str) -> dict[str, Any]:
        """Run the program on the array in the file `inputs`; write the values `fetch` into the folder `outputs`."""
        import numpy as np

        arrays = self.programs[precision].run(np.load(inputs, allow_pickle=False), fetch)
        files = [str(Path(outputs) / f"{index}.npy") for index in range(len(arrays))]
        for file, array in zip(files, arrays, strict=True):
            np.save(file, np.asarray(array), allow_pickle=False)
        return {"files": files}

    def answer(self, request: dict[str, Any]) -> dict[str, Any]:
        """The answer to one request; never raises."""
        commands: dict[str, Callable[..., dict[str, Any]]] = {"load": self.load, "run": self.run}
        try:
            return commands[request.pop("command")](**request)
        except Exception as error:
            # Paddle's messages carry C++ stacks; stderr has all of it, the answer the line that says what happened.
            traceback.print_exc(file=sys.stderr)
            return {"error": summary(error)}


def summary(error: Exception) -> str:
    """The line of a Paddle message that names the problem."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    telling = [line for line in lines if "Error:" in line or line.startswith("(")]
    return f"{type(error).__name__}: {(telling or lines or ['no message'])[-1]}"


def versions(paddle: Any) -> dict[str, str]:
    """The versions behind this process's results."""
    return {"paddlepaddle": paddle.__version__, "python": platform.python_version()}


def claim_stdout() -> TextIO:
    """Keep stdout for the answers alone; what any library prints there, in Python or below it, goes to stderr."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    return answers


def main() -> int:
    """Serve until stdin closes."""
    landlock = Landlock()
    landlock.only_write_below(Path.cwd())
    os.environ["HOME"] = str(Path.cwd())  # where Paddle makes folders when it is imported
    answers = claim_stdout()

    def send(message: dict[str, Any]) -> None:
        answers.write(json.dumps(message) + "\n")
        answers.flush()

    try:
        paddle = import_paddle()
    except UnusablePaddleError as error:
        send({"unusable": str(error)})
        return 1
    landlock.start_no_programs()
    worker = Worker(paddle)
    send({"versions": versions(paddle), "confined": landlock.version > 0})
    for line in sys.stdin:
        send(worker.answer(json.loads(line)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
