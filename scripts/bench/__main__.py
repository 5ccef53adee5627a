"""How fast: conversion, verification and inference, each against something measured in the same run.

    python -m scripts.bench [inference] [conversion] [verification] --mirror DIR [--rounds N] [--output docs/benchmarks]

Everything compared runs in processes of its own, in turn (A B C A B C …), so that a machine that slows down slows all
of them; what counts are ratios between the runs of one round. Prints tables, and writes `benchmarks.json`, the figure
as PNG and SVG, and the tables into the page `OUTPUT.md`.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

from paddle2torch.converter.tasks import find_task
from paddle2torch.converter.zoo.catalog import Model, load_zoo

SECTIONS = ("inference", "conversion", "verification")
THREADS = 2
PAUSE = 0.25  # seconds between two engines' turns: some keep their threads spinning for as long as 0.2
TURN = 4  # runs per turn; the first warms up and is not counted
VERIFICATION_ROUNDS = 3  # at most: one takes minutes
PACKAGES = ("torch", "paddlepaddle", "onnxruntime", "numpy")
MARKS = ("<!-- figures -->", "<!-- end of figures -->")
SMALL, LARGE = "ch_ppocr_mobile_v2.0_cls", "ch_ppocr_server_v2.0_rec"
MEDIUM = "ch_PP-OCRv3_rec"

# Model → size of the input.
INFERENCE = {
    "ch_PP-OCRv3_det": "1x3x704x960",
    "ch_ppocr_mobile_v2.0_det": "1x3x704x960",
    "ch_ppocr_server_v2.0_det": "1x3x704x960",
    "ch_ppocr_mobile_v2.0_rec": "6x3x32x320",
    "ch_PP-OCRv3_rec": "6x3x48x320",
    "ch_ppocr_mobile_v2.0_cls": "6x3x48x192",
}
ENGINES = {
    "plain": "PyTorch",
    "optimized": "optimize()",
    "compiled": "optimize(compile=True)",
    "bfloat16": "optimize(dtype=bfloat16)",
    "paddle": "Paddle Inference, oneDNN",
    "onnxruntime": "ONNX Runtime",
}
OURS, THEIRS = "optimized", ("paddle", "onnxruntime")
PROFILED = (OURS, "onnxruntime")
NOTHING = {"calls": 0, "seconds": 0.0, "kernels": 0.0}


@dataclass
class Spread:
    """Some figures by their median and extremes."""

    median: float
    least: float
    most: float
    count: int

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        return cls(statistics.median(values), min(values), max(values), len(values))

    def text(self, factor: float = 1.0, digits: int = 2) -> str:
        median, least, most = (f"{value * factor:.{digits}f}" for value in (self.median, self.least, self.most))
        return f"{median} ({least}–{most})"


@dataclass
class Table:
    """Rows for people; the first column is text."""

    title: str
    head: tuple[str, ...]
    rows: list[tuple[str, ...]] = field(default_factory=list)

    def markdown(self) -> str:
        lines = [self.head, ("---",) + ("---:",) * (len(self.head) - 1), *self.rows]
        return f"### {self.title}\n\n" + "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


@dataclass
class Bench:
    """What all sections share.

    Attributes:
        mirror: folder of the zoo's tarballs.
        folder: for converted models and the like.
        rounds: how often everything has its turn.
    """

    mirror: Path
    folder: Path
    rounds: int

    def convert(self, *names: str) -> None:
        """Convert models into the folder."""
        subprocess.run(self.command("convert", *names, "--output", str(self.folder)), check=True, env=environment())

    def command(self, *arguments: str) -> list[str]:
        """A call of paddle2torch."""
        return [sys.executable, "-m", "paddle2torch", *arguments, *self.source()]

    def source(self) -> list[str]:
        return ["--mirror", str(self.mirror)]


def environment() -> dict[str, str]:
    """That of the measured processes; Python keeps compiled modules, as it does by default."""
    kept = {key: value for key, value in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"}
    return {**kept, "OMP_NUM_THREADS": str(THREADS), "TQDM_DISABLE": "1"}


# ---- inference ---------------------------------------------------------------------------------------------------


class Engine:
    """A network in one engine, in a process of its own; a context manager."""

    def __init__(self, engine: str, file: Path, shape: str) -> None:
        self.name = engine
        command = [sys.executable, "-m", "scripts.bench.engines", engine, str(file), shape]
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env=environment(),
        )
        self.greeting = self._answer()

    def __enter__(self) -> Engine:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.communicate()

    def _answer(self) -> Any:
        line = self._process.stdout.readline()
        return json.loads(line) if line else {"unusable": f"the process ended with code {self._process.wait()}"}

    def turn(self) -> float:
        """Seconds of one run: the median of a turn."""
        return statistics.median(self._ask(TURN)[1:])

    def profile(self) -> dict[str, dict[str, float]]:
        """Where the time of one run goes, by kinds of work; see `bench_engines`."""
        return self._ask("profile")

    def _ask(self, question: object) -> Any:
        self._process.stdin.write(f"{question}\n")
        self._process.stdin.flush()
        return self._answer()


def bench_inference(bench: Bench, models: Mapping[str, str], engines: Sequence[str]) -> dict[str, Any]:
    """Every model in every engine: seconds per run, and the ratio to the faster of the others' engines."""
    bench.convert(*models)
    return {model: _race(bench, model, shape, engines) for model, shape in models.items()}


