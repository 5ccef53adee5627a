"""What a conversion leaves on disk: `.pth`, `.safetensors` and `.json`, complete or not at all."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from paddle2torch.architectures.digest import digest_of
from paddle2torch.architectures.graph.form import graph_to_json
from paddle2torch.architectures.loading import GRAPH, HEADER_KEY
from paddle2torch.architectures.records import Metadata
from paddle2torch.converter import __version__
from paddle2torch.converter.conversion.convert import Conversion
from paddle2torch.converter.support.errors import MappingError
from paddle2torch.converter.support.files import write_together

if TYPE_CHECKING:
    from torch import Tensor

SCHEMA_VERSION = 1


def metadata(conversion: Conversion) -> dict[str, Any]:
    """The content of the `.json` and of the `.safetensors` header: everything needed to use and to trust the weights.

    Keys: schema_version, name, task, architecture, graph (only where that is the architecture), parameters,
    preprocessing, labels (None where unknown), postprocessing (but for classifiers), source (kind, file, url, sha256,
    branch, named_by, known), ignored (structured name → reason), initialised (module keys), widened (module key →
    stored data type), narrowed (the same of wider types; only where there are any), folded (module key → structured
    names that went into it; only in a folded layout), outputs (their names; only where there are several),
    rewritings (module → what the program writes in another way there; only where there are any), digest (of the
    tensors, see `paddle2torch.architectures.digest`), converter (version).
    """
    source = conversion.source
    return {
        "schema_version": SCHEMA_VERSION,
        "name": conversion.name,
        "task": conversion.network.task,
        "architecture": conversion.network.name,
        **({GRAPH: graph_to_json(conversion.network.graph)} if conversion.network.graph else {}),
        "parameters": conversion.network.parameters,
        "preprocessing": conversion.network.preprocessing.to_json(),
        "labels": conversion.labels.labels if conversion.labels else None,
        **({"postprocessing": conversion.postprocessing.to_json()} if conversion.postprocessing else {}),
        "source": {
            "kind": source.kind,
            "file": source.file,
            "url": source.url,
            "sha256": source.sha256,
            "branch": conversion.branch or None,
            "named_by": source.named_by,
            **({"known": source.known.record.to_json()} if source.known else {}),
        },
        "ignored": conversion.mapped.ignored,
        "initialised": list(conversion.mapped.initialised),
        "widened": conversion.mapped.widened,
        **({"narrowed": conversion.mapped.narrowed} if conversion.mapped.narrowed else {}),
        **({"folded": conversion.mapped.folded} if conversion.mapped.folded else {}),
        **({"outputs": [each.name for each in conversion.outputs]} if conversion.outputs else {}),
        **({"rewritings": _rewritings(conversion)} if conversion.rewritings else {}),
        "digest": digest_of(conversion.state),
        "converter": __version__,
    }


def _rewritings(conversion: Conversion) -> dict[str, str]:
    found: dict[str, list[str]] = {}
    for each in conversion.rewritings:
        found.setdefault(each.path, []).append(f"{each.module} where the program has {each.graph}")
    return {path: "; ".join(texts) for path, texts in found.items()}


def write(conversion: Conversion, folder: Path) -> list[Path]:
    """Write a conversion's three files; see `write_files`.

    Raises:
        MappingError: the metadata would hold what is refused when they are read, such as a label of 5,000 characters.
        OutputError: see `write_files`.
    """
    record = metadata(conversion)
    _require_readable(record)
    return _write(conversion.state, record, folder)


def write_files(state: Mapping[str, Tensor], record: Mapping[str, Any], folder: Path) -> list[Path]:
    """Write the three files, or none: all are on the disk before the first appears at its path, the `.json` last.

    Args:
        state: a module's state dict.
        record: what `metadata` returns; its "name" is the files' stem. The digest is made anew.
        folder: where; made if need be. Files of an earlier conversion of the same name are replaced.

    Returns:
        The paths: `.pth`, `.safetensors`, `.json`.

    Raises:
        OutputError: something could not be written.
    """
    return _write(state, {**record, "digest": digest_of(state)}, folder)


def _write(state: Mapping[str, Tensor], record: Mapping[str, Any], folder: Path) -> list[Path]:
    stem = folder / record["name"]
    paths = [stem.with_name(stem.name + suffix) for suffix in (".pth", ".safetensors", ".json")]
    text = json.dumps(record, ensure_ascii=False, indent=1) + "\n"
    contents = (
        lambda file: _save_pth(state, file),
        lambda file: _save_safetensors(state, record, file),
        text.encode(),
    )
    write_together(dict(zip(paths, contents, strict=True)))
    return paths


def _require_readable(record: Mapping[str, Any]) -> None:
    """See that what others put into the metadata, such as labels, is what will be taken back."""
    try:
        Metadata.from_json(json.loads(json.dumps(record)), record["name"])
    except ValueError as error:
        raise MappingError(
            f"{record['name']}: its metadata would be refused when they are read: {error.__cause__ or error}; nothing "
            "was written"
        ) from error


def safetensors_bytes(state: Mapping[str, Tensor], record: Mapping[str, Any]) -> bytes:
    """The content of the `.safetensors`, the same at every conversion of the same weights."""
    from safetensors.torch import save

    return save(_contiguous(state), _header(record))


def _save_pth(state: Mapping[str, Tensor], file: Path) -> None:
    import torch

    with file.open("wb") as stream:
        try:
            torch.save(dict(state), stream)
        except RuntimeError as error:
            # PyTorch's writer goes on after the stream's error, and raises one of its own at the end.
            if isinstance(error.__context__, OSError):
                raise error.__context__ from None
            raise


def _save_safetensors(state: Mapping[str, Tensor], record: Mapping[str, Any], file: Path) -> None:
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    try:
        save_file(_contiguous(state), file, _header(record))
    except SafetensorError as error:
        # The library tells the system's errors in its text alone, before 0.6 as "Os { code: 27, …".
        if number := re.search(r"\b(?:os error|Os \{ code:) (\d+)", str(error)):
            raise OSError(int(number[1]), os.strerror(int(number[1]))) from error
        raise


def _header(record: Mapping[str, Any]) -> dict[str, str]:
    """The metadata of a `.safetensors`: one entry, since the library writes several in an order that varies."""
    return {HEADER_KEY: json.dumps(record, ensure_ascii=False)}


def _contiguous(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors as the library takes them; copied only where their elements do not lie in order."""
    return {name: tensor.detach().contiguous() for name, tensor in state.items()}
