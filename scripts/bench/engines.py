"""One network in one engine, in a process of its own: `python -m scripts.bench.engines ENGINE FILE SHAPE`.

`bench.py` starts one for each engine that it compares and lets them work in turn. The process answers on stdout, one
JSON value per line: first a greeting (`{"versions": …}` or `{"unusable": TEXT}`), then, for each number of runs N that
it reads from stdin, the seconds that each of the N runs took. For the word `profile` it answers where the time of one
run goes, `{KIND: {"calls": …, "seconds": …, "kernels": …}}`, or `{}` where the engine cannot tell.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

SEED = 20220428
THREADS = int(os.environ.get("OMP_NUM_THREADS", "2"))
RUNS_PROFILED = 20

Profile = dict[str, dict[str, float]]

# The kinds of work that a profile tells apart, and the operators of each engine that do them.
LINEAR, CONVOLUTION, LSTM, SOFTMAX = "1×1 convolutions, linear layers", "other convolutions", "LSTM", "softmax"
OTHER = "everything else"
TORCH_KINDS = {
    "mkldnn::_linear_pointwise": LINEAR,
    "mkldnn::_convolution_pointwise": CONVOLUTION,
    "mkldnn::_convolution_transpose_pointwise": CONVOLUTION,
    "aten::mkldnn_rnn_layer": LSTM,
    "aten::_softmax": SOFTMAX,
}
ONEDNN_KINDS = {"inner_product": LINEAR, "convolution": CONVOLUTION, "deconvolution": CONVOLUTION, "rnn": LSTM}
ONNX_KINDS = {"MatMul": LINEAR, "FusedMatMul": LINEAR, "Gemm": LINEAR, "LSTM": LSTM, "Softmax": SOFTMAX}


@dataclass(frozen=True)
class Network:
    """A network that is ready to run.

    Attributes:
        run: one run.
        version: of the engine.
        profile: where the time of a run goes; None for engines that are not asked.
    """

    run: Callable[[np.ndarray], Any]
    version: str
    profile: Callable[[np.ndarray], Profile] | None = None


Build = Callable[[Path, np.ndarray], Network]


# ---- engines -----------------------------------------------------------------------------------------------------


def torch_engine(form: str) -> Build:
    """The converted weights in PyTorch, as they are ("plain") or in one of `optimize`'s forms."""

    def build(file: Path, _: np.ndarray) -> Network:
        import torch

        from paddle2torch.architectures import load_model
        from paddle2torch.architectures.serving import optimize

        torch.set_num_threads(THREADS)
        options = {"optimized": {}, "compiled": {"compile": True}, "bfloat16": {"dtype": torch.bfloat16}}
        model = load_model(file)
        served = model if form == "plain" else optimize(model, **options[form])

        def run(array: np.ndarray) -> np.ndarray:
            with torch.no_grad():
                return served(torch.from_numpy(array)).numpy()

        return Network(run, f"torch {torch.__version__}", lambda array: torch_profile(run, array))

    return build


def onnxruntime_engine(file: Path, _: np.ndarray) -> Network:
    """The same weights, exported, in ONNX Runtime with all its rearrangements."""
    import onnxruntime

    session = onnx_session(file)
    name = session.get_inputs()[0].name

    def run(array: np.ndarray) -> np.ndarray:
        return session.run(None, {name: array})[0]

    return Network(run, f"onnxruntime {onnxruntime.__version__}", lambda array: onnx_profile(file, array))


