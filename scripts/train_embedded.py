#!/usr/bin/env python3
"""Train the embedded recogniser in Paddle and save it in every form that Paddle knows.

The network is the multilingual v2.0 recogniser (paddle_rec_network.py) for digits and letters, 62 characters and the
CTC blank; the text lines come from rendered_words.py. From scratch, in the repository's root, with Python 3.11:

    python3.11 -m venv train_env
    train_env/bin/pip install -r scripts/requirements-train.txt
    train_env/bin/python -m scripts.train_embedded train      # embedded_rec_train.tar
    train_env/bin/python -m scripts.train_embedded export     # embedded_rec_infer.tar
    train_env/bin/python -m scripts.train_embedded sample     # sample.png, sample.txt, embedded_dict.txt
    .venv/bin/python     -m scripts.train_embedded export-pir # embedded_rec_pir.tar
    .venv/bin/python     -m scripts.train_embedded read       # what the tarballs read, as a check

PaddlePaddle 2.6 still writes the triple inference.pdmodel, .pdiparams and .pdiparams.info; `export-pir` and `read` need
PaddlePaddle 3, which writes and reads inference.json, in an environment of its own. Everything goes to
converter/embedded, or to `--output DIR`.

Training takes about twenty minutes of one core; another process draws the pictures meanwhile. The seed fixes words,
pictures and first weights. Of the characters of 1000 held-out words, seed 1 read 96.0 %, seed 2, which is the one that
converter/embedded holds, 97.5 %.
"""

from __future__ import annotations

import argparse
import io
import logging
import multiprocessing
import pickle
import sys
import tarfile
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from pathlib import Path

import numpy as np

from architectures.registry import RECOGNITION_32
from reading.ctc import decode
from reading.pictures import load_picture
from reading.preprocess import prepare
from scripts.rendered_words import (
    CHARACTERS,
    SAMPLE_TEXT,
    Batch,
    edit_distance,
    judged_batches,
    sample_picture,
    training_batch,
)

HEIGHT = RECOGNITION_32["size"]["height"]
LABELS = ["", *CHARACTERS]
CLASSES = len(LABELS)
BATCH = 16
STEPS = 6400
PEAK_RATE = 2e-3
# Paddle's own CPU kernels of these are several times slower than oneDNN's; the rest of the program keeps its own.
ONEDNN_OPERATORS = ("conv2d", "depthwise_conv2d", "relu", "hard_swish")
OUTPUT = Path("converter/embedded")
TRAIN, INFER, PIR = (f"embedded_rec_{form}.tar" for form in ("train", "infer", "pir"))

log = logging.getLogger("train_embedded")
log.setLevel(logging.INFO)  # Paddle raises the root logger's level to WARNING


# ---- training --------------------------------------------------------------------------------------------------------


def train(output: Path, seed: int, steps: int) -> None:
    """Train from the seed and write the training tarball."""
    import paddle

    started, worked = time.monotonic(), time.process_time()
    weights, schedule = fit(seed, steps)
    minutes, processor_minutes = (time.monotonic() - started) / 60, (time.process_time() - worked) / 60
    paddle.disable_static()
    network = build_network()
    network.set_state_dict(weights)
    accuracy = judge(lambda inputs: network(paddle.to_tensor(inputs)).numpy())
    print(f"seed {seed}: {steps} steps in {minutes:.1f} minutes ({processor_minutes:.1f} of a core); {accuracy}")

    with tempfile.TemporaryDirectory() as folder:
        checkpoint = Path(folder, "best_accuracy.pdparams")
        paddle.save(network.state_dict(), str(checkpoint))
        # Adam's moments, twice the size of the weights, are left out: nobody is to go on from here.
        optimiser = Path(folder, "best_accuracy.pdopt")
        paddle.save({"LR_Scheduler": schedule}, str(optimiser))
        states = {"best_model_dict": {"acc": accuracy.characters, "best_epoch": 1}, "epoch": 1, "global_step": steps}
        files = [(path.name, path.read_bytes()) for path in (checkpoint, optimiser)]
    write_tar(output / TRAIN, [*files, ("best_accuracy.states", pickle.dumps(states, protocol=2))])