def _race(bench: Bench, model: str, shape: str, engines: Sequence[str]) -> dict[str, Any]:
    print(f"{model}, {shape}", file=sys.stderr)
    with ExitStack() as stack:
        started = [stack.enter_context(Engine(name, engine_file(bench, name, model), shape)) for name in engines]
        usable = [engine for engine in started if "unusable" not in engine.greeting]
        seconds: dict[str, list[float]] = {engine.name: [] for engine in usable}
        for _ in range(bench.rounds):
            for engine in usable:
                time.sleep(PAUSE)
                seconds[engine.name].append(engine.turn())
        unusable = {engine.name: engine.greeting["unusable"] for engine in started if engine not in usable}
        profiles = {engine.name: engine.profile() for engine in usable if engine.name in PROFILED}
    rivals = [seconds[name] for name in THEIRS if name in seconds]
    best = min(rivals, key=statistics.median, default=seconds[OURS])
    ratios = {name: Spread.of([a / b for a, b in zip(each, best, strict=True)]) for name, each in seconds.items()}
    return {
        "shape": shape,
        "seconds": {name: asdict(Spread.of(each)) for name, each in seconds.items()},
        "ratios": {name: asdict(each) for name, each in ratios.items()},
        "unusable": unusable,
        "profiles": profiles,
    }


def engine_file(bench: Bench, engine: str, model: str) -> Path:
    """What an engine takes for a model, made if need be."""
    weights = bench.folder / f"{model}.safetensors"
    if engine == "onnxruntime":
        exported = bench.folder / f"{model}.onnx"
        if not exported.exists():
            command = ["export", str(weights), "--format", "onnx", "--output", str(bench.folder)]
            subprocess.run([sys.executable, "-m", "paddle2torch", *command], check=True, env=environment())
        return exported
    if engine.startswith("paddle"):
        unpacked = bench.folder / model
        if not unpacked.exists():
            with tarfile.open(tarball(bench.mirror, load_zoo().models[model])) as archive:
                unpacked.mkdir()
                for member in archive.getmembers():
                    if member.isfile():
                        (unpacked / Path(member.name).name).write_bytes(archive.extractfile(member).read())
        return unpacked
    return weights


def tarball(mirror: Path, model: Model) -> Path:
    """A model's inference tarball in the mirror, which has the paths of the model server."""
    return mirror / model.artifacts["inference"].url.split("/", 3)[3]


def tabulate_inference(results: Mapping[str, Any]) -> list[Table]:
    engines = [name for name in ENGINES if any(name in each["seconds"] for each in results.values())]
    head = ("model", "input", *(ENGINES[name] for name in engines))
    times = Table("Inference: milliseconds, median (least to most)", head)
    ratios = Table("Inference: share of the time of the faster of Paddle and ONNX Runtime; below 1 is faster", head)
    for model, each in results.items():
        start = (model, each["shape"].replace("x", " × "))
        cells = [each["seconds"].get(name) for name in engines]
        times.rows.append((*start, *(Spread(**cell).text(1000, 1) if cell else "–" for cell in cells)))
        cells = [each["ratios"].get(name) for name in engines]
        ratios.rows.append((*start, *(Spread(**cell).text() if cell else "–" for cell in cells)))
    return [times, ratios, tabulate_profiles(results)]


