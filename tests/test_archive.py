"""Archives and folders: the model's files are found, and nothing hostile gets through."""

from __future__ import annotations

import gzip
import io
import os
import struct
import tarfile
import tracemalloc
import unicodedata
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from paddle2torch.converter.containers import container
from paddle2torch.converter.containers.archive import ModelFiles, open_model_files
from paddle2torch.converter.support.errors import ArchiveError, ConverterError, SourceError
from support.mirror import tarballs

INFERENCE = {
    "x_infer/inference.pdiparams": b"weights",
    "x_infer/inference.pdiparams.info": b"names",
    "x_infer/inference.pdmodel": b"program",
}
TRAINED = {
    "x_train/best_accuracy.pdparams": b"best",
    "x_train/best_accuracy.pdopt": b"optimizer",
    "x_train/best_accuracy.states": b"progress",
    "x_train/train.log": b"epoch 1",
}
STUDENT = {"x_train/student.pdparams": b"student"}


# ---- writing archives --------------------------------------------------------------------------------------------


def member(name: str, kind: bytes = tarfile.REGTYPE, size: int = 0, **fields: object) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.size = kind, size
    for field, value in fields.items():
        setattr(info, field, value)
    return info


def tar_bytes(files: dict[str, bytes], *more: tarfile.TarInfo, variant: int = tarfile.GNU_FORMAT) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=variant) as tar:
        for name, data in files.items():
            tar.addfile(member(name, size=len(data)), io.BytesIO(data))
        for info in more:
            tar.addfile(info, io.BytesIO(bytes(info.size)))
    return stream.getvalue()


def zip_bytes(files: dict[str, bytes], *more: zipfile.ZipInfo, method: int = zipfile.ZIP_DEFLATED) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", method) as archive, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about duplicate names
        for name, data in files.items():
            archive.writestr(name, data)
        for info in more:
            archive.writestr(info, b"data")
    return stream.getvalue()


WRITERS: dict[str, Callable[[dict[str, bytes]], bytes]] = {
    "tar": tar_bytes,
    "tar.gz": lambda files: gzip.compress(tar_bytes(files)),
    "zip": zip_bytes,
}


@pytest.fixture(params=WRITERS)
def write(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[dict[str, bytes]], Path]:
    """Write files as each kind of archive."""

    def written(files: dict[str, bytes]) -> Path:
        path = tmp_path / f"x.{request.param}"
        path.write_bytes(WRITERS[request.param](files))
        return path

    return written


@pytest.fixture
def save(tmp_path: Path) -> Callable[..., Path]:
    """Save bytes as an archive."""

    def saved(data: bytes, name: str = "x.tar") -> Path:
        path = tmp_path / name
        path.write_bytes(data)
        return path

    return saved


def lay_out(folder: Path, files: dict[str, bytes]) -> Path:
    for name, data in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return folder


def contents(files: ModelFiles) -> dict[str, bytes]:
    roles = ("program", "parameters", "info", "pir", "checkpoint")
    return {role: bytes(blob.data) for role in roles if (blob := getattr(files, role)) is not None}


# ---- finding the model -------------------------------------------------------------------------------------------


def test_an_inference_model_is_found(write: Callable[[dict[str, bytes]], Path]) -> None:
    path = write(INFERENCE)
    files = open_model_files(path)
    assert contents(files) == {"program": b"program", "parameters": b"weights", "info": b"names"}
    assert files.kind == "inference"
    assert files.location == path
    assert files.program.name == f"{path.name}:x_infer/inference.pdmodel"


def test_a_checkpoint_is_found(write: Callable[[dict[str, bytes]], Path]) -> None:
    files = open_model_files(write(TRAINED))
    assert contents(files) == {"checkpoint": b"best"}
    assert (files.kind, files.others) == ("trained", ())


