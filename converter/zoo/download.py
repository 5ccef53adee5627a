"""Fetching the zoo's files: from a mirror's folder in place, from this package, or over the network into the cache."""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from paddle2torch.converter.support.blob import FileState
from paddle2torch.converter.support.digests import sha256_of
from paddle2torch.converter.support.errors import ConverterError, DownloadError, SourceError, UnknownHostError
from paddle2torch.converter.support.terminal import without_users
from paddle2torch.converter.zoo.cache import Cache, writing
from paddle2torch.converter.zoo.catalog import EMBEDDED, Artifact, Dictionary
from paddle2torch.converter.zoo.opening import LARGEST_DICTIONARY, unfit

if TYPE_CHECKING:
    from paddle2torch.converter.support.progress import Overall
    from paddle2torch.converter.zoo.known import Seen
    from paddle2torch.converter.zoo.transfer import Policy, Session, Transfer

WAYS_ON = (
    "ways on: a mirror (--mirror DIR_OR_URL), a tarball on disk as SOURCE, "
    "or the embedded model that needs no network (embedded_rec)"
)

_LAST_WORDS = 0.1
"""Seconds that an interrupted program gives each of its downloads to end by itself."""

_UNKNOWN_FOR = 60.0
"""Seconds for which a host that nobody knows is not asked for again, in this process."""

