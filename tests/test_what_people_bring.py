"""Damaged, foreign and odd files through the command line: each gets its one-line message, or converts."""

from __future__ import annotations

import os
import pickle
import re
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from safetensors.torch import save_file

from paddle2torch.cli import main
from support.checkpoints import Tensors, random_tensors, write_checkpoint

Make = Callable[[Path], Path]
CLASSIFIER, RECOGNISER = "cls_mobilenet_v3", "rec_mobilenet_v3_bilstm_ctc"


def checkpoint(change: Callable[[Tensors], object] = bool, name: str = CLASSIFIER, **parameters: int) -> Make:
    """A random network's checkpoint with something changed."""

    def make(folder: Path) -> Path:
        tensors = random_tensors(name, **parameters)
        change(tensors)
        return write_checkpoint(folder / "model.pdparams", tensors)

    return make


def named(*names: str) -> Make:
    """A checkpoint of small tensors under these names."""
    return lambda folder: write_checkpoint(
        folder / "model.pdparams", {name: np.zeros((4, 4), np.float32) for name in names}
    )


def pickled(value: object, file: str = "model.pdparams") -> Make:
    def make(folder: Path) -> Path:
        (folder / file).write_bytes(pickle.dumps(value, 2))
        return folder / file

    return make


def raw(content: bytes, file: str = "model.pdparams") -> Make:
    def make(folder: Path) -> Path:
        (folder / file).write_bytes(content)
        return folder / file

    return make


def truncated(folder: Path) -> Path:
    path = checkpoint()(folder)
    path.write_bytes(path.read_bytes()[:-1000])
    return path


def torch_checkpoint(folder: Path) -> Path:
    torch.save({"head.fc.weight": torch.zeros(2, 3)}, folder / "model.pdparams")
    return folder / "model.pdparams"


def safetensors_file(folder: Path) -> Path:
    save_file({"x": torch.zeros(2)}, folder / "model.pdparams")
    return folder / "model.pdparams"


def archive(folder: Path, *files: str, suffix: str = "tar") -> Path:
    """A tarball with the same checkpoint under several names."""
    source, path = checkpoint()(folder), folder / f"pack.{suffix}"
    with tarfile.open(path, "w:gz" if suffix.endswith("gz") else "w") as tar:
        for file in files:
            tar.add(source, f"pack/{file}")
    source.unlink()
    return path


def zipped(folder: Path) -> Path:
    source = checkpoint()(folder)
    with zipfile.ZipFile(folder / "pack.zip", "w", zipfile.ZIP_DEFLATED) as pack:
        pack.write(source, "pack/best_accuracy.pdparams")
    return folder / "pack.zip"


class Evil:
    def __reduce__(self) -> tuple[object, ...]:
        return os.system, ("touch executed",)


def drop(key: str) -> Callable[[Tensors], object]:
    return lambda tensors: tensors.pop(key)


def prune(tensors: Tensors) -> None:
    tensors["backbone.blocks.3.expand_conv.conv.weight"] = tensors["backbone.blocks.3.expand_conv.conv.weight"][:20]


def prefix_all(prefix: str) -> Callable[[Tensors], None]:
    def change(tensors: Tensors) -> None:
        renamed = {f"{prefix}{name}": array for name, array in tensors.items()}
        tensors.clear()
        tensors.update(renamed)

    return change


def two_unknown_networks(tensors: Tensors) -> None:
    prefix_all("A.")(tensors)
    tensors.update({name.replace("A.", "B.", 1): array for name, array in tensors.items()})


def differing_alias(tensors: Tensors) -> None:
    tensors["neck.encoder.lstm.weight_ih_l0"] = tensors["neck.encoder.lstm.0.cell_fw.weight_ih"] + 1


