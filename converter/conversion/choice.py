"""What a user says of a model besides its name, and of where files come from: data that travels between processes."""

from __future__ import annotations

import os
from collections.abc import Collection
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING

from paddle2torch.converter.support.errors import SourceError

if TYPE_CHECKING:
    from paddle2torch.converter.conversion.convert import Conversion
    from paddle2torch.converter.sources import Source
    from paddle2torch.converter.zoo.catalog import Zoo
    from paddle2torch.converter.zoo.download import Fetcher


# What of a `Choice` means something where a program is converted by its graph.
WITH_GRAPH = ("as_graph", "dictionary", "kind", "member")


@dataclass(frozen=True)
class Access:
    """Where files come from.

    Attributes:
        mirror: folder or base URL in place of scheme and host of every URL.
        cache: folder for downloaded files, the platform's by default.
        offline: whether to reach no server.
    """

    mirror: str | None = None
    cache: Path | None = None
    offline: bool = False

    def fetcher(self, *, accept_changed: bool = False) -> Fetcher:
        """Who gets the files; see `paddle2torch.converter.zoo.download.Fetcher`."""
        from paddle2torch.converter.zoo.download import Fetcher

        return Fetcher(cache_dir=self.cache, mirror=self.mirror, offline=self.offline, accept_changed=accept_changed)


@dataclass(frozen=True)
class Choice:
    """How to read a model; None wherever that is to be found out.

    Attributes:
        kind: which tarball of a zoo model: "inference", "trained" or "pretrained".
        member: which checkpoint of an archive that holds several.
        branch: which network of a distilled checkpoint.
        architecture: what the model is.
        dictionary: file of the recogniser's characters.
        config: the PaddleOCR `.yml` that the model was trained with.
        as_graph: whether to convert an inference model by its graph alone.
    """

    kind: str | None = None
    member: str | None = None
    branch: str | None = None
    architecture: str | None = None
    dictionary: Path | None = None
    config: Path | None = None
    as_graph: bool = False

    def require_none(self, text: str, *allowed: str) -> None:
        """Raise SourceError where something was said that means nothing for a converted file.

        Args:
            text: the file.
            allowed: fields that mean something all the same.
        """
        self._require_only(allowed, f"{text}: is a converted file, for which")

    def _require_only(self, allowed: Collection[str], where: str) -> None:
        """Raise SourceError where a field was said that is not allowed; the message begins with `where`."""
        given = [each.name for each in fields(self) if each.name not in allowed and getattr(self, each.name)]
        if given:
            option = {"dictionary": "dict", "as_graph": "as-graph"}.get(given[0], given[0])
            raise SourceError(f"{where} --{option} means nothing; leave it out")

    def load(self, text: str, zoo: Zoo, fetcher: Fetcher, name: str | None = None) -> Source:
        """Find and read a model; see `paddle2torch.converter.sources.load_source` for `text` and errors.

        Args:
            name: of the result, where it has to be told apart from others'; see `paddle2torch.converter.support.names`.
        """
        from paddle2torch.architectures.hub import is_converted
        from paddle2torch.converter.sources import load_source

        if self.kind is not None and text not in zoo and os.path.exists(text):  # noqa: PTH110
            raise SourceError(f"{text}: is no model of the zoo, for which alone --kind means something")
        if text not in zoo and is_converted(text) and os.path.exists(text):  # noqa: PTH110
            raise SourceError(
                f"{text}: holds PyTorch weights already: paddle2torch.load_model loads them, `paddle2torch inspect "
                f"{text}` says what they are, `verify SOURCE --weights {text}` compares them with what they were "
                "converted from"
            )
        source = load_source(text, zoo, fetcher, self.kind, self.member)
        return source if name is None else replace(source, name=name)

    def convert(self, source: Source, fetcher: Fetcher | None = None) -> Conversion:
        """Convert a model in memory; without a fetcher the zoo's dictionary is left alone. See
        `paddle2torch.converter.conversion.convert.convert` for errors. What the zoo lists as a graph becomes one."""
        from paddle2torch.architectures.records import GRAPH

        if self.as_graph:
            self._require_only(
                WITH_GRAPH, f"{source.path}: with --as-graph the program itself is the network, for which"
            )
        listed = source.model.architecture if source.model and not (self.architecture or self.config) else None
        if self.as_graph or (listed == GRAPH and source.program is not None):
            from paddle2torch.converter.conversion.as_graph import convert_graph

            return convert_graph(source, dictionary=self.dictionary, fetcher=fetcher)
        from paddle2torch.converter.conversion.convert import convert
        from paddle2torch.converter.mapping.config import read_config

        return convert(
            source,
            architecture=self.architecture,
            branch=self.branch,
            dictionary=self.dictionary,
            config=read_config(self.config, self.branch) if self.config else None,
            fetcher=fetcher,
        )
