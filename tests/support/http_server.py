"""A real HTTP server on this machine that misbehaves on request."""

from __future__ import annotations

import gzip
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import trustme

PIECE = 16 * 1024


@cache
def authority() -> trustme.CA:
    """Who vouches for this machine's name in tests of https; made anew for each run, and trusted by nobody else."""
    return trustme.CA()


@dataclass
class Page:
    """What a path holds, and how the server errs about it.

    Attributes:
        body: the content.
        etag: its ETag; None to send none.
        last_modified: its Last-Modified; None to send none.
        heeds_range: whether Range headers are heeded.
        heeds_if_range: whether If-Range is compared before Range is heeded.
        gzipped: whether the body is sent with gzip content encoding.
        pause: seconds before each piece of the body, of 16 KiB.
        faults: what goes wrong with the first request, the second, …; requests after them are answered well.
    """

    body: bytes
    etag: str | None = '"first"'
    last_modified: str | None = None
    heeds_range: bool = True
    heeds_if_range: bool = True
    gzipped: bool = False
    pause: float = 0.0
    faults: list[Callable[[Answer], None]] = field(default_factory=list)


@dataclass
class Request:
    """A request that came, and how much of a body it got."""

    path: str
    headers: dict[str, str]
    status: int = 0
    sent: int = 0


class Answer(BaseHTTPRequestHandler):
    """One answer; faults change what it is about to send."""

    server: Server

    def do_GET(self) -> None:
        """Answer as the page and its next fault say."""
        self.request_seen = Request(self.path, dict(self.headers))
        self.server.requests.append(self.request_seen)
        self.page = self.server.pages.get(self.path)
        if self.page is None:
            self.answer(404)
        elif self.page.faults:
            self.page.faults.pop(0)(self)
        else:
            self.serve()

    def answer(self, status: int, headers: dict[str, str] | None = None) -> None:
        """Answer without a body."""
        self.request_seen.status = status
        self.send_response(status)
        for name, value in {"Content-Length": "0", **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()

    def serve(self, end: int | None = None, length: int | None = None) -> None:
        """Send the page: only up to `end` of the body where given, and with another Content-Length than the true one."""
        page = self.page
        assert page is not None
        body = gzip.compress(page.body) if page.gzipped else page.body
        start = self.range_start(page)
        self.request_seen.status = 206 if start else 200
        self.send_response(self.request_seen.status)
        self.send_header("Content-Length", str(len(body) - start if length is None else length))
        for name, value in {
            "ETag": page.etag,
            "Last-Modified": page.last_modified,
            "Content-Encoding": "gzip" if page.gzipped else None,
            "Content-Range": f"bytes {start}-{len(body) - 1}/{len(body)}" if start else None,
        }.items():
            if value is not None:
                self.send_header(name, value)
        self.end_headers()
        part = body[start:end]
        for at in range(0, len(part), PIECE):
            time.sleep(page.pause)
            piece = part[at : at + PIECE]
            self.request_seen.sent += len(piece)
            self.wfile.write(piece)
        self.wfile.flush()

    def range_start(self, page: Page) -> int:
        """Where to begin: the Range header's start, unless it is not to be heeded."""
        asked = self.headers.get("Range")
        current = self.headers.get("If-Range") in (page.etag, page.last_modified)
        if not asked or not page.heeds_range or (page.heeds_if_range and not current):
            return 0
        return int(asked.removeprefix("bytes=").removesuffix("-"))

    def log_message(self, format: str, *arguments: object) -> None:
        """Stay quiet."""


class Server(ThreadingHTTPServer):
    """The server: its pages by path, and the requests it has seen."""

    daemon_threads = True

    def __init__(self, secure: bool = False) -> None:
        super().__init__(("127.0.0.1", 0), Answer)
        self.pages: dict[str, Page] = {}
        self.requests: list[Request] = []
        self.url = f"{'https' if secure else 'http'}://127.0.0.1:{self.server_port}"
        if secure:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            authority().issue_cert("127.0.0.1").configure_cert(context)
            self.socket = context.wrap_socket(self.socket, server_side=True)

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that hangs up is part of the play."""


@contextmanager
def running(secure: bool = False) -> Iterator[Server]:
    """A server on a free port, gone after the block."""
    with Server(secure) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


# ---- faults ------------------------------------------------------------------------------------------------------


def drops_after(count: int) -> Callable[[Answer], None]:
    """Announce the whole body, and hang up when that much of it (counted from its beginning) is sent."""
    return lambda answer: answer.serve(end=count)


def stalls_after(count: int, event: threading.Event) -> Callable[[Answer], None]:
    """Send that much of the body, and nothing more until the event is set."""

    def fault(answer: Answer) -> None:
        answer.serve(end=count)
        event.wait(30)

    return fault


def answers(status: int, **headers: str) -> Callable[[Answer], None]:
    """Answer with a status and no body; underscores in header names stand for dashes."""
    return lambda answer: answer.answer(status, {name.replace("_", "-"): value for name, value in headers.items()})


def announces(length: int) -> Callable[[Answer], None]:
    """Send the whole body with a wrong Content-Length."""
    return lambda answer: answer.serve(length=length)


def changes_to(body: bytes, etag: str) -> Callable[[Answer], None]:
    """Put another file in the page's place, then answer."""

    def fault(answer: Answer) -> None:
        assert answer.page is not None
        answer.page.body, answer.page.etag = body, etag
        answer.serve()

    return fault
