"""The folder of downloaded files, and its memory of what each URL held when it was first seen.

A file lies below its URL's host and path, so that the folder reads like the servers it came from. Beside `x.tar` lie
`x.tar.record.json` (URL, sha256, size, when first seen), and while it comes `x.tar.partial` with `x.tar.partial.json`
(what a later run needs to go on with it) and `x.tar.lock`. What a killed process leaves of these, the next run that
wants the file goes on with or takes away.

Others may be able to write to the folder. So no symbolic link in it is followed, and what its records say is checked.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, TypeGuard
from urllib.parse import urlsplit

from paddle2torch.converter.support.digests import sha256_of
from paddle2torch.converter.support.errors import DownloadError, OutputError
from paddle2torch.converter.support.files import atomic_write, sweep
from paddle2torch.converter.support.terminal import without_users

if TYPE_CHECKING:
    from filelock import BaseFileLock

CACHE_VARIABLE = "PADDLE2TORCH_CACHE"
RECORD, PARTIAL, STATE, LOCK = ".record.json", ".partial", ".partial.json", ".lock"
NO_LINK = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
"""To open what is a file, and no link to one or pipe; Windows has no such flag, and lets few people make links."""

_LARGEST_RECORD = 64 * 1024  # bytes
_LONGEST_URL = 1500

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Record:
    """What a URL held when it was first seen.

    Attributes:
        url: where the bytes came from (with `--mirror`, the mirror's URL).
        sha256: their hash in lower-case hex.
        size: their number.
        first_seen: when, in ISO 8601, UTC.
    """

    url: str
    sha256: str
    size: int
    first_seen: str


@dataclass(frozen=True)
class CacheEntry:
    """A file in the cache, for people to look at.

    Attributes:
        url: where it came from.
        path: where it lies.
        size: its bytes now.
        record: what is known of it; None for a download that has not ended.
    """

    url: str
    path: Path
    size: int
    record: Record | None


class Cache:
    """The cache in one folder, which need not exist yet."""

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = folder or default_folder()
        self._locked: dict[BaseFileLock, Path] = {}

    def path(self, url: str) -> Path:
        """Where the URL's file lies once it is there."""
        parts = urlsplit(url)
        host = parts.netloc.rpartition("@")[2]
        steps = [host.replace(":", "_"), *filter(None, parts.path.split("/"))]
        if parts.query:  # no part of a name, but another query is another file
            steps[-1] += "-" + hashlib.sha256(parts.query.encode()).hexdigest()[:8]
        if ".." in steps or "." in steps or len(steps) < 2:
            raise DownloadError(f"{without_users(url)}: names no file; expected a URL that ends in a file's name")
        return self.folder.joinpath(*steps)

    def record(self, url: str) -> Record | None:
        """What the URL held when it was first seen."""
        return self._record_of(self.path(url))

    def _record_of(self, path: Path) -> Record | None:
        """The record of the file at a path; one that belongs to another path is as good as none."""
        record = _read_record(beside(path, RECORD))
        try:
            return record if record and self.path(record.url) == path else None
        except (DownloadError, ValueError):  # its URL is none
            return None

    def _link_above(self, path: Path) -> Path | None:
        """The folder of the cache on the way to a path that is really a link, if there is one."""
        within = [folder for folder in path.parents if self.folder in folder.parents]
        return next((folder for folder in within if folder.is_symlink()), None)

    def remember(self, url: str, sha256: str, size: int) -> None:
        """Take these as what the URL holds."""
        known = self.record(url)
        if known and (known.sha256, known.size) == (sha256, size):
            return
        record = Record(url, sha256, size, datetime.now(UTC).isoformat(timespec="seconds"))
        with atomic_write(beside(self.path(url), RECORD)) as stream:
            stream.write(json.dumps(asdict(record), indent=1).encode())

    def held(self, url: str) -> Record | None:
        """The record of the URL's file where the file is here and still what it was; None else."""
        path, record = self.path(url), self.record(url)
        try:
            if record is None or not is_file(path) or self._link_above(path):
                return None
            if path.stat().st_size == record.size and sha256_of(path) == record.sha256:
                return record
        except OSError:  # cleaned away by another process in this moment, or not readable
            return None
        logger.warning("%s: damaged in the cache (its sha256 is no longer %s); passed over", path, record.sha256)
        return None

    @contextmanager
    def lock(self, url: str) -> Iterator[None]:
        """Keep other processes and threads from the URL's file, waiting for one that has it."""
        from filelock import Timeout

        path = self.path(url)
        if link := self._link_above(path):
            raise OutputError(f"{link}: is a link; no link in the cache is followed; remove it")
        with writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            lock = _file_lock(path)
            try:
                lock.acquire(timeout=0)
            except Timeout:
                logger.warning("%s: another process is downloading it; waiting", path.name)
                lock.acquire()
        self._locked[lock] = path
        try:
            with writing(path):
                _sweep(path)
            yield
        finally:
            if self._locked.pop(lock, None):
                _drop(path)
            lock.release()

    def tidy(self, path: Path) -> None:
        """Remove what a killed process left beside a cached file, unless another is at work there right now."""
        if _drop_left(path):
            _sweep_parts(path)

    def abandon(self) -> None:
        """Remove the lock files of threads that are not waited for, because the program is to end."""
        while self._locked:
            _, path = self._locked.popitem()
            with suppress(OSError):
                _sweep(path)
            _drop(path)

    def entries(self) -> tuple[CacheEntry, ...]:
        """All files in the cache, those first that are complete."""
        complete, partial = [], []
        for place in sorted(self.folder.rglob("*")):
            with suppress(OSError):  # cleaned away by another process in this moment
                if place.name.endswith(RECORD):
                    path = place.with_name(place.name.removesuffix(RECORD))
                    record = self._record_of(path)
                    if record and is_file(path):
                        complete.append(CacheEntry(record.url, path, path.lstat().st_size, record))
                elif place.name.endswith(PARTIAL):
                    url = read_own(place.with_name(place.name.removesuffix(PARTIAL) + STATE)).get("url")
                    partial.append(CacheEntry(url if is_url(url) else "unknown", place, place.lstat().st_size, None))
        return (*complete, *partial)

    def clean(
        self, wanted: Callable[[CacheEntry], bool] = lambda entry: True, forget: bool = False
    ) -> tuple[CacheEntry, ...]:
        """Remove files.

        Args:
            wanted: which entries go; all where not given. One that is being downloaded right now stays.
            forget: forget also what their URLs held when first seen, even where the file went before.

        Returns:
            What was removed.

        Raises:
            OutputError: a file cannot be removed.
        """
        removed = tuple(entry for entry in self.entries() if wanted(entry) and self._remove(entry, forget))
        known = self._remembered() if forget else ()
        forgotten = [entry for entry in known if wanted(entry) and self._remove(entry, forget)]
        locks = [file.with_name(file.name.removesuffix(LOCK)) for file in self.folder.rglob(f"*{LOCK}")]
        swept = [*map(_file_of, (*removed, *forgotten)), *filter(_drop_left, locks)]
        _sweep_parts(*swept)
        for folder in {path.parent for path in (*swept, *locks)}:
            self._prune(folder)
        return removed

    def _remembered(self) -> tuple[CacheEntry, ...]:
        """What is known of URLs whose files are no longer here."""
        paths = [file.with_name(file.name.removesuffix(RECORD)) for file in self.folder.rglob(f"*{RECORD}")]
        known = {path: self._record_of(path) for path in paths if not path.exists()}
        return tuple(CacheEntry(record.url, path, 0, record) for path, record in known.items() if record)

    def _remove(self, entry: CacheEntry, forget: bool) -> bool:
        from filelock import Timeout

        path = _file_of(entry)
        suffixes = ("", *((RECORD,) if forget else ())) if entry.record else (PARTIAL, STATE)
        with writing(path):
            try:
                with _file_lock(path, timeout=0):
                    for suffix in suffixes:
                        beside(path, suffix).unlink(missing_ok=True)
                    _drop_state(path)
                    _drop(path)
            except Timeout:
                logger.warning("%s: being downloaded by another process; left in place", path)
                return False
        return True

    def _prune(self, folder: Path) -> None:
        """Remove a folder that has become empty, and those above it."""
        with suppress(OSError):  # it is not empty
            while folder != self.folder:
                folder.rmdir()
                folder = folder.parent


def default_folder() -> Path:
    """The cache's folder: what PADDLE2TORCH_CACHE names, or the platform's place for caches."""
    if named := os.environ.get(CACHE_VARIABLE):
        return Path(named)
    import platformdirs

    return Path(platformdirs.user_cache_dir("paddle2torch", appauthor=False))


def beside(path: Path, suffix: str) -> Path:
    """The companion of a cached file with that suffix."""
    return path.with_name(path.name + suffix)


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn the system's refusal to write into an error for people."""
    try:
        yield
    except OSError as error:
        raise OutputError(
            f"{path}: cannot be written ({error.strerror or error}); "
            f"free the disk, or choose another cache with --cache or {CACHE_VARIABLE}"
        ) from error


def read_json(path: Path) -> dict[str, object]:
    """The mapping in a JSON file; empty where there is none, or it is damaged."""
    with suppress(OSError):
        return _mapping(path.read_bytes())
    return {}


def read_own(path: Path) -> dict[str, object]:
    """The mapping in a small JSON file of the cache; empty where there is none, or it cannot be one of ours."""
    with suppress(OSError), open(path, "rb", opener=_without_links) as stream:
        return _mapping(stream.read(_LARGEST_RECORD))
    return {}


def is_file(path: Path) -> bool:
    """Whether there is a file, and not a link to one."""
    try:
        return stat.S_ISREG(path.lstat().st_mode)
    except OSError:
        return False


def is_url(value: object) -> TypeGuard[str]:
    """Whether a value read from the cache can be a URL that was noted there."""
    if not isinstance(value, str) or len(value) > _LONGEST_URL:
        return False
    return value.isprintable() and value == without_users(value)


def _without_links(path: str, flags: int) -> int:
    descriptor = os.open(path, flags | NO_LINK)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(f"{path}: no file")
    return descriptor


def _mapping(data: bytes) -> dict[str, object]:
    with suppress(ValueError, RecursionError):
        content = json.loads(data.decode("utf-8"))
        if isinstance(content, dict):
            return content
    return {}


def _file_lock(path: Path, timeout: float = -1) -> BaseFileLock:
    """The lock of a file; a link in its place is removed, not followed."""
    from filelock import FileLock

    lock = beside(path, LOCK)
    if lock.is_symlink():
        lock.unlink(missing_ok=True)
    return FileLock(lock, timeout=timeout)


def _file_of(entry: CacheEntry) -> Path:
    """The path of an entry's file, there or to be."""
    return entry.path if entry.record else entry.path.with_name(entry.path.name.removesuffix(PARTIAL))


def _sweep(path: Path) -> None:
    """Remove what a killed process left half-written beside a file; the caller has the file's lock."""
    _sweep_parts(path)
    _drop_state(path)


def _sweep_parts(*paths: Path) -> None:
    """Remove what killed processes left half-written of the records of files."""
    sweep(*(beside(path, suffix) for path in paths for suffix in (RECORD, STATE)))


def _drop_state(path: Path) -> None:
    """Remove what is known of a partial file that is not there."""
    if not beside(path, PARTIAL).exists():
        beside(path, STATE).unlink(missing_ok=True)


def _drop_left(path: Path) -> bool:
    """Remove a file's lock file and state that a killed process left; False where there is none, or one is at work."""
    from filelock import Timeout

    if beside(path, LOCK).exists():
        with suppress(OSError, Timeout), _file_lock(path, timeout=0):
            _drop_state(path)
            _drop(path)
            return True
    return False


def _drop(path: Path) -> None:
    """Remove the lock file of a file, by the one who has the lock; who waits for it starts over with a new one."""
    with suppress(OSError):  # Windows removes no file that is open, and filelock does it there by itself
        beside(path, LOCK).unlink()


def _read_record(path: Path) -> Record | None:
    """The record in a file; None where it is not of the kind that is written here."""
    content = read_own(path)
    url, sha256, size, first_seen = (content.get(name) for name in ("url", "sha256", "size", "first_seen"))
    if (
        is_url(url)
        and isinstance(sha256, str)
        and re.fullmatch("[0-9a-f]{64}", sha256)
        and isinstance(size, int)
        and not isinstance(size, bool)
        and size >= 0
        and isinstance(first_seen, str)
        and _is_time(first_seen)
    ):
        return Record(url, sha256, size, first_seen)
    return None


def _is_time(text: str) -> bool:
    try:
        datetime.fromisoformat(text)
    except ValueError:
        return False
    return text.isprintable()
