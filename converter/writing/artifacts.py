"""What a conversion leaves on disk: `.pth`, `.safetensors` and `.json`, complete or not at all."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from paddle2torch.architectures.digest import digest_of
from paddle2torch.architectures.graph.form import graph_to_json
from paddle2torch.architectures.loading import GRAPH, HEADER_KEY
from paddle2torch.converter import __version__
from paddle2torch.converter.conversion.convert import Conversion
from paddle2torch.converter.support.files import write_together
from paddle2torch.converter.writing.streaming import Write, save_pth, save_safetensors

if TYPE_CHECKING:
    from torch import Tensor

SCHEMA_VERSION = 1


def metadata(conversion: Conversion) -> dict[str, Any]:
    """The content of the `.json` and of the `.safetensors` header: everything needed to use and to trust the weights.

    Keys: schema_version, name, task, architecture, graph (only where that is the architecture), parameters,
    preprocessing, labels (None where unknown), source (kind, file, url, sha256, branch, named_by), ignored (structured
    name → reason), initialised (module keys), widened (module key → stored data type), narrowed (the same of
    wider types; only where there are any), digest (of the tensors, see
    `paddle2torch.architectures.digest`), converter (version).
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
        "source": {
            "kind": source.kind,
            "file": source.path.name,
            "url": source.url,
            "sha256": source.sha256,
            "branch": conversion.branch or None,
            "named_by": source.named_by,
        },
        "ignored": conversion.mapped.ignored,
        "initialised": list(conversion.mapped.initialised),
        "widened": conversion.mapped.widened,
        **({"narrowed": conversion.mapped.narrowed} if conversion.mapped.narrowed else {}),
        "digest": digest_of(conversion.state),
        "converter": __version__,
    }


def write(conversion: Conversion, folder: Path) -> list[Path]:
    """Write a conversion's three files; see `write_files`."""
    return _write(conversion.state, metadata(conversion), folder)


def write_files(state: Mapping[str, Tensor], account: Mapping[str, Any], folder: Path) -> list[Path]:
    """Write the three files, or none: all are on the disk before the first appears at its path, the `.json` last.

    Args:
        state: a module's state dict.
        account: what `metadata` returns; its "name" is the files' stem. The digest is made anew.
        folder: where; made if need be. Files of an earlier conversion of the same name are replaced.

    Returns:
        The paths: `.pth`, `.safetensors`, `.json`.

    Raises:
        OutputError: something could not be written.
    """
    return _write(state, {**account, "digest": digest_of(state)}, folder)


def _write(state: Mapping[str, Tensor], account: Mapping[str, Any], folder: Path) -> list[Path]:
    stem = folder / account["name"]
    paths = [stem.with_name(stem.name + suffix) for suffix in (".pth", ".safetensors", ".json")]
    text = json.dumps(account, ensure_ascii=False, indent=1) + "\n"
    contents = (
        lambda file: save_pth(state, file.write),
        lambda file: stream_safetensors(state, account, file.write),
        text.encode(),
    )
    write_together(dict(zip(paths, contents, strict=True)))
    return paths


def stream_safetensors(state: Mapping[str, Tensor], account: Mapping[str, Any], write: Write) -> None:
    """The content of a `.safetensors`, the same at every conversion of the same weights; see `save_safetensors`."""
    save_safetensors(state, {HEADER_KEY: json.dumps(account, ensure_ascii=False)}, write)