def test_the_depth_and_the_neighbours_do_not_matter(write: Callable[[dict[str, bytes]], Path]) -> None:
    deep = {f"./a/b/c/{name}": data for name, data in INFERENCE.items()}
    stray = {
        "README.md": b"read me",
        "a/config.json": b"{}",
        "a/._inference.pdmodel": b"mac",
        "__MACOSX/x.pdparams": b"",
    }
    files = open_model_files(write(stray | deep))
    assert contents(files) == {"program": b"program", "parameters": b"weights", "info": b"names"}
    assert files.others == ()


def test_paddle_3_s_form_is_found(write: Callable[[dict[str, bytes]], Path]) -> None:
    files = open_model_files(write({"inference.json": b"{}", "inference.pdiparams": b"weights", "inference.yml": b""}))
    assert contents(files) == {"pir": b"{}", "parameters": b"weights"}


def test_the_best_checkpoint_wins_and_the_others_can_be_picked(write: Callable[[dict[str, bytes]], Path]) -> None:
    path = write(STUDENT | TRAINED)
    files = open_model_files(path)
    assert contents(files) == {"checkpoint": b"best"}
    assert files.others == ("x_train/student.pdparams",)
    for name in ("student.pdparams", "x_train/student.pdparams"):
        picked = open_model_files(path, member=name)
        assert contents(picked) == {"checkpoint": b"student"}
        assert picked.others == ("x_train/best_accuracy.pdparams",)


def test_several_models_are_an_error_that_lists_them(write: Callable[[dict[str, bytes]], Path]) -> None:
    two = INFERENCE | {name.replace("x_infer", "y_infer"): data for name, data in INFERENCE.items()}
    path = write(two)
    with pytest.raises(SourceError, match="holds 2 models; pick one with --member") as caught:
        open_model_files(path)
    assert "\n  x_infer/inference.pdmodel\n  y_infer/inference.pdmodel" in str(caught.value)
    assert open_model_files(path, member="y_infer/inference.pdmodel").program.name.endswith("y_infer/inference.pdmodel")
    with pytest.raises(SourceError, match=r"several models for member 'inference.pdmodel'; there are:\n"):
        open_model_files(path, member="inference.pdmodel")
    with pytest.raises(SourceError, match=r"no model for member 'z'; there are:\n  x_infer"):
        open_model_files(path, member="z")


@pytest.mark.parametrize(
    "files",
    [
        {"a/best_accuracy.pdparams": b"", "b/best_accuracy.pdparams": b""},
        {"a.pdparams": b"", "b.pdparams": b""},
        INFERENCE | TRAINED,
    ],
)
def test_no_winner_is_guessed(files: dict[str, bytes], tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="holds 2 models"):
        open_model_files(lay_out(tmp_path, files))


def test_a_folder_is_as_good_as_an_archive(tmp_path: Path) -> None:
    folder = lay_out(tmp_path / "my_model", INFERENCE | {"notes.txt": b""})
    files = open_model_files(folder)
    assert contents(files) == {"program": b"program", "parameters": b"weights", "info": b"names"}
    assert files.program.name == "my_model/x_infer/inference.pdmodel"
    assert contents(open_model_files(lay_out(tmp_path / "training", STUDENT | TRAINED))) == {"checkpoint": b"best"}


def test_a_linked_folder_is_not_entered(tmp_path: Path) -> None:
    folder = lay_out(tmp_path / "my_model", INFERENCE)
    (folder / "loop").symlink_to(folder, target_is_directory=True)
    assert open_model_files(folder).others == ()


@pytest.mark.parametrize("name", ["inference.pdmodel", "inference.pdiparams", "inference.pdiparams.info"])
def test_a_file_of_a_model_brings_its_siblings(tmp_path: Path, name: str) -> None:
    folder = lay_out(tmp_path, INFERENCE | {"x_infer/other.pdmodel": b"another"}) / "x_infer"
    assert contents(open_model_files(folder / name)) == {
        "program": b"program",
        "parameters": b"weights",
        "info": b"names",
    }


