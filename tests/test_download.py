"""Downloads over a network that fails, lies and breaks, against a real server on this machine."""

from __future__ import annotations

import hashlib
import io
import json
import logging
import resource
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from email.utils import formatdate
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from paddle2torch.cli import main
from paddle2torch.converter.support.blob import FileState
from paddle2torch.converter.support.errors import DownloadError, OutputError, SourceError
from paddle2torch.converter.zoo import known
from paddle2torch.converter.zoo.cache import LOCK, PARTIAL, RECORD, Cache, default_folder
from paddle2torch.converter.zoo.catalog import Artifact, Dictionary
from paddle2torch.converter.zoo.download import Fetched, Fetcher
from paddle2torch.converter.zoo.known import KnownFiles, Seen
from paddle2torch.converter.zoo.transfer import Policy
from support import http_server
from support.http_server import Page, Server
from support.tarballs import tarball

BODY = tarball(200_000, seed=0)
OTHER = tarball(150_000, seed=1)
QUICK = Policy(connect_timeout=5, read_timeout=5, attempts=3, backoff=0.001, longest_wait=0.01)
TAR = "/models/x_infer.tar"


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@pytest.fixture
def server() -> Iterator[Server]:
    with http_server.running() as server:
        server.pages[TAR] = Page(BODY)
        yield server


@pytest.fixture
def fetcher(server: Server, tmp_path: Path) -> Fetcher:
    return new_fetcher(server, tmp_path)


def new_fetcher(server: Server, cache: Path, policy: Policy = QUICK, **options: bool) -> Fetcher:
    return Fetcher(cache_dir=cache / "cache", mirror=server.url, policy=policy, **options)


def artifact(path: str = TAR, *alternatives: str, sha256: str | None = None, size: int | None = None) -> Artifact:
    host = "https://zoo.example"
    return Artifact("inference", host + path, tuple(host + other for other in alternatives), sha256, size)


def files(folder: Path) -> list[str]:
    """What is in the cache."""
    return sorted(path.name for path in folder.rglob("*") if path.is_file())


COMPLETE = ["x_infer.tar", "x_infer.tar.record.json"]


# ---- the plain way -----------------------------------------------------------------------------------------------


def test_a_file_is_downloaded_once_and_kept(server: Server, fetcher: Fetcher) -> None:
    first = fetcher.fetch(artifact(sha256=sha256(BODY), size=len(BODY)))
    assert first.path.read_bytes() == BODY
    assert (first.url, first.sha256, first.size) == ("https://zoo.example" + TAR, sha256(BODY), len(BODY))
    assert fetcher.fetch(artifact()) == first
    assert len(server.requests) == 1
    assert files(fetcher.cache.folder) == COMPLETE


def test_offline_uses_the_cache_and_reaches_no_server(server: Server, fetcher: Fetcher, tmp_path: Path) -> None:
    offline = new_fetcher(server, tmp_path, offline=True)
    with pytest.raises(DownloadError, match=r"--offline was given; ways on: a mirror .*embedded_rec"):
        offline.fetch(artifact())
    assert server.requests == []
    fetched = fetcher.fetch(artifact())
    assert offline.fetch(artifact()) == fetched


def test_a_damaged_file_in_the_cache_is_downloaded_again(server: Server, fetcher: Fetcher) -> None:
    path = fetcher.fetch(artifact()).path
    path.write_bytes(BODY[:-1] + b"?")
    assert fetcher.fetch(artifact()).path.read_bytes() == BODY
    assert len(server.requests) == 2


def test_a_cached_file_that_the_zoo_no_longer_means_is_downloaded_again(server: Server, fetcher: Fetcher) -> None:
    fetcher.fetch(artifact())
    server.pages[TAR] = Page(OTHER)
    assert fetcher.fetch(artifact(sha256=sha256(OTHER))).path.read_bytes() == OTHER


# ---- broken connections ------------------------------------------------------------------------------------------


def resumed_at(server: Server) -> list[str | None]:
    return [request.headers.get("Range") for request in server.requests]


def test_a_dropped_connection_is_resumed(server: Server, fetcher: Fetcher) -> None:
    server.pages[TAR].faults = [http_server.drops_after(100_000)]
    assert fetcher.fetch(artifact()).path.read_bytes() == BODY
    first, second = server.requests
    start = int(second.headers["Range"].removeprefix("bytes=").removesuffix("-"))
    assert 100_000 - 16 * 1024 < start <= 100_000
    assert second.headers["If-Range"] == '"first"'
    assert (first.status, second.status) == (200, 206)
    assert second.sent == len(BODY) - start


