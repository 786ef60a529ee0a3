"""Bytes by name, more of them than fit into memory: kept in a temporary file for as long as a unit needs them."""

from __future__ import annotations

import os
import tempfile
from dataclasses import dataclass


@dataclass(frozen=True)
class Stored:
    """Bytes, and the URI that says where they came from."""

    data: bytes
    uri: str


class Spool:
    """A store on the local disk (TMPDIR), filled by one thread and read by any; gone with its object."""

    def __init__(self) -> None:
        self._file = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the object
        self._places: dict[str, tuple[int, int, str]] = {}
        self._end = 0

    def __contains__(self, name: str) -> bool:
        return name in self._places

    def put(self, name: str, data: bytes, uri: str) -> None:
        """Keep bytes under a name; the first under a name stay."""
        if name not in self._places:
            self._file.write(data)
            self._file.flush()
            self._places[name] = (self._end, len(data), uri)
            self._end += len(data)

    def get(self, name: str) -> Stored | None:
        place = self._places.get(name)
        if place is None:
            return None
        offset, length, uri = place
        return Stored(os.pread(self._file.fileno(), length, offset), uri)

    def __del__(self) -> None:
        self._file.close()