RENAMED = {
    "PaddleOCR 1": ("model", "params"),
    "older tools": ("__model__", "__params__"),
    "Paddle 1.8": ("__model__", "__variables__"),
    "program and parameters by other stems": ("model.pdmodel", "params.pdiparams"),
    "downloaded twice": ("inference.pdmodel", "inference (1).pdiparams"),
    "Paddle 3, by other stems": ("program.json", "weights.pdiparams"),
    "upper case": ("INFERENCE.PDMODEL", "INFERENCE.PDIPARAMS"),
}


@pytest.mark.parametrize(("program", "parameters"), RENAMED.values(), ids=RENAMED)
@pytest.mark.parametrize("given", ["folder", "program", "parameters"])
def test_one_program_and_one_file_of_parameters_are_a_model(
    tmp_path: Path, program: str, parameters: str, given: str
) -> None:
    others = {
        "inference.pdiparams.info": b"names",
        "inference.yml": b"settings",
        "readme.txt": b"",
        "deploy.yml": b"no",
    }
    lay_out(tmp_path, {program: b"program", parameters: b"weights", **others})
    path = tmp_path / {"folder": ".", "program": program, "parameters": parameters}[given]
    files = open_model_files(path)
    role = "pir" if program.endswith(".json") else "program"
    assert contents(files) == {role: b"program", "parameters": b"weights", "info": b"names"}
    assert bytes(files.settings.data) == b"settings"
    assert files.others == ()


def test_an_info_brings_the_model_of_another_stem(tmp_path: Path) -> None:
    lay_out(tmp_path, {"model": b"program", "params": b"weights", "names.pdiparams.info": b"names"})
    files = open_model_files(tmp_path / "names.pdiparams.info")
    assert contents(files) == {"program": b"program", "parameters": b"weights", "info": b"names"}


@pytest.mark.parametrize(
    "names",
    [
        ("model", "params", "other.pdiparams"),
        ("model", "__model__", "params"),
        ("a.pdmodel", "b.pdmodel", "c.pdiparams"),
        ("a/a.pdmodel", "b/b.pdiparams"),
    ],
)
def test_what_belongs_together_is_not_guessed(tmp_path: Path, names: tuple[str, ...]) -> None:
    lay_out(tmp_path, dict.fromkeys(names, b"x"))
    with pytest.raises(SourceError, match=f"holds {len(names)} models; pick one with --member"):
        open_model_files(tmp_path)


def test_settings_of_another_name_are_not_taken_for_the_model_s(tmp_path: Path) -> None:
    lay_out(tmp_path, {"m.pdmodel": b"program", "m.pdiparams": b"weights", "train.yml": b"training"})
    assert open_model_files(tmp_path).settings is None


def test_a_checkpoint_file_stands_alone(tmp_path: Path) -> None:
    folder = lay_out(tmp_path, STUDENT | TRAINED) / "x_train"
    files = open_model_files(folder / "student.pdparams")
    assert contents(files) == {"checkpoint": b"student"}
    assert files.others == ()
    with pytest.raises(SourceError, match="is a single file, so no member 'x' can be picked"):
        open_model_files(folder / "student.pdparams", member="x")


def test_members_of_a_tar_are_read_when_they_are_asked_for(save: Callable[..., Path]) -> None:
    path = save(tar_bytes({"x.pdparams": b"weights"}))
    checkpoint = open_model_files(path).checkpoint
    assert (checkpoint.size, checkpoint.head(3), bytes(checkpoint.data)) == (7, b"wei", b"weights")
    path.write_bytes(path.read_bytes().replace(b"weights", b"changed"))
    os.utime(path, ns=(0, 0))
    with pytest.raises(SourceError, match="was written to or replaced while it was read"):
        len(checkpoint.data)