def test_last_modified_serves_where_there_is_no_strong_etag(server: Server, fetcher: Fetcher) -> None:
    date = formatdate(0, usegmt=True)
    server.pages[TAR] = Page(BODY, etag='W/"weak"', last_modified=date, faults=[http_server.drops_after(100_000)])
    assert fetcher.fetch(artifact()).path.read_bytes() == BODY
    assert server.requests[1].headers["If-Range"] == date
    assert server.requests[1].status == 206


def test_without_a_validator_the_download_starts_over(server: Server, fetcher: Fetcher) -> None:
    server.pages[TAR] = Page(BODY, etag=None, faults=[http_server.drops_after(100_000)])
    assert fetcher.fetch(artifact()).path.read_bytes() == BODY
    assert resumed_at(server) == [None, None]


def test_a_server_that_ignores_range_sends_it_all_again(server: Server, fetcher: Fetcher) -> None:
    server.pages[TAR] = Page(BODY, heeds_range=False, faults=[http_server.drops_after(100_000)])
    assert fetcher.fetch(artifact()).path.read_bytes() == BODY
    assert [request.status for request in server.requests] == [200, 200]


def test_a_file_that_changed_between_tries_is_downloaded_anew(server: Server, fetcher: Fetcher) -> None:
    server.pages[TAR].faults = [http_server.drops_after(100_000), http_server.changes_to(OTHER, '"second"')]
    assert fetcher.fetch(artifact()).path.read_bytes() == OTHER
    assert server.requests[1].status == 200


@pytest.mark.parametrize(
    ("body", "etag"),
    [(tarball(200_000, seed=2), '"second"'), (OTHER, '"first"')],
    ids=["another etag", "another length"],
)
def test_a_changed_file_is_noticed_where_if_range_is_ignored(
    server: Server, fetcher: Fetcher, body: bytes, etag: str
) -> None:
    faults = [http_server.drops_after(100_000), http_server.changes_to(body, etag)]
    server.pages[TAR] = Page(BODY, heeds_if_range=False, faults=faults)
    assert fetcher.fetch(artifact()).path.read_bytes() == body
    assert [request.status for request in server.requests] == [200, 206, 200]


def test_a_rest_that_is_encoded_is_not_taken(server: Server, fetcher: Fetcher) -> None:
    def encodes(answer: http_server.Answer) -> None:
        start = int(answer.headers["Range"].removeprefix("bytes=").removesuffix("-"))
        place = f"bytes {start}-{len(BODY) - 1}/{len(BODY)}"
        answer.answer(206, {"Content-Encoding": "gzip", "Content-Range": place, "ETag": '"first"'})

    server.pages[TAR].faults = [http_server.drops_after(100_000), encodes]
    assert fetcher.fetch(artifact()).path.read_bytes() == BODY
    assert [request.status for request in server.requests] == [200, 206, 200]


def test_parts_that_do_not_fit_together_are_thrown_away(server: Server, fetcher: Fetcher) -> None:
    changed = OTHER + bytes(len(BODY) - len(OTHER))  # same length, and the server claims it is the same file
    server.pages[TAR].faults = [http_server.drops_after(100_000), http_server.changes_to(changed, '"first"')]
    assert fetcher.fetch(artifact(sha256=sha256(changed))).path.read_bytes() == changed
    assert [request.status for request in server.requests] == [200, 206, 200]


def test_progress_resets_the_count_of_failures(server: Server, fetcher: Fetcher) -> None:
    server.pages[TAR].faults = [http_server.drops_after(20_000 * step) for step in range(1, 10)]
    assert fetcher.fetch(artifact()).path.read_bytes() == BODY
    assert len(server.requests) == 10 > QUICK.attempts


def test_without_progress_it_gives_up(server: Server, fetcher: Fetcher) -> None:
    server.pages[TAR].faults = [http_server.drops_after(0)] * 10
    with pytest.raises(DownloadError, match=r"x_infer.tar: the connection dropped; gave up after 3 tries"):
        fetcher.fetch(artifact())
    assert resumed_at(server) == [None, None, None]


def test_a_slow_server_is_given_up_and_resumed(server: Server, tmp_path: Path) -> None:
    impatient = Policy(read_timeout=0.1, attempts=2, backoff=0.001)
    done = threading.Event()
    server.pages[TAR].faults = [http_server.stalls_after(100_000, done)]
    try:
        fetched = new_fetcher(server, tmp_path, impatient).fetch(artifact())
    finally:
        done.set()
    assert fetched.path.read_bytes() == BODY
    assert server.requests[1].status == 206


def test_a_slow_server_is_waited_for_while_bytes_come(server: Server, tmp_path: Path) -> None:
    server.pages[TAR] = Page(BODY, pause=0.05)
    impatient = Policy(read_timeout=0.3, attempts=1)
    assert new_fetcher(server, tmp_path, impatient).fetch(artifact()).path.read_bytes() == BODY
    assert len(server.requests) == 1


