"""Reading a file of a remote store by byte ranges, each of a checked length and tried again when it fails."""

from __future__ import annotations

import io
from typing import Any

from omnimill.infra.retry import Truncated, patiently

# A range grows from the first size to the largest while it is read in order, and falls back after a jump.
FIRST_BYTES = 1 << 20
_LARGEST_BYTES = 16 << 20
_GROWTH = 4


class RangeReader(io.RawIOBase):
    """The bytes of ``path`` on an fsspec file system; seekable, at most 16 MiB in memory.

    Args:
        size: of the file, in bytes.
        url: for messages.
        first: bytes of the range that is asked for after a jump, unless more is read at once.

    Raises:
        StoreUnavailable: while reading, when the store fails for minutes.
    """

    def __init__(self, fs: Any, path: str, size: int, url: str, first: int = FIRST_BYTES) -> None:
        self._fs, self._path, self._size, self._url = fs, path, size, url
        self._first = first
        self._position = 0
        self._start, self._block = 0, b""
        self._ahead = first

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size}[whence]
        self._position = max(0, base + offset)
        return self._position

    def readinto(self, buffer: Any) -> int:
        with memoryview(buffer).cast("B") as target:
            if not len(target) or self._position >= self._size:
                return 0
            if not self._start <= self._position < self._start + len(self._block):
                self._fetch(len(target))
            offset = self._position - self._start
            part = self._block[offset : offset + len(target)]
            target[: len(part)] = part
        self._position += len(part)
        return len(part)

    def readall(self) -> bytes:
        data = self.get(self._position, self._size) if self._position < self._size else b""
        self._position = max(self._position, self._size)
        return data

    def _fetch(self, wanted: int) -> None:
        in_order = self._position == self._start + len(self._block)
        self._ahead = min(self._ahead * _GROWTH, _LARGEST_BYTES) if in_order and self._block else self._first
        stop = min(self._position + max(wanted, self._ahead), self._size, self._position + _LARGEST_BYTES)
        self._block, self._start = self.get(self._position, stop), self._position

    def get(self, start: int, stop: int) -> bytes:
        """The bytes from `start` to `stop`, all of them."""

        def get() -> bytes:
            data: bytes = self._fs.cat_file(self._path, start=start, end=stop)
            if len(data) == self._size:  # a web server that knows no ranges
                return data[start:stop]
            if len(data) != stop - start:
                raise Truncated(f"{len(data)} bytes came, {stop - start} were asked for")
            return data

        return patiently(f"reading {self._url}", get)
