"""One network in one engine, in a process of its own: `python -m scripts.bench_engines ENGINE FILE SHAPE`.

`bench.py` starts one for each engine that it compares and lets them work in turn. The process answers on stdout, one
JSON value per line: first a greeting (`{"versions": …}` or `{"unusable": TEXT}`), then, for each number of runs N that
it reads from stdin, the seconds that each of the N runs took.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

SEED = 20220428
THREADS = int(os.environ.get("OMP_NUM_THREADS", "2"))
Run = Callable[[np.ndarray], Any]


def torch_engine(form: str) -> Callable[[Path, np.ndarray], tuple[Run, str]]:
    """The converted weights in PyTorch, as they are ("plain") or in one of `optimize`'s forms."""

    def build(file: Path, _: np.ndarray) -> tuple[Run, str]:
        import torch

        from architectures import load_model
        from architectures.serving import optimize

        torch.set_num_threads(THREADS)
        options = {"optimized": {}, "compiled": {"compile": True}, "bfloat16": {"dtype": torch.bfloat16}}
        model = load_model(file)
        served = model if form == "plain" else optimize(model, **options[form])

        def run(array: np.ndarray) -> np.ndarray:
            with torch.no_grad():
                return served(torch.from_numpy(array)).numpy()

        return run, f"torch {torch.__version__}"

    return build


def onnxruntime_engine(file: Path, _: np.ndarray) -> tuple[Run, str]:
    """The same weights, exported, in ONNX Runtime with all its rearrangements."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = THREADS
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return lambda array: session.run(None, {name: array})[0], f"onnxruntime {onnxruntime.__version__}"


def paddle_engine(onednn: bool) -> Callable[[Path, np.ndarray], tuple[Run, str]]:
    """The released program in Paddle Inference with IR optimisation, with oneDNN or without."""

    def build(folder: Path, _: np.ndarray) -> tuple[Run, str]:
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

        return run, f"paddlepaddle {paddle.__version__}"

    return build


ENGINES: dict[str, Callable[[Path, np.ndarray], tuple[Run, str]]] = {
    "plain": torch_engine("plain"),
    "optimized": torch_engine("optimized"),
    "compiled": torch_engine("compiled"),
    "bfloat16": torch_engine("bfloat16"),
    "onnxruntime": onnxruntime_engine,
    "paddle": paddle_engine(onednn=True),
    "paddle_plain": paddle_engine(onednn=False),
}


def main(engine: str, file: str, shape: str) -> int:
    """Serve until stdin closes."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what an engine prints is no answer

    def send(value: object) -> None:
        answers.write(json.dumps(value) + "\n")
        answers.flush()

    array = np.random.default_rng(SEED).standard_normal([int(size) for size in shape.split("x")], dtype=np.float32)
    try:
        run, version = ENGINES[engine](Path(file), array)
        result = run(array)
    except Exception as error:  # an engine that is missing or fails is left out of the table, with its reason
        send({"unusable": f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error) else ''}"})
        return 1
    send({"version": version, "checksum": float(np.abs(np.asarray(result, np.float64)).sum())})
    for line in sys.stdin:
        seconds = []
        for _ in range(int(line)):
            start = time.perf_counter()
            run(array)
            seconds.append(time.perf_counter() - start)
        send(seconds)
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