def test_a_killed_download_leaves_no_file_and_is_resumed(server: Server, fetcher: Fetcher) -> None:
    done = threading.Event()
    server.pages[TAR].faults = [http_server.stalls_after(100_000, done)]
    process = in_another_process(server, fetcher.cache.folder, TAR)
    target = fetcher.cache.path(server.url + TAR)
    wait_for(lambda: partial_size(target) > 50_000)
    process.kill()
    process.wait()
    done.set()
    assert not target.exists()

    assert fetcher.fetch(artifact()).path.read_bytes() == BODY
    assert server.requests[1].status == 206
    assert files(fetcher.cache.folder) == COMPLETE


def test_leftovers_of_a_killed_process_are_swept_away(server: Server, fetcher: Fetcher) -> None:
    target = fetcher.cache.path(server.url + TAR)
    target.parent.mkdir(parents=True)
    (target.parent / f".{target.name}{RECORD}.k1ll3d__.part" / "new").mkdir(parents=True)
    (target.parent / f"{target.name}{PARTIAL}").write_bytes(b"of a file about which nothing is known")
    assert fetcher.fetch(artifact()).path.read_bytes() == BODY
    assert files(fetcher.cache.folder) == COMPLETE


# ---- answers -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [429, 500, 502, 503])
def test_passing_troubles_are_waited_out(server: Server, fetcher: Fetcher, status: int) -> None:
    server.pages[TAR].faults = [http_server.answers(status), http_server.answers(status, Retry_After="0")]
    assert fetcher.fetch(artifact()).path.read_bytes() == BODY
    assert [request.status for request in server.requests] == [status, status, 200]


def test_retry_after_is_heeded(server: Server, tmp_path: Path) -> None:
    patient = new_fetcher(server, tmp_path, Policy(backoff=0.001, longest_wait=5))
    server.pages[TAR].faults = [http_server.answers(429, Retry_After="1")]
    started = time.monotonic()
    patient.fetch(artifact())
    assert 1 <= time.monotonic() - started < 4


class NoWait(threading.Event):
    """Notes for how long it was to be waited for."""

    def __init__(self) -> None:
        super().__init__()
        self.waits: list[float] = []

    def wait(self, timeout: float | None = None) -> bool:
        assert timeout is not None
        self.waits.append(timeout)
        return False