REFUSED: dict[str, tuple[Make, int, str]] = {
    "a truncated checkpoint": (truncated, 7, r"model\.pdparams.*(ends|truncated|cut)"),
    "an empty file": (raw(b""), 7, "is empty, not .*; get it again"),
    "a web page": (raw(b"<!DOCTYPE html><html>404</html>"), 7, "is a web page, not .*; the download went wrong"),
    "a Git LFS pointer": (raw(b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n"), 7, "a Git LFS pointer"),
    "a PyTorch checkpoint": (torch_checkpoint, 7, "is a PyTorch checkpoint, not .*; it needs no conversion"),
    "a safetensors file": (safetensors_file, 7, "is a safetensors file"),
    "an optimizer's state": (pickled({"LR_Scheduler": {"last_epoch": 3}}), 7, r"state of an optimizer \(\.pdopt\), no weights"),
    "a .pdopt": (pickled({"LR_Scheduler": {"last_epoch": 3}}, "best_accuracy.pdopt"), 3, "optimizer"),
    "a .states": (pickled({"epoch": 3, "global_step": 9}, "best_accuracy.states"), 3, "training progress"),
    "a training's progress": (pickled({"best_model_dict": {"acc": 0.9}, "epoch": 3, "global_step": 9}), 7, "progress of a training"),
    "a list": (pickled([1, 2, 3]), 7, "holds no weights"),
    "a pickle that runs a program": (pickled({"x": Evil()}), 7, "refused: .*system"),
    "an ImageNet backbone": (named("conv1_1._conv.weight", "out.weight"), 8, "an ImageNet backbone, perhaps"),
    "a quantised model": (named("backbone.conv._layer.weight", "backbone.conv._fake_quant_weight._scale", "head.fc.weight"), 8, r"quantised \(a slim model\)"),
    "a pruned model": (checkpoint(prune), 8, "a pruned model, or one of another width"),
    "PP-OCRv4 mobile": (named("backbone.conv1.conv.weight", "backbone.blocks2.0.dw_conv.conv_kxk.0.conv.weight", "head.ctc_head.fc.weight"), 8, "PP-OCRv4 or newer"),
    "PP-OCRv4 server": (named("backbone.stem.stem1.conv.weight", "head.fc.weight"), 8, "PP-OCRv4 or newer"),
    "STAR-Net": (named("transform.loc_net.fc1.weight", "backbone.x.weight", "head.fc.weight"), 8, "rectifies its input"),
    "an attention recogniser": (named("backbone.conv1.conv.weight", "head.attention_cell.i2h.weight"), 8, "academic"),
    "EAST": (named("backbone.conv1_1._conv.weight", "head.f_score_conv.weight"), 8, "academic"),
    "SRN": (named("backbone.conv1._conv.weight", "head.pvam.emb.weight", "head.gsrm.wrap_encoder0.emb0.weight"), 8, "academic"),
    "PSE": (named("backbone.conv1_1._conv.weight", "neck.toplayer_.weight", "head.conv1.weight"), 8, "academic"),
    "a network of another kind": (named("backbone.patch_embed.weight", "head.tail.weight"), 8, "fits no architecture"),
    "a lost tensor": (checkpoint(drop("head.fc.bias")), 8, "nearest is cls_mobilenet_v3.*\n.*missing: head.fc.bias"),
    "a stray tensor": (checkpoint(lambda t: t.update({"head.extra": t["head.fc.bias"]})), 8, "left over: head.extra"),
    "integer weights": (checkpoint(lambda t: t.update({"head.fc.bias": np.zeros(2, np.int64)})), 8, r"not floating-point: head\.fc\.bias \(int64\)"),
    "LSTM spellings that differ": (checkpoint(differing_alias, RECOGNISER, classes=9), 8, "two spellings of one parameter that differ"),
    "two unknown networks": (checkpoint(two_unknown_networks), 8, r"several networks \(A, B\); say which with --branch"),
    "a tarball without a model": (lambda folder: archive(folder, "readme.txt"), 6, "model"),
    "a tarball with two checkpoints": (lambda folder: archive(folder, "a.pdparams", "b.pdparams"), 3, r"holds 2 models; pick one with --member:\n.*a\.pdparams"),
    "a program alone": (raw(b"program", "inference.pdmodel"), 3, "has a program, but no .pdiparams .* with its parameters"),
    "parameters alone": (raw(b"weights", "inference.pdiparams"), 3, r"has no program \(inference.pdmodel or .json\)"),
    "a folder without a model": (lambda folder: folder, 3, "holds no model; expected"),
}  # fmt: skip

TAKEN: dict[str, Make] = {
    "plain": checkpoint(),
    "data-parallel": checkpoint(prefix_all("module.")),
    "data-parallel, the other way": checkpoint(prefix_all("_layers.")),
    "a student alone, prefixed": checkpoint(prefix_all("Student.")),
    "wrapped in state_dict": pickled({"state_dict": random_tensors(CLASSIFIER)}),
    "half precision": checkpoint(lambda t: t.update({k: v.astype(np.float16) for k, v in t.items()})),
    "another class count": checkpoint(name=RECOGNISER, classes=62),
    "in a .tar.gz": lambda folder: archive(folder, "deep/er/best_accuracy.pdparams", suffix="tar.gz"),
    "in a .zip": zipped,
    "best_accuracy beside others": lambda folder: archive(folder, "best_accuracy.pdparams", "latest.pdparams"),
}


@pytest.mark.parametrize(("make", "code", "message"), REFUSED.values(), ids=REFUSED.keys())
def test_refused_with_a_message(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make: Make, code: int, message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    source, output = make(tmp_path), tmp_path / "out"
    result = CliRunner().invoke(main, ["convert", str(source), "--output", str(output)])
    assert result.exit_code == code, result.stderr
    assert re.search(message, result.stderr), result.stderr
    assert result.stderr.removeprefix(f"converting {source.name}\n").startswith("error: ")
    assert not output.exists()
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize("make", TAKEN.values(), ids=TAKEN.keys())
def test_taken(tmp_path: Path, make: Make) -> None:
    source, output = make(tmp_path), tmp_path / "out"
    result = CliRunner().invoke(main, ["convert", str(source), "--output", str(output)])
    assert result.exit_code == 0, result.stderr
    assert len(list(output.iterdir())) == 3