@pytest.mark.parametrize("variant", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
@pytest.mark.parametrize("name", ["模型/inference.pdparams", f"{'long/' * 30}x.pdparams", "x.pdparams"])
def test_all_variants_of_tar_are_read(save: Callable[..., Path], variant: int, name: str) -> None:
    path = save(tar_bytes({name: b"data", "after.txt": b""}, member("a folder/", tarfile.DIRTYPE), variant=variant))
    assert open_model_files(path).checkpoint.name == f"x.tar:{name}"
    assert contents(open_model_files(path)) == {"checkpoint": b"data"}


def test_the_tar_command_s_archives_are_read(tmp_path: Path) -> None:
    folder = lay_out(tmp_path / "x", INFERENCE)
    with tarfile.open(tmp_path / "x.tgz", "w:gz") as tar:
        tar.add(folder, arcname=".")
    assert contents(open_model_files(tmp_path / "x.tgz"))["program"] == b"program"


@pytest.mark.usefixtures("mirror")
def test_every_tarball_of_the_mirror_is_understood() -> None:
    for each in tarballs():
        path = each.path
        files = open_model_files(path)
        assert files.kind == ("inference" if each.kind == "inference" else "trained")
        distilled = path.stem.endswith("PP-OCRv3_det_distill_train")
        assert files.others == ((f"{path.stem}/student.pdparams",) if distilled else ())


# ---- what is no model --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("best_accuracy.pdopt", "holds the optimizer's state, not weights; give the .pdparams file beside it"),
        ("best_accuracy.states", "holds training progress .*, not weights"),
        ("x.pth", "PyTorch's format already"),
        ("x.onnx", "an ONNX graph, not a Paddle model"),
    ],
)
def test_files_that_are_not_weights_are_explained(tmp_path: Path, name: str, reason: str) -> None:
    lay_out(tmp_path, {name: b"data"})
    with pytest.raises(SourceError, match=reason):
        open_model_files(tmp_path / name)
    with pytest.raises(SourceError, match=f"holds no model; expected .*; its {name} .*{reason}"):
        open_model_files(tmp_path)


def test_a_file_of_pytorch_s_under_another_name_is_told(save: Callable[..., Path]) -> None:
    path = save(zip_bytes({"best/data.pkl": b"", "best/data/0": b""}), "best.pth.tar")
    with pytest.raises(
        ArchiveError, match=r"it is a file of PyTorch's, .*load_model loads it, there is nothing to conv"
    ):
        open_model_files(path)


def test_an_archive_without_a_model_says_what_it_holds(write: Callable[[dict[str, bytes]], Path]) -> None:
    with pytest.raises(ArchiveError, match=r"holds no model; expected .*; found a.txt, config.json$"):
        open_model_files(write({"a.txt": b"", "config.json": b"{}"}))
    with pytest.raises(ArchiveError, match="give one of the archives in it, such as deep/x_infer.tar"):
        open_model_files(write({"deep/x_infer.tar": b""}))


def test_an_empty_archive_is_told(save: Callable[..., Path], tmp_path: Path) -> None:
    for data in (gzip.compress(tar_bytes({})), zip_bytes({})):
        with pytest.raises(ArchiveError, match=r"holds no model; .* it is empty$"):
            open_model_files(save(data))
    (tmp_path / "x.tar").unlink()
    with pytest.raises(SourceError, match=r"holds no model; .* it is empty$"):
        open_model_files(tmp_path)


def test_what_is_neither_archive_nor_model_is_refused(save: Callable[..., Path], tmp_path: Path) -> None:
    with pytest.raises(ArchiveError, match="neither a tar, a tar.gz nor a zip"):
        open_model_files(save(b"just some text", "x.tar"))
    with pytest.raises(ArchiveError, match="neither a tar"):
        open_model_files(save(b"", "x.tar"))
    with pytest.raises(SourceError, match=r"cannot be opened \(No such file or directory\)"):
        open_model_files(tmp_path / "nowhere")
    os.mkfifo(tmp_path / "pipe.tar")
    with pytest.raises(SourceError, match="neither a file nor a folder"):
        open_model_files(tmp_path / "pipe.tar")
    with pytest.raises(SourceError, match=r"cannot be opened \(File name too long\)"):
        open_model_files(tmp_path / ("x" * 1000))


