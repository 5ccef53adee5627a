"""Bringing one URL's bytes into one file, over networks that fail, from servers that may mean harm.

Whatever the HTTP libraries raise over an answer is an error for people here. Nothing that a server says is believed
before it was checked, and it cannot keep a download going without sending the file.
"""

from __future__ import annotations

import email.utils
import http.client
import json
import logging
import os
import random
import re
import shutil
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from queue import SimpleQueue
from typing import Any, BinaryIO, TypeGuard, TypeVar
from urllib.parse import urljoin, urlsplit

import requests
import urllib3
from requests.adapters import HTTPAdapter

from paddle2torch.converter import __version__
from paddle2torch.converter.support.errors import DownloadError, OutputError, UnknownHostError
from paddle2torch.converter.support.files import atomic_write
from paddle2torch.converter.support.progress import Bar
from paddle2torch.converter.support.terminal import shortened, without_users
from paddle2torch.converter.zoo.cache import NO_LINK, PARTIAL, STATE, beside, is_file, is_url, read_own, writing

_CHUNK = 16 * 1024
"""Small, because what a broken connection leaves of an unfinished chunk is lost."""

_MAX_REDIRECTS = 10
_MOST_DIGITS = 18
"""Of a number of bytes that can be meant."""
_LONGEST_HEAD = 256 * 1024
_LONGEST_VALIDATOR = 500
_LONGEST_WORDS = 200
"""Characters of a server's own words in a message."""
_DAY = 24 * 60 * 60
_PASSING = {408, 425, 429, 500, 502, 503, 504}
_MISSING = {404, 410}
_REDIRECTS = {301, 302, 303, 307, 308}

