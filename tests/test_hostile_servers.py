"""Servers that mean harm, networks that put a page of their own in a file's place, and caches that others write to."""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner

from paddle2torch.cli import main
from paddle2torch.converter.support.errors import DownloadError, OutputError, SourceError, UnknownHostError
from paddle2torch.converter.support.terminal import clean_lines
from paddle2torch.converter.zoo import download as downloading
from paddle2torch.converter.zoo.cache import LOCK, PARTIAL, RECORD, STATE, Cache
from paddle2torch.converter.zoo.catalog import Artifact, Dictionary, KnownFile
from paddle2torch.converter.zoo.download import Fetcher
from paddle2torch.converter.zoo.transfer import Policy
from support.raw_server import RawServer, answering, http
from support.tarballs import tarball
from test_download import sha256

BODY = tarball(100_000)
OTHER = tarball(50_000, seed=1)
QUICK = Policy(connect_timeout=5, read_timeout=5, attempts=3, backoff=0.001, longest_wait=0.01)
PAGE = b"<!DOCTYPE html><html><head><title>Log in</title></head><body>Accept our terms.</body></html>"
HOST = "https://zoo.example"
MODEL = Artifact("inference", f"{HOST}/models/x_infer.tar")
CHECKPOINT = Artifact("pretrained", f"{HOST}/models/x_pretrained.pdparams")
WORDS = Dictionary(f"{HOST}/words.txt", (), space=True)


@pytest.fixture
def fetch(tmp_path: Path) -> Callable[..., Path]:
    """Fetches from a server into a cache of the test's own."""

    def fetch(server: RawServer, artifact: Artifact | Dictionary = MODEL, policy: Policy = QUICK) -> Path:
        return Fetcher(cache_dir=tmp_path / "cache", mirror=server.url, policy=policy).fetch(artifact).path

    return fetch


def left(folder: Path) -> list[str]:
    """What is in the cache, but for locks."""
    return sorted(path.name for path in folder.rglob("*") if path.is_file() and not path.name.endswith(LOCK))


# ---- a page in the file's place ----------------------------------------------------------------------------------


def checkpoint() -> bytes:
    """A checkpoint as Paddle writes one."""
    import pickle

    import numpy as np

    return pickle.dumps({"weight": np.zeros(3, "float32")}, protocol=2)


def ends_with_a_member() -> bytes:
    """A tar that is cut where its first file ends."""
    return BODY[: 512 + int(BODY[124:135], 8)]


TRUE = {MODEL: BODY, CHECKPOINT: checkpoint(), WORDS: "a\nä\n中\nth\n".encode()}
FALSE = {
    "a page": (MODEL, http(PAGE), "is a web page, not the file; is there a log-in page in the way"),
    "an empty answer": (MODEL, http(), "is not what it should be"),
    "something else": (MODEL, http(b"hello"), "neither a tar, a tar.gz nor a zip"),
    "a tar without a model": (MODEL, http(tarball(4096, member="notes.txt")), "holds no model"),
    "a tar that is cut in a file": (MODEL, http(BODY[:9000], length=False), "cut short"),
    "a tar that is cut after a file": (MODEL, http(ends_with_a_member(), length=False), "without the zeros"),
    "the same with a length": (MODEL, http(ends_with_a_member()), "without the zeros"),
    "a checkpoint's page": (CHECKPOINT, http(PAGE), "is a web page"),
    "a checkpoint of nothing": (CHECKPOINT, http(), "is not what it should be"),
    "a checkpoint that is cut": (CHECKPOINT, http(checkpoint()[:60], length=False), "is not what it should be"),
    "a dictionary's page": (WORDS, http(b"\r\n  " + PAGE), "is a web page"),
    "a page of another kind": (WORDS, http(b"Dear guest, " * 20), "is not a dictionary: it has lines of more than 64"),
    "an empty dictionary": (WORDS, http(b"\n"), "is not a dictionary: it is empty"),
    "a dictionary that is no text": (WORDS, http(b"\xff\xfe\n"), "is not a dictionary: it is not UTF-8"),
    "a dictionary without end": (WORDS, http(b"a\nb\n", length=False), "the server does not tell how long it is"),
}