# ---- hostile archives --------------------------------------------------------------------------------------------

UNSAFE_NAMES = {
    "/etc/passwd": "has an absolute path",
    "\\windows\\system32": "has an absolute path",
    "C:/windows": "has an absolute path",
    "c:windows": "has an absolute path",
    "../x.pdparams": "leads out of the archive",
    "a/../../x": "leads out of the archive",
    "a\\..\\..\\x": "leads out of the archive",
    "a/..": "leads out of the archive",
    "a\nb: all is well": "control characters",
    "a\x1b[2Jb": "control characters",
    "a\u202egnp.exe": "control characters",
    "x" * 2000: "a member's name has 2000 characters",
    "./.": "has no name",
}


@pytest.mark.parametrize("name", UNSAFE_NAMES)
@pytest.mark.parametrize("kind", WRITERS)
def test_unsafe_names_are_refused(save: Callable[..., Path], name: str, kind: str) -> None:
    path = save(WRITERS[kind](TRAINED | {name: b"data"}), f"x.{kind}")
    with pytest.raises(ArchiveError, match=f"refused: .*{UNSAFE_NAMES[name]}") as caught:
        open_model_files(path)
    assert str(caught.value).isprintable()


def test_unsafe_folders_are_refused(save: Callable[..., Path]) -> None:
    with pytest.raises(ArchiveError, match="leads out of the archive"):
        open_model_files(save(tar_bytes(TRAINED, member("../out/", tarfile.DIRTYPE))))
    with pytest.raises(ArchiveError, match="leads out of the archive"):
        open_model_files(save(zip_bytes(TRAINED, zipfile.ZipInfo("../out/")), "x.zip"))


COLLISIONS = [
    ("a/x.pdparams", "./a/x.pdparams"),
    ("a/x.pdparams", "a//x.pdparams"),
    ("a/x.pdparams", "a\\x.pdparams"),
    ("a/x.pdparams", "A/X.pdparams"),
    ("caf\u00e9.pdparams", unicodedata.normalize("NFD", "caf\u00e9.pdparams")),
    ("\ufb01le.pdparams", "file.pdparams"),
]


@pytest.mark.parametrize("names", COLLISIONS)
@pytest.mark.parametrize("kind", WRITERS)
def test_names_that_collide_are_refused(save: Callable[..., Path], names: tuple[str, str], kind: str) -> None:
    path = save(WRITERS[kind](dict.fromkeys(names, b"data")), f"x.{kind}")
    with pytest.raises(ArchiveError, match="would be one file"):
        open_model_files(path)


def test_one_name_twice_is_refused(save: Callable[..., Path]) -> None:
    with pytest.raises(ArchiveError, match="would be one file"):
        open_model_files(save(tar_bytes({"x.pdparams": b"1"}, member("x.pdparams"))))
    with pytest.raises(ArchiveError, match="would be one file"):
        open_model_files(save(zip_bytes({"x.pdparams": b"1"}, zipfile.ZipInfo("x.pdparams")), "x.zip"))


@pytest.mark.parametrize(
    ("kind", "what"),
    [
        (tarfile.SYMTYPE, "a symbolic link"),
        (tarfile.LNKTYPE, "a hard link"),
        (tarfile.CHRTYPE, "a character device"),
        (tarfile.BLKTYPE, "a block device"),
        (tarfile.FIFOTYPE, "a named pipe"),
        (b"S", "a sparse file"),
        (b"V", "of unknown type b'V'"),
    ],
)
@pytest.mark.parametrize("compress", [bytes, gzip.compress])
def test_only_files_and_folders_belong_in_a_tar(
    save: Callable[..., Path], kind: bytes, what: str, compress: Callable[[bytes], bytes]
) -> None:
    odd = member("odd", kind, linkname="best_accuracy.pdparams")
    with pytest.raises(ArchiveError, match=f"refused: its member 'odd' is {what}"):
        open_model_files(save(compress(tar_bytes(TRAINED, odd))))


