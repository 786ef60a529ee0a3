"""A video file that several records of a unit are cut from: brought here and looked into once."""

from __future__ import annotations

import shutil
import tempfile
import weakref
from functools import partial
from pathlib import Path
from threading import Lock

from omnimill.infra import storage
from omnimill.pipelines.decoders.probe import MediaInfo, MediaLimits, probe
from omnimill.pipelines.isolation import isolated

_PROBE_SECONDS = 120.0


class Film:
    """A local copy of a video (the file itself when it is local) and what its headers say; any thread may ask.

    The copy is gone when the last record that holds the film is.
    """

    def __init__(self, url: str, limits: MediaLimits) -> None:
        self.url = url
        self._limits = limits
        self._lock = Lock()
        self._path: str | None = None
        self._info: MediaInfo | None = None

    def path(self) -> str:
        with self._lock:
            if self._path is None:
                self._path = self._bring()
            return self._path

    def info(self) -> MediaInfo:
        """What the file holds.

        Raises:
            BadRecord: see :func:`~omnimill.pipelines.decoders.probe.probe`.
        """
        path = self.path()
        with self._lock:
            if self._info is None:
                self._info = isolated("video", _PROBE_SECONDS, probe, path, "video", self._limits)
            return self._info

    def _bring(self) -> str:
        _, path = storage.filesystem(self.url)
        if storage.is_local(self.url):
            return str(Path(path).absolute())
        folder = tempfile.mkdtemp()
        weakref.finalize(self, partial(shutil.rmtree, folder, ignore_errors=True))
        copy = Path(folder) / path.rsplit("/", 1)[-1]
        storage.download(self.url, copy)
        return str(copy)