_unknown_hosts: dict[str, float] = {}
"""Host → when it was found to be unknown."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Fetched:
    """A file that is here, complete and checked.

    Attributes:
        path: where it lies.
        url: which of the zoo's URLs it answers (the zoo's own, also where a mirror stood in for it).
        sha256: its hash in lower-case hex.
        size: its bytes.
        state: what it was like before it was hashed.
    """

    path: Path
    url: str
    sha256: str
    size: int
    state: FileState = field(compare=False)


class Fetcher:
    """Gets the files that the zoo names.

    Args:
        cache_dir: where downloads are kept; None for what PADDLE2TORCH_CACHE names, or the platform's cache folder.
        mirror: a folder, or a base URL, in place of scheme and host of every URL. A folder's files are used in place.
            A user and password in the URL are told to that server only, and never shown or kept.
        offline: use what is in the cache, and reach no server.
        accept_changed: take a file that differs from what its URL held when it was first seen.
        policy: time-outs and retries; None for the usual ones.
    """

    def __init__(
        self,
        cache_dir: Path | None = None,
        mirror: str | Path | None = None,
        offline: bool = False,
        accept_changed: bool = False,
        policy: Policy | None = None,
    ) -> None:
        self.cache = Cache(cache_dir)
        self.mirror, self._credentials = _mirror(mirror)
        self.offline = offline
        self.accept_changed = accept_changed
        self._policy = policy
        self._threads = threading.local()
        self._stop = threading.Event()

    def fetch(self, artifact: Artifact | Dictionary) -> Fetched:
        """The artifact's file: from where it is already, else downloaded, its alternatives tried in order on 404.

        Raises:
            DownloadError: no URL has it, the network fails, or what came is not what was announced.
            OutputError: the cache cannot be written.
        """
        return self._fetch(artifact, None)

    def fetch_all(self, artifacts: Sequence[Artifact | Dictionary], jobs: int = 4) -> list[Fetched]:
        """The files of all artifacts, in their order, `jobs` at a time.

        Raises:
            ConverterError: the error of the one that failed, or a DownloadError with those of all that did; the others
                have come all the same, and are in the cache.
        """
        outcomes = self.try_all(artifacts, jobs)
        errors = [outcome for outcome in outcomes if isinstance(outcome, ConverterError)]
        if len(errors) == 1:
            raise errors[0]
        if errors:
            listed = "".join(f"\n  {error}" for error in errors)
            raise DownloadError(f"{len(errors)} of {len(artifacts)} files could not be fetched:{listed}")
        return [outcome for outcome in outcomes if isinstance(outcome, Fetched)]

    def try_all(self, artifacts: Sequence[Artifact | Dictionary], jobs: int = 4) -> list[Fetched | ConverterError]:
        """What becomes of each artifact, in their order: its file, or why it could not be had."""
        from paddle2torch.converter.support.progress import Overall

        todo = queue.SimpleQueue[int]()
        for index in range(len(artifacts)):
            todo.put(index)
        outcomes: dict[int, Fetched | ConverterError] = {}
        surprises: list[Exception] = []
        overall = Overall(len(artifacts)) if len(artifacts) > 1 else None

        stop = self._stop

        def work() -> None:
            with suppress(queue.Empty):
                while not stop.is_set():
                    index = todo.get_nowait()
                    try:
                        outcomes[index] = self._fetch(artifacts[index], overall)
                    except ConverterError as error:
                        outcomes[index] = error
                    except Exception as error:  # a mistake of ours, to be raised where it is seen
                        surprises.append(error)

        # Daemons, because an executor's threads would keep an interrupted program waiting for the network.
        threads = [threading.Thread(target=work, daemon=True) for _ in range(min(jobs, len(artifacts)))]
        try:
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        except BaseException:
            stop.set()
            self._stop = threading.Event()
            for thread in filter(threading.Thread.is_alive, threads):
                thread.join(_LAST_WORDS)
            self.cache.abandon()
            raise
        finally:
            if overall:
                overall.close()
        if surprises:
            raise surprises[0]
        return [outcomes[index] for index in range(len(artifacts))]

    def _fetch(self, artifact: Artifact | Dictionary, overall: Overall | None) -> Fetched:
        places = {url: self._place(url) for url in (artifact.url, *artifact.alternatives)}
        if here := self._here(artifact, places):
            return here
        remote = {url: place for url, place in places.items() if isinstance(place, str)}
        if not remote:
            tried = ", ".join(map(str, places.values()))
            raise DownloadError(f"{_label(artifact.url)}: no such file; looked for {tried}; {WAYS_ON}")
        if self.offline:
            raise DownloadError(
                f"{artifact.url}: not in the cache {self.cache.folder}, and --offline was given; {WAYS_ON}"
            )
        return self._download(artifact, remote, overall)

    def _place(self, url: str) -> Path | str:
        """Where a URL of the zoo is to be had: a file, or the URL to ask."""
        if url.startswith(EMBEDDED):
            return Path(__file__).resolve().parent / "embedded" / url.removeprefix(EMBEDDED)
        if self.mirror is None:
            return url
        path = urlsplit(url).path
        return self.mirror / path.lstrip("/") if isinstance(self.mirror, Path) else self.mirror + path

    def _here(self, artifact: Artifact | Dictionary, places: dict[str, Path | str]) -> Fetched | None:
        """The artifact's file where no network is needed for it."""
        for url, place in places.items():
            if isinstance(place, Path):
                if place.is_file():
                    try:
                        fetched = _measured(place, url)
                    except OSError as error:
                        raise DownloadError(
                            f"{place}: cannot be read ({error.strerror}); check its permissions"
                        ) from error
                    if difference := _difference(artifact, fetched):
                        raise DownloadError(f"{place}: {difference}")
                    return fetched
            elif (cached := self._cached(place, url)) and _difference(artifact, cached) is None:
                self.cache.tidy(cached.path)
                return cached
        return None

    def _cached(self, place: str, url: str) -> Fetched | None:
        """The file of a place in the cache, where it is there and sound."""
        path = self.cache.path(place)
        try:
            state = FileState.of(path)
        except SourceError:
            return None
        record = self.cache.held(place)
        return Fetched(path, url, record.sha256, record.size, state) if record else None

    def _download(self, artifact: Artifact | Dictionary, remote: dict[str, str], overall: Overall | None) -> Fetched:
        """Download from the first URL that has the file."""
        from paddle2torch.converter.zoo.transfer import MissingError, UnreachableError

        missing = []
        for url, place in remote.items():
            try:
                _refuse_unknown_host(place)
                with self.cache.lock(place):
                    # Another process may have brought it while this one waited.
                    return self._here(artifact, {url: place}) or self._download_one(artifact, url, place, overall)
            except MissingError as error:
                missing.append(str(error))
            except UnknownHostError as error:
                raise _told_once(error, place) from error
            except UnreachableError as error:
                raise DownloadError(f"{error}; {WAYS_ON}") from error
        raise DownloadError("; ".join(missing) + f"; {WAYS_ON}")

    def _download_one(self, artifact: Artifact | Dictionary, url: str, place: str, overall: Overall | None) -> Fetched:
        from paddle2torch.converter.support.progress import Bar
        from paddle2torch.converter.zoo.transfer import Policy, Transfer

        path = self.cache.path(place)
        size, policy = getattr(artifact, "size", None), self._policy or Policy()
        if isinstance(artifact, Dictionary):
            policy = replace(policy, largest=min(policy.largest, LARGEST_DICTIONARY))
        with Bar(path.name, overall) as bar:
            transfer = Transfer(self._session, place, path, policy, size, bar, self._stop)
            fetched = _measured(transfer.run(), url)
            if transfer.resumed and self._objection(artifact, fetched, place, transfer):
                logger.warning("%s: the parts of the interrupted download do not fit together; starting over", place)
                transfer.discard()
                fetched = _measured(transfer.run(), url)
        if objection := self._objection(artifact, fetched, place, transfer):
            transfer.discard()
            raise DownloadError(f"{place}: {objection}")
        if odd := _odd_size(fetched, url):
            logger.warning("%s: %s", place, odd)
        # Not before: what a network's log-in page answers must not be what the URL held when it was first seen.
        self.cache.remember(place, fetched.sha256, fetched.size)
        with writing(path):
            transfer.finish(path)
        return replace(fetched, path=path)

    def _objection(
        self, artifact: Artifact | Dictionary, fetched: Fetched, place: str, transfer: Transfer
    ) -> str | None:
        """Why a downloaded file must not be used, if it must not."""
        if problem := _difference(artifact, fetched):
            return problem
        if _is_known(artifact, fetched):
            return None
        if problem := unfit(fetched.path, place, artifact, told_its_end=transfer.told_its_end):
            return f"{problem}; it was thrown away"
        known = self.cache.record(place)
        if known is None or known.sha256 == fetched.sha256 or self.accept_changed:
            return None
        return (
            f"changed since it was first seen ({known.first_seen}): sha256 was {known.sha256}, "
            f"now is {fetched.sha256}; it was thrown away; if you trust the change, take it with --accept-changed"
        )

    @property
    def _session(self) -> Session:
        """This thread's session."""
        from paddle2torch.converter.zoo.transfer import Session, origin

        if not hasattr(self._threads, "session"):
            mirror = self.mirror if isinstance(self.mirror, str) else ""
            self._threads.session = Session({origin(mirror): self._credentials} if self._credentials else None)
        return self._threads.session