def test_sparse_files_of_pax_are_refused(save: Callable[..., Path]) -> None:
    sparse = member("x.pdparams", pax_headers={"GNU.sparse.major": "1", "GNU.sparse.realsize": str(1 << 60)})
    with pytest.raises(ArchiveError, match="refused: it holds a sparse file"):
        open_model_files(save(tar_bytes({}, sparse, variant=tarfile.PAX_FORMAT)))


@pytest.mark.parametrize("mode", [0o120777, 0o020666, 0o010666])
def test_only_files_and_folders_belong_in_a_zip(save: Callable[..., Path], mode: int) -> None:
    odd = zipfile.ZipInfo("odd")
    odd.external_attr = mode << 16
    what = "a symbolic link" if mode == 0o120777 else "neither a file nor a folder"
    with pytest.raises(ArchiveError, match=f"refused: its member 'odd' is {what}"):
        open_model_files(save(zip_bytes(TRAINED, odd), "x.zip"))


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_rare_compressions_are_refused(save: Callable[..., Path], method: int) -> None:
    with pytest.raises(ArchiveError, match=f"compressed by method {method}; unpack it yourself"):
        open_model_files(save(zip_bytes(TRAINED, method=method), "x.zip"))


def test_an_encrypted_zip_is_refused(save: Callable[..., Path]) -> None:
    data = bytearray(zip_bytes({"x.pdparams": b"data"}))
    data[6] |= 1  # the flags in the member's own header and in the directory
    data[data.index(b"PK\x01\x02") + 8] |= 1
    with pytest.raises(ArchiveError, match="is encrypted; unpack it yourself"):
        open_model_files(save(bytes(data), "x.zip"))


# ---- bombs -------------------------------------------------------------------------------------------------------


def peak_memory(action: Callable[[], object]) -> int:
    """Bytes that an action had allocated at most."""
    tracemalloc.start()
    try:
        action()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def refused(path: Path, problem: str) -> Callable[[], None]:
    def action() -> None:
        with pytest.raises(ArchiveError, match=problem):
            open_model_files(path)

    return action


def test_a_gzip_bomb_stops_at_the_header(save: Callable[..., Path]) -> None:
    stream = io.BytesIO()
    with gzip.open(stream, "wb", compresslevel=1) as out:
        out.write(member("x.pdparams", size=1 << 40).tobuf(tarfile.GNU_FORMAT))
        out.write(bytes(1 << 26))
    path = save(stream.getvalue(), "x.tar.gz")
    assert peak_memory(refused(path, "there may be 67108864; it is cut short, or made to overwhelm")) < 1 << 20


