"""The process that runs Paddle: `python -m converter.parity.paddle_worker`.

It answers requests, one JSON object per line, on stdin and stdout. Arrays travel in .npy files. Whatever Paddle itself
prints goes to stderr, so that it cannot be mistaken for an answer.

    {"command": "load", "folder": FOLDER, "form": "pdmodel" or "pir"} -> {"program": {feeds, fetches, parameters, operators}}
    {"command": "run", "inputs": FILE, "fetch": [VALUE, ...], "outputs": FOLDER} -> {"files": [FILE, ...]}

A failed request answers {"error": TEXT} and the process goes on. The first line, sent without a request, is a greeting:
{"versions": {...}}, or {"unusable": TEXT} when this Python has no Paddle, or one that is too old.

A value is named by its variable in a `.pdmodel`, and as "operator.result" (two indices) in an `inference.json`, which
has no variable names.
"""

from __future__ import annotations

import json
import os
import platform
import sys
import traceback
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, TextIO

import numpy as np

STEM = "inference"
OLDEST_MAJOR = 3
INSTALL = 'pip install "paddle2torch[parity]"'

# The slot of a .pdmodel operator that holds its result; others (saved means, dropout masks) are by-products.
RESULT_SLOTS = ("Out", "Output", "Y")

# Operators of an inference.json that compute nothing.
PIR_PARAMETER, PIR_FEED, PIR_FETCH = "builtin.parameter", "pd_op.data", "pd_op.fetch"


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
            f"PaddlePaddle {paddle.__version__} is too old, {OLDEST_MAJOR}.0 or newer is needed; install it with: {INSTALL}"
        )
    paddle.enable_static()
    return paddle


class PdmodelProgram:
    """A `.pdmodel`: variables by name, every one of which can be fetched."""

    def __init__(self, paddle: Any, program: Any, feeds: list[str], fetches: list[Any]) -> None:
        self.program = program
        self.feeds = feeds
        self.fetches = [variable.name for variable in fetches]

    @staticmethod
    def mode(paddle: Any) -> AbstractContextManager[Any]:
        """The setting of Paddle under which the program is loaded and run."""
        return paddle.pir_utils.OldIrGuard()

    def widen(self, paddle: Any, scope: Any) -> None:
        """Turn the program and its parameters to double precision."""
        types = paddle.base.core.VarDesc.VarType
        block = self.program.global_block()
        for name, variable in block.vars.items():
            if name in ("feed", "fetch") or variable.dtype != types.FP32:
                continue
            variable.desc.set_dtype(types.FP64)
            if variable.persistable:
                tensor = scope.find_var(name).get_tensor()
                tensor.set(np.asarray(tensor).astype(np.float64), paddle.CPUPlace())
        for op in block.ops:
            for attribute in op.attr_names:
                if attribute.endswith("dtype") and op.attr(attribute) == int(types.FP32):
                    op._set_attr(attribute, int(types.FP64))

    def parameters(self) -> dict[str, list[int]]:
        """Shape of every parameter, by variable name."""
        variables = self.program.global_block().vars.values()
        return {v.name: list(v.shape) for v in variables if v.persistable and v.name not in ("feed", "fetch")}

    def operators(self) -> list[dict[str, Any]]:
        """The operators in execution order: type, inputs and result."""
        return [self._operator(op) for op in self.program.global_block().ops if op.type not in ("feed", "fetch")]

    @staticmethod
    def _operator(op: Any) -> dict[str, Any]:
        results = [name for slot in RESULT_SLOTS if slot in op.output_names for name in op.output(slot)]
        return {"type": op.type, "inputs": list(op.input_arg_names), "result": results[0] if results else None}

    def targets(self, names: list[str]) -> list[Any]:
        """What the executor calls these values."""
        return names