@pytest.mark.parametrize(("artifact", "answer", "words"), FALSE.values(), ids=FALSE)
def test_what_is_not_the_file_is_not_remembered(
    artifact: Artifact | Dictionary, answer: bytes, words: str, fetch: Callable[..., Path], tmp_path: Path
) -> None:
    with answering(answer, http(TRUE[artifact])) as server:
        with pytest.raises(DownloadError, match=words) as caught:
            fetch(server, artifact)
        assert "\n" not in str(caught.value)
        assert PARTIAL not in str(caught.value)
        assert left(tmp_path / "cache") == []
        assert fetch(server, artifact).read_bytes() == TRUE[artifact]


def test_a_tar_without_a_length_shows_by_itself_that_it_is_whole(fetch: Callable[..., Path]) -> None:
    with answering(http(BODY, length=False)) as server:
        assert fetch(server).read_bytes() == BODY


def test_a_file_that_is_known_needs_no_look(fetch: Callable[..., Path]) -> None:
    known = Artifact("inference", MODEL.url, known=(KnownFile(sha256(b"older"), 5), KnownFile(sha256(PAGE), len(PAGE))))
    with answering(http(PAGE)) as server:
        assert fetch(server, known).read_bytes() == PAGE


def test_a_file_that_is_known_wins_over_what_was_seen_first(fetch: Callable[..., Path], tmp_path: Path) -> None:
    known = Artifact("inference", MODEL.url, known=(KnownFile(sha256(BODY), len(BODY)),))
    with answering(http(OTHER), http(BODY), http(BODY)) as server:
        fetch(server)
        Cache(tmp_path / "cache").clean()
        with pytest.raises(DownloadError, match="changed since it was first seen"):
            fetch(server)
        assert fetch(server, known).read_bytes() == BODY


# ---- answers that make no sense ----------------------------------------------------------------------------------

CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
FAR = "Wed, 21 Oct 3015 07:28:00 GMT"
ODD = {
    "a length of 5000 digits": (b"HTTP/1.1 200 OK\r\nContent-Length: " + b"9" * 5000 + b"\r\n\r\nabc", "no file has"),
    "a length of 30 digits": (b"HTTP/1.1 200 OK\r\nContent-Length: " + b"1" * 30 + b"\r\n\r\nabc", "no file has"),
    "two lengths": (b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabc", "cannot be fetched"),
    "a negative length": (b"HTTP/1.1 200 OK\r\nContent-Length: -3\r\n\r\nabc", "neither a tar"),
    "a length in words": (b"HTTP/1.1 200 OK\r\nContent-Length: \xb2\r\n\r\nabc", "neither a tar"),
    "a negative chunk": (CHUNKED + b"-5\r\nabcde\r\n0\r\n\r\n", "the answer is malformed"),
    "a chunk of words": (CHUNKED + b"zz\r\nabcde\r\n0\r\n\r\n", "gave up"),
    "a chunk without end": (CHUNKED + b"fffffffffffffffffff\r\nabcde", "gave up"),
    "other answers first, without end": (b"HTTP/1.1 100 Continue\r\n\r\n" * 20_000, "262144 bytes before the body"),
    "no HTTP": (b"\x00\x01\x02\x1b[2J" * 50, "gave up"),
    "a thousand headers": (b"HTTP/1.1 200 OK\r\n" + b"A: b\r\n" * 1000 + b"\r\n", "gave up"),
    "a header without end": (b"HTTP/1.1 200 OK\r\nA: " + b"b" * 100_000 + b"\r\n\r\n", "gave up"),
    "a reason that acts": (http(status="403 \x1b[2J\x9b31m"), r"answers 403 \\x1b\[2J\\x9b31m; check"),
    "a long reason": (http(status="403 " + "x" * 5000), "answers 403 x.* … x"),
    "a redirect to no host": (http(status="302 Found", Location="http://[::bad/x.tar"), "which is no URL"),
    "a redirect to no port": (http(status="302 Found", Location="http://a:99999999/x.tar"), "which is no URL"),
    "a redirect to a file": (http(status="302 Found", Location="file:///etc/passwd"), "refused: redirects"),
    "a redirect to a long host": (http(status="302 Found", Location="http://" + "a" * 300 + "/x"), "malformed"),
    "a redirect without host": (http(status="302 Found", Location="http:///x.tar"), "redirects more than"),
    "a long redirect": (http(status="302 Found", Location="ftp://a/" + "x" * 60_000), "refused: redirects"),
    "a wait of a thousand years": (http(status="503 Busy", Retry_After=FAR), "come back in more than a day"),
    "a wait without end": (http(status="503 Busy", Retry_After="9" * 5000), "come back in more than a day"),
    "a date that is none": (http(status="503 Busy", Retry_After="Wed, 99 Oct 99999999999 07:28:00 GMT"), "gave up"),
    "a gzip that is none": (http(b"abc", Content_Encoding="gzip"), "gave up"),
}


@pytest.mark.parametrize(("answer", "words"), ODD.values(), ids=ODD)
def test_an_answer_that_makes_no_sense_is_one_line(
    answer: bytes, words: str, fetch: Callable[..., Path], tmp_path: Path
) -> None:
    with answering(answer) as server:
        with pytest.raises(DownloadError, match=words) as caught:
            fetch(server)
        assert len(str(caught.value)) < 1000
        assert clean_lines(str(caught.value)) == str(caught.value)
        assert "\n" not in str(caught.value)
    assert [name for name in left(tmp_path / "cache") if not name.endswith((PARTIAL, STATE))] == []


def test_the_body_of_a_redirect_is_not_waited_for(fetch: Callable[..., Path]) -> None:
    def endless(connection: socket.socket) -> None:
        connection.sendall(b"HTTP/1.1 302 Found\r\nLocation: /x.tar\r\n\r\n")
        while not server.over.is_set():
            connection.sendall(bytes(65536))

    with answering(endless, http(BODY)) as server:
        assert fetch(server).read_bytes() == BODY


DRIPS = {
    "a body": b"HTTP/1.1 200 OK\r\nContent-Length: 50000000\r\nETag: \"a\"\r\n\r\n",
    "chunks": CHUNKED,
    "a body without length": b"HTTP/1.1 200 OK\r\n\r\n",
    "a head": b"HTTP/1.1 200 OK\r\nX: ",
}  # fmt: skip


@pytest.mark.parametrize("head", DRIPS.values(), ids=DRIPS)
def test_a_server_that_drips_is_given_up(head: bytes, fetch: Callable[..., Path]) -> None:
    def drip(connection: socket.socket) -> None:
        connection.sendall(head)
        while not server.over.wait(0.02):
            connection.sendall(b"1\r\nx\r\n" if head == CHUNKED else b"x")

    impatient = Policy(patience=0.7, attempts=5, backoff=0.001)
    with answering(drip) as server:
        started = time.monotonic()
        with pytest.raises(DownloadError, match="too slow: less than 512 bytes a second came for 0.7 s; gave up"):
            fetch(server, policy=impatient)
        assert time.monotonic() - started < 5
        assert len(server.requests) == 1


@pytest.mark.parametrize("says", ["nothing", "busy"])
def test_a_server_that_brings_nothing_is_given_up_whatever_it_says(says: str, fetch: Callable[..., Path]) -> None:
    def silent(connection: socket.socket) -> None:
        server.over.wait(30)

    with answering(silent if says == "nothing" else http(status="503 Busy", Retry_After="1")) as server:
        started = time.monotonic()
        with pytest.raises(DownloadError, match="too slow|come back in 1 s"):
            fetch(server, policy=Policy(read_timeout=0.5, patience=1.7, attempts=100, backoff=0.01))
        assert time.monotonic() - started < 5
        assert 2 <= len(server.requests) <= 5


def part_of_body(server: RawServer, connection: socket.socket, length: int, told: int | None = None) -> None:
    """Answer the latest request with a part of what it asks for, told to be the part or longer."""
    asked = [line for line in server.requests[-1].splitlines() if line.startswith("Range: ")]
    start = int(asked[0].removeprefix("Range: bytes=").removesuffix("-")) if asked else 0
    part = BODY[start : start + length]
    told = len(part) if told is None else told - start
    where = f"Content-Range: bytes {start}-{start + told - 1}/{len(BODY)}\r\n" if start else ""
    status = "206 Partial Content" if start else "200 OK"
    total = told if start else len(BODY)
    head = f'HTTP/1.1 {status}\r\nETag: "a"\r\nContent-Length: {total}\r\n{where}\r\n'
    connection.sendall(head.encode() + part)


def test_a_server_that_brings_little_in_each_connection_is_given_up(fetch: Callable[..., Path]) -> None:
    """Each brings something, and so none is a failure in a row."""
    with answering(lambda connection: part_of_body(server, connection, 17_000, len(BODY))) as server:
        assert fetch(server).read_bytes() == BODY
        server.requests.clear()
        other = Artifact("inference", f"{HOST}/models/other.tar")
        with pytest.raises(DownloadError, match="too slow: less than 500000 bytes a second"):
            fetch(server, other, Policy(patience=1, slowest=500_000, attempts=5, backoff=0.4))
        assert 2 <= len(server.requests) <= 5


def test_a_pinned_size_bounds_a_body_without_one(fetch: Callable[..., Path]) -> None:
    def endless(connection: socket.socket) -> None:
        connection.sendall(CHUNKED)
        while not server.over.is_set():
            connection.sendall(b"10000\r\n" + bytes(65536) + b"\r\n")

    pinned = Artifact("inference", MODEL.url, size=len(BODY))
    with answering(endless) as server:
        with pytest.raises(DownloadError, match="more than 100000 bytes; the zoo says that these are all"):
            fetch(server, pinned)
        with pytest.raises(DownloadError, match="more than 4194304 bytes"):
            fetch(server, WORDS)


def test_a_part_that_is_shorter_than_asked_for_is_gone_on_with(fetch: Callable[..., Path]) -> None:
    """There are servers that send no more than so much at a time."""
    with answering(lambda connection: part_of_body(server, connection, 40_000)) as server:
        assert fetch(server).read_bytes() == BODY
    assert len(server.requests) == 3


def test_a_name_that_no_server_has_is_asked_for_once_and_told_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[object] = []

    def unknown(host: object, *arguments: object, **options: object) -> object:
        asked.append(host)
        raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    monkeypatch.setattr(downloading, "_unknown_hosts", {})
    told = []
    for number in range(3):
        fetcher = Fetcher(cache_dir=tmp_path, mirror="http://me:s3cr3t@nowhere.example/")
        with pytest.raises(UnknownHostError) as caught:
            fetcher.fetch(Artifact("inference", f"{HOST}/{number}.tar"))
        told.append(str(caught.value))
    assert asked == ["nowhere.example"]
    assert told[0].startswith(
        "http://nowhere.example/0.tar: the host's name is unknown; is there a network?; ways on: "
    )
    assert told[1:] == [
        f"http://nowhere.example/{number}.tar: not tried, for the host's name is unknown" for number in (1, 2)
    ]
    monkeypatch.setattr(downloading, "_UNKNOWN_FOR", 0.0)
    with pytest.raises(UnknownHostError):
        Fetcher(cache_dir=tmp_path, mirror="http://nowhere.example").fetch(MODEL)
    assert len(asked) == 2


def test_models_of_a_host_that_nobody_knows_are_not_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unknown(*arguments: object, **options: object) -> object:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    monkeypatch.setattr(downloading, "_unknown_hosts", {})
    arguments = ["convert", "ch_PP-OCRv3_det", "en_PP-OCRv3_rec", "--mirror", "http://no.example", "--cache", tmp_path]
    result = CliRunner().invoke(main, [str(each) for each in arguments])
    assert result.exit_code == DownloadError.exit_code
    assert "to be tried again" not in result.stderr
    assert [line.split()[3] for line in result.stdout.splitlines()[1:]] == ["1", "1"]


# ---- secrets -----------------------------------------------------------------------------------------------------

SECRET = "s3cr3t"


def with_user(url: str, user: str = f"me:{SECRET}") -> str:
    return url.replace("://", f"://{user}@")


def everything_below(folder: Path) -> str:
    """Names and contents of all files."""
    return "\n".join(f"{path}\n{path.read_bytes()!r}" for path in folder.rglob("*") if path.is_file())


@pytest.mark.parametrize("user", [f"me:{SECRET}", f"{SECRET}%40x:p%2Fq", f"me:{SECRET}@x"])
def test_the_mirror_s_password_is_told_to_the_mirror_alone(user: str, tmp_path: Path, caplog: object) -> None:
    drops = http(BODY)[:60_000]
    with answering(drops, http(BODY)) as server:
        fetcher = Fetcher(cache_dir=tmp_path, mirror=with_user(server.url, user) + "/", policy=QUICK)
        fetched = fetcher.fetch(MODEL)
        assert all("Authorization: Basic " in request for request in server.requests)
        assert fetched.url == MODEL.url
        (entry,) = fetcher.cache.entries()
        assert entry.url == f"{server.url}/models/x_infer.tar"
    assert SECRET not in everything_below(tmp_path)
    assert SECRET not in str(caplog.text)  # type: ignore[attr-defined]
    assert "trying again" in caplog.text  # type: ignore[attr-defined]
    again = Fetcher(cache_dir=tmp_path, mirror=server.url, offline=True)
    assert again.fetch(MODEL) == fetched


def test_another_server_is_not_told_the_mirror_s_password(tmp_path: Path) -> None:
    with answering(http(BODY)) as other, answering(http(status="302 Found", Location=other.url + "/x.tar")) as server:
        Fetcher(cache_dir=tmp_path, mirror=with_user(server.url), policy=QUICK).fetch(MODEL)
        assert "Authorization" in server.requests[0]
        assert "Authorization" not in other.requests[0]


@pytest.mark.parametrize(
    "answer",
    [
        http(status="404 Not Found"),
        http(status="302 Found", Location=f"ftp://me:{SECRET}@host/x"),
        http(status="302 Found", Location=f"http://me:{SECRET}@[::bad/x"),
        http(status="302 Found", Location=f"http://me:{SECRET}@127.0.0.1:1/x"),
        http(PAGE),
        b"",
    ],
    ids=["missing", "redirect", "malformed redirect", "redirect to nobody", "page", "nothing"],
)
def test_no_message_tells_a_password(answer: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with answering(answer) as server:
        monkeypatch.setenv("PADDLE2TORCH_MIRROR", with_user(server.url))
        monkeypatch.setattr("paddle2torch.converter.zoo.transfer.Policy", lambda: QUICK)
        result = CliRunner().invoke(main, ["download", "ch_PP-OCRv3_det", "--cache", str(tmp_path)])
    assert result.exit_code == DownloadError.exit_code
    assert SECRET not in result.output + everything_below(tmp_path)


@pytest.mark.parametrize(
    "mirror",
    [
        f"http://me:{SECRET}/x@host",
        f"http://me:{SECRET}#@host",
        f"ftp://me:{SECRET}@host",
        f"http://a:{SECRET}@",
        f"http://host/?token={SECRET}",
        f"http://host/#{SECRET}",
        f"me:{SECRET}@host",
        f"//me:{SECRET}@host",
        f"http:me:{SECRET}@host",
    ],
)
def test_a_mirror_that_is_refused_is_not_shown_with_its_password(mirror: str) -> None:
    with pytest.raises(SourceError) as caught:
        Fetcher(mirror=mirror)
    assert SECRET not in str(caught.value)


# ---- the cache's folder, where others write, too -----------------------------------------------------------------


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    """A file of somebody's that nobody may touch."""
    file = tmp_path / "outside" / "precious"
    file.parent.mkdir()
    file.write_text("precious")
    return file


@pytest.mark.parametrize("make", [Path.symlink_to, Path.hardlink_to], ids=["symbolic", "hard"])
@pytest.mark.parametrize("suffix", ["", PARTIAL, STATE, RECORD, LOCK])
def test_no_link_in_the_cache_is_followed(
    suffix: str, make: Callable[[Path, Path], None], fetch: Callable[..., Path], outside: Path, tmp_path: Path
) -> None:
    with answering(http(BODY, ETag='"a"')[:60_000], http(BODY)) as server:
        target = Cache(tmp_path / "cache").path(server.url + "/models/x_infer.tar")
        target.parent.mkdir(parents=True)
        make(target.with_name(target.name + suffix), outside)
        assert fetch(server).read_bytes() == BODY
    assert outside.read_text() == "precious"
    assert list(outside.parent.iterdir()) == [outside]
    assert not target.is_symlink()


@pytest.mark.parametrize("make", [Path.symlink_to, Path.hardlink_to], ids=["symbolic", "hard"])
def test_no_linked_partial_file_is_gone_on_with(
    make: Callable[[Path, Path], None], fetch: Callable[..., Path], outside: Path, tmp_path: Path
) -> None:
    with answering(lambda connection: part_of_body(server, connection, len(BODY))) as server:
        url = server.url + "/models/x_infer.tar"
        target = Cache(tmp_path / "cache").path(url)
        target.parent.mkdir(parents=True)
        make(target.with_name(target.name + PARTIAL), outside)
        target.with_name(target.name + STATE).write_text(json.dumps({"url": url, "etag": '"a"', "total": len(BODY)}))
        assert fetch(server).read_bytes() == BODY
    assert outside.read_text() == "precious"


@pytest.mark.parametrize("suffix", ["", PARTIAL, STATE, RECORD])
def test_no_link_into_a_cached_file_s_place_is_believed(
    suffix: str, fetch: Callable[..., Path], outside: Path, tmp_path: Path
) -> None:
    """What the link leads to fits, and is somebody's all the same."""
    with answering(http(BODY, ETag='"a"')) as server:
        path = fetch(server)
        link = path.with_name(path.name + suffix)
        if not link.exists():
            link.write_bytes(BODY[:1000])
        link.rename(outside)
        link.symlink_to(outside)
        before = outside.read_bytes()
        assert fetch(server).read_bytes() == BODY
        assert len(server.requests) == (1 if suffix in (PARTIAL, STATE) else 2)
    assert outside.read_bytes() == before


def test_a_linked_folder_in_the_cache_is_not_entered(fetch: Callable[..., Path], outside: Path, tmp_path: Path) -> None:
    with answering(http(BODY)) as server:
        target = Cache(tmp_path / "cache").path(server.url + "/models/x_infer.tar")
        target.parents[1].mkdir(parents=True)
        target.parent.symlink_to(outside.parent)
        with pytest.raises(OutputError, match="models: is a link; no link in the cache is followed; remove it"):
            fetch(server)
    assert list(outside.parent.iterdir()) == [outside]


def test_a_cache_that_is_itself_a_link_is_the_user_s_own(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "cache").symlink_to(tmp_path / "disk")
    with answering(http(BODY)) as server:
        Fetcher(cache_dir=tmp_path / "cache", mirror=server.url).fetch(MODEL)
    assert "x_infer.tar" in left(tmp_path / "disk")


def test_a_pipe_in_the_cache_holds_nobody_up(fetch: Callable[..., Path], tmp_path: Path) -> None:
    with answering(http(BODY)) as server:
        target = Cache(tmp_path / "cache").path(server.url + "/models/x_infer.tar")
        target.parent.mkdir(parents=True)
        for suffix in (PARTIAL, STATE, RECORD):
            os.mkfifo(target.with_name(target.name + suffix))
        assert fetch(server).read_bytes() == BODY


@pytest.mark.parametrize("suffix", ["", PARTIAL, STATE, RECORD, LOCK])
def test_a_folder_where_a_file_belongs_in_the_cache_is_one_line(
    suffix: str, fetch: Callable[..., Path], tmp_path: Path
) -> None:
    with answering(http(BODY)) as server:
        target = Cache(tmp_path / "cache").path(server.url + "/models/x_infer.tar")
        target.with_name(target.name + suffix).mkdir(parents=True)
        with pytest.raises(OutputError, match="cannot be written"):
            fetch(server)


def test_many_unfinished_downloads_are_removed_without_looking_at_all_for_each(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(200):
        (tmp_path / f"{number}.tar{PARTIAL}").touch()
        (tmp_path / f"{number}.tar{LOCK}").touch()
    part = tmp_path / f".7.tar{STATE}.abcdefgh.part"
    part.mkdir()
    looks: list[object] = []
    glob = Path.glob
    monkeypatch.setattr(Path, "glob", lambda path, pattern: looks.append(pattern) or glob(path, pattern))
    assert len(Cache(tmp_path).clean()) == 200
    assert len(looks) < 10
    assert list(tmp_path.iterdir()) == []


GOOD = {"sha256": sha256(BODY), "size": len(BODY), "first_seen": "2026-01-01T00:00:00+00:00"}
RECORDS = {
    "no text": b"\xff\xfe",
    "deep": b"[" * 100_000,
    "deep in a key": b'{"url": ' + b"[" * 100_000,
    "a number of 5000 digits": b'{"size": ' + b"9" * 5000 + b"}",
    "large": b'{"url": "' + b"x" * 10_000_000 + b'"}',
    "a list for a URL": {**GOOD, "url": ["URL"]},
    "a mapping for a URL": {**GOOD, "url": {"a": 1}},
    "no URL": GOOD,
    "another URL": {**GOOD, "url": "http://elsewhere.example/x.tar"},
    "a URL that is none": {**GOOD, "url": "http://[::bad/x"},
    "a URL that acts": {**GOOD, "url": "URL\x1b[2J\x9b"},
    "a URL with a password": {**GOOD, "url": f"http://me:{SECRET}@host/x"},
    "a number for a hash": {**GOOD, "url": "URL", "sha256": 5},
    "a hash that is none": {**GOOD, "url": "URL", "sha256": "\x1b[2J"},
    "a word for a size": {**GOOD, "url": "URL", "size": "many"},
    "a truth for a size": {**GOOD, "url": "URL", "size": True},
    "a negative size": {**GOOD, "url": "URL", "size": -1},
    "no date": {**GOOD, "url": "URL", "first_seen": None},
    "a date that acts": {**GOOD, "url": "URL", "first_seen": "\x1b[2J"},
}


@pytest.mark.parametrize("content", RECORDS.values(), ids=RECORDS)
def test_a_record_that_was_not_written_here_is_as_good_as_none(
    content: bytes | dict[str, object], fetch: Callable[..., Path], tmp_path: Path
) -> None:
    with answering(http(BODY)) as server:
        url = server.url + "/models/x_infer.tar"
        target = Cache(tmp_path / "cache").path(url)
        target.parent.mkdir(parents=True)
        data = content if isinstance(content, bytes) else json.dumps(content).replace('"URL', f'"{url}').encode()
        for suffix in (RECORD, STATE):
            target.with_name(target.name + suffix).write_bytes(data)
        target.write_bytes(BODY)
        target.with_name(target.name + PARTIAL).write_bytes(BODY[:1000])
        result = CliRunner().invoke(main, ["cache", "list", "--cache", str(tmp_path / "cache")])
        assert (result.exit_code, clean_lines(result.output)) == (0, result.output)
        assert len(result.output) < 1000
        assert SECRET not in result.output
        assert Cache(tmp_path / "cache").record(url) is None
        assert fetch(server).read_bytes() == BODY
        assert "Range" not in server.requests[0]
        record = Cache(tmp_path / "cache").record(url)
    assert record is not None
    assert (record.url, record.sha256, record.size) == (url, sha256(BODY), len(BODY))


STATES = {
    "a validator that adds a header": {"etag": '"a"\r\nX: y'},
    "a validator of two lines": {"etag": '"a"\n'},
    "a validator that is long": {"etag": '"' + "a" * 10_000 + '"'},
    "a number for a validator": {"etag": 5},
    "a list for a date": {"last_modified": ["x"]},
    "a word for a length": {"etag": '"a"', "total": "many"},
}


@pytest.mark.parametrize("content", STATES.values(), ids=STATES)
def test_a_partial_file_of_which_nonsense_is_known_is_not_gone_on_with(
    content: dict[str, object], fetch: Callable[..., Path], tmp_path: Path
) -> None:
    with answering(http(BODY)) as server:
        target = Cache(tmp_path / "cache").path(server.url + "/models/x_infer.tar")
        target.parent.mkdir(parents=True)
        target.with_name(target.name + PARTIAL).write_bytes(BODY[:1000])
        state = {"url": server.url + "/models/x_infer.tar", **content}
        target.with_name(target.name + STATE).write_text(json.dumps(state))
        assert fetch(server).read_bytes() == BODY
        assert "If-Range" not in server.requests[0]


def test_ten_thousand_files_are_counted(tmp_path: Path) -> None:
    cache = Cache(tmp_path)
    for number in range(3000):
        cache.remember(f"http://host.example/{number}.tar", "0" * 64, 0)
        cache.path(f"http://host.example/{number}.tar").touch()
    result = CliRunner().invoke(main, ["cache", "list", "--cache", str(tmp_path)])
    assert len(result.stdout) < 50_000
    assert result.stdout.splitlines()[-1].endswith("more lines")
    assert "3000 files, 0 bytes" in result.stderr
