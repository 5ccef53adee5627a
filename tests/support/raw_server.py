"""A server that answers every connection with bytes as they are given, or by a function: what no HTTP library sends."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

Answer = bytes | Callable[[socket.socket], None]


class RawServer:
    """Answers each connection in turn, the last answer again and again.

    Attributes:
        url: where it is.
        requests: the heads of the requests that came.
    """

    def __init__(self, answers: tuple[Answer, ...]) -> None:
        self._answers = list(answers)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self.requests: list[str] = []
        self.over = threading.Event()
        """Set when the test is over, for answers that go on until then."""
        threading.Thread(target=self._listen, daemon=True).start()

    def close(self) -> None:
        self.over.set()
        self._listener.close()

    def _listen(self) -> None:
        with suppress(OSError):  # closed
            while True:
                connection, _ = self._listener.accept()
                answer = self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]
                threading.Thread(target=self._talk, args=(connection, answer), daemon=True).start()

    def _talk(self, connection: socket.socket, answer: Answer) -> None:
        with suppress(OSError), connection:  # a client that hangs up is part of the play
            head = b""
            while b"\r\n\r\n" not in head and (piece := connection.recv(4096)):
                head += piece
            self.requests.append(head.decode("latin-1"))
            if callable(answer):
                answer(connection)
            else:
                connection.sendall(answer)


@contextmanager
def answering(*answers: Answer) -> Iterator[RawServer]:
    """A server on a free port, gone after the block."""
    server = RawServer(answers)
    try:
        yield server
    finally:
        server.close()


def http(body: bytes = b"", status: str = "200 OK", *, length: bool = True, **headers: str) -> bytes:
    """A whole answer; underscores in header names stand for dashes."""
    lines = [f"HTTP/1.1 {status}", "Connection: close"]
    lines += [f"Content-Length: {len(body)}"] if length else []
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + body
