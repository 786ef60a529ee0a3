"""Files that come with smaller ones beside them: a film with its transcript, an asset with its label."""

from __future__ import annotations

import posixpath
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from functools import partial
from itertools import islice
from typing import Any, ClassVar

from pydantic import Field

from omnimill.errors import BadRecord, RecordDropped
from omnimill.infra import storage
from omnimill.infra.dataset import Unit
from omnimill.pipelines import files
from omnimill.pipelines.base import Record, Source
from omnimill.schema import Example, Provenance


class SidecarSource(Source):
    """Files in a folder, each a record; the side-cars beside them are records of their own.

    A side-car that can be read goes into the examples of its file and is dropped as ``sidecar``; one that cannot is
    quarantined alone, and the file is kept without it. Where a side-car may lie is given by templates relative to the
    file's folder, in which ``{stem}`` is the file's name without ending; the first that is there is used.

    path: folder or single file. include, exclude: globs below it.
    max_file_bytes: a larger file is quarantined unread.
    """

    selection: ClassVar[tuple[str, ...]] = ("include", "exclude", "files_per_unit")

    path: str
    include: tuple[str, ...]
    exclude: tuple[str, ...] = ()
    files_per_unit: int = Field(1, ge=1)
    max_file_bytes: int = Field(64 << 30, gt=0)

    def templates(self) -> tuple[tuple[str, ...], ...]:
        """For each kind of side-car the templates of where it may lie."""
        raise NotImplementedError

    def read_sidecar(self, url: str) -> dict[str, Any]:
        """What a side-car says, by name; raises BadRecord."""
        raise NotImplementedError

    def decode(
        self, unit: Unit, url: str, key: str, provenance: Provenance, sidecars: dict[str, Any]
    ) -> Sequence[Example]:
        """The examples of a file, given what its side-cars say."""
        raise NotImplementedError

    def units(self) -> Iterator[Unit]:
        listed = files.find(self.path)
        belongs = files.matcher(self.include, self.exclude)
        wanted = [url for url in listed if belongs(files.relative(url, self.path)) or url == self.path]
        present, seen = set(listed), set[str]()

        def is_there(url: str) -> bool:
            below = url.startswith(self.path.rstrip("/") + "/")
            return url in present or (not below and storage.exists(url))

        for group in files.groups(wanted, self.files_per_unit):
            beside = {sidecar for url in group for sidecar in self._beside(url, is_there)} - set(wanted)
            # A side-car that two files share is accounted for with the first.
            own, shared = sorted(beside - seen), sorted(beside & seen)
            seen.update(own)
            yield Unit(
                source=self.name,
                files=(*group, *own, *shared),
                options={"files": len(group), "sidecars": len(own)},
            )

    def read(self, unit: Unit) -> Iterator[Record]:
        count = int(unit.options["files"])
        sidecars = unit.files[count:]
        for url in unit.files[:count]:
            provenance = Provenance(uri=url, digest=storage.digest_file(url), length=int(storage.stat(url)["bytes"]))
            key = files.relative(url, self.path)
            beside = self._beside(url, sidecars.__contains__)
            yield Record(key, provenance, partial(self._decode, unit, url, key, provenance, beside))
        for url in sidecars[: int(unit.options["sidecars"])]:
            size = int(storage.stat(url)["bytes"])
            small = storage.read_bytes(url) if size <= files.SMALL_BYTES else None
            provenance = Provenance(uri=url, digest=storage.digest_file(url), length=size)
            yield Record(files.relative(url, self.path), provenance, partial(self._account_for, url), small)

    def _decode(
        self, unit: Unit, url: str, key: str, provenance: Provenance, beside: Sequence[str]
    ) -> Sequence[Example]:
        if (provenance.length or 0) > self.max_file_bytes:
            raise BadRecord("file_too_large", f"{provenance.length} bytes; at most {self.max_file_bytes}")
        said: dict[str, Any] = {}
        for sidecar in beside:
            with suppress(BadRecord):  # its own record tells what is wrong with it
                said.update(self.read_sidecar(sidecar))
        return self.decode(unit, url, key, provenance, said)

    def _account_for(self, url: str) -> Sequence[Example]:
        self.read_sidecar(url)
        raise RecordDropped("sidecar")

    def _beside(self, url: str, is_there: Callable[[str], bool]) -> list[str]:
        """The side-cars of a file, at most one of each kind."""
        folder, name = url.rsplit("/", 1) if "/" in url else (".", url)
        stem = name.rsplit(".", 1)[0]
        found: list[str] = []
        for kind in self.templates():
            candidates = (_join(folder, template.replace("{stem}", stem)) for template in kind)
            found.extend(islice(filter(is_there, candidates), 1))
        return found


def _join(folder: str, name: str) -> str:
    """`name` as seen from `folder`, a URL or a path."""
    scheme, mark, path = folder.rpartition("://")
    return scheme + mark + posixpath.normpath(posixpath.join(path, name))
