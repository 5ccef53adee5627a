"""The Paddle process: what it computes, and what a user is told when it does not."""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from paddle2torch.converter.parity.reference import WORKER_COMMAND, PaddleWorker
from paddle2torch.converter.support.errors import PaddleError

needs_paddle = pytest.mark.skipif(find_spec("paddle") is None, reason="PaddlePaddle is not installed")

GREETING = 'import sys, time, os\nprint(\'{"versions": {"paddlepaddle": "3.3.1"}}\', flush=True)\n'
EXPORT = """
    import sys
    import paddle
    from paddle import nn

    class Network(nn.Layer):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2D(3, 4, 3, padding=1)
            self.lstm = nn.LSTM(4, 3, direction="bidirectional")
            self.fc = nn.Linear(6, 5)

        def forward(self, x):
            x = nn.functional.hardswish(self.conv(x)).max(2).transpose([0, 2, 1])
            return nn.functional.softmax(self.fc(self.lstm(x)[0]), -1)

    paddle.seed(1)
    network = Network()
    network.conv.bias.set_value(paddle.arange(4, dtype="float32"))
    network.eval()
    shape = paddle.static.InputSpec([None, 3, None, None], "float32", "x")
    paddle.jit.save(network, sys.argv[1], input_spec=[shape])
"""


@pytest.fixture
def start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., PaddleWorker]]:
    """Starts a client with a stand-in for the Paddle process, a Python script; its log lies in the test's folder."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    started = []

    def start(script: str, **limits: float) -> PaddleWorker:
        file = tmp_path / "worker.py"
        file.write_text(script, encoding="utf-8")
        worker = PaddleWorker([sys.executable, str(file)], **limits)
        started.append(worker)
        return worker.__enter__()

    yield start
    for worker in started:
        worker.close()


def logs(folder: Path) -> list[Path]:
    return list(folder.glob("paddle2torch-paddle-*.log"))


def test_a_crash_gives_the_exit_code_the_last_words_and_the_whole_log(
    start: Callable[..., PaddleWorker], tmp_path: Path
) -> None:
    worker = start(
        GREETING + "sys.stdin.readline()\nfor i in range(100): print('line', i, file=sys.stderr)\nsys.exit(134)"
    )
    with pytest.raises(PaddleError, match=r"ended \(exit code 134\) while the request 'load'") as caught:
        worker.load(tmp_path, "pdmodel")
    (log,) = logs(tmp_path)
    assert str(log) in str(caught.value)
    assert "line 99" in str(caught.value)
    assert "line 94" not in str(caught.value)
    assert log.read_text().startswith("line 0\n")


def test_a_kill_is_told_by_its_signal(start: Callable[..., PaddleWorker], tmp_path: Path) -> None:
    worker = start(GREETING + "sys.stdin.readline()\nos.kill(os.getpid(), 11)")
    with pytest.raises(PaddleError, match="killed by SIGSEGV"):
        worker.load(tmp_path, "pdmodel")


def test_a_hang_ends_at_the_limit(start: Callable[..., PaddleWorker], tmp_path: Path) -> None:
    worker = start(GREETING + "print('thinking', file=sys.stderr, flush=True)\ntime.sleep(60)", request_limit=0.5)
    begin = time.monotonic()
    with pytest.raises(
        PaddleError, match=r"did not answer within 0\.5 s while the request 'load'.*stopped\n  thinking"
    ):
        worker.load(tmp_path, "pdmodel")
    assert time.monotonic() - begin < 10
    assert len(logs(tmp_path)) == 1


def test_an_import_that_hangs_ends_at_its_own_limit(start: Callable[..., PaddleWorker]) -> None:
    worker = start("import time; time.sleep(60)", start_limit=0.5)
    with pytest.raises(PaddleError, match=r"did not answer within 0\.5 s while starting"):
        _ = worker.versions


def test_an_end_before_the_greeting_is_a_crash(start: Callable[..., PaddleWorker]) -> None:
    with pytest.raises(PaddleError, match=r"ended \(exit code 3\) while starting"):
        _ = start("import sys; sys.exit(3)").versions


def test_a_python_that_is_not_there_is_named() -> None:
    with pytest.raises(PaddleError, match="cannot be started with /no/python"):
        PaddleWorker(["/no/python"]).__enter__()


def test_the_next_request_after_a_crash_starts_afresh(start: Callable[..., PaddleWorker], tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    worker = start(
        GREETING
        + f"line = sys.stdin.readline()\nif not os.path.exists({str(mark)!r}):\n    open({str(mark)!r}, 'w'); sys.exit(1)\n"
        + 'print(\'{"program": {"feeds": ["x"], "fetches": [], "parameters": {}, "operators": []}}\', flush=True)\n'
        + "sys.stdin.read()"
    )
    with pytest.raises(PaddleError, match="exit code 1"):
        worker.load(tmp_path, "pdmodel")
    assert worker.load(tmp_path, "pdmodel").feeds == ("x",)


def test_a_good_end_leaves_no_log(start: Callable[..., PaddleWorker], tmp_path: Path) -> None:
    worker = start(GREETING + "sys.stdin.read()")
    assert worker.versions == {"paddlepaddle": "3.3.1"}
    worker.close()
    assert logs(tmp_path) == []


def fake_paddle(folder: Path, content: str) -> list[str]:
    """The real worker's command, in a Python that has this in place of Paddle."""
    (folder / "paddle").mkdir()
    (folder / "paddle" / "__init__.py").write_text(textwrap.dedent(content), encoding="utf-8")
    start = f"import sys; sys.path.insert(0, {str(folder)!r}); from paddle2torch.converter.parity.paddle_worker import main; main()"
    return [sys.executable, "-c", start]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        pytest.param(
            "raise ModuleNotFoundError('paddle', name='paddle')",
            r'PaddlePaddle is not installed for .*python.*: pip install "paddle2torch\[parity\]"',
            id="missing",
        ),
        pytest.param(
            "__version__ = '2.6.2'", r"PaddlePaddle 2\.6\.2 is too old; version 3 or newer .*pip", id="too old"
        ),
        pytest.param("import nowhere", r"cannot be imported \(No module named 'nowhere'\)", id="lacks a part"),
        pytest.param("raise ImportError('libgomp')", r"cannot be imported \(libgomp\)", id="does not load"),
    ],
)
def test_a_paddle_that_cannot_serve_is_told_in_a_line(tmp_path: Path, content: str, message: str) -> None:
    with PaddleWorker(fake_paddle(tmp_path, content)) as worker, pytest.raises(PaddleError, match=message) as caught:
        _ = worker.versions
    assert "\n" not in str(caught.value)


