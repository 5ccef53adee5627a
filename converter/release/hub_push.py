"""Publications to the Hugging Face Hub: a repository for each model, a commit for each change of it."""

from __future__ import annotations

import fnmatch
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from paddle2torch.architectures.hub import PTH
from paddle2torch.converter import __version__
from paddle2torch.converter.support.errors import OutputError
from paddle2torch.converter.support.extras import require
from paddle2torch.converter.support.terminal import shortened, without_users

# What an earlier publication may have had and a later one no longer has.
STALE = (f"*{PTH}", "labels.txt")

LONGEST_REASON = 300  # characters of a server's own words

ANSWERS = {
    401: "{endpoint} does not know the Hugging Face token; log in with `hf auth login`, or set HF_TOKEN",
    403: "{endpoint} does not let this Hugging Face token write there; use one with write access",
}


class Hub:
    """An organisation's (or a user's) place on the Hub.

    Args:
        organisation: its name.

    Raises:
        MissingPackageError: huggingface_hub is not installed.
        OutputError: there is no valid token, or the Hub cannot be reached.
    """

    def __init__(self, organisation: str) -> None:
        huggingface_hub = require("huggingface_hub", "hub", "--push-to-hub")
        self.organisation = organisation
        self._api = huggingface_hub.HfApi(library_name="paddle2torch", library_version=__version__)
        if huggingface_hub.get_token() is None:
            raise OutputError(
                "--push-to-hub: there is no Hugging Face token; log in with `hf auth login`, or set HF_TOKEN"
            )
        with self._explained(organisation):
            self._api.whoami()

    def push(self, folder: Path) -> str:
        """Make the repository hold what a model's folder holds: one commit, or none where it does already.

        Returns:
            The commit's URL.

        Raises:
            OutputError: the Hub refuses, or cannot be reached; the repository is as it was.
        """
        from huggingface_hub import CommitOperationAdd, CommitOperationDelete

        repository = f"{self.organisation}/{folder.name}"
        names = sorted(path.name for path in folder.iterdir())
        with self._explained(repository):
            self._api.create_repo(repository, exist_ok=True)
            stale = [
                name
                for name in self._api.list_repo_files(repository)
                if name not in names and any(fnmatch.fnmatchcase(name, pattern) for pattern in STALE)
            ]
            commit = self._api.create_commit(
                repository,
                [
                    *(CommitOperationDelete(name) for name in stale),
                    *(CommitOperationAdd(name, str(folder / name)) for name in names),
                ],
                commit_message=f"Publish {folder.name} with paddle2torch {__version__}",
            )
        return without_users(commit.commit_url)

    @contextmanager
    def _explained(self, what: str) -> Iterator[None]:
        """Turn what huggingface_hub raises into an error for people."""
        try:
            yield
        except Exception as error:  # whatever a server's answer makes the library raise
            raise OutputError(
                f"{what}: {_explanation(error, without_users(self._api.endpoint))}; nothing was pushed there"
            ) from error


def _explanation(error: Exception, endpoint: str) -> str:
    from huggingface_hub.errors import HfHubHTTPError, HTTPError

    if isinstance(error, RuntimeError) and isinstance(error.__cause__, Exception):
        error = error.__cause__  # what went wrong with one of several uploads
    words = " ".join(str(getattr(error, "server_message", None) or error).split()) or type(error).__name__
    reason = shortened(without_users(words), LONGEST_REASON)
    if isinstance(error, HfHubHTTPError):
        status = error.response.status_code
        return ANSWERS.get(status, f"{{endpoint}} answers {status} ({reason}); try again later").format(
            endpoint=endpoint
        )
    if isinstance(error, ValueError) and not isinstance(error, json.JSONDecodeError):
        return f"{endpoint} does not accept it ({reason})"
    if isinstance(error, HTTPError | OSError):
        return f"{endpoint} cannot be reached ({reason}); check the network"
    return f"{endpoint} does not answer as the Hub does ({reason}); check HF_ENDPOINT and the network"
