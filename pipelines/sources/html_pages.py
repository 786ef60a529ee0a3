"""Saved web pages, with the pictures that lie beside them."""

from __future__ import annotations

import posixpath
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import ClassVar, Literal
from urllib.parse import unquote, urlsplit

from blake3 import blake3
from pydantic import Field

from omnimill.errors import BadRecord
from omnimill.infra import storage
from omnimill.infra.dataset import InputRef, Unit
from omnimill.pipelines import files
from omnimill.pipelines.base import Record
from omnimill.pipelines.decoders.webpage import picture_references
from omnimill.pipelines.sources.examples import refusal
from omnimill.pipelines.sources.pages import PageSource
from omnimill.pipelines.spool import Stored
from omnimill.schema import Provenance


class HtmlPagesSource(PageSource):
    """HTML files; a record is a page. Its pictures are the files that it refers to by relative paths.

    A path is seen from the page's folder, one that begins with a slash from `path`, as in a mirror of a site; nothing
    outside of `path` is read. Pictures by absolute URL are not fetched: they are missing.
    """

    selection: ClassVar[tuple[str, ...]] = ("include", "exclude", "files_per_unit")

    type: Literal["html_pages"]
    path: str
    include: tuple[str, ...] = ("**/*.html", "**/*.htm", "**/*.xhtml")
    exclude: tuple[str, ...] = ()
    files_per_unit: int = Field(16, gt=0)

    def units(self) -> Iterator[Unit]:
        for group in files.groups(files.find(self.path, self.include, self.exclude), self.files_per_unit):
            yield Unit(source=self.name, files=group)

    def inputs(self, unit: Unit) -> list[InputRef]:
        """The pages, and the pictures beside them that they refer to."""
        refs = {ref.uri: ref for ref in super().inputs(unit)}
        for uri in unit.files:
            for beside in self._beside(uri):
                if beside not in refs:
                    size = int(storage.stat(beside)["bytes"])
                    refs[beside] = InputRef(uri=beside, digest=storage.digest_file(beside), bytes=size)
        return list(refs.values())

    def read(self, unit: Unit) -> Iterator[Record]:
        for uri in unit.files:
            key = files.relative(uri, self.path)
            try:
                data = files.read_file(uri, self.max_page_bytes)
            except BadRecord as fault:
                yield Record(key, Provenance(uri=uri, digest=storage.digest_file(uri)), refusal(fault))
                continue
            provenance = Provenance(uri=uri, digest=blake3(data).hexdigest())
            small = data if len(data) <= files.SMALL_BYTES else None
            decode = partial(self.page_example, unit, key, provenance, data, partial(self._lookup, uri))
            yield Record(key, provenance, decode, small)

    def _beside(self, page: str) -> list[str]:
        try:
            data = files.read_file(page, self.max_page_bytes)
            candidates = picture_references(data, self.timeout_seconds)
        except BadRecord:
            return []  # reading the page will say what is wrong
        found = (self._resolve(page, candidate) for candidate in candidates)
        return sorted({url for url in found if url is not None})

    def _lookup(self, page: str, candidate: str, base: str | None) -> Stored | None:  # noqa: ARG002 - a base is remote
        url = self._resolve(page, candidate)
        if url is None:
            return None
        with storage.open_read(url) as stream:
            return Stored(stream.read(self.pictures.images.max_bytes + 1), url)

    def _resolve(self, page: str, candidate: str) -> str | None:
        """The file below `path` that a page means by a reference; None for one that is not there."""
        try:
            parts = urlsplit(candidate)
        except ValueError:
            return None
        if parts.scheme or parts.netloc or not parts.path or "\0" in candidate:
            return None
        root = self.path.rstrip("/") if page != self.path else posixpath.dirname(page)
        folder = root if parts.path.startswith("/") else posixpath.dirname(page)
        # Tools that save pages keep a query as part of the file's name.
        names = dict.fromkeys(
            [unquote(parts.path), unquote(f"{parts.path}?{parts.query}" if parts.query else parts.path)]
        )
        for name in names:
            below = posixpath.normpath(posixpath.join(folder[len(root) :].lstrip("/"), name.lstrip("/")))
            if not below.startswith("../") and below not in (".", "..") and _is_file(url := f"{root}/{below}", root):
                return url
        return None


def _is_file(url: str, root: str) -> bool:
    if not storage.is_local(url):
        return storage.exists(url) and int(storage.stat(url)["bytes"]) > 0  # folders have no bytes
    path, top = (Path(storage.filesystem(name)[1]) for name in (url, root))
    return path.is_file() and path.resolve().is_relative_to(top.resolve())