class PirProgram:
    """An `inference.json`: values are anonymous, so they are called by the position of their operator."""

    def __init__(self, paddle: Any, program: Any, feeds: list[str], fetches: list[Any]) -> None:
        self.program = program
        self.feeds = feeds
        self._names: dict[Any, str] = {}
        self._values: dict[str, Any] = {}
        self._parameters: dict[str, list[int]] = {}
        for index, op in enumerate(self._operations()):
            self._name_results(index, op)
        self.fetches = [self._names[value.id] for value in fetches]

    @staticmethod
    def mode(paddle: Any) -> AbstractContextManager[Any]:
        """The setting of Paddle under which the program is loaded and run: its default."""
        return nullcontext()

    def _operations(self) -> list[Any]:
        return list(self.program.global_block().ops)

    def _name_results(self, index: int, op: Any) -> None:
        for position, value in enumerate(op.results()):
            name = f"{index}.{position}"
            if op.name() == PIR_PARAMETER:
                name = op.attrs()["parameter_name"]
                if value.persistable:  # others are states that an operator wants and that no file holds
                    self._parameters[name] = list(value.shape)
            elif op.name() == PIR_FEED:
                name = op.attrs()["name"]
            self._names[value.id], self._values[name] = name, value

    def parameters(self) -> dict[str, list[int]]:
        """Shape of every parameter, by parameter name."""
        return self._parameters

    def operators(self) -> list[dict[str, Any]]:
        """The operators in execution order: type, inputs and result."""
        passive = (PIR_PARAMETER, PIR_FEED, PIR_FETCH)
        return [self._operator(op) for op in self._operations() if op.name() not in passive]

    def _operator(self, op: Any) -> dict[str, Any]:
        inputs = [self._names[value.id] for value in op.operands_source() if value.initialized()]
        results = [self._names[value.id] for value in op.results()]
        return {"type": op.name().removeprefix("pd_op."), "inputs": inputs, "result": results[0] if results else None}

    def targets(self, names: list[str]) -> list[Any]:
        """What the executor calls these values."""
        # The executor keeps the fetch operators of earlier requests, and takes their results for the new request's.
        block = self.program.global_block()
        for op in self._operations():
            if op.name() == PIR_FETCH:
                block.remove_op(op)
        return [self._values[name] for name in names]


FORMS = {"pdmodel": PdmodelProgram, "pir": PirProgram}


class Worker:
    """Holds one program at a time and runs it."""

    def __init__(self, paddle: Any) -> None:
        self.paddle = paddle
        self.model: PdmodelProgram | PirProgram | None = None
        self.executor: Any = None
        self.scope: Any = None

    def load(self, folder: str, form: str, double: bool=False) -> dict[str, Any]:
        """Load FOLDER/inference.*, in place of the program held so far, and describe it."""
        static = self.paddle.static
        kind = FORMS[form]
        self.executor, self.scope = static.Executor(self.paddle.CPUPlace()), self.paddle.base.core.Scope()
        with kind.mode(self.paddle), static.scope_guard(self.scope):
            loaded = static.load_inference_model(str(Path(folder) / STEM), self.executor)
            self.model = kind(self.paddle, *loaded)
            if double: self.model.widen(self.paddle, self.scope)
            description = {
                "feeds": self.model.feeds,
                "fetches": self.model.fetches,
                "parameters": self.model.parameters(),
                "operators": self.model.operators(),
            }
        return {"program": description}

    def run(self, inputs: str, fetch: list[str], outputs: str) -> dict[str, Any]:
        """Run the program on the array in the file `inputs`; write the values `fetch` into the folder `outputs`."""
        if self.model is None:
            raise RuntimeError("no program is loaded")
        with self.model.mode(self.paddle), self.paddle.static.scope_guard(self.scope):
            arrays = self.executor.run(
                self.model.program,
                feed={self.model.feeds[0]: np.load(inputs, allow_pickle=False)},
                fetch_list=self.model.targets(fetch),
            )
        files = [str(Path(outputs) / f"{index}.npy") for index in range(len(arrays))]
        for file, array in zip(files, arrays, strict=True):
            np.save(file, np.asarray(array), allow_pickle=False)
        return {"files": files}


def versions(paddle: Any) -> dict[str, str]:
    """The versions behind this process's results."""
    return {"paddlepaddle": paddle.__version__, "numpy": np.__version__, "python": platform.python_version()}


def claim_stdout() -> TextIO:
    """Keep stdout for the answers alone; what any library prints there, in Python or below it, goes to stderr."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    return answers


def answer(worker: Worker, request: dict[str, Any]) -> dict[str, Any]:
    """The answer to one request; never raises."""
    command = request.pop("command")
    try:
        return {"load": worker.load, "run": worker.run}[command](**request)
    except Exception as error:
        # Paddle's messages carry C++ stacks; the log has all of it, the answer the line that says what happened.
        traceback.print_exc(file=sys.stderr)
        return {"error": summary(error)}


def summary(error: Exception) -> str:
    """The line of a Paddle message that names the problem."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    telling = [line for line in lines if "Error:" in line or line.startswith("(")]
    return f"{type(error).__name__}: {(telling or lines or ['no message'])[-1]}"


def main() -> int:
    """Serve until stdin closes."""
    answers = claim_stdout()

    def send(message: dict[str, Any]) -> None:
        answers.write(json.dumps(message) + "\n")
        answers.flush()

    try:
        paddle = import_paddle()
    except UnusablePaddleError as error:
        send({"unusable": str(error)})
        return 1
    worker = Worker(paddle)
    send({"versions": versions(paddle)})
    for line in sys.stdin:
        send(answer(worker, json.loads(line)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
