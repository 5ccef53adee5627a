"""What a source holds, told without converting it."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any

from paddle2torch.architectures.records import Metadata
from paddle2torch.converter.conversion.values import look_at
from paddle2torch.converter.conversion.weights import open_weights
from paddle2torch.converter.graph.naming import named
from paddle2torch.converter.mapping.branches import census, choose
from paddle2torch.converter.mapping.recognition import describe, find_architecture, identify, rank
from paddle2torch.converter.sources import Source
from paddle2torch.converter.support.errors import MappingError
from paddle2torch.converter.zoo.known import find_others

NEAREST = 3
MOST_LISTED = 100  # branches, or kinds of operators; released models have up to 60


@dataclass(frozen=True)
class Inspection:
    """The findings on a source.

    Attributes:
        file: its name.
        kind: "inference", "trained" or "pretrained".
        tensors: how many there are.
        values: how many numbers they hold.
        dtypes: data type → number of tensors.
        branches: name → number of tensors.
        branch: the one that was looked at.
        architecture: the one that fits, or None.
        parameters: of the architecture.
        findings: lines: what tells the architecture, or why nothing fits and what is near.
        operators: type → count, of an inference program.
        named_by: what told the tensors' names: "checkpoint", "info", "graph", or None.
        known: what the file of the weights is by the released ones that others have seen, and what those beside it are;
            lines.
    """

    file: str
    kind: str
    tensors: int
    values: int
    dtypes: dict[str, int]
    branches: dict[str, int]
    branch: str
    architecture: str | None
    parameters: dict[str, Any]
    findings: tuple[str, ...]
    operators: dict[str, int]
    named_by: str | None
    known: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        return {**self.__dict__, "findings": list(self.findings), "known": list(self.known)}

    def lines(self) -> list[str]:
        """The same for a person."""
        dtypes = ", ".join(f"{count} {dtype}" for dtype, count in self.dtypes.items())
        lines = [f"{self.file}: {self.kind} model, {self.tensors} tensors ({dtypes}), {self.values:,} values"]
        if len(self.branches) > 1 or self.branch:
            counts = ", ".join(f"{name or '(no prefix)'} ({count} tensors)" for name, count in self.branches.items())
            lines.append(f"  networks      {counts}; looked at {self.branch or '(no prefix)'}")
        lines += [f"  {'' if place else 'known files':<12}  {text}" for place, text in enumerate(self.known)]
        if self.named_by == "graph":
            lines.append("  names         by the places in the graph; there is no .info")
        if self.operators:
            common = ", ".join(f"{count} {name}" for name, count in list(self.operators.items())[:8])
            more = len(self.operators) - 8
            lines.append(
                f"  program       {sum(self.operators.values())} operators: {common}"
                + f", {more} more kinds" * (more > 0)
            )
        lines.append(f"  architecture  {self.architecture or 'none of this list'}")
        return lines + [f"  {line}" for text in self.findings for line in text.splitlines()]


def inspect_source(source: Source, branch: str | None = None, architecture: str | None = None) -> Inspection:
    """Look at a source.

    Args:
        source: see `paddle2torch.converter.sources.load_source`.
        branch: of a checkpoint with several networks.
        architecture: compare with this one only.

    Raises:
        MappingError: there is no such branch or architecture.
    """
    known = find_architecture(architecture) if architecture else None
    findings = []
    try:
        source = named(source, known)
    except MappingError as error:
        findings.append(str(error))
    branches = census(source.tensors)
    chosen = choose(branches, branch, source.path.name)
    tensors = {name: source.tensors[full] for name, full in chosen.names.items()}
    shapes = {name: array.shape for name, array in tensors.items()}
    found, parameters = None, {}
    try:
        fit = identify(shapes, source.path.name, known)
        findings.append(describe(fit))
        if fit.match.exact:
            found, parameters = fit.architecture.name, fit.parameters
        near = [other for other in rank(shapes) if other.architecture is not fit.architecture][: NEAREST - 1]
        findings += [
            f"less well: {other.architecture.name} ({describe(other)})" for other in near if other.match.score > 0
        ]
    except MappingError as error:
        if architecture is not None:
            raise
        findings = findings or [str(error)]
    values = look_at(tensors, {name for name in tensors if name.endswith("_variance")})
    findings += [f"values: {text}" for text in (*values.fatal, *values.notes)]
    return Inspection(
        file=source.path.name,
        kind=source.kind,
        tensors=len(tensors),
        values=sum(array.size for array in tensors.values()),
        dtypes=dict(Counter(str(array.dtype) for array in tensors.values()).most_common()),
        branches=_most({b.name: len(b.names) for b in branches}),
        branch=chosen.name,
        architecture=found,
        parameters=parameters,
        findings=tuple(findings),
        operators=_most(dict(Counter(operator.type for operator in source.program.operators).most_common()))
        if source.program
        else {},
        named_by=source.named_by,
        known=(source.known.told, *(each.told for each in find_others(source.files, source.names)))
        if source.known
        else (),
    )


def _most(counts: Mapping[str, int]) -> dict[str, int]:
    """The first of some counts, and the sum of the others as one more."""
    listed = dict(islice(counts.items(), MOST_LISTED))
    others = len(counts) - len(listed)
    return listed | ({f"{others} more": sum(counts.values()) - sum(listed.values())} if others else {})


@dataclass(frozen=True)
class WeightsInspection:
    """The findings on a converted file.

    Attributes:
        file: as the user named it.
        architecture: name.
        parameters: of the architecture.
        tensors: how many there are.
        values: how many numbers they hold.
        dtypes: data type → number of tensors.
        metadata: what the file says of itself; None where it came without, and the tensors told the architecture.
    """

    file: str
    architecture: str
    parameters: dict[str, Any]
    tensors: int
    values: int
    dtypes: dict[str, int]
    metadata: Metadata | None

    def as_dict(self) -> dict[str, Any]:
        metadata = None if self.metadata is None else self.metadata.to_json()
        return {**self.__dict__, "metadata": metadata}

    def lines(self) -> list[str]:
        """The same for a person."""
        dtypes = ", ".join(f"{count} {dtype}" for dtype, count in self.dtypes.items())
        settled = ", ".join([self.architecture, *(f"{name} = {value}" for name, value in self.parameters.items())])
        source = self.metadata.source if self.metadata is not None else None
        labels = self.metadata.labels if self.metadata is not None else None
        of = "SOURCE" if source is None else source.file
        return [
            f"{self.file}: converted weights, {self.tensors} tensors ({dtypes}), {self.values:,} values",
            f"  architecture  {settled}" + ("; told by the tensors" if self.metadata is None else ""),
            *([f"  converted     from {source.file}, sha256 {source.sha256}"] if source is not None else []),
            *([f"  labels        {len(labels)}"] if labels is not None else []),
            f'  to load       paddle2torch.load_model("{self.file}")',
            f"  to compare    paddle2torch verify {of} --weights {self.file}",
            f"  to go on      paddle2torch export {self.file}, or convert --to paddle {self.file}",
        ]


def inspect_weights(path: str | os.PathLike[str]) -> WeightsInspection:
    """Look at a converted file, ours or anyone's.

    Raises:
        SourceError, FormatError: see `paddle2torch.converter.conversion.weights.open_weights`.
    """
    weights = open_weights(path)
    return WeightsInspection(
        file=os.fspath(path),
        architecture=weights.architecture,
        parameters=dict(weights.parameters),
        tensors=len(weights.state),
        values=sum(tensor.numel() for tensor in weights.state.values()),
        dtypes=dict(
            Counter(str(tensor.dtype).removeprefix("torch.") for tensor in weights.state.values()).most_common()
        ),
        metadata=weights.metadata,
    )