def fit(seed: int, steps: int) -> tuple[dict[str, np.ndarray], dict]:
    """Train in static mode, where single operators can be handed to oneDNN.

    Returns:
        The weights by structured name, and the state of the learning-rate schedule.
    """
    import paddle
    from paddle import static
    from paddle.nn import functional as F

    from scripts.paddle_rec_network import Recogniser

    paddle.enable_static()
    paddle.seed(seed)
    paddle.set_flags({"FLAGS_new_executor_serial_run": True})
    images = static.data("images", [None, 3, HEIGHT, None])
    ids, lengths = static.data("ids", [None, None], "int32"), static.data("lengths", [None], "int64")
    frames = static.data("frames", [None], "int64")
    network = Recogniser(CLASSES)
    loss = F.ctc_loss(network(images).transpose([1, 0, 2]), ids, frames, lengths)
    warm_up = steps // 20
    schedule = paddle.optimizer.lr.LinearWarmup(
        paddle.optimizer.lr.CosineAnnealingDecay(PEAK_RATE, steps - warm_up), warm_up, PEAK_RATE / 20, PEAK_RATE
    )
    clip = paddle.nn.ClipGradByGlobalNorm(5.0)
    paddle.optimizer.Adam(schedule, grad_clip=clip).minimize(loss)
    for operator in static.default_main_program().global_block().ops:
        if operator.type.removesuffix("_grad") in ONEDNN_OPERATORS:
            operator._set_attr("use_mkldnn", True)

    executor = static.Executor(paddle.CPUPlace())
    executor.run(static.default_startup_program())
    average = None
    for step, batch in enumerate(drawn_ahead(seed, steps)):
        ids_value, lengths_value = batch.labels()
        feed = {
            "images": batch.inputs,
            "ids": ids_value,
            "lengths": lengths_value,
            "frames": np.full(len(batch.texts), batch.inputs.shape[3] // 4, np.int64),
        }
        (value,) = executor.run(feed=feed, fetch_list=[loss])
        average = float(value) if average is None else 0.98 * average + 0.02 * float(value)
        schedule.step()
        if (step + 1) % 100 == 0:
            log.info("step %d of %d: loss %.4f", step + 1, steps, average)
    scope = static.global_scope()
    weights = {key: np.array(scope.find_var(value.name).get_tensor()) for key, value in network.state_dict().items()}
    return weights, schedule.state_dict()


def drawn_ahead(seed: int, steps: int, ahead: int = 4) -> Iterator[Batch]:
    """The run's batches in order, drawn by another process a few steps ahead of their use."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        waiting: deque[Future[Batch]] = deque()
        for step in range(steps + ahead):
            if step < steps:
                waiting.append(pool.submit(training_batch, seed, step, BATCH, step < 2 * steps // 5))
            if step >= ahead:
                yield waiting.popleft().result()


# ---- judging ---------------------------------------------------------------------------------------------------------


class Accuracy:
    """Characters and words read right, as shares."""

    def __init__(self, pairs: Iterable[tuple[str, str]]) -> None:
        pairs = list(pairs)
        wrong = sum(edit_distance(read, text) for read, text in pairs)
        self.characters = 1 - wrong / sum(len(text) for _, text in pairs)
        self.words = sum(read == text for read, text in pairs) / len(pairs)
        self.count = len(pairs)

    def __str__(self) -> str:
        return f"of {self.count} held-out words {self.characters:.2%} of the characters, {self.words:.2%} of the words"


def judge(run: Callable[[np.ndarray], np.ndarray]) -> Accuracy:
    """Accuracy on the held-out words.

    Args:
        run: input (N, 3, 32, W) → probabilities (N, T, CLASSES).
    """
    pairs = []
    for batch in judged_batches():
        pairs += zip(read_texts(run(batch.inputs)), batch.texts, strict=True)
    return Accuracy(pairs)


def read_texts(probabilities: np.ndarray) -> list[str]:
    """Probabilities (N, T, CLASSES) → what they say."""
    return [str(reading) for reading in decode(probabilities, LABELS)]


# ---- saving ----------------------------------------------------------------------------------------------------------


def export(output: Path) -> None:
    """Write the inference tarball of PaddlePaddle 2: program, parameters, table of names."""
    files = save_for_inference(output)
    files["inference.pdmodel"] = without_call_stacks(files["inference.pdmodel"])
    write_tar(output / INFER, files.items())


def export_pir(output: Path) -> None:
    """Write the inference tarball of PaddlePaddle 3: inference.json and parameters."""
    write_tar(output / PIR, save_for_inference(output).items())


def save_for_inference(output: Path) -> dict[str, bytes]:
    """What paddle.jit.save makes of the training tarball's weights, by file name."""
    import paddle

    with tarfile.open(output / TRAIN) as tar:
        data = tar.extractfile(f"{Path(TRAIN).stem}/best_accuracy.pdparams").read()
    network = build_network()
    network.set_state_dict(paddle.load(io.BytesIO(data)))
    specification = [paddle.static.InputSpec([None, 3, HEIGHT, None], "float32", name="x")]
    with tempfile.TemporaryDirectory() as folder:
        paddle.jit.save(network, str(Path(folder, "inference")), input_spec=specification)
        return {path.name: path.read_bytes() for path in sorted(Path(folder).iterdir())}


def build_network():
    """The recogniser in evaluation mode."""
    from scripts.paddle_rec_network import Recogniser

    network = Recogniser(CLASSES)
    network.eval()
    return network


def without_call_stacks(program: bytes) -> bytes:
    """The program without the paths of the machine that wrote it."""
    from paddle.base.proto import framework_pb2

    description = framework_pb2.ProgramDesc.FromString(program)
    for block in description.blocks:
        for operator in block.ops:
            kept = [attribute for attribute in operator.attrs if attribute.name != "op_callstack"]
            del operator.attrs[:]
            operator.attrs.extend(kept)
    return description.SerializeToString(deterministic=True)


def write_tar(target: Path, files: Iterable[tuple[str, bytes]]) -> None:
    """A tarball of one folder, named after the file; the same bytes for the same content."""
    with tarfile.open(target, "w", format=tarfile.USTAR_FORMAT) as tar:
        folder = tarfile.TarInfo(target.stem)
        folder.type, folder.mode = tarfile.DIRTYPE, 0o755
        tar.addfile(folder)
        for name, data in files:
            entry = tarfile.TarInfo(f"{target.stem}/{name}")
            entry.size = len(data)
            tar.addfile(entry, io.BytesIO(data))
    print(f"{target}: {target.stat().st_size} bytes")


def sample(output: Path) -> None:
    """Write the picture, what it says, and the dictionary."""
    sample_picture().save(output / "sample.png", optimize=True)
    (output / "sample.txt").write_text(SAMPLE_TEXT + "\n")
    (output / "embedded_dict.txt").write_text("\n".join(CHARACTERS) + "\n")


# ---- reading back ----------------------------------------------------------------------------------------------------


def read(output: Path) -> None:
    """Let Paddle's predictor read the sample and the held-out words with each inference tarball."""
    from paddle import inference

    sample_input = prepare([load_picture(output / "sample.png")], RECOGNITION_32)
    for tarball, program in ((INFER, "inference.pdmodel"), (PIR, "inference.json")):
        with tempfile.TemporaryDirectory() as folder, tarfile.open(output / tarball) as tar:
            tar.extractall(folder, filter="data")
            model = Path(folder, Path(tarball).stem)
            configuration = inference.Config(str(model / program), str(model / "inference.pdiparams"))
            configuration.disable_glog_info()
            predictor = inference.create_predictor(configuration)

        def run(inputs: np.ndarray, predictor=predictor) -> np.ndarray:
            predictor.get_input_handle(predictor.get_input_names()[0]).copy_from_cpu(inputs)
            predictor.run()
            return predictor.get_output_handle(predictor.get_output_names()[0]).copy_to_cpu()

        (text,) = read_texts(run(sample_input))
        print(f"{tarball}: sample.png reads {text!r}; {judge(run)}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    steps = {"train": train, "export": export, "export-pir": export_pir, "sample": sample, "read": read}
    parser.add_argument("step", choices=steps)
    parser.add_argument(
        "--output", type=Path, default=OUTPUT, metavar="DIR", help="where the files go, and come from (%(default)s)"
    )
    parser.add_argument("--seed", type=int, default=2, help="of the training run (default: %(default)s)")
    parser.add_argument("--steps", type=int, default=STEPS, help="of the training run (default: %(default)s)")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S", stream=sys.stderr)
    arguments.output.mkdir(parents=True, exist_ok=True)
    extra = {"seed": arguments.seed, "steps": arguments.steps} if arguments.step == "train" else {}
    steps[arguments.step](arguments.output, **extra)


if __name__ == "__main__":
    main()