def tabulate_profiles(results: Mapping[str, Any]) -> Table:
    """Where the time goes: the optimised network's, beside ONNX Runtime's."""
    head = ("model", "kind of work", "calls", "optimize(), ms", "in oneDNN's kernels, ms", "ONNX Runtime, ms")
    table = Table("Inference: where the time of one run goes, under a profiler", head)
    for model, each in results.items():
        ours, theirs = (each["profiles"].get(name, {}) for name in PROFILED)
        for kind in sorted(ours.keys() | theirs.keys(), key=lambda kind: -ours.get(kind, NOTHING)["seconds"]):
            mine, other = ours.get(kind, NOTHING), theirs.get(kind, NOTHING)
            figures = (mine["seconds"], mine["kernels"], other["seconds"])
            table.rows.append((model, kind, f"{mine['calls']:.0f}", *(f"{figure * 1e3:.2f}" for figure in figures)))
    return table


# ---- conversion --------------------------------------------------------------------------------------------------


@dataclass
class Finished:
    """A process that has ended: seconds on the clock and of the processor, and the most memory it had, in bytes."""

    seconds: float
    processor: float
    memory: int


# Starts a command and measures it. A process's peak counts from its parent's size on, so the parent has to be small.
LAUNCHER = """
import json, os, subprocess, sys, time
start = time.perf_counter()
process = subprocess.Popen(sys.argv[1:], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
_, status, usage = os.wait4(process.pid, 0)
seconds = time.perf_counter() - start
memory = usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024)
print(json.dumps([os.waitstatus_to_exitcode(status), seconds, usage.ru_utime + usage.ru_stime, memory]))
"""


def run(command: Sequence[str]) -> Finished:
    """Run a command to its end.

    Raises:
        subprocess.CalledProcessError: it failed.
    """
    launched = [sys.executable, "-I", "-S", "-c", LAUNCHER, *command]
    code, *figures = json.loads(subprocess.check_output(launched, env=environment()))
    if code:
        raise subprocess.CalledProcessError(code, command)
    return Finished(*figures)


def bench_conversion(bench: Bench, everything: bool = True) -> dict[str, Any]:
    """Conversions as whole processes, against importing torch."""
    zoo = load_zoo()
    names = [name for name, model in zoo.models.items() if _is_there(bench.mirror, model)]
    convert = {name: [name] for name in (SMALL, MEDIUM, LARGE)} if everything else {SMALL: [SMALL]}
    if everything:
        convert[f"all {len(names)}"] = names
    commands = {"import torch": [sys.executable, "-c", "import torch"]} | {
        label: bench.command("convert", *chosen, "--output", str(bench.folder)) for label, chosen in convert.items()
    }
    runs: dict[str, list[Finished]] = {label: [] for label in commands}
    for turn in range(bench.rounds + 1):
        for label, command in commands.items():
            finished = run(command)
            if turn:  # the first warms the disk's cache up
                runs[label].append(finished)
        print(f"conversion, round {turn} of {bench.rounds}", file=sys.stderr)
    base = runs["import torch"]
    sizes = {label: [tarball(bench.mirror, zoo.models[name]).stat().st_size for name in chosen]
             for label, chosen in convert.items()}  # fmt: skip
    return {
        label: {
            "bytes": sum(sizes.get(label, [])),
            "largest": max(sizes.get(label, [0])),
            "seconds": asdict(Spread.of([each.seconds for each in finished])),
            "ratio": asdict(Spread.of([a.seconds / b.seconds for a, b in zip(finished, base, strict=True)])),
            "processor": asdict(Spread.of([each.processor for each in finished])),
            "memory": asdict(Spread.of([each.memory for each in finished])),
        }
        for label, finished in runs.items()
    }


def _is_there(mirror: Path, model: Model) -> bool:
    """Whether the mirror has a model's inference tarball."""
    return "inference" in model.artifacts and model.generation != "embedded" and tarball(mirror, model).is_file()


def tabulate_conversion(results: Mapping[str, Any]) -> list[Table]:
    head = ("conversion of", "tarballs, MB", "seconds", "ratio to `import torch`", "peak memory, MB", "beyond torch")
    table = Table("Conversion: median (least to most) of whole processes", head)
    base = results["import torch"]["memory"]["median"]
    for label, each in results.items():
        memory = each["memory"]["median"]
        beyond = f"{(memory - base) / each['largest']:.2f} × largest" if each["largest"] else "–"
        spreads = Spread(**each["seconds"]).text(), Spread(**each["ratio"]).text()
        table.rows.append((label, f"{each['bytes'] / 1e6:.1f}", *spreads, f"{memory / 1e6:.0f}", beyond))
    return [table]


# ---- verification ------------------------------------------------------------------------------------------------


