"""`.pdiparams.info`: the structured name of each variable of an inference program."""

from __future__ import annotations

from paddle2torch.converter.formats.foreign import PICKLE, refuse_foreign
from paddle2torch.converter.formats.names import checked_name
from paddle2torch.converter.formats.restricted import read_pickle
from paddle2torch.converter.support.blob import Blob
from paddle2torch.converter.support.boundary import guarded
from paddle2torch.converter.support.errors import FormatError

_WANTED = "a .pdiparams.info file"


@guarded(_WANTED)
def read_info(blob: Blob) -> dict[str, str]:
    """The structured name of each variable that has one.

    Returns:
        Program variable → structured name, in the file's order; entries without a structured name are left out.

    Raises:
        FormatError: the file is damaged, or is something else.
    """
    refuse_foreign(blob, PICKLE, _WANTED)
    content = read_pickle(blob, explain=_explain)
    if not isinstance(content, dict) or not all(isinstance(facts, dict) for facts in content.values()):
        raise FormatError(blob.name, f"is not {_WANTED}: it should hold a table from variables to their facts")
    named = {variable: facts["structured_name"] for variable, facts in content.items() if "structured_name" in facts}
    return {checked_name(blob.name, variable): checked_name(blob.name, name) for variable, name in named.items()}


def _explain(name: str) -> str | None:
    return f"holds arrays: it is a checkpoint, not {_WANTED}" if name.startswith("numpy.") else None