_UNKNOWN_HOST = "NameResolutionError"
_CAUSES = {
    _UNKNOWN_HOST: "the host's name is unknown; is there a network?",
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

T = TypeVar("T")

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Policy:
    """How patient a download is.

    Attributes:
        connect_timeout: seconds to wait for a connection.
        read_timeout: seconds to wait for the next bytes.
        patience: seconds within which something new must come, however often it is tried, and waits among them.
        slowest: bytes a second of that time that are something; a server that sends less is given up.
        attempts: failures in a row after which to give up; a failure after new bytes arrived counts as the first.
        backoff: seconds to wait after the first failure; twice as long after each further one, with jitter.
        longest_wait: seconds to wait between tries at most; a server that asks for more is given up.
        largest: bytes that no file may exceed; released ones have up to 125 million.
    """

    connect_timeout: float = 10.0
    read_timeout: float = 12.0
    patience: float = 25.0
    slowest: int = 512
    attempts: int = 5
    backoff: float = 0.5
    longest_wait: float = 60.0
    largest: int = 2 << 30


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


class _Pace:
    """Whether bytes come fast enough, over all tries of a transfer and the waits between them."""

    def __init__(self, policy: Policy) -> None:
        self._policy = policy
        self.begin()

    def begin(self) -> None:
        """Forget what was."""
        self._end = time.monotonic() + self._policy.patience
        self._missing = self._policy.patience * self._policy.slowest

    @property
    def left(self) -> float:
        """Seconds for the next bytes to come."""
        return max(0.0, self._end - time.monotonic())

    def count(self, received: int) -> None:
        """So many bytes more have come."""
        self._missing -= received
        if self._missing <= 0:
            self.begin()


class _LateError(Exception):
    """It has not been done in time."""


class _Apart:
    """A thread that does what may take for ever, so that nobody has to wait for it.

    A socket's timeout ends the wait for the next byte; a server that sends one now and then is never late.
    """

    def __init__(self) -> None:
        self._calls = SimpleQueue[tuple[Future[object], Callable[[], object]] | None]()
        # A daemon: it may still be waiting when the program ends.
        threading.Thread(target=self._work, daemon=True).start()

    def __call__(self, function: Callable[[], T], limit: float) -> T:
        """The function's result, or its exception; _LateError where it takes longer."""
        future: Future[T] = Future()
        self._calls.put((future, function))  # type: ignore[arg-type]
        try:
            return future.result(limit)
        except TimeoutError:
            if future.done():  # it is the function's own
                raise
            raise _LateError from None

    def close(self, last: Callable[[], None] = lambda: None) -> None:
        """Have the thread do a last thing, and end, as soon as it can."""
        self._calls.put((Future(), last))
        self._calls.put(None)

    def _work(self) -> None:
        while call := self._calls.get():
            future, function = call
            try:
                future.set_result(function())
            except BaseException as error:
                future.set_exception(error)


class _Head:
    """An answer's lines before its body, as many as there may be.

    The standard library bounds each line and the lines of each head, and then passes over any number of heads that only
    announce another one (100 Continue).
    """

    def __init__(self, stream: BinaryIO) -> None:
        self._stream, self._left = stream, _LONGEST_HEAD

    def readline(self, limit: int) -> bytes:
        line = self._stream.readline(limit)
        self._left -= len(line)
        if self._left < 0:
            raise http.client.HTTPException(f"more than {_LONGEST_HEAD} bytes before the body")
        return line

    def close(self) -> None:
        self._stream.close()


class _Answer(http.client.HTTPResponse):
    def begin(self) -> None:
        stream = self.fp
        head = self.fp = _Head(stream)  # type: ignore[assignment]
        try:
            super().begin()
        finally:
            if self.fp is head:  # it has none any more where the head made no sense
                self.fp = stream


class _Connection(urllib3.connection.HTTPConnection):
    response_class = _Answer


class _SecureConnection(urllib3.connection.HTTPSConnection):
    response_class = _Answer


class _Pool(urllib3.HTTPConnectionPool):
    ConnectionCls = _Connection


class _SecurePool(urllib3.HTTPSConnectionPool):
    ConnectionCls = _SecureConnection


class _Adapter(HTTPAdapter):
    """Connections whose answers begin after a bounded number of bytes."""

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        super().init_poolmanager(*args, **kwargs)
        self.poolmanager.pool_classes_by_scheme = {"http": _Pool, "https": _SecurePool}


class Session(requests.Session):
    """A session for transfers; one per thread.

    Args:
        credentials: origin (see `origin`) → user and password for it. They are not part of URLs, which are shown and
            remembered.
    """

    def __init__(self, credentials: Mapping[str, tuple[str, str]] | None = None) -> None:
        super().__init__()
        self.credentials = dict(credentials or {})
        # Bodies as they are stored: lengths can be checked and downloads resumed.
        self.headers.update({"User-Agent": f"paddle2torch/{__version__}", "Accept-Encoding": "identity"})
        for scheme in ("http://", "https://"):
            self.mount(scheme, _Adapter())

    def get_redirect_target(self, resp: requests.Response) -> None:
        """None: a redirect is followed by who asked for it, and its body, which may be endless, is not read."""


def origin(url: str) -> str:
    """Scheme, host and port of a URL, without the user.

    Raises:
        ValueError: it is malformed.
    """
    parts = urlsplit(url)
    port = parts.port or {"http": 80, "https": 443}.get(parts.scheme)
    return f"{parts.scheme}://{parts.hostname}:{port}"


class Transfer:
    """One download into `TARGET.partial`, going on with what an earlier run left there."""

    def __init__(
        self,
        session: Session,
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
        self._pace = _Pace(policy)
        self._asking = url
        self.resumed = False
        """Whether bytes of an earlier connection are part of the file."""
        self.told_its_end = False
        """Whether the server said how long the file is, or where it ends; a connection that drops looks like an end."""

    def run(self) -> Path:
        """Bring the whole file; returns the partial file, which is complete then and synced to disk.

        Raises:
            MissingError: the server has nothing there (404, 410).
            UnknownHostError: nobody knows where the server is.
            UnreachableError: the server keeps failing, or is too slow.
            UnwantedError: what it sends is longer than it may be, or not as long as the zoo says.
            DownloadError: the server refuses.
            OutputError: the bytes cannot be written.
        """
        failures, furthest = 0, self._have()
        self._pace.begin()
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
        """Bytes that are here; a link, or a second name of another file, is not gone on with."""
        if not is_file(self.partial):
            return 0
        found = self.partial.lstat()
        return found.st_size if found.st_nlink == 1 else 0

    def _wait(self, failure: _PassingError, failures: int) -> None:
        wait = min(self.policy.backoff * 2 ** (failures - 1), self.policy.longest_wait) * random.uniform(0.5, 1)
        if failure.wait is not None:
            if failure.wait > min(self.policy.longest_wait, self._pace.left):
                long = f"{failure.wait:.0f} s" if failure.wait < _DAY else "more than a day"
                raise DownloadError(f"{self.url}: {failure}, and asks to come back in {long}; try again then")
            wait = failure.wait
        logger.warning("%s: %s; trying again in %.1f s", self.url, failure, wait)
        if self.stop.wait(wait):
            raise DownloadError(f"{self.url}: stopped")

    def _attempt(self) -> None:
        """One request, and the body that answers it."""
        state, have = self._resumable()
        headers = {"Range": f"bytes={have}-", "If-Range": str(state.validator)} if state else {}
        apart = _Apart()
        response: requests.Response | None = None
        try:
            response = self._asked(apart, lambda: self._open(headers))
            offset = self._offset(response, state, have)
            try:
                self._receive(apart, response, offset)
            except (OutputError, UnwantedError):
                self.discard()  # a full disk, say, should not be kept full by half a file
                raise
        finally:
            # Not here: what reads from a connection right now keeps others from closing it.
            apart.close(response.close if response is not None else lambda: None)

    def _resumable(self) -> tuple[_State | None, int]:
        """What to go on with: the state and length of the partial file; (None, 0) where it must start over."""
        have, state = self._have(), _read_state(self.state_file)
        return (state, have) if have and state and state.url == self.url and state.validator else (None, 0)

    def _asked(self, apart: _Apart, function: Callable[[], T]) -> T:
        """What the network answers, within the time that is left for it."""
        with self._network_errors():
            try:
                return apart(function, self._pace.left)
            except _LateError as error:
                raise UnreachableError(
                    f"{self.url}: too slow: less than {self.policy.slowest} bytes a second came for "
                    f"{self.policy.patience:g} s; gave up"
                ) from error

    def _open(self, headers: dict[str, str]) -> requests.Response:
        """Ask for the URL, following redirects, but never from https to http."""
        url = self.url
        timeout = (self.policy.connect_timeout, self.policy.read_timeout)
        for _ in range(_MAX_REDIRECTS + 1):
            self._asking = url
            response = self.session.get(
                url,
                headers=headers,
                stream=True,
                allow_redirects=False,
                timeout=timeout,
                auth=self.session.credentials.get(origin(url)),
            )
            if "Location" not in response.headers or response.status_code not in _REDIRECTS:
                return response
            response.close()
            url = self._redirected(url, response.headers["Location"])
        raise DownloadError(f"{self.url}: redirects more than {_MAX_REDIRECTS} times; check the URL")

    def _redirected(self, url: str, location: str) -> str:
        """Where a redirect leads."""
        try:
            target = urljoin(url, location)
            origin(target)
        except ValueError as error:
            words = shortened(without_users(location), _LONGEST_WORDS)
            raise DownloadError(f"{self.url}: redirects to {words}, which is no URL; check the mirror") from error
        if urlsplit(target).scheme not in ("https", urlsplit(url).scheme):
            raise DownloadError(
                f"{self.url}: refused: redirects from {without_users(url)} to "
                f"{shortened(without_users(target), _LONGEST_WORDS)}, where others could change the file"
            )
        return target

    def _offset(self, response: requests.Response, state: _State | None, have: int) -> int:
        """Where in the file the body begins, by the answer's status and headers."""
        status = response.status_code
        answer = f"the server answers {status} {shortened(response.reason or '', _LONGEST_WORDS)}".rstrip()
        if status in _MISSING:
            raise MissingError(f"{self.url}: the server has no such file ({status})")
        if status in _PASSING:
            raise _PassingError(answer, _retry_after(response))
        if status == 206 and state and self._continues(response, state, have):
            return have
        if status in (206, 416):
            self.discard()
            raise _PassingError(f"the server's answer ({status}) does not continue what is here; starting over")
        if status != 200:
            raise DownloadError(f"{self.url}: {answer}; check the URL")
        return 0

    def _continues(self, response: requests.Response, state: _State, have: int) -> bool:
        """Whether a 206 is the rest of the same file; there are servers that heed Range, but not If-Range."""
        start, total = _content_range(response)
        return (
            start == have
            and total in (None, state.total)
            and response.headers.get("ETag", state.etag) == state.etag
            and not _is_encoded(response)
        )

    def _total(self, response: requests.Response, offset: int) -> int | None:
        """The file's length, where the server tells it."""
        if _is_encoded(response):
            return None
        if offset and (whole := _content_range(response)[1]) is not None:
            return whole  # the body may be less than what is missing
        length = _number(response.headers.get("Content-Length"))
        return None if length is None else offset + length

    def _receive(self, apart: _Apart, response: requests.Response, offset: int) -> None:
        """Append the body to the partial file, or begin that anew where the offset is 0."""
        total = self._total(response, offset)
        have = offset
        most = self.policy.largest if self.size is None else min(self.size, self.policy.largest)
        with writing(self.partial):
            self._check_announced(response, total)
            with self._partial(offset) as stream:
                if not offset:
                    self._keep_state(response, total)
                self.resumed = offset > 0
                self.bar.begin(offset, total)
                for chunk in self._chunks(apart, response):
                    stream.write(chunk)
                    have += len(chunk)
                    self.bar.advance(len(chunk))
                    if have > most:
                        says = "no model is as large" if self.size is None else "the zoo says that these are all"
                        raise UnwantedError(f"{self.url}: more than {most} bytes; {says}")
                stream.flush()
                os.fsync(stream.fileno())
        if total is not None and have != total:
            raise _PassingError(f"{have} of {total} bytes came")
        chunked = response.headers.get("Transfer-Encoding", "").lower() == "chunked"
        self.told_its_end = chunked or _number(response.headers.get("Content-Length")) is not None

    def _partial(self, offset: int) -> BinaryIO:
        """The partial file, to go on with, or a new one, whatever else has its name."""
        if offset:
            return open(self.partial, "ab", opener=lambda path, flags: os.open(path, flags | NO_LINK, 0o666))
        self.partial.unlink(missing_ok=True)
        return self.partial.open("xb")

    def _chunks(self, apart: _Apart, response: requests.Response) -> Iterator[bytes]:
        """The body as it comes."""
        body = response.iter_content(_CHUNK)
        while (chunk := self._asked(apart, lambda: next(body, None))) is not None:
            if self.stop.is_set():
                raise DownloadError(f"{self.url}: stopped")
            self._pace.count(len(chunk))
            yield chunk

    def _check_announced(self, response: requests.Response, total: int | None) -> None:
        if total is None:
            if len(response.headers.get("Content-Length", "")) > _MOST_DIGITS:
                raise UnwantedError(f"{self.url}: the server announces a length that no file has")
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
            etag, date = response.headers.get("ETag"), response.headers.get("Last-Modified")
            state = replace(
                state, etag=etag if _is_validator(etag) else None, last_modified=date if _is_validator(date) else None
            )
        with atomic_write(self.state_file) as stream:
            stream.write(json.dumps(asdict(state)).encode())

    @contextmanager
    def _network_errors(self) -> Iterator[None]:
        """Tell the failures that may pass from those that will not; whatever the libraries raise is one of them."""
        try:
            yield
        except (DownloadError, OutputError):
            raise
        except Exception as error:
            if _UNKNOWN_HOST in str(error):
                raise UnknownHostError(f"{self.url}: {_cause(error)}", urlsplit(self._asking).hostname) from error
            if "CERTIFICATE_VERIFY_FAILED" in str(error):
                raise DownloadError(f"{self.url}: {_cause(error)}; nothing was downloaded") from error
            if isinstance(error, requests.RequestException) and isinstance(error, ValueError):
                # What is asked for is malformed, not the answer.
                raise DownloadError(f"{self.url}: cannot be fetched ({_cause(error)}); check the URL") from error
            raise _PassingError(_cause(error)) from error


def _read_state(path: Path) -> _State | None:
    """What is known of a partial file; None where it was not written here."""
    content = read_own(path)
    url, etag, date, total = (content.get(name) for name in ("url", "etag", "last_modified", "total"))
    if not (is_url(url) and (etag is None or _is_validator(etag)) and (date is None or _is_validator(date))):
        return None
    if total is not None and (not isinstance(total, int) or isinstance(total, bool) or total < 0):
        return None
    return _State(url, etag, date, total)


def _is_validator(value: object) -> TypeGuard[str]:
    """Whether a header's value may be sent back to a server."""
    return isinstance(value, str) and value.isascii() and value.isprintable() and len(value) <= _LONGEST_VALIDATOR


def _is_encoded(response: requests.Response) -> bool:
    return response.headers.get("Content-Encoding", "identity").lower() != "identity"


def _number(text: str | None) -> int | None:
    """A number of bytes in a header; None where there is none that can be meant."""
    return int(text) if text and text.isascii() and text.isdecimal() and len(text) <= _MOST_DIGITS else None


def _content_range(response: requests.Response) -> tuple[int | None, int | None]:
    """Where the body of a 206 begins in the file, and how long that is; None for what is not told."""
    sent = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", response.headers.get("Content-Range", ""), re.ASCII)
    return (None, None) if sent is None else (_number(sent[1]), _number(sent[2]))


def _retry_after(response: requests.Response) -> float | None:
    """Seconds that the server asks to wait: it says a number or a date."""
    value = response.headers.get("Retry-After", "")
    if value.isascii() and value.isdecimal():
        return float(value)
    try:
        return max(0.0, email.utils.parsedate_to_datetime(value).timestamp() - time.time())
    except (ValueError, TypeError, OverflowError):
        return None


def _cause(error: Exception) -> str:
    """A network error in the words of people; its own are those of three libraries."""
    text = str(error)
    if words := next((words for sign, words in _CAUSES.items() if sign in text), None):
        return words
    words = shortened(without_users(text) or type(error).__name__, _LONGEST_WORDS)
    return words if isinstance(error, requests.RequestException) else f"the answer is malformed: {words}"