def bench_verification(bench: Bench, models: Sequence[str] = ()) -> dict[str, Any]:
    """`verify` as a whole process, against what the frameworks' executions alone take and the slower import."""
    names = list(models) or [name for name, model in load_zoo().models.items() if _is_there(bench.mirror, model)]
    commands = {name: [sys.executable, "-c", f"import {name}"] for name in ("torch", "paddle")}
    imports = {name: run(command).seconds for name, command in commands.items()}
    ratios, verify, pure = [], [], []
    for _ in range(min(bench.rounds, VERIFICATION_ROUNDS)):
        verify.append(run(bench.command("verify", *names)).seconds)
        pure.append(pure_executions(bench, names))
        ratios.append(verify[-1] / (sum(pure[-1].values()) + max(imports.values())))
    return {
        "models": len(names),
        "verify": asdict(Spread.of(verify)),
        "imports": imports,
        "executions": {side: asdict(Spread.of([each[side] for each in pure])) for side in pure[0]},
        "ratio": asdict(Spread.of(ratios)),
    }


def pure_executions(bench: Bench, names: Sequence[str]) -> dict[str, float]:
    """Seconds that each framework computes for a verification, one after the other, with all that surrounds it left
    out (loading, converting, pairing, comparing)."""
    from paddle2torch.converter.conversion.convert import convert
    from paddle2torch.converter.parity.inputs import default_cases
    from paddle2torch.converter.parity.reference import PaddleWorker
    from paddle2torch.converter.parity.verify import Session, in_both_precisions
    from paddle2torch.converter.sources import load_source
    from paddle2torch.converter.zoo.download import Fetcher

    zoo, fetcher = load_zoo(), Fetcher(mirror=str(bench.mirror))
    seconds = {"paddle": 0.0, "torch": 0.0}
    with PaddleWorker() as worker:
        for name in names:
            conversion = convert(load_source(name, zoo, fetcher), fetcher=fetcher)
            with Session(conversion, conversion.source, worker) as session:
                models = in_both_precisions(conversion.build())
                for case in default_cases(find_task(conversion.network.task), conversion.network.preprocessing):
                    start = time.perf_counter()
                    started = session.start_reference(case)
                    for each in (started.single, started.double, started.blank):
                        each.result()
                    middle = time.perf_counter()
                    session.run_torch(models, case)
                    session.ask_third(case)
                    seconds["paddle"] += middle - start
                    seconds["torch"] += time.perf_counter() - middle
    return seconds


def tabulate_verification(results: Mapping[str, Any]) -> list[Table]:
    table = Table(f"Verification of {results['models']} models: seconds, median (least to most)", ("", "seconds"))
    table.rows.append(("`verify`, the whole process", Spread(**results["verify"]).text(digits=1)))
    for side, each in results["executions"].items():
        table.rows.append((f"{side}'s executions alone, both precisions", Spread(**each).text(digits=1)))
    for side, seconds in results["imports"].items():
        table.rows.append((f"import {side}", f"{seconds:.1f}"))
    table.rows.append(("ratio to all executions and the slower import", Spread(**results["ratio"]).text()))
    return [table]


# ---- the results -------------------------------------------------------------------------------------------------

RESULTS = "benchmarks.json"
TABULATE: dict[str, Callable[[Mapping[str, Any]], list[Table]]] = {
    "inference": tabulate_inference,
    "conversion": tabulate_conversion,
    "verification": tabulate_verification,
}


def machine() -> dict[str, Any]:
    """What all this was measured on."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text(encoding="utf-8").splitlines() if cpuinfo.is_file() else []
    facts = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
    return {
        "processor": facts.get("model name", platform.processor() or platform.machine()),
        "family": facts.get("cpu family"),
        "model": facts.get("model"),
        "cores": os.cpu_count(),
        "threads": THREADS,
        "memory": f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 2**30:.0f} GiB",
        "system": platform.platform(),
        "python": platform.python_version(),
        **{name: _version(name) for name in PACKAGES},
        "load": os.getloadavg()[0],
    }


def kept(folder: Path, machine: Mapping[str, Any]) -> dict[str, Any]:
    """The sections that were measured before, on the same machine with the same versions; what is measured anew
    replaces them."""
    path = folder / RESULTS
    results = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    if any(results.get("machine", {}).get(fact) != value for fact, value in machine.items() if fact != "load"):
        return {}
    return {section: results[section] for section in TABULATE if section in results}


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def tables(results: Mapping[str, Any]) -> Iterator[Table]:
    """All tables, that of the machine last."""
    for section, tabulate in TABULATE.items():
        if section in results:
            yield from tabulate(results[section])
    facts = Table("Machine", ("", ""))
    facts.rows += [(name, str(value)) for name, value in results["machine"].items()]
    yield facts


def write(results: Mapping[str, Any], folder: Path) -> list[Path]:
    """Write FOLDER/benchmarks.json and, where there is inference, the figure; the tables go into FOLDER.md."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / RESULTS]
    paths[0].write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    if "inference" in results:
        paths += plot(results["inference"], folder)
    page = folder.with_suffix(".md")
    if page.is_file():
        before, _, rest = page.read_text(encoding="utf-8").partition(MARKS[0])
        after = rest.partition(MARKS[1])[2]
        figures = "\n".join(table.markdown() for table in tables(results))
        page.write_text(f"{before}{MARKS[0]}\n\n{figures}\n{MARKS[1]}{after}", encoding="utf-8")
        paths.append(page)
    return paths


