"""Local copies of remote shards: fetched before they are needed, shared by the processes of a machine, of bounded size.

A copy lies under its digest in one folder. Whoever reads it holds a shared lock on it, so that nobody gives it up; the
locks of a process that dies go with it. Room is made by giving up the copies whose last use, or announced use, is
longest ago. What has only partly come is a ``.part`` file under an exclusive lock; whoever gets that lock next begins
it anew, so a download that was killed leaves nothing that is taken for a shard.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from blake3 import blake3

from omnimill.errors import IntegrityError, OmnimillError
from omnimill.infra import storage
from omnimill.progress import console

_POLL_SECONDS = 0.05


@dataclass
class _Held:
    """A shard in use. copy: open, under a shared lock; None: there was no room for it. users: who hold it."""

    copy: Future[BinaryIO | None]
    users: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)


class ShardCache:
    """Copies of shards in a folder of this machine; any number of processes may use the same folder.

    Args:
        folder: on a local disk; made if it is not there.
        limit: most bytes that all copies in the folder take.
        downloads: at a time.
    """

    def __init__(self, folder: Path, limit: int, downloads: int = 4) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._limit = limit
        self._held: dict[str, _Held] = {}
        self._lock = threading.Lock()
        self._closed = threading.Event()
        self._warned = False
        self._pool = ThreadPoolExecutor(downloads, thread_name_prefix="shards")

    def hold(self, url: str) -> None:
        """Say that a shard will be read: its copy is fetched in the background and stays until it is released."""
        with self._lock:
            held = self._held.get(url)
            if held is None:
                held = self._held[url] = _Held(self._pool.submit(self._fetch, url))
            held.users += 1

    def path(self, url: str) -> Path | None:
        """The copy of a shard that is held, once it is there; None: the copies that are in use leave no room for it.

        Raises:
            IntegrityError: what came is not what the shard's name says.
            StoreUnavailable: the store failed for minutes.
        """
        held = self._held[url]
        with held.lock:
            if held.copy.result() is None:
                # Something may have been released since.
                held.copy = Future()
                try:
                    held.copy.set_result(self._fetch(url))
                except BaseException as error:
                    held.copy.set_exception(error)
                    raise
            if held.copy.result() is None:
                self._warn()
                return None
        return self._folder / _name(url)

    def release(self, url: str) -> bool:
        """Say that a shard is not read any more, for one :meth:`hold`; whether nobody in this process holds it now."""
        with self._lock:
            held = self._held[url]
            held.users -= 1
            if held.users:
                return False
            del self._held[url]
        if not held.copy.cancel():
            held.copy.add_done_callback(_let_go)
        return True

    def close(self) -> None:
        """Stop fetching and release everything. Copies stay for who comes next."""
        self._closed.set()
        self._pool.shutdown(cancel_futures=True)
        for held in self._held.values():
            _let_go(held.copy)
        self._held.clear()

    def _fetch(self, url: str) -> BinaryIO | None:
        """The shard's copy, open and under a shared lock."""
        place = self._folder / _name(url)
        part = place.with_suffix(".part")
        while True:
            if (copy := _open_shared(place)) is not None:
                return copy
            with self._alone(part) as stream:
                if stream is None:
                    continue
                if place.exists():
                    part.unlink()
                    continue
                size = int(storage.stat(url)["bytes"])
                if not self._make_room(stream, size, keep=part):
                    part.unlink()
                    return None
                self._download(url, stream, part)
                with self._counting():
                    part.replace(place)

    @contextmanager
    def _alone(self, part: Path) -> Iterator[BinaryIO | None]:
        """A partial copy under an exclusive lock; None when another process finished it or gave it up meanwhile."""
        # Neither emptied nor appended to: another process may be writing it.
        with os.fdopen(os.open(part, os.O_RDWR | os.O_CREAT, 0o600), "r+b") as stream:
            # Once it has its name, readers lock it for as long as they like.
            while _is_at(stream, part) and not _try_lock(stream, fcntl.LOCK_EX):
                self._check_open()
                time.sleep(_POLL_SECONDS)
            yield stream if _is_at(stream, part) else None

    def _download(self, url: str, stream: BinaryIO, part: Path) -> None:
        hasher, written = blake3(), 0
        try:
            with storage.open_read(url) as source:
                for chunk in storage.chunks(source):
                    self._check_open()
                    hasher.update(chunk)
                    written += os.pwrite(stream.fileno(), chunk, written)
            found = hasher.hexdigest()
            if found != Path(_name(url)).stem or written != os.fstat(stream.fileno()).st_size:
                raise IntegrityError(f"{url} is damaged: its {written} bytes have the digest {found[:12]}…")
            # A name that appears before its content would survive a machine that stops now.
            os.fsync(stream.fileno())
        except BaseException:
            part.unlink()
            raise

    def _make_room(self, stream: BinaryIO, size: int, keep: Path) -> bool:
        """Reserve `size` bytes for a partial copy, giving up others for it; False when too many are in use."""
        with self._counting():
            copies = {path: status for path in self._copies() if path != keep and (status := _status(path))}
            over = sum(status.st_size for status in copies.values()) + size - self._limit
            over = max(over, size - shutil.disk_usage(self._folder).free)
            for path, status in sorted(copies.items(), key=lambda item: item[1].st_mtime_ns):
                if over <= 0:
                    break
                over -= status.st_size if _give_up(path) else 0
            if over <= 0:
                os.posix_fallocate(stream.fileno(), 0, size)
            return over <= 0

    @contextmanager
    def _counting(self) -> Iterator[None]:
        """A time in which no other process reserves room, and no copy changes its name."""
        with (self._folder / ".room").open("w") as room:
            fcntl.flock(room, fcntl.LOCK_EX)
            yield

    def _copies(self) -> list[Path]:
        return [path for ending in ("*.arrow", "*.part") for path in self._folder.glob(ending)]

    def _warn(self) -> None:
        with self._lock:
            warned, self._warned = self._warned, True
            count = len(self._held)
        if not warned:
            console.print(
                f"local copies in {self._folder} may take {self._limit / (1 << 30):.3g} GiB, which does not hold the "
                f"{count} shards that this worker's next steps read: some are read from the store, piece by piece. "
                "Raise loader.cache_gib, or plan fewer steps ahead (loader.plan_ahead)",
                style="yellow",
            )

    def _check_open(self) -> None:
        if self._closed.is_set():
            raise OmnimillError("the cache of shards was closed")


