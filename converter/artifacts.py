"""What a conversion leaves on disk: `.pth`, `.safetensors` and `.json`, complete or not at all."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from architectures.loading import HEADER_KEY
from converter import __version__
from converter.convert import Conversion
from converter.files import atomic_write

if TYPE_CHECKING:
    from torch import Tensor

SCHEMA_VERSION = 1


def metadata(conversion: Conversion) -> dict[str, Any]:
    """The content of the `.json` and of the `.safetensors` header: everything needed to use and to trust the weights.

    Keys: schema_version, name, task, architecture, parameters, preprocessing, labels (None where unknown), source
    (kind, file, url, sha256, branch), ignored (structured name → reason), initialised (module keys), widened (module
    key → stored data type), converter (version).
    """
    source = conversion.source
    return {
        "schema_version": SCHEMA_VERSION,
        "name": conversion.name,
        "task": conversion.architecture.task,
        "architecture": conversion.architecture.name,
        "parameters": conversion.parameters,
        "preprocessing": conversion.architecture.preprocessing,
        "labels": conversion.labels.labels if conversion.labels else None,
        "source": {
            "kind": source.kind,
            "file": source.path.name,
            "url": source.url,
            "sha256": source.sha256,
            "branch": conversion.branch or None,
        },
        "ignored": conversion.mapped.ignored,
        "initialised": list(conversion.mapped.initialised),
        "widened": conversion.mapped.widened,
        "converter": __version__,
    }


def write(conversion: Conversion, folder: Path) -> list[Path]:
    """Write a conversion's three files; see `write_files`."""
    return write_files(conversion.state, metadata(conversion), folder)


def write_files(state: Mapping[str, Tensor], account: Mapping[str, Any], folder: Path) -> list[Path]:
    """Write the three files; each appears only when it is complete, the `.json` last.

    Args:
        state: a module's state dict.
        account: what `metadata` returns; its "name" is the files' stem.
        folder: where; made if need be. Files of an earlier conversion of the same name are replaced.

    Returns:
        The paths: `.pth`, `.safetensors`, `.json`.

    Raises:
        OutputError: something could not be written.
    """
    import torch
    from safetensors.torch import save

    stem = folder / account["name"]
    paths = [stem.with_name(stem.name + suffix) for suffix in (".pth", ".safetensors", ".json")]
    with atomic_write(paths[0]) as file:
        torch.save(dict(state), file)
    with atomic_write(paths[1]) as file:
        # One key only: the order of several would differ from run to run.
        file.write(save(dict(state), {HEADER_KEY: json.dumps(account, ensure_ascii=False)}))
    with atomic_write(paths[2]) as file:
        file.write((json.dumps(account, ensure_ascii=False, indent=1) + "\n").encode())
    return paths
