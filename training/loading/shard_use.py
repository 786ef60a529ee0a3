"""Where a loader reads rows from: a local root's shards as they lie, a remote root's from copies on this machine."""

from __future__ import annotations

import threading
from collections.abc import Iterable

from omnimill.infra import storage
from omnimill.infra.shard_cache import ShardCache
from omnimill.mixtures.shard_files import ShardFile, open_shard
from omnimill.training.loading.settings import LoaderSettings


class ShardUse:
    """The shards of planned steps: each step holds its own from when it is planned until its rows are read.

    Where no copies are kept, or those in use leave no room, rows are read from the store, a record batch at a time.
    """

    def __init__(self, settings: LoaderSettings) -> None:
        self._settings = settings
        self._cache: ShardCache | None = None
        self._copies: dict[str, ShardFile] = {}
        self._lock = threading.Lock()
        self._closed = False

    def hold(self, urls: Iterable[str]) -> None:
        """Say that a step will read these; copies of remote ones are fetched in the background, in this order."""
        for url in urls:
            if storage.is_local(url):
                continue
            with self._lock:
                if self._cache is None and not self._closed:
                    self._cache = self._settings.open_cache()
            if self._cache is not None:
                self._cache.hold(url)

    def release(self, urls: Iterable[str]) -> None:
        """Say that the step has read them."""
        if self._cache is None:
            return
        for url in urls:
            if not storage.is_local(url) and self._cache.release(url):
                # What is still mapped takes room on the disk after the copy was given up.
                with self._lock:
                    self._copies.pop(url, None)

    def open(self, url: str) -> ShardFile:
        """A shard that is held."""
        if storage.is_local(url) or self._cache is None or (copy := self._cache.path(url)) is None:
            return open_shard(url)
        with self._lock:
            if url not in self._copies:
                self._copies[url] = ShardFile(str(copy))
            return self._copies[url]

    def close(self) -> None:
        """Stop fetching and release everything; who still waits for a shard gets an error."""
        with self._lock:
            self._closed = True
            self._copies.clear()
        if self._cache is not None:
            self._cache.close()