def plot(results: Mapping[str, Any], folder: Path) -> list[Path]:
    """Bars of the ratios: one group for each model."""
    import matplotlib

    matplotlib.use("Agg")
    matplotlib.rcParams["svg.hashsalt"] = "paddle2torch"
    from matplotlib import pyplot

    engines = [name for name in ENGINES if any(name in each["ratios"] for each in results.values())]
    figure, axes = pyplot.subplots(figsize=(9, 1 + 1.1 * len(results)), layout="constrained")
    height = 0.8 / len(engines)
    for place, name in enumerate(engines):
        spreads = [Spread(**each["ratios"][name]) if name in each["ratios"] else None for each in results.values()]
        rows = [(row + place * height, spread) for row, spread in enumerate(spreads) if spread]
        medians = [spread.median for _, spread in rows]
        whiskers = [[s.median - s.least for _, s in rows], [s.most - s.median for _, s in rows]]
        axes.barh([row for row, _ in rows], medians, height, xerr=whiskers, label=ENGINES[name], ecolor="0.4")
    axes.axvline(1, color="0.2", linewidth=1)
    axes.set_yticks([row + 0.4 - height / 2 for row in range(len(results))], list(results))
    axes.invert_yaxis()
    axes.set_xlabel("time, as a share of the faster of Paddle Inference and ONNX Runtime")
    figure.legend(loc="outside upper center", ncols=3)
    paths = [folder / "inference.png", folder / "inference.svg"]
    for path in paths:
        figure.savefig(path, dpi=150, metadata={"Date": None} if path.suffix == ".svg" else None)
    pyplot.close(figure)
    return paths


@contextmanager
def workplace(given: Path | None) -> Iterator[Path]:
    """The folder for converted models: a given one, or one that goes afterwards."""
    if given is not None:
        given.mkdir(parents=True, exist_ok=True)
        yield given
        return
    with tempfile.TemporaryDirectory(prefix="paddle2torch-bench-") as name:
        yield Path(name)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; see the top of this file."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("sections", nargs="*", choices=[[], *SECTIONS], metavar="SECTION")
    parser.add_argument("--mirror", type=Path, default=os.environ.get("PADDLE2TORCH_MIRROR"), help="folder")
    parser.add_argument("--output", type=Path, default=Path("docs/benchmarks"))
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--work", type=Path, help="where to keep converted models; a temporary folder otherwise")
    parser.add_argument("--models", nargs="+", choices=list(INFERENCE), default=list(INFERENCE))
    parser.add_argument("--engines", nargs="+", choices=list(ENGINES), default=list(ENGINES))
    parser.add_argument("--small", action="store_true", help="only to see that it works: one small model")
    given = parser.parse_args(arguments)
    if given.mirror is None or not Path(given.mirror).is_dir():
        parser.error("--mirror FOLDER (or PADDLE2TORCH_MIRROR): a folder with the zoo's tarballs is needed")
    sections = given.sections or SECTIONS
    results: dict[str, Any] = {"machine": machine()}
    results |= kept(given.output, results["machine"])
    with workplace(given.work) as folder:
        bench = Bench(Path(given.mirror), folder, given.rounds)
        models = {SMALL: "1x3x48x64"} if given.small else {name: INFERENCE[name] for name in given.models}
        if "inference" in sections:
            results["inference"] = bench_inference(bench, models, given.engines)
        if "conversion" in sections:
            results["conversion"] = bench_conversion(bench, everything=not given.small)
        if "verification" in sections:
            results["verification"] = bench_verification(bench, [SMALL] if given.small else [])
    for table in tables(results):
        print(table.markdown())
    for path in write(results, given.output):
        print(path)
    return 0


if __name__ == "__main__":
    sys.exit(main())