def test_waits_grow_and_vary(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    server.pages[TAR].faults = [http_server.answers(503)] * 7
    fetcher, stop = new_fetcher(server, tmp_path, Policy(attempts=8, backoff=1, longest_wait=20)), NoWait()
    monkeypatch.setattr(fetcher, "_stop", stop)
    assert fetcher.fetch(artifact()).path.read_bytes() == BODY
    waits, longest = stop.waits, [1, 2, 4, 8, 16, 20, 20]
    assert all(most / 2 <= wait <= most for wait, most in zip(waits, longest, strict=True))
    assert any(wait not in (most / 2, most) for wait, most in zip(waits, longest, strict=True))


@pytest.mark.parametrize(
    "spell", [str, lambda wait: formatdate(time.time() + wait, usegmt=True)], ids=["seconds", "a date"]
)
def test_a_server_that_asks_for_too_long_a_wait_is_given_up(
    server: Server, fetcher: Fetcher, spell: Callable[[int], str]
) -> None:
    server.pages[TAR].faults = [http_server.answers(429, Retry_After=spell(3600))]
    with pytest.raises(DownloadError, match=r"answers 429 .* asks to come back in 3[56]\d\d s"):
        fetcher.fetch(artifact())


def test_an_alternative_is_tried_after_404(server: Server, fetcher: Fetcher) -> None:
    fetched = fetcher.fetch(artifact("/models/misspelt.tar", "/models/gone.tar", TAR))
    assert fetched.url == "https://zoo.example" + TAR
    assert [request.path for request in server.requests] == ["/models/misspelt.tar", "/models/gone.tar", TAR]
    assert fetcher.fetch(artifact("/models/misspelt.tar", TAR)) == fetched
    assert len(server.requests) == 3


@pytest.mark.parametrize("size", [len(BODY) - 1, len(BODY), None])
def test_a_size_that_no_known_release_has_is_told_and_the_file_taken(
    size: int | None, fetcher: Fetcher, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    seen = KnownFiles((Seen("x", "x_infer.tar", sha256="0" * 64, size=size), Seen("x", "inference.pdmodel", size=1)))
    monkeypatch.setattr(known, "known_files", lambda: seen)
    assert fetcher.fetch(artifact()).path.read_bytes() == BODY
    told = f"has {len(BODY):,} bytes, and the releases of it that are known have {len(BODY) - 1:,}: replaced, or packed"
    assert (told in caplog.text) == (size == len(BODY) - 1)


def test_a_release_that_others_have_wins_over_what_was_seen_first(
    server: Server, fetcher: Fetcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    fetcher.fetch(artifact())
    fetcher.cache.clean()
    server.pages[TAR] = Page(OTHER)
    with pytest.raises(DownloadError, match="changed since it was first seen"):
        fetcher.fetch(artifact())
    monkeypatch.setattr(known, "known_files", lambda: KnownFiles((Seen("x", "x_infer.tar", sha256=sha256(OTHER)),)))
    assert fetcher.fetch(artifact()).sha256 == sha256(OTHER)


def test_where_nothing_has_the_file_all_urls_are_told(server: Server, fetcher: Fetcher) -> None:
    with pytest.raises(DownloadError, match=r"one.tar: the server has no such file \(404\); .*two.tar: .*ways on"):
        fetcher.fetch(artifact("/one.tar", "/two.tar"))


def test_other_refusals_are_final(server: Server, fetcher: Fetcher) -> None:
    server.pages[TAR].faults = [http_server.answers(403)]
    with pytest.raises(DownloadError, match="the server answers 403 Forbidden; check the URL"):
        fetcher.fetch(artifact("/models/x_infer.tar", "/other.tar"))
    assert len(server.requests) == 1


def test_redirects_are_followed(server: Server, fetcher: Fetcher) -> None:
    server.pages["/moved.tar"] = Page(b"", faults=[http_server.answers(302, Location=TAR)])
    assert fetcher.fetch(artifact("/moved.tar")).path.read_bytes() == BODY


def test_endless_redirects_are_given_up(server: Server, fetcher: Fetcher) -> None:
    server.pages["/loop"] = Page(b"", faults=[http_server.answers(302, Location="/loop")] * 20)
    with pytest.raises(DownloadError, match="redirects more than 10 times"):
        fetcher.fetch(artifact("/loop"))


def test_a_redirect_from_https_to_http_is_refused(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = tmp_path / "authority.pem"
    http_server.authority().cert_pem.write_to_path(str(bundle))
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(bundle))
    with http_server.running(secure=True) as secure:
        secure.pages["/good"] = Page(b"", faults=[http_server.answers(302, Location=TAR)])
        secure.pages["/bad"] = Page(b"", faults=[http_server.answers(302, Location=server.url + TAR)])
        secure.pages[TAR] = Page(BODY)
        fetcher = new_fetcher(secure, tmp_path)
        assert fetcher.fetch(artifact("/good")).path.read_bytes() == BODY
        with pytest.raises(DownloadError, match="/bad: refused: redirects from https://.* to http://"):
            fetcher.fetch(artifact("/bad"))
    assert server.requests == []


def test_a_certificate_that_is_not_trusted_is_final(tmp_path: Path) -> None:
    with http_server.running(secure=True) as secure:
        with pytest.raises(DownloadError, match="the server's certificate is not trusted; nothing was downloaded"):
            new_fetcher(secure, tmp_path).fetch(artifact())
        assert secure.requests == []


def test_a_server_that_is_not_there_is_named_with_the_ways_on(tmp_path: Path) -> None:
    with http_server.running() as gone:
        fetcher = new_fetcher(gone, tmp_path)
    with pytest.raises(DownloadError, match=r"x_infer.tar: the server refuses connections; .*ways on: a mirror"):
        fetcher.fetch(artifact())


# ---- content -----------------------------------------------------------------------------------------------------


def test_a_wrong_hash_is_refused(server: Server, fetcher: Fetcher) -> None:
    with pytest.raises(DownloadError, match=f"its sha256 is {sha256(BODY)}, the zoo says {'0' * 64}"):
        fetcher.fetch(artifact(sha256="0" * 64))
    assert files(fetcher.cache.folder) == []


def test_a_wrong_length_is_refused_before_the_body(server: Server, fetcher: Fetcher) -> None:
    with pytest.raises(DownloadError, match="the server announces 200000 bytes, the zoo says 99"):
        fetcher.fetch(artifact(size=99))
    assert files(fetcher.cache.folder) == []


def test_an_announced_length_that_is_too_long_is_a_dropped_connection(server: Server, fetcher: Fetcher) -> None:
    server.pages[TAR].faults = [http_server.announces(len(BODY) + 1)]
    assert fetcher.fetch(artifact()).path.read_bytes() == BODY
    assert len(server.requests) > 1


def test_an_announced_length_that_is_too_short_is_noticed_by_the_hash(server: Server, fetcher: Fetcher) -> None:
    server.pages[TAR].faults = [http_server.announces(len(BODY) - 1)]
    with pytest.raises(DownloadError, match="the zoo says"):
        fetcher.fetch(artifact(sha256=sha256(BODY)))
    assert files(fetcher.cache.folder) == []


def test_gzip_content_encoding_is_undone(server: Server, fetcher: Fetcher) -> None:
    body = b"compresses well " * 10_000
    server.pages[TAR] = Page(body, gzipped=True)
    assert fetcher.fetch(artifact(sha256=sha256(body), size=len(body))).path.read_bytes() == body
    assert server.requests[0].headers["Accept-Encoding"] == "identity"


def test_a_dropped_gzip_body_starts_over(server: Server, fetcher: Fetcher) -> None:
    server.pages[TAR] = Page(BODY, gzipped=True, faults=[http_server.drops_after(100_000)])
    assert fetcher.fetch(artifact()).path.read_bytes() == BODY
    assert resumed_at(server) == [None, None]


def test_a_body_without_end_is_stopped(server: Server, tmp_path: Path) -> None:
    server.pages[TAR] = Page(bytes(3_000_000), gzipped=True)
    small = Policy(attempts=1, largest=1_000_000)
    with pytest.raises(DownloadError, match="more than 1000000 bytes; no model is as large"):
        new_fetcher(server, tmp_path, small).fetch(artifact())
    with pytest.raises(DownloadError, match="announces 200000 bytes; no model is as large"):
        server.pages[TAR] = Page(BODY)
        new_fetcher(server, tmp_path, Policy(largest=1000)).fetch(artifact())


# ---- first seen --------------------------------------------------------------------------------------------------


def test_a_file_that_changed_since_it_was_first_seen_is_refused(
    server: Server, fetcher: Fetcher, tmp_path: Path
) -> None:
    fetcher.fetch(artifact())
    fetcher.cache.clean()
    server.pages[TAR] = Page(OTHER)
    both = f"sha256 was {sha256(BODY)}, now is {sha256(OTHER)}; .*--accept-changed"
    with pytest.raises(DownloadError, match=both):
        fetcher.fetch(artifact())
    assert files(fetcher.cache.folder) == [COMPLETE[1]]

    accepting = new_fetcher(server, tmp_path, accept_changed=True)
    assert accepting.fetch(artifact()).path.read_bytes() == OTHER
    assert fetcher.fetch(artifact()).sha256 == sha256(OTHER)


def test_the_same_file_comes_again_without_a_word(server: Server, fetcher: Fetcher) -> None:
    first = fetcher.fetch(artifact())
    fetcher.cache.clean()
    assert fetcher.fetch(artifact()) == first


# ---- several -----------------------------------------------------------------------------------------------------


def test_several_files_come_in_the_order_asked_for(server: Server, fetcher: Fetcher) -> None:
    paths = [f"/models/{number}.tar" for number in range(8)]
    for path in paths:
        server.pages[path] = Page(tarball(4096, member=f"{path[1:]}.pdparams"))
    fetched = fetcher.fetch_all([artifact(path) for path in paths], jobs=3)
    assert [file.path.read_bytes() for file in fetched] == [server.pages[path].body for path in paths]


def test_several_files_come_at_the_same_time(server: Server, fetcher: Fetcher) -> None:
    together = threading.Barrier(3, timeout=10)

    def meets_the_others(answer: http_server.Answer) -> None:
        together.wait()
        answer.serve()

    paths = [f"/models/{number}.tar" for number in range(3)]
    for path in paths:
        server.pages[path] = Page(BODY, faults=[meets_the_others])
    assert len(fetcher.fetch_all([artifact(path) for path in paths], jobs=3)) == 3


def test_one_that_fails_does_not_keep_the_others(server: Server, fetcher: Fetcher) -> None:
    with pytest.raises(DownloadError, match=r"^http://.*/one.tar: the server has no such file"):
        fetcher.fetch_all([artifact("/one.tar"), artifact()])
    assert COMPLETE[0] in files(fetcher.cache.folder)
    with pytest.raises(DownloadError, match=r"^2 of 3 files could not be fetched:\n  .*one.tar.*\n  .*two.tar"):
        fetcher.fetch_all([artifact("/one.tar"), artifact(), artifact("/two.tar")])


def test_our_own_mistakes_are_not_swallowed(fetcher: Fetcher) -> None:
    with pytest.raises(AttributeError):
        fetcher.fetch_all([artifact(), None])  # type: ignore[list-item]


def test_the_same_file_twice_is_downloaded_once(server: Server, fetcher: Fetcher) -> None:
    first, second = fetcher.fetch_all([artifact(), artifact()])
    assert first == second
    assert len(server.requests) == 1


FETCH = """
import sys
from pathlib import Path
from paddle2torch.converter.zoo.download import Fetcher
from paddle2torch.converter.zoo.catalog import Artifact
cache, mirror, *paths = sys.argv[1:]
artifacts = [Artifact("inference", "https://zoo.example" + path) for path in paths]
Fetcher(cache_dir=Path(cache), mirror=mirror).fetch_all(artifacts)
"""


def in_another_process(server: Server, cache: Path, *paths: str) -> subprocess.Popen[bytes]:
    """A process that fetches the paths."""
    command = [sys.executable, "-c", FETCH, str(cache), server.url, *paths]
    return subprocess.Popen(command, stderr=subprocess.PIPE)


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def partial_size(target: Path) -> int:
    """Bytes that have come for a file so far."""
    partial = target.with_name(target.name + PARTIAL)
    return partial.stat().st_size if partial.exists() else 0


def test_processes_that_want_one_file_share_one_download(server: Server, fetcher: Fetcher) -> None:
    go = threading.Event()

    def waits(answer: http_server.Answer) -> None:
        go.wait(30)
        answer.serve()

    server.pages[TAR].faults = [waits]
    processes = [in_another_process(server, fetcher.cache.folder, TAR) for _ in range(2)]
    target = fetcher.cache.path(server.url + TAR)
    wait_for(lambda: bool(server.requests))
    time.sleep(0.3)  # for the other to come to the lock
    assert not target.exists()
    go.set()
    assert [process.wait(30) for process in processes] == [0, 0]
    assert len(server.requests) == 1
    assert target.read_bytes() == BODY
    for process in processes:
        process.stderr.close()  # type: ignore[union-attr]


def test_a_waiting_process_takes_over_from_one_that_is_killed(server: Server, fetcher: Fetcher) -> None:
    done = threading.Event()
    server.pages[TAR].faults = [http_server.stalls_after(100_000, done)]
    target = fetcher.cache.path(server.url + TAR)
    first = in_another_process(server, fetcher.cache.folder, TAR)
    wait_for(lambda: partial_size(target) > 50_000)
    second = in_another_process(server, fetcher.cache.folder, TAR)
    assert second.stderr is not None
    assert b"another process is downloading it; waiting" in second.stderr.readline()
    first.kill()
    assert second.wait(30) == 0
    done.set()
    assert target.read_bytes() == BODY
    assert [request.status for request in server.requests] == [200, 206]
    assert files(fetcher.cache.folder) == COMPLETE
    for process in (first, second):
        process.communicate()


def test_ctrl_c_ends_several_downloads_at_once(server: Server, fetcher: Fetcher) -> None:
    done = threading.Event()
    paths = [f"/models/{number}.tar" for number in range(2)]
    for path in paths:
        server.pages[path] = Page(BODY, faults=[http_server.stalls_after(100_000, done)])
    process = in_another_process(server, fetcher.cache.folder, *paths)
    targets = [fetcher.cache.path(server.url + path) for path in paths]
    wait_for(lambda: all(partial_size(target) > 50_000 for target in targets))
    process.send_signal(signal.SIGINT)
    try:
        _, said = process.communicate(timeout=5)
    finally:
        process.kill()
        done.set()
    assert b"KeyboardInterrupt" in said
    assert not any(target.exists() for target in targets)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_progress_is_shown_on_a_terminal_only(
    server: Server, fetcher: Fetcher, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    server.pages["/other.tar"] = Page(OTHER)
    both = [artifact(), artifact("/other.tar")]
    fetcher.fetch_all(both)
    assert capsys.readouterr() == ("", "")

    fetcher.cache.clean()
    monkeypatch.setattr(sys, "stderr", Terminal())
    fetcher.fetch_all(both)
    for label in ("2 files", "x_infer.tar", "other.tar"):
        assert f"{label}:" in sys.stderr.getvalue()  # type: ignore[attr-defined]


# ---- the command line ---------------------------------------------------------------------------------------------


@pytest.fixture
def run(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    """Runs a command with this server as mirror; its zoo has one model."""
    zoo = tmp_path / "zoo.yaml"
    zoo.write_text(ZOO)
    monkeypatch.setattr("paddle2torch.converter.zoo.catalog.zoo_path", lambda: zoo)
    monkeypatch.setenv("PADDLE2TORCH_MIRROR", server.url)
    monkeypatch.setenv("PADDLE2TORCH_CACHE", str(tmp_path / "cache"))
    return lambda *arguments: CliRunner().invoke(main, arguments)


ZOO = f"""
server: https://zoo.example/
dictionaries: ["https://zoo.example/{{file}}"]
groups:
  one:
    generation: v2.0
    task: det
    architecture: det_mobilenet_v3_rsefpn
    languages: [English]
    models:
      x:
        description: a model
        size: 3M
        inference: {TAR[1:]}
"""


def test_downloads_are_listed_locked_and_cleaned(run: Callable[..., Result], server: Server, tmp_path: Path) -> None:
    downloaded = run("download", "x")
    assert (downloaded.exit_code, Path(downloaded.stdout.strip()).read_bytes()) == (0, BODY)
    assert run("download", "x", "--offline").stdout == downloaded.stdout
    (entry,) = json.loads(run("cache", "list", "--json").stdout)
    assert (entry["url"], entry["size"], entry["complete"]) == (server.url + TAR, len(BODY), True)
    assert run("zoo", "lock").stdout == f"x inference {sha256(BODY)}\n"
    assert f'"sha256": "{sha256(BODY)}"' in (tmp_path / "zoo.lock.json").read_text()
    assert "removed 1 files, 200,000 bytes" in run("cache", "clean").stderr
    assert run("cache", "list").stdout == ""
    assert len(server.requests) == 1


def test_what_changed_is_refused_until_it_is_accepted(run: Callable[..., Result], server: Server) -> None:
    run("download", "x")
    run("cache", "clean")
    server.pages[TAR] = Page(OTHER)
    refused = run("download", "x")
    assert refused.exit_code == DownloadError.exit_code
    assert refused.stderr.count("\n") == 1
    assert sha256(BODY) in refused.stderr
    assert sha256(OTHER) in refused.stderr
    accepted = run("download", "x", "--accept-changed")
    assert Path(accepted.stdout.strip()).read_bytes() == OTHER


# ---- the disk ----------------------------------------------------------------------------------------------------


def test_a_disk_without_room_is_told_before_the_download(
    server: Server, fetcher: Fetcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = type(shutil.disk_usage("."))
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(10**6, 10**6, 1000))
    with pytest.raises(OutputError, match="200000 bytes are needed and 1000 are free"):
        fetcher.fetch(artifact())
    assert files(fetcher.cache.folder) == []


def test_a_disk_that_fills_up_is_one_clear_line(server: Server, fetcher: Fetcher) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    try:
        with pytest.raises(
            OutputError, match=r"x_infer.tar.partial: cannot be written \(File too large\); free the disk"
        ):
            fetcher.fetch(artifact())
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert files(fetcher.cache.folder) == []


def test_a_cache_that_cannot_be_written_is_one_clear_line(server: Server, tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file where the cache should be")
    with pytest.raises(OutputError, match=r"cannot be written .* choose another cache with --cache or PADDLE2TORCH"):
        new_fetcher(server, tmp_path).fetch(artifact())


# ---- mirrors -----------------------------------------------------------------------------------------------------


def test_a_mirror_s_folder_is_used_in_place(tmp_path: Path) -> None:
    place = tmp_path / "models" / "x_infer.tar"
    place.parent.mkdir()
    place.write_bytes(BODY)
    fetcher = Fetcher(cache_dir=tmp_path / "cache", mirror=tmp_path)
    misspelt = artifact("/models/misspelt.tar", TAR)
    state = FileState.of(place)
    assert fetcher.fetch(misspelt) == Fetched(place, "https://zoo.example" + TAR, sha256(BODY), len(BODY), state)
    assert not (tmp_path / "cache").exists()
    with pytest.raises(DownloadError, match="the zoo says 1"):
        fetcher.fetch(artifact(size=1))
    with pytest.raises(DownloadError, match=r"^one.tar: no such file; looked for .*one.tar, .*two.tar; ways on"):
        fetcher.fetch(artifact("/one.tar", "/two.tar"))


def test_a_mirror_stands_in_for_dictionaries_too(tmp_path: Path) -> None:
    place = tmp_path / "words.txt"
    place.write_text("a\n")
    dictionary = Dictionary("https://zoo.example/words.txt", (), space=True)
    assert Fetcher(cache_dir=tmp_path / "cache", mirror=tmp_path).fetch(dictionary).path == place


def test_a_mirror_may_have_a_path_of_its_own(server: Server, tmp_path: Path) -> None:
    server.pages["/base" + TAR] = Page(OTHER)
    fetcher = Fetcher(cache_dir=tmp_path, mirror=server.url + "/base/", policy=QUICK)
    assert fetcher.fetch(artifact()).path.read_bytes() == OTHER


@pytest.mark.parametrize("mirror", ["nowhere/at/all", "ftp://server.example"])
def test_a_mirror_that_cannot_be_one_is_refused(mirror: str) -> None:
    with pytest.raises(SourceError, match=r"give a folder or an http\(s\) URL"):
        Fetcher(mirror=mirror)


def test_embedded_files_are_in_the_package(tmp_path: Path) -> None:
    with pytest.raises(DownloadError, match="no such file; looked for .*converter/zoo/embedded/not_there.tar"):
        Fetcher(cache_dir=tmp_path, mirror=tmp_path).fetch(Artifact("inference", "embedded:not_there.tar"))


# ---- the cache ---------------------------------------------------------------------------------------------------


def test_the_cache_tells_what_it_holds_and_is_cleaned(server: Server, fetcher: Fetcher) -> None:
    done = fetcher.fetch(artifact())
    server.pages["/half.tar"] = Page(BODY, faults=[http_server.drops_after(100_000), *[http_server.drops_after(0)] * 9])
    with pytest.raises(DownloadError):
        fetcher.fetch(artifact("/half.tar"))
    complete, partial = fetcher.cache.entries()
    assert (complete.url, complete.path, complete.size) == (server.url + TAR, done.path, len(BODY))
    assert complete.record is not None
    assert complete.record.sha256 == done.sha256
    assert (partial.url, partial.record) == (server.url + "/half.tar", None)
    assert 0 < partial.size < len(BODY)

    assert fetcher.cache.clean(lambda entry: entry.record is None) == (partial,)
    assert files(fetcher.cache.folder) == COMPLETE
    assert fetcher.cache.clean() == (complete,)
    assert files(fetcher.cache.folder) == [COMPLETE[1]]
    assert fetcher.cache.entries() == ()


def test_a_cleaned_cache_may_forget_everything(server: Server, fetcher: Fetcher) -> None:
    fetcher.fetch(artifact())
    fetcher.cache.clean(forget=True)
    assert list(fetcher.cache.folder.rglob("*")) == []


def test_what_was_cleaned_away_can_still_be_forgotten(server: Server, fetcher: Fetcher) -> None:
    fetcher.fetch(artifact())
    fetcher.cache.clean()
    assert fetcher.cache.clean(forget=True) == ()
    assert list(fetcher.cache.folder.rglob("*")) == []


def test_lock_files_of_killed_processes_are_removed(server: Server, fetcher: Fetcher) -> None:
    def leave_a_lock() -> Path:
        lock = path.with_name(path.name + LOCK)
        lock.touch()
        return lock

    path = fetcher.fetch(artifact()).path
    assert files(fetcher.cache.folder) == COMPLETE
    lock = leave_a_lock()
    assert fetcher.fetch(artifact()).path == path
    assert not lock.exists()
    lock = leave_a_lock()
    path.unlink()
    assert fetcher.cache.clean() == ()
    assert not lock.exists()


def test_the_lock_of_a_living_process_stays(server: Server, fetcher: Fetcher, tmp_path: Path) -> None:
    path = fetcher.fetch(artifact()).path
    with Cache(fetcher.cache.folder).lock(server.url + TAR):
        assert fetcher.fetch(artifact()).path == path
        fetcher.cache.clean(lambda entry: False)
        assert path.with_name(path.name + LOCK).exists()
    assert files(fetcher.cache.folder) == COMPLETE


def test_a_file_that_is_being_downloaded_is_not_cleaned_away(
    server: Server, fetcher: Fetcher, caplog: pytest.LogCaptureFixture
) -> None:
    url = server.url + TAR
    fetcher.fetch(artifact())
    with fetcher.cache.lock(url), caplog.at_level(logging.WARNING):
        assert Cache(fetcher.cache.folder).clean() == ()
    assert "being downloaded by another process; left in place" in caplog.text
    assert fetcher.cache.held(url)


def test_a_damaged_record_is_as_good_as_none(server: Server, fetcher: Fetcher) -> None:
    path = fetcher.fetch(artifact()).path
    for text in ("{", "[]", json.dumps({"url": 1})):
        path.with_name(path.name + RECORD).write_text(text)
        assert fetcher.cache.entries() == ()
        assert fetcher.fetch(artifact()).path.read_bytes() == BODY


@pytest.mark.parametrize("url", ["https://host.example", "https://host.example/", "https://host.example/a/../../b"])
def test_a_url_that_names_no_file_has_no_place(tmp_path: Path, url: str) -> None:
    with pytest.raises(DownloadError, match="names no file"):
        Cache(tmp_path).path(url)


def test_queries_tell_files_apart(tmp_path: Path) -> None:
    first, second, third = (Cache(tmp_path).path(f"https://h.example/f{query}") for query in ("", "?a=1", "?a=2"))
    assert len({first, second, third}) == 3


def test_the_cache_can_be_moved(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PADDLE2TORCH_CACHE", str(tmp_path))
    assert default_folder() == tmp_path
    monkeypatch.delenv("PADDLE2TORCH_CACHE")
    assert default_folder().name == "paddle2torch"