def test_a_gzip_bomb_behind_the_end_of_the_tar_stops(
    save: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(container, "ALWAYS_UNPACKED", 1 << 22)
    monkeypatch.setattr(container, "MAX_RATIO", 1)
    path = save(gzip.compress(tar_bytes(TRAINED)) + gzip.compress(bytes(1 << 26), 1), "x.tar.gz")
    assert peak_memory(refused(path, "it unpacks to more than 4194304 bytes")) < 1 << 23


def test_a_gzip_bomb_of_headers_stops(save: Callable[..., Path]) -> None:
    header = member("././@LongLink", tarfile.GNUTYPE_LONGNAME, size=0).tobuf(tarfile.GNU_FORMAT)
    path = save(gzip.compress(header * 20_000, 1), "x.tar.gz")
    assert peak_memory(refused(path, "more than 10000 entries")) < 1 << 20


def test_a_crowd_of_members_is_refused(save: Callable[..., Path]) -> None:
    crowd = b"".join(member(f"{number}").tobuf() for number in range(10_001)) + bytes(1024)
    with pytest.raises(ArchiveError, match="more than 10000 entries"):
        open_model_files(save(crowd))
    with pytest.raises(ArchiveError, match="more than 10000 entries"):
        open_model_files(save(zip_bytes(dict.fromkeys(map(str, range(10_001)), b"")), "x.zip"))


def test_a_zip_bomb_stops_at_the_directory(save: Callable[..., Path]) -> None:
    path = save(zip_bytes({"x.pdparams": bytes(1 << 27)}), "x.zip")
    assert peak_memory(refused(path, "it unpacks to 134217728 bytes, far more than a model of its size")) < 1 << 20


def test_a_zip_bomb_that_lies_about_its_size_inflates_no_further(save: Callable[..., Path]) -> None:
    data = zip_bytes({"x.pdparams": bytes(1 << 26)})
    told = data.replace(struct.pack("<I", 1 << 26), struct.pack("<I", 1000))
    assert told != data
    assert peak_memory(refused(save(told, "x.zip"), "broken or cut short")) < 1 << 20


def test_a_zip_member_that_is_shorter_than_it_says_is_refused(save: Callable[..., Path]) -> None:
    data = zip_bytes({"x.pdparams": b"the weights" * 100})
    told = data.replace(struct.pack("<I", 1100), struct.pack("<I", 1101))
    with pytest.raises(ArchiveError, match="broken or cut short .x.pdparams ends early"):
        open_model_files(save(told, "x.zip"))


def test_a_zip_s_huge_directory_is_not_read(save: Callable[..., Path]) -> None:
    directory = bytes(10 << 20)
    end = struct.pack("<4s4H2IH", b"PK\x05\x06", 0, 0, 1, 1, len(directory), 4, 0)
    path = save(b"PK\x03\x04" + directory + end, "x.zip")
    assert peak_memory(refused(path, "a directory of 10485760 bytes, where a model's takes a few hundred")) < 1 << 20


def test_a_crowded_folder_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(container, "MAX_ENTRIES", 3)
    with pytest.raises(SourceError, match="more than 3 files; give the model's own folder"):
        open_model_files(lay_out(tmp_path, TRAINED | STUDENT))


# ---- broken archives ---------------------------------------------------------------------------------------------


def header_with(field: slice, value: bytes, data: bytes = b"") -> bytes:
    """A tar of one member, with bytes of its header replaced and the checksum made to fit."""
    header = bytearray(member("x.pdparams", size=len(data)).tobuf(tarfile.GNU_FORMAT))
    header[field] = value.ljust(field.stop - field.start, b"\0")
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    return bytes(header) + data.ljust(-(-len(data) // 512) * 512, b"\0") + bytes(1024)


SIZE, TYPE = slice(124, 136), slice(156, 157)

BROKEN_TARS = {
    "a negative size": (header_with(SIZE, b"\xff" * 12), "a header has .* for a number"),
    "a size that is no number": (header_with(SIZE, b"99999999999"), "a header has b'99999999999.* for a number"),
    "a size beyond the file": (header_with(SIZE, b"\x80" + b"\xff" * 11), "it is cut short, or made to overwhelm"),
    "a member cut short": (tar_bytes({"x.pdparams": bytes(4096)})[:2048], "it is cut short, "),
    "a header cut short": (tar_bytes({"x.pdparams": bytes(512)})[:1100], "ends inside a header at byte 1024"),
    "a header of noise": (tar_bytes(TRAINED)[:1024] + b"noise" * 200, "no valid header at byte 1024"),
    "an endless name": (header_with(TYPE, b"L", bytes(70_000)), "a header of 70000 bytes, where 65536 are plenty"),
    "a name cut short": (header_with(TYPE, b"L", bytes(600))[:700], "ends inside a header"),
    "a pax header without a length": (header_with(TYPE, b"x", b"path=x\n"), "a pax header that does not follow"),
    "a pax header of length 0": (header_with(TYPE, b"x", b"0 path=x\n"), "a pax header that does not follow"),
    "a pax header that is too long": (header_with(TYPE, b"x", b"99 path=x\n"), "a pax header that does not follow"),
    "a pax header without a value": (header_with(TYPE, b"x", b"8 pathx\n"), "a pax header that does not follow"),
    "a pax header without an end": (header_with(TYPE, b"x", b"9 path=xy"), "a pax header that does not follow"),
    "a pax header with a tail": (header_with(TYPE, b"x", b"9 path=x\ntail"), "a pax header that does not follow"),
    "a pax length that is no number": (header_with(TYPE, b"x", b"+9 path=x\n"), "a pax header has '[+]9' for a number"),
    "a pax size that is no number": (
        header_with(TYPE, b"x", b"11 size=-1\n")[:-1024] + tar_bytes({"x.pdparams": b""}),
        "a pax header has '-1' for a number",
    ),
    "a pax size beyond the file": (
        header_with(TYPE, b"x", b"28 size=9999999999999999999\n")[:-1024] + tar_bytes({"x.pdparams": b""}),
        "it is cut short, or made to overwhelm",
    ),
}


@pytest.mark.parametrize("case", BROKEN_TARS)
@pytest.mark.parametrize("compress", [bytes, gzip.compress], ids=["tar", "tar.gz"])
def test_a_broken_tar_is_one_error(save: Callable[..., Path], case: str, compress: Callable[[bytes], bytes]) -> None:
    data, problem = BROKEN_TARS[case]
    with pytest.raises(ArchiveError, match=problem):
        open_model_files(save(compress(data)))


def test_a_pax_header_is_obeyed(save: Callable[..., Path]) -> None:
    pax = header_with(TYPE, b"x", b"19 path=y.pdparams\n")
    assert open_model_files(save(pax[:-1024] + tar_bytes({"x.pdparams": b""}))).checkpoint.name == "x.tar:y.pdparams"


@pytest.mark.parametrize("damage", [lambda data: data[:-20], lambda data: data[:-8] + bytes(4) + data[-4:]])
def test_a_damaged_gzip_is_noticed(save: Callable[..., Path], damage: Callable[[bytes], bytes]) -> None:
    whole = gzip.compress(tar_bytes({"x.pdparams": os.urandom(1000)}))
    with pytest.raises(ArchiveError, match="broken or cut short"):
        open_model_files(save(damage(whole), "x.tar.gz"))


def test_a_damaged_zip_is_noticed(save: Callable[..., Path]) -> None:
    data = zip_bytes({"x.pdparams": b"the weights"}, method=zipfile.ZIP_STORED)
    for broken in (data[:-10], data.replace(b"weights", b"Weights")):
        with pytest.raises(ArchiveError, match="broken or cut short"):
            open_model_files(save(broken, "x.zip"))


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
@pytest.mark.parametrize("kind", WRITERS)
def test_any_damage_is_survived(save: Callable[..., Path], kind: str, data: st.DataObject) -> None:
    """After truncation and flipped bytes, an archive opens or is refused; no other error, nothing endless."""
    damaged = bytearray(WRITERS[kind](STUDENT | TRAINED | {"x" * 200: b"long"}))
    del damaged[data.draw(st.integers(1, len(damaged)), label="length") :]
    for _ in range(data.draw(st.integers(0, 3), label="flips")):
        damaged[data.draw(st.integers(0, len(damaged) - 1), label="at")] ^= data.draw(st.integers(1, 255), label="bits")
    try:
        files = open_model_files(save(bytes(damaged), f"x.{kind}"))
    except ConverterError as error:
        assert str(error).replace("\n", "").isprintable()
    else:
        assert len(files.checkpoint.data) <= len(damaged) * 100
