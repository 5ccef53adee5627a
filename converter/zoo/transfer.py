"""Bringing one URL's bytes into one file, over networks that fail."""

from __future__ import annotations

import email.utils
import json
import logging
import os
import random
import re
import shutil
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from urllib.parse import urljoin, urlsplit

import requests

from paddle2torch.converter import __version__
from paddle2torch.converter.support.errors import DownloadError, OutputError
from paddle2torch.converter.support.files import atomic_write
from paddle2torch.converter.support.progress import Bar
from paddle2torch.converter.zoo.cache import PARTIAL, STATE, beside, read_json, writing

_CHUNK = 16 * 1024
"""Small, because what a broken connection leaves of an unfinished chunk is lost."""

_MAX_REDIRECTS = 10
_PASSING = {408, 425, 429, 500, 502, 503, 504}
_MISSING = {404, 410}

_CAUSES = {
    "NameResolutionError": "the host's name is unknown; is there a network?",
    "Connection refused": "the server refuses connections",
    "Network is unreachable": "there is no network",
    "IncompleteRead": "the connection dropped",
    "RemoteDisconnected": "the connection dropped",
    "reset by peer": "the connection dropped",
    "EOF occurred": "the connection dropped",
    "timed out": "no answer in time",
    "CERTIFICATE_VERIFY_FAILED": "the server's certificate is not trusted",
}
"""What network errors come down to, by a sign in their texts."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Policy:
    """How patient a download is.

    Attributes:
        connect_timeout: seconds to wait for a connection.
        read_timeout: seconds to wait for the next bytes.
        attempts: failures in a row after which to give up; a failure after new bytes arrived counts as the first.
        backoff: seconds to wait after the first failure; twice as long after each further one, with jitter.
        longest_wait: seconds to wait at most; a server that asks for more is given up.
        largest: bytes that no file may exceed.
    """

    connect_timeout: float = 10.0
    read_timeout: float = 30.0
    attempts: int = 5
    backoff: float = 0.5
    longest_wait: float = 60.0
    largest: int = 8 << 30


class MissingError(DownloadError):
    """The server has nothing at the URL."""


class UnreachableError(DownloadError):
    """The server does not answer, or not well, however often it is asked."""


class UnwantedError(DownloadError):
    """What the server sends, or announces, cannot be the file."""


class _PassingError(Exception):
    """A failure that may be over at the next try.

    Args:
        problem: what happened, for people.
        wait: seconds that the server asks to wait.
    """

    def __init__(self, problem: str, wait: float | None = None) -> None:
        super().__init__(problem)
        self.wait = wait


@dataclass(frozen=True)
class _State:
    """What is known of the file that a partial file is the beginning of."""

    url: str
    etag: str | None = None
    last_modified: str | None = None
    total: int | None = None

    @property
    def validator(self) -> str | None:
        """What `If-Range` asks the server to compare: weak ETags are not allowed there."""
        strong = self.etag if self.etag and not self.etag.startswith("W/") else None
        return strong or self.last_modified


class Transfer:
    """One download into `TARGET.partial`, going on with what an earlier run left there."""

    def __init__(
        self,
        session: requests.Session,
        url: str,
        target: Path,
        policy: Policy,
        size: int | None,
        bar: Bar,
        stop: threading.Event,
    ) -> None:
        """Prepare; `size` is the number of bytes where it is known, `stop` ends the transfer when it is set."""
        self.session, self.url, self.policy, self.size, self.bar, self.stop = session, url, policy, size, bar, stop
        self.partial, self.state_file = beside(target, PARTIAL), beside(target, STATE)
        self.resumed = False
        """Whether bytes of an earlier connection are part of the file."""

    def run(self) -> Path:
        """Bring the whole file; returns the partial file, which is complete then and synced to disk.

        Raises:
            MissingError: the server has nothing there (404, 410).
            UnreachableError: the server keeps failing.
            UnwantedError: what it sends is longer than it may be, or not as long as the zoo says.
            DownloadError: the server refuses.
            OutputError: the bytes cannot be written.
        """
        failures, furthest = 0, self._have()
        while True:
            try:
                self._attempt()
                return self.partial
            except _PassingError as failure:
                have = self._have()
                failures = 1 if have > furthest else failures + 1
                furthest = max(furthest, have)
                if failures >= self.policy.attempts:
                    raise UnreachableError(f"{self.url}: {failure}; gave up after {failures} tries") from failure
                self._wait(failure, failures)

    def discard(self) -> None:
        """Remove the partial file and what is known of it."""
        with writing(self.partial):
            self.partial.unlink(missing_ok=True)
            self.state_file.unlink(missing_ok=True)
        self.resumed = False

    def finish(self, path: Path) -> None:
        """Move the partial file, which is complete and checked, to its final path."""
        self.state_file.unlink(missing_ok=True)  # first, so that nothing is left beside a complete file at any moment
        self.partial.replace(path)

    def _have(self) -> int:
        return self.partial.stat().st_size if self.partial.exists() else 0

    def _wait(self, failure: _PassingError, failures: int) -> None:
        wait = min(self.policy.backoff * 2 ** (failures - 1), self.policy.longest_wait) * random.uniform(0.5, 1)
        if failure.wait is not None:
            if failure.wait > self.policy.longest_wait:
                raise DownloadError(
                    f"{self.url}: {failure}, and asks to come back in {failure.wait:.0f} s; try again then"
                )
            wait = failure.wait
        logger.warning("%s: %s; trying again in %.1f s", self.url, failure, wait)
        if self.stop.wait(wait):
            raise DownloadError(f"{self.url}: stopped")

    def _attempt(self) -> None:
        """One request, and the body that answers it."""
        state, have = self._resumable()
        headers = {"Range": f"bytes={have}-", "If-Range": str(state.validator)} if state else {}
        with self._network_errors(), self._open(headers) as response:
            offset = self._offset(response, state, have)
            try:
                self._receive(response, offset)
            except (OutputError, UnwantedError):
                self.discard()  # a full disk, say, should not be kept full by half a file
                raise

    def _resumable(self) -> tuple[_State | None, int]:
        """What to go on with: the state and length of the partial file; (None, 0) where it must start over."""
        have = self._have()
        try:
            state = _State(**read_json(self.state_file))  # type: ignore[arg-type]
        except TypeError:
            return None, 0
        return (state, have) if have and state.url == self.url and state.validator else (None, 0)

    def _open(self, headers: dict[str, str]) -> requests.Response:
        """Ask for the URL, following redirects, but never from https to http."""
        url = self.url
        timeout = (self.policy.connect_timeout, self.policy.read_timeout)
        for _ in range(_MAX_REDIRECTS + 1):
            response = self.session.get(url, headers=headers, stream=True, allow_redirects=False, timeout=timeout)
            if not response.is_redirect:
                return response
            response.close()
            target = urljoin(url, response.headers["Location"])
            if urlsplit(target).scheme not in ("https", urlsplit(url).scheme):
                raise DownloadError(
                    f"{self.url}: refused: redirects from {url} to {target}, where others could change the file"
                )
            url = target
        raise DownloadError(f"{self.url}: redirects more than {_MAX_REDIRECTS} times; check the URL")

    def _offset(self, response: requests.Response, state: _State | None, have: int) -> int:
        """Where in the file the body begins, by the answer's status and headers."""
        status = response.status_code
        if status in _MISSING:
            raise MissingError(f"{self.url}: the server has no such file ({status})")
        if status in _PASSING:
            raise _PassingError(f"the server answers {status} {response.reason}", _retry_after(response))
        if status == 206 and state and self._continues(response, state, have):
            return have
        if status in (206, 416):
            self.discard()
            raise _PassingError(f"the server's answer ({status}) does not continue what is here; starting over")
        if status != 200:
            raise DownloadError(f"{self.url}: the server answers {status} {response.reason}; check the URL")
        return 0

    def _continues(self, response: requests.Response, state: _State, have: int) -> bool:
        """Whether a 206 is the rest of the same file; there are servers that heed Range, but not If-Range."""
        sent = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", response.headers.get("Content-Range", ""))
        return (
            sent is not None
            and int(sent[1]) == have
            and sent[2] in ("*", str(state.total))
            and response.headers.get("ETag", state.etag) == state.etag
            and not _is_encoded(response)
        )

    def _receive(self, response: requests.Response, offset: int) -> None:
        """Append the body to the partial file, or begin that anew where the offset is 0."""
        length = response.headers.get("Content-Length", "")
        total = offset + int(length) if length.isdecimal() and not _is_encoded(response) else None
        have = offset
        with writing(self.partial):
            self._check_announced(total)
            with self.partial.open("ab" if offset else "wb") as stream:
                if not offset:
                    self._keep_state(response, total)
                self.resumed = offset > 0
                self.bar.begin(offset, total)
                for chunk in self._chunks(response):
                    stream.write(chunk)
                    have += len(chunk)
                    self.bar.advance(len(chunk))
                    if have > self.policy.largest:
                        raise UnwantedError(f"{self.url}: more than {self.policy.largest} bytes; no model is as large")
                stream.flush()
                os.fsync(stream.fileno())
        if total is not None and have != total:
            raise _PassingError(f"{have} of {total} bytes came")

    def _chunks(self, response: requests.Response) -> Iterator[bytes]:
        """The body as it comes; the network's errors, which Python counts among the disk's, are told apart here."""
        with self._network_errors():
            for chunk in response.iter_content(_CHUNK):
                if self.stop.is_set():
                    raise DownloadError(f"{self.url}: stopped")
                yield chunk

    def _check_announced(self, total: int | None) -> None:
        if total is None:
            return
        if self.size is not None and total != self.size:
            raise UnwantedError(f"{self.url}: the server announces {total} bytes, the zoo says {self.size}")
        if total > self.policy.largest:
            raise UnwantedError(f"{self.url}: the server announces {total} bytes; no model is as large")
        missing = total - self._have()
        if missing > (free := shutil.disk_usage(self.partial.parent).free):
            raise OutputError(f"{self.partial}: {missing} bytes are needed and {free} are free; free the disk")

    def _keep_state(self, response: requests.Response, total: int | None) -> None:
        """Note, before the first byte, what a later try needs to know; offsets into encoded bodies are no use to it."""
        state = _State(self.url, total=total)
        if not _is_encoded(response):
            state = replace(
                state, etag=response.headers.get("ETag"), last_modified=response.headers.get("Last-Modified")
            )
        with atomic_write(self.state_file) as stream:
            stream.write(json.dumps(asdict(state)).encode())

    @contextmanager
    def _network_errors(self) -> Iterator[None]:
        """Tell the failures that may pass from those that will not."""
        try:
            yield
        except (
            requests.ConnectionError,
            requests.Timeout,
            requests.exceptions.ChunkedEncodingError,
            requests.exceptions.ContentDecodingError,
        ) as error:
            if "CERTIFICATE_VERIFY_FAILED" in str(error):
                raise DownloadError(f"{self.url}: {_cause(error)}; nothing was downloaded") from error
            raise _PassingError(_cause(error)) from error
        except requests.RequestException as error:
            raise DownloadError(f"{self.url}: cannot be fetched ({_cause(error)}); check the URL") from error


def new_session() -> requests.Session:
    """A session for transfers; one per thread."""
    session = requests.Session()
    # Bodies as they are stored: lengths can be checked and downloads resumed.
    session.headers.update({"User-Agent": f"paddle2torch/{__version__}", "Accept-Encoding": "identity"})
    return session


def _is_encoded(response: requests.Response) -> bool:
    return response.headers.get("Content-Encoding", "identity").lower() != "identity"


def _retry_after(response: requests.Response) -> float | None:
    """Seconds that the server asks to wait: it says a number or a date."""
    value = response.headers.get("Retry-After", "")
    if value.isdecimal():
        return float(value)
    try:
        return max(0.0, email.utils.parsedate_to_datetime(value).timestamp() - time.time())
    except ValueError:
        return None


def _cause(error: requests.RequestException) -> str:
    """A network error in the words of people; its own are those of three libraries."""
    text = str(error)
    return next((words for sign, words in _CAUSES.items() if sign in text), text[:200])
