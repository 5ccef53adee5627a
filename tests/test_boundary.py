"""Whatever is raised over files of others becomes one error, with its cause."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner

from paddle2torch.cli import main
from paddle2torch.converter.containers import archive
from paddle2torch.converter.containers.archive import open_model_files
from paddle2torch.converter.formats import info, pdiparams, pdmodel, pdparams, pir
from paddle2torch.converter.formats.info import read_info
from paddle2torch.converter.formats.pdiparams import read_pdiparams
from paddle2torch.converter.formats.pdmodel import Program, read_pdmodel, rebuilt_pdmodel
from paddle2torch.converter.formats.pdparams import read_pdparams
from paddle2torch.converter.formats.pir import read_pir, rebuilt_pir
from paddle2torch.converter.graph import program as programs
from paddle2torch.converter.graph.program import graph_from_program
from paddle2torch.converter.support.boundary import UNFORESEEN, boundary
from paddle2torch.converter.support.errors import ArchiveError, FormatError, SourceError
from support.format_samples import blob
from support.graphs import EMBEDDED

CAUSES = [
    KeyError("key"),
    RecursionError("too deep"),
    MemoryError(),
    OverflowError("large"),
    AssertionError(),
    ZeroDivisionError("x\ny"),
]
# A reader, and what it calls early on.
READERS: dict[str, tuple[Callable[..., object], object, str]] = {
    "pdmodel": (read_pdmodel, pdmodel, "_parse"),
    "pdmodel built again": (lambda file: rebuilt_pdmodel(file, []), pdmodel, "_parse"),
    "pir": (read_pir, pir, "_parsed"),
    "pir built again": (lambda file: rebuilt_pir(file, []), pir, "_parsed"),
    "pdiparams": (lambda file: read_pdiparams(file, []), pdiparams, "refuse_foreign"),
    "pdparams": (read_pdparams, pdparams, "read_pickle"),
    "info": (read_info, info, "read_pickle"),
    "program": (lambda file: graph_from_program(Program({}, ()), file=file.name), programs, "spell"),
}


def raising(cause: Exception) -> Callable[..., None]:
    def fail(*_: object, **__: object) -> None:
        raise cause

    return fail


@pytest.mark.parametrize("cause", CAUSES, ids=lambda cause: type(cause).__name__)
@pytest.mark.parametrize("reader", READERS)
def test_readers_raise_one_error(reader: str, cause: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    read, module, part = READERS[reader]
    monkeypatch.setattr(module, part, raising(cause))
    with pytest.raises(
        FormatError, match=rf"cannot be read as .*\({type(cause).__name__}: .*\); it is damaged"
    ) as caught:
        read(blob(b"\x80\x02}.", "mine.file"))
    assert str(caught.value).startswith("mine.file: ")
    assert "\n" not in str(caught.value)
    assert caught.value.__cause__ is cause
    assert caught.value.__notes__ == [UNFORESEEN]


def test_archives_too(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(archive, "open_container", raising(OverflowError("large")))
    with pytest.raises(ArchiveError, match="cannot be read as a model"):
        open_model_files(tmp_path)


def test_errors_of_ours_and_interrupts_pass() -> None:
    with pytest.raises(SourceError, match="^mine$"), boundary("file", "a model"):
        raise SourceError("mine")
    with pytest.raises(KeyboardInterrupt), boundary("file", "a model"):
        raise KeyboardInterrupt


def test_the_cause_is_shown_on_demand(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pdmodel, "_parse", raising(KeyError("odd")))
    command = ["inspect", str(EMBEDDED / "embedded_rec_infer.tar")]
    result = CliRunner().invoke(main, command)
    assert (result.exit_code, result.stderr.count("\n")) == (FormatError.exit_code, 1)
    shown = CliRunner().invoke(main, ["--debug", *command])
    assert isinstance(shown.exception, FormatError)
    assert isinstance(shown.exception.__cause__, KeyError)