def test_what_paddle_prints_does_not_get_among_the_answers(tmp_path: Path) -> None:
    content = """
        import os
        print('from Python')
        os.write(1, b'from below\\n')
        __version__ = '3.0.0'
        def enable_static(): print('{"versions": {}}')
    """
    with PaddleWorker(fake_paddle(tmp_path, content)) as worker:
        assert worker.versions["paddlepaddle"] == "3.0.0"


def test_the_worker_imports_neither_torch_nor_paddle_before_it_serves() -> None:
    code = (
        "import json, sys; import paddle2torch.converter.parity.paddle_worker;"
        "print(json.dumps([name for name in ('torch', 'paddle') if name in sys.modules]))"
    )
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True).stdout
    assert json.loads(printed) == []


@needs_paddle
def test_paddle_and_torch_never_meet() -> None:
    code = (
        "import sys; from paddle2torch.converter.parity import paddle_worker as worker;"
        "worker.Worker(worker.import_paddle()); print('paddle' in sys.modules, 'torch' in sys.modules)"
    )
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True).stdout
    assert printed.split() == ["True", "False"]


@pytest.fixture(scope="module")
def pir_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an `inference.json` of Paddle 3 and its parameters."""
    folder = tmp_path_factory.mktemp("pir")
    (folder / "export.py").write_text(textwrap.dedent(EXPORT), encoding="utf-8")
    subprocess.run([sys.executable, "export.py", "inference"], cwd=folder, check=True, capture_output=True)
    return folder


@pytest.fixture(scope="module")
def worker() -> Iterator[PaddleWorker]:
    """A real Paddle process."""
    with PaddleWorker() as started:
        yield started


@needs_paddle
def test_every_value_of_a_pir_program_can_be_fetched_again_and_again(worker: PaddleWorker, pir_model: Path) -> None:
    program = worker.load(pir_model, "pir")
    assert {name: shape for name, shape in program.parameters.items() if "conv2d" in name} == {
        "conv2d_0.w_0": (4, 3, 3, 3),
        "conv2d_0.b_0": (4,),
    }
    convolution = next(operator for operator in program.operators if operator.type == "conv2d")
    completed = next(operator for operator in program.operators if operator.type == "add")
    recurrent = next(operator for operator in program.operators if operator.type == "rnn")
    inputs = np.random.default_rng(0).normal(size=(2, 3, 8, 10)).astype(np.float32)

    values = worker.run(inputs, [convolution.result, completed.result, recurrent.result, *program.fetches])
    bias = values[completed.result] - values[convolution.result]
    np.testing.assert_allclose(bias, np.broadcast_to(np.arange(4.0)[None, :, None, None], bias.shape), atol=1e-6)
    assert values[recurrent.result].shape == (10, 2, 6)
    # A second request with other values must not be answered with the first one's.
    again = worker.run(inputs, [*program.fetches, completed.result])
    np.testing.assert_array_equal(again[program.fetches[0]], values[program.fetches[0]])
    np.testing.assert_array_equal(again[completed.result], values[completed.result])


@needs_paddle
def test_double_precision_is_the_same_program_without_the_rounding(worker: PaddleWorker, pir_model: Path) -> None:
    program = worker.load(pir_model, "pir")
    inputs = np.random.default_rng(0).normal(size=(2, 3, 8, 10)).astype(np.float32)
    (single,) = worker.run(inputs, program.fetches, "single").values()
    (double,) = worker.submit(inputs, program.fetches, "double").result().values()
    assert (single.dtype, double.dtype) == (np.float32, np.float64)
    assert 0 < np.abs(single - double).max() < 1e-6


@needs_paddle
def test_a_refused_request_leaves_the_process_at_work(worker: PaddleWorker, pir_model: Path, tmp_path: Path) -> None:
    with pytest.raises(PaddleError, match="refused the request 'load'"):
        worker.load(tmp_path, "pdmodel")
    program = worker.load(pir_model, "pir")
    with pytest.raises(PaddleError, match="refused the request 'run': .*channels is 5") as caught:
        worker.run(np.zeros((1, 5, 8, 8), np.float32), program.fetches)
    assert "\n" not in str(caught.value)
    assert len(worker.run(np.zeros((1, 3, 8, 8), np.float32), program.fetches)) == 1


@needs_paddle
def test_the_process_starts_from_any_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    with PaddleWorker(WORKER_COMMAND) as started:
        assert int(started.versions["paddlepaddle"].split(".")[0]) >= 3
