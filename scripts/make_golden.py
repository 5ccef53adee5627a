#!/usr/bin/env python3
"""Write tests/golden/: what Paddle computes with the recipe's weights, layer by layer, for every architecture.

    .venv/bin/python -m scripts.make_golden PROGRAMS

PROGRAMS holds a folder per graph of GRAPHS below, each with the `inference.pdmodel` and `inference.pdiparams.info` of
the released model of that name (no weights are needed). The teacher of PP-OCRv3 was never released as a program: its
graph is upstream's network, exported with PaddleOCR's tools/export_model.py.

A golden file needs neither Paddle nor the graph to be used. It is a compressed .npz of

    facts      JSON: graph, version of Paddle, input shape, shape of each parameter by structured name, and the layers
               in the graph's order, each with its structured name and its output's shape
    means      float32 (layers,), the mean of each layer's output
    largest    float32 (layers,), its largest magnitude
    entries    float32 (layers, ENTRIES), some of its values, see `picked`
    output     float32 (OUTPUT_ENTRIES,), some values of what the network returns

A layer is an operator with parameters, its bias included: a convolution, a norm, the whole LSTM. So the last of them is
what enters the network's last sigmoid or softmax.
"""

from __future__ import annotations

import argparse
import io
import json
import re
import tempfile
import zipfile
from pathlib import Path

import numpy as np

from converter.blob import Blob
from converter.formats.info import read_info
from converter.formats.pdiparams import write_pdiparams
from converter.formats.pdmodel import read_pdmodel
from converter.parity.pairing import pair_layers
from converter.parity.reference import PaddleWorker
from tests.recipe import picture, weights

# architecture: (released graph, input shape). Widths of 106 are odd after one halving, so that rounding shows.
GRAPHS = {
    "det_mobilenet_v3_dbfpn": ("ch_ppocr_mobile_v2.0_det", (2, 3, 64, 96)),
    "det_mobilenet_v3_rsefpn": ("ch_PP-OCRv3_det", (2, 3, 64, 96)),
    "det_resnet18_vd_dbfpn": ("ch_ppocr_server_v2.0_det", (2, 3, 64, 96)),
    "det_resnet50_vd_lkpan": ("ch_PP-OCRv3_det_teacher", (2, 3, 64, 96)),
    "rec_mobilenet_v3_bilstm_ctc": ("french_mobile_v2.0_rec", (2, 3, 32, 106)),
    "rec_resnet34_vd_bilstm_ctc": ("ch_ppocr_server_v2.0_rec", (2, 3, 32, 106)),
    "rec_mobilenet_v1_enhance_bilstm_ctc": ("ch_PP-OCRv2_rec", (2, 3, 32, 106)),
    "rec_mobilenet_v1_enhance_svtr_ctc": ("en_PP-OCRv3_rec", (2, 3, 48, 106)),
    "cls_mobilenet_v3": ("ch_ppocr_mobile_v2.0_cls", (2, 3, 48, 106)),
}
ENTRIES, OUTPUT_ENTRIES = 32, 256
OUTPUT = Path("tests/golden")
# An LSTM is one operator; its parameters' names have a further part per layer and direction.
CELL = re.compile(r"\.\d+\.cell_(fw|bw)(?=\.)")


def golden(worker: PaddleWorker, folder: Path, shape: tuple[int, ...]) -> dict[str, np.ndarray]:
    """Run a graph with the recipe's weights; the content of its golden file."""
    graph = folder / "inference.pdmodel"
    parameters = {variable.name: variable.shape for variable in read_pdmodel(Blob.open(graph)).parameters}
    names = read_info(Blob.open(folder / "inference.pdiparams.info"))
    drawn = weights({names[variable]: shape for variable, shape in parameters.items()})
    with tempfile.TemporaryDirectory() as scratch:
        Path(scratch, graph.name).write_bytes(graph.read_bytes())
        arrays = {variable: drawn[names[variable]] for variable in parameters}
        Path(scratch, "inference.pdiparams").write_bytes(write_pdiparams(arrays))
        program = worker.load(Path(scratch), "pdmodel")
        keys = {variable: CELL.sub("", names[variable]) for variable in parameters}
        layers = pair_layers(program, keys, {key.rpartition(".")[0] for key in keys.values()})
        values = worker.run(picture(shape), [*dict.fromkeys(layer.value for layer in layers), program.fetches[0]])
    outputs = [values[layer.value].swapaxes(0, 1) if layer.time_major else values[layer.value] for layer in layers]
    facts = {
        "graph": folder.name,
        "paddle": worker.versions["paddlepaddle"],
        "input": shape,
        "parameters": {names[variable]: shape for variable, shape in parameters.items()},
        "layers": [[layer.module, output.shape] for layer, output in zip(layers, outputs, strict=True)],
    }
    return {
        "facts": np.array(json.dumps(facts)),
        "means": np.array([output.mean(dtype=np.float64) for output in outputs], np.float32),
        "largest": np.array([np.abs(output).max() for output in outputs]),
        "entries": np.stack([picked(output, ENTRIES) for output in outputs]),
        "output": picked(values[program.fetches[0]], OUTPUT_ENTRIES),
    }


def picked(array: np.ndarray, count: int) -> np.ndarray:
    """So many entries at even distances, the first and the last among them; some repeated in a small array."""
    return array.reshape(-1)[np.arange(count) * (array.size - 1) // (count - 1)]


def save(path: Path, arrays: dict[str, np.ndarray]) -> None:
    """A compressed .npz that has the same bytes whenever it has the same content."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, array in arrays.items():
            buffer = io.BytesIO()
            np.lib.format.write_array(buffer, array, allow_pickle=False)
            archive.writestr(zipfile.ZipInfo(f"{name}.npy"), buffer.getvalue(), zipfile.ZIP_DEFLATED)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("programs", type=Path, metavar="PROGRAMS")
    parser.add_argument("--output", type=Path, default=OUTPUT, metavar="DIR", help="default: %(default)s")
    arguments = parser.parse_args()
    arguments.output.mkdir(parents=True, exist_ok=True)
    with PaddleWorker() as worker:
        for architecture, (graph, shape) in GRAPHS.items():
            path = arguments.output / f"{architecture}.npz"
            arrays = golden(worker, arguments.programs / graph, shape)
            save(path, arrays)
            print(f"{path}: {len(arrays['means'])} layers, {path.stat().st_size} bytes")


if __name__ == "__main__":
    main()
