"""What is told of a PyTorch file's pickle before PyTorch reads it."""

from __future__ import annotations

import io
import pickle
import zipfile
from collections import Counter, OrderedDict
from pathlib import Path

import pytest
import torch

from paddle2torch.architectures import load_model
from paddle2torch.architectures.pickles import OverwhelmingError, look_through
from paddle2torch.architectures.state_files import read_state_file

MAGIC = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."


def doubled(levels: int) -> bytes:
    """A tuple of two, each of two, and so on: a byte or two for each level, and 2 ** levels elements."""
    return b")" + b"".join(b"q%ch%c\x86" % (level, level) for level in range(levels))


def called(function: str, arguments: bytes) -> bytes:
    return b"c" + function.encode() + b"\n" + arguments + b"R"


COSTLY = {
    "a key that unfolds": b"}(" + doubled(200) + b"K\x01u",
    "a key that unfolds, in a list": b"](" + b"}(" + doubled(30) + b"K\x01u" + b"e",
    "zeros": called("builtins\nbytearray", b"J\xff\xff\xff\x7f\x85"),
    "zeros, by Python 2's name": called("__builtin__\nbytearray", b"J\xff\xff\xff\x7f\x85"),
    "a slow codec": called("_codecs\nencode", b"X\x01\x00\x00\x00aX\x08\x00\x00\x00punycode\x86"),
    "a codec by default": called("_codecs\nencode", b"X\x01\x00\x00\x00a\x85"),
    "a tensor by its sizes": called("torch\nFloatTensor", b"J\xff\xff\xff\x7f\x85"),
    "a storage by its size": called("torch.storage\nUntypedStorage", b"J\xff\xff\xff\x7f\x85"),
    "a tensor of another kind": called("torch.sparse\nFloatTensor", b")"),
    "a new object": b"ctorch\nTensor\n(J\xff\xff\xff\x7ft\x81",
    "zeros, at one remove": called(
        "torch._tensor\n_rebuild_from_type_v2", b"(cbuiltins\nbytearray\nctorch\nTensor\nJ\xff\xff\xff\x7f\x85Nt"
    ),
    "at two removes": called(
        "torch._tensor\n_rebuild_from_type_v2", b"(ctorch._tensor\n_rebuild_from_type_v2\nctorch\nTensor\n)Nt"
    ),
}


def archive(data: bytes, name: str = "m/data.pkl") -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as made:
        made.writestr("m/version", "3\n")
        made.writestr(name, data)
    return stream.getvalue()


@pytest.mark.parametrize("data", COSTLY.values(), ids=COSTLY.keys())
def test_what_would_overwhelm_is_refused_before_pytorch_reads_it(
    data: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch, "load", lambda *_, **__: pytest.fail("PyTorch has read it"))
    pickled = b"\x80\x02" + data + b"."
    forms = (pickled, archive(pickled), archive(pickled, "m/DATA.PKL"), MAGIC + b"\x80\x02M\xe9\x03." + pickled)
    for number, content in enumerate(forms):
        file = tmp_path / f"{number}.pth"
        file.write_bytes(content)
        with pytest.raises(ValueError, match=r"\.pth: its pickle (calls|has tuples in tuples).*; do not trust it"):
            load_model(file)


def test_opcodes_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("paddle2torch.architectures.pickles.MOST_OPCODES", 100)
    assert look_through(io.BytesIO(b"\x80\x02" + b"N" * 98 + b".")) == []
    with pytest.raises(OverwhelmingError, match="more than 100 opcodes"):
        look_through(io.BytesIO(b"\x80\x02" + b"N" * 99 + b"."))


@pytest.mark.parametrize("old", [False, True])
def test_what_trainings_write_is_read_as_ever(old: bool, tmp_path: Path) -> None:
    weight = torch.nn.Parameter(torch.arange(4.0))
    tagged = torch.ones(2)
    tagged.note = "kept"  # type: ignore[attr-defined]
    optimizer = torch.optim.Adam([weight])
    weight.sum().backward()
    optimizer.step()
    pair = (0.9, 0.999)
    content = {
        "state_dict": OrderedDict(w=weight, t=tagged, h=weight.detach().half(), empty=torch.empty(0)),
        "optimizer": optimizer.state_dict(),
        "milestones": Counter({30: 1}),
        "shared": [pair] * 1000,
        "names": tuple(map(str, range(5000))),
        "random": torch.get_rng_state(),
        "bytes": b"\xff\x00",
        "buffer": bytearray(b"\xff"),
        "seen": {1, 2},
        "size": torch.Size([2, 3]),
        "type": torch.float16,
        "place": torch.device("cpu"),
        "root": complex(0, 1),
    }
    file = tmp_path / "trained.pth"
    torch.save(content, file, _use_new_zipfile_serialization=not old)
    found = {".".join(each.place): each.tensors for each in read_state_file(file).found}
    assert torch.equal(found["state_dict"]["w"], weight)
    assert torch.equal(found["state_dict"]["t"], tagged)


def test_it_stops_behind_the_pickle_and_tells_names() -> None:
    stream = io.BytesIO(pickle.dumps([Counter, OrderedDict, Path], 4) + b"rest")
    assert look_through(stream) == ["pathlib.Path"]
    assert stream.read() == b"rest"
    assert look_through(io.BytesIO(b"no pickle")) == []
    assert look_through(io.BytesIO(b"cos\nsystem\n")) == ["os.system"]
