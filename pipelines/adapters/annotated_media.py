"""Base of sources that are annotation files and folders of media: a record is a medium and all that is said of it."""

from __future__ import annotations

import errno
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Literal

from blake3 import blake3
from pydantic import Field

from omnimill.errors import BadRecord, RecordDropped
from omnimill.infra import storage
from omnimill.infra.dataset import InputRef, Unit
from omnimill.pipelines import files
from omnimill.pipelines.adapters.annotation_index import AnnotationIndex, Entry, Row, Said, open_index
from omnimill.pipelines.base import Record, Source
from omnimill.pipelines.sources.examples import refusal
from omnimill.schema import Example, Provenance

# Media of a remote store that are read before they are asked for.
_AHEAD = 8
# What the system says of a name that leads to no file.
_NO_FILE = {errno.ENOENT, errno.EISDIR, errno.ENOTDIR, errno.ENAMETOOLONG}
# Settings that have no influence on what annotation files say; limits (``max_…``) have none either.
_NOT_ROWS = {"name", "licence", "path", "pictures", "images", "media_per_unit", "missing", "objects"}


class AnnotatedMedia(Source):
    """Base of sources whose annotation files name the media that lie beside them.

    A subclass says which files there are, what rows they hold, which media a record needs, and what example it becomes.

    bytes_per_medium: of annotations, typically; together with the files' sizes it tells how many units there are.
    path: folder of the dataset.
    media_per_unit: about so many media make a unit. How many there are is estimated from the size of the annotation
        files, so that listing units reads none of them.
    missing: whether a record whose medium is not there is quarantined, or dropped: for media that were fetched from
        the web, and annotations of more media than one has.
    """

    selection: ClassVar[tuple[str, ...]] = ("media_per_unit",)
    bytes_per_medium: ClassVar[int] = 1024

    path: str
    media_per_unit: int = Field(256, ge=1)
    missing: Literal["quarantine", "drop"] = "quarantine"

    def annotation_files(self) -> Sequence[tuple[str, str]]:
        """What each annotation file is to the source, and its URL.

        Raises:
            ConfigError: one is not there.
        """
        raise NotImplementedError

    def rows(self, kind: str, uri: str) -> Iterator[Row]:
        """The rows of an annotation file; raises BadRecord when it cannot be read (any further)."""
        raise NotImplementedError

    def media(self, key: str, said: Said, common: Said) -> Sequence[str]:
        """URLs of the media that a record needs.

        Raises:
            BadRecord: nothing says which, or one is not there.
            RecordDropped: nothing is said that an example could be made of.
        """
        raise NotImplementedError

    def example(
        self, unit: Unit, key: str, provenance: Provenance, media: Sequence[Any], said: Said, common: Said
    ) -> Sequence[Example]:
        """The examples of a record; `media` as :meth:`loaded` gives them."""
        raise NotImplementedError

    def media_root(self) -> str:
        """A folder that the media lie in."""
        return self.path

    def loaded(self, url: str) -> tuple[Any, str]:
        """A medium as `example` wants it, here its URL, and its digest; raises BadRecord."""
        return url, storage.digest_file(url)

    def units(self) -> Iterator[Unit]:
        uris = tuple(uri for _, uri in self.annotation_files())
        size = sum(int(storage.stat(uri)["bytes"]) for uri in uris)
        parts = max(1, -(-size // (self.bytes_per_medium * self.media_per_unit)))
        for part in range(parts):
            yield Unit(source=self.name, files=uris, options={"part": part, "parts": parts})

    def inputs(self, unit: Unit) -> list[InputRef]:
        """The rows of the unit in each annotation file, and its media as far as they are there."""
        try:
            index = self._index(unit)
        except BadRecord:
            return super().inputs(unit)
        entries = list(self._entries(index, unit))
        hashers, sizes = [blake3(index.common_lines) for _ in unit.files], [0] * len(unit.files)
        for entry in entries:
            for line in entry.lines.splitlines():
                file = int(line[1 : line.index(b",")])
                hashers[file].update(entry.key.encode() + b"\n" + line)
                sizes[file] += len(line)
        refs = [
            InputRef(uri=uri, digest=hasher.hexdigest(), bytes=size)
            for uri, hasher, size in zip(unit.files, hashers, sizes, strict=True)
        ]
        urls = dict.fromkeys(url for entry in entries for url in self._media(entry, index))
        marks = storage.stats(urls)
        there = [url for url in urls if marks[url] is not None and not _is_folder(url)]
        for url, digest in zip(there, storage.digest_files(there), strict=True):
            refs.append(InputRef(uri=url, digest=digest, bytes=int((marks[url] or {})["bytes"])))
        return refs

    def read(self, unit: Unit) -> Iterator[Record]:
        index = self._index(unit)
        entries = self._entries(index, unit)
        if storage.is_local(self.media_root()):
            yield from (self._record(unit, entry, index) for entry in entries)
            return
        with ThreadPoolExecutor(_AHEAD, thread_name_prefix="read") as pool:
            ahead: deque[Future[Record]] = deque()
            for entry in entries:
                ahead.append(pool.submit(self._record, unit, entry, index))
                if len(ahead) > _AHEAD:
                    yield ahead.popleft().result()
            while ahead:
                yield ahead.popleft().result()

    def _record(self, unit: Unit, entry: Entry, index: AnnotationIndex) -> Record:
        small = entry.lines if len(entry.lines) <= files.SMALL_BYTES else None
        provenance = Provenance(uri=unit.files[0], digest=blake3(entry.lines).hexdigest())
        try:
            said = entry.said()
            urls = self.media(entry.key, said, index.common)
            loaded = [self._loaded(url) for url in urls]
        except (BadRecord, RecordDropped) as verdict:
            dropped = verdict.reason == "missing_file" and self.missing == "drop"
            return Record(entry.key, provenance, refusal(RecordDropped("missing_file") if dropped else verdict), small)
        if len(loaded) == 1:
            provenance = Provenance(uri=urls[0], digest=loaded[0][1])
        elif loaded:
            both = blake3("\n".join([provenance.digest, *(digest for _, digest in loaded)]).encode()).hexdigest()
            provenance = Provenance(uri=unit.files[0], digest=both)
        media = [medium for medium, _ in loaded]
        make = partial(self.example, unit, entry.key, provenance, media, said, index.common)
        return Record(entry.key, provenance, make, small)

    def _index(self, unit: Unit) -> AnnotationIndex:
        kinds = {uri: kind for kind, uri in self.annotation_files()}
        limits = {name for name in type(self).model_fields if name.startswith("max_")}
        recipe = {"version": self.version, **self.model_dump(mode="json", exclude=_NOT_ROWS | limits)}
        uris = unit.files

        def rows(number: int) -> Iterator[Row]:
            return self.rows(kinds[uris[number]], uris[number])

        return open_index(recipe, uris, rows)

    def _entries(self, index: AnnotationIndex, unit: Unit) -> Iterator[Entry]:
        return index.entries(int(unit.options["part"]), int(unit.options["parts"]))

    def _loaded(self, url: str) -> tuple[Any, str]:
        try:
            return self.loaded(url)
        except OSError as fault:
            if fault.errno not in _NO_FILE:
                raise
            raise BadRecord("missing_file", f"no file {url[:300]}") from None

    def _media(self, entry: Entry, index: AnnotationIndex) -> Sequence[str]:
        try:
            return self.media(entry.key, entry.said(), index.common)
        except (BadRecord, RecordDropped):
            return ()


def _is_folder(url: str) -> bool:
    """Whether the name of a medium leads to a local folder; object stores have none."""
    return storage.is_local(url) and Path(storage.filesystem(url)[1]).is_dir()