def onnx_session(file: Path, profile: Path | None = None) -> Any:
    """A session of ONNX Runtime; where a path is given, it writes its profile there."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = THREADS
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    if profile is not None:
        options.enable_profiling, options.profile_file_prefix = True, str(profile)
    return onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])


def paddle_engine(onednn: bool) -> Build:
    """The released program in Paddle Inference with IR optimisation, with oneDNN or without."""

    def build(folder: Path, _: np.ndarray) -> Network:
        os.environ.setdefault("GLOG_minloglevel", "2")
        import paddle
        from paddle import inference

        config = inference.Config(str(folder / "inference.pdmodel"), str(folder / "inference.pdiparams"))
        config.disable_gpu()
        config.set_cpu_math_library_num_threads(THREADS)
        config.switch_ir_optim(True)
        config.enable_memory_optim()
        config.disable_glog_info()
        if onednn:
            config.enable_mkldnn()
        else:
            config.disable_mkldnn()
        predictor = inference.create_predictor(config)
        given = predictor.get_input_handle(predictor.get_input_names()[0])
        result = predictor.get_output_handle(predictor.get_output_names()[0])

        def run(array: np.ndarray) -> np.ndarray:
            given.copy_from_cpu(array)
            predictor.run()
            return result.copy_to_cpu()

        return Network(run, f"paddlepaddle {paddle.__version__}")

    return build


ENGINES: dict[str, Build] = {
    "plain": torch_engine("plain"),
    "optimized": torch_engine("optimized"),
    "compiled": torch_engine("compiled"),
    "bfloat16": torch_engine("bfloat16"),
    "onnxruntime": onnxruntime_engine,
    "paddle": paddle_engine(onednn=True),
    "paddle_plain": paddle_engine(onednn=False),
}


# ---- profiles ----------------------------------------------------------------------------------------------------


def torch_profile(run: Callable[[np.ndarray], Any], array: np.ndarray) -> Profile:
    """Calls and seconds by kind, as PyTorch's profiler sees them, and what oneDNN says its kernels took of it."""
    import torch

    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profiler:
        for _ in range(RUNS_PROFILED):
            run(array)
    spent = no_time()
    for event in profiler.key_averages():
        kind = spent[TORCH_KINDS.get(event.key, OTHER)]
        kind["calls"] += event.count
        kind["seconds"] += event.self_cpu_time_total / 1e6
    with printed() as lines, torch.backends.mkldnn.verbose(torch.backends.mkldnn.VERBOSE_ON):
        for _ in range(RUNS_PROFILED):
            run(array)
    for fields in (line.split(",") for line in lines if "primitive,exec" in line):
        # onednn_verbose,v1,primitive,exec,cpu,KIND,…,MILLISECONDS
        spent[ONEDNN_KINDS.get(fields[5], OTHER)]["kernels"] += float(fields[-1]) / 1e3
    return of_one_run(spent)


def no_time() -> Profile:
    """A profile to add to."""
    return defaultdict(lambda: {"calls": 0, "seconds": 0, "kernels": 0})


def of_one_run(spent: Profile) -> Profile:
    """The profile of all runs as that of one."""
    return {kind: {key: value / RUNS_PROFILED for key, value in each.items()} for kind, each in spent.items()}


@contextmanager
def printed() -> Iterator[list[str]]:
    """What the block prints on stdout, whoever prints it; the list is filled at its end."""
    lines: list[str] = []
    with tempfile.TemporaryFile("w+") as file:
        kept = os.dup(1)
        os.dup2(file.fileno(), 1)
        try:
            yield lines
        finally:
            os.dup2(kept, 1)
            os.close(kept)
        file.seek(0)
        lines += file


def onnx_profile(file: Path, array: np.ndarray) -> Profile:
    """Calls and seconds by kind, as ONNX Runtime's own profile tells them."""
    with tempfile.TemporaryDirectory() as folder:
        session = onnx_session(file, Path(folder) / "profile")
        for _ in range(RUNS_PROFILED + 1):
            session.run(None, {session.get_inputs()[0].name: array})
        events = json.loads(Path(session.end_profiling()).read_text(encoding="utf-8"))
    kernels = [each for each in events if each.get("cat") == "Node" and each["name"].endswith("_kernel_time")]
    spent = no_time()
    # The first run is the warm-up.
    for event in kernels[len(kernels) // (RUNS_PROFILED + 1) :]:
        kind = spent[_onnx_kind(event["args"])]
        kind["calls"] += 1
        kind["seconds"] += event["dur"] / 1e6
    return of_one_run(spent)


def _onnx_kind(event: Mapping[str, Any]) -> str:
    if event["op_name"] in ("Conv", "ConvTranspose"):
        kernel = next(iter(event["input_type_shape"][1].values()))[2:]
        return LINEAR if kernel == [1, 1] else CONVOLUTION
    return ONNX_KINDS.get(event["op_name"], OTHER)


# ---- the process -------------------------------------------------------------------------------------------------


def main(engine: str, file: str, shape: str) -> int:
    """Serve until stdin closes."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what an engine prints is no answer

    def send(value: object) -> None:
        answers.write(json.dumps(value) + "\n")
        answers.flush()

    array = np.random.default_rng(SEED).standard_normal([int(size) for size in shape.split("x")], dtype=np.float32)
    try:
        network = ENGINES[engine](Path(file), array)
        result = network.run(array)
    except Exception as error:  # an engine that is missing or fails is left out of the table, with its reason
        send({"unusable": f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error) else ''}"})
        return 1
    send({"version": network.version, "checksum": float(np.abs(np.asarray(result, np.float64)).sum())})
    for line in sys.stdin:
        if line.strip() == "profile":
            send(network.profile(array) if network.profile is not None else {})
            continue
        seconds = []
        for _ in range(int(line)):
            start = time.perf_counter()
            network.run(array)
            seconds.append(time.perf_counter() - start)
        send(seconds)
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