def _mirror(given: str | Path | None) -> tuple[Path | str | None, tuple[str, str] | None]:
    """A mirror as a folder, or as a base URL without user and slash at its end; and its user and password."""
    if isinstance(given, str) and "://" in given:
        url = without_users(given)
        try:
            parts = urlsplit(given)
            usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
            if parts.query or parts.fragment:  # perhaps a password, too
                raise SourceError("--mirror: paths are put behind the URL, so it cannot have a ? or # in it")
        except ValueError:  # perhaps because of the password, so it is not shown
            raise SourceError(
                "--mirror: the URL is malformed; expected http(s)://HOST/PATH, with %XX for the special characters of "
                "a user or password"
            ) from None
        if not usable:
            raise SourceError(f"{url}: no mirror; give a folder or an http(s) URL")
        user, password = unquote(parts.username or ""), unquote(parts.password or "")
        return url.rstrip("/"), (user, password) if user or password else None
    if given is None:
        return None, None
    folder = Path(given)
    if given == "" or not folder.is_dir():
        # Without what may be a user and password, in what may be a URL.
        shown = str(given).rpartition("@")[2] or "--mirror"
        raise SourceError(f"{shown}: no such folder for a mirror; give a folder or an http(s) URL")
    return folder, None


def _is_unknown(host: str | None) -> bool:
    return host in _unknown_hosts and time.monotonic() - _unknown_hosts[host] < _UNKNOWN_FOR


def _refuse_unknown_host(place: str) -> None:
    """A host that is not known is not known a moment later: nobody waits for it once per model.

    Raises:
        UnknownHostError: it was asked for before.
    """
    if _is_unknown(host := urlsplit(place).hostname):
        raise UnknownHostError(f"{place}: not tried, for the host's name is unknown", host)


def _told_once(error: UnknownHostError, place: str) -> UnknownHostError:
    """The error, with what can be done about it where that has not been said yet."""
    if error.host is None or _is_unknown(error.host):
        return error
    if error.host == urlsplit(place).hostname:  # and not one that it redirects to
        _unknown_hosts[error.host] = time.monotonic()
    return UnknownHostError(f"{error}; {WAYS_ON}", error.host)


def _label(url: str) -> str:
    return url.rsplit("/", 1)[-1].removeprefix(EMBEDDED)


def _measured(path: Path, url: str) -> Fetched:
    state = FileState.of(path)
    return Fetched(path, url, sha256_of(path), state.size, state)


def _is_known(artifact: Artifact | Dictionary, fetched: Fetched) -> bool:
    """Whether the file is one that the zoo pins, or that others have seen."""
    known = {release.sha256 for release in getattr(artifact, "known", ())} | {getattr(artifact, "sha256", None)}
    return fetched.sha256 in known or any(fetched.sha256 == each.sha256 for each in _seen(fetched.url))


def _seen(url: str) -> tuple[Seen, ...]:
    """The known revisions of a tarball or checkpoint that is named so."""
    from paddle2torch.converter.zoo.known import known_files

    return known_files().called(_label(url))


def _odd_size(fetched: Fetched, url: str) -> str | None:
    """Why the size of a downloaded file is not what others have seen, if it is not.

    That alone is no reason to refuse it, for tarballs are packed anew; what is in them is looked up by itself.
    """
    seen = _seen(url)
    sizes = sorted({each.size for each in seen if each.size is not None})
    if not sizes or fetched.size in sizes or any(each.sha256 == fetched.sha256 for each in seen):
        return None
    known = " or ".join(f"{size:,}" for size in sizes)
    return f"has {fetched.size:,} bytes, and the releases of it that are known have {known}: replaced, or packed anew"


def _difference(artifact: Artifact | Dictionary, fetched: Fetched) -> str | None:
    """How the file differs from what the zoo pins, if it does."""
    for what in ("size", "sha256"):
        expected, actual = getattr(artifact, what, None), getattr(fetched, what)
        if expected is not None and expected != actual:
            return (
                f"its {what} is {actual}, the zoo says {expected}; it was not used; "
                "if upstream replaced the file and you trust that, measure it anew with `zoo lock`"
            )
    return None