def _name(url: str) -> str:
    """Of the copy: shards are named by their digest."""
    return url.rpartition("/")[2]


def _open_shared(place: Path) -> BinaryIO | None:
    """A copy that is there, under a shared lock and marked as used now."""
    try:
        stream = place.open("rb")
    except FileNotFoundError:
        return None
    # Held exclusively for moments only, by who gives it up.
    fcntl.flock(stream, fcntl.LOCK_SH)
    if not _is_at(stream, place):
        stream.close()
        return None
    _mark(stream)
    return stream


def _let_go(copy: Future[BinaryIO | None]) -> None:
    """Close a copy, which ends the lock, and mark it as used now."""
    if copy.cancelled() or copy.exception() is not None or (stream := copy.result()) is None:
        return
    _mark(stream)
    stream.close()


def _mark(stream: BinaryIO) -> None:
    """Say that a copy is used now; the kernel's own clock of files counts in milliseconds."""
    now = time.time_ns()
    os.utime(stream.fileno(), ns=(now, now))


def _give_up(path: Path) -> bool:
    """Delete a copy that nobody holds."""
    try:
        with path.open("rb") as stream:
            if not _try_lock(stream, fcntl.LOCK_EX):
                return False
            if _is_at(stream, path):
                path.unlink()
            return True
    except FileNotFoundError:
        return True


def _try_lock(stream: BinaryIO, kind: int) -> bool:
    try:
        fcntl.flock(stream, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _is_at(stream: BinaryIO, path: Path) -> bool:
    """Whether an open file is still the one of that name."""
    status = _status(path)
    return status is not None and os.path.samestat(os.fstat(stream.fileno()), status)


def _status(path: Path) -> os.stat_result | None:
    try:
        return path.stat()
    except FileNotFoundError:
        return None
