"""Web archives: their pages, with the pictures that were archived with them, and texts extracted from pages."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from typing import ClassVar, Literal
from urllib.parse import urldefrag, urljoin

from blake3 import blake3
from pydantic import Field

from omnimill.errors import BadRecord, RecordDropped
from omnimill.infra.dataset import Unit
from omnimill.pipelines import files
from omnimill.pipelines.base import Record
from omnimill.pipelines.decoders.text import plain_text
from omnimill.pipelines.decoders.warc import Capture, read_captures
from omnimill.pipelines.fetching.robots import opts_out
from omnimill.pipelines.sources.examples import make_example
from omnimill.pipelines.sources.pages import PageSource
from omnimill.pipelines.spool import Spool, Stored
from omnimill.schema import Example, Meta, Provenance, Text

_PAGES = ("text/html", "application/xhtml+xml")


class WarcSource(PageSource):
    """WARC and WET files; a unit is a file, a record is a capture (a response, resource, conversion or revisit).

    HTML that was answered with status 200 is a page, and the text of conversions (WET) is one text. Pictures of the
    archive are dropped as ``sidecar`` and used by the pages that show them. Also dropped: ``http_status``,
    ``unsupported_type`` (other content), ``no_content`` (revisits, empty answers).

    max_picture_bytes: of an archived picture.
    """

    selection: ClassVar[tuple[str, ...]] = ("include", "exclude")

    type: Literal["warc"]
    path: str
    include: tuple[str, ...] = ("**/*.warc", "**/*.warc.gz", "**/*.warc.zst", "**/*.warc.wet", "**/*.warc.wet.gz")
    exclude: tuple[str, ...] = ()
    max_picture_bytes: int = Field(64 << 20, gt=0)

    def units(self) -> Iterator[Unit]:
        for url in files.find(self.path, self.include, self.exclude):
            yield Unit(source=self.name, files=(url,))

    def read(self, unit: Unit) -> Iterator[Record]:
        uri = unit.files[0]
        name = files.relative(uri, self.path)
        archived = self._archived(uri)
        for capture in self._captures(uri):
            data = capture.data
            provenance = Provenance(uri=uri, digest=blake3(data or b"").hexdigest(), offset=capture.offset)
            key = f"{name}:{capture.number}"
            small = data if data is not None and len(data) <= files.SMALL_BYTES else None
            yield Record(key, provenance, partial(self._decode, unit, key, provenance, capture, archived), small)

    def _captures(self, uri: str) -> Iterator[Capture]:
        return read_captures(uri, max(self.max_page_bytes, self.max_picture_bytes))

    def _archived(self, uri: str) -> Spool:
        """The pictures of an archive by URL, as far as it can be read."""
        found = Spool()
        try:
            for capture in self._captures(uri):
                if _is_picture(capture) and not opts_out(capture.robots, "", self.opt_outs + self.picture_opt_outs):
                    found.put(_address(capture.url), capture.data or b"", f"{uri}#{capture.url}")
        except BadRecord:
            pass  # reading the records will say what is wrong
        return found

    def _decode(
        self, unit: Unit, key: str, provenance: Provenance, capture: Capture, archived: Spool
    ) -> Sequence[Example]:
        if capture.fault is not None:
            raise BadRecord(capture.fault.reason, f"{capture.url}: {capture.fault.message}")
        if capture.kind == "revisit" or not capture.data:
            raise RecordDropped("no_content")
        if capture.status not in (None, 200):
            raise RecordDropped("http_status")
        if _is_picture(capture):
            raise RecordDropped("sidecar")
        tags = {} if capture.date is None else {"captured": capture.date}
        if capture.kind == "conversion" and capture.content_type == "text/plain":
            texts = [Text(role="body", text=plain_text(capture.data))]
            return [make_example(self, unit, key, provenance, text=texts, meta=Meta(url=capture.url, tags=tags))]
        if capture.content_type not in _PAGES:
            raise RecordDropped("unsupported_type")
        if len(capture.data) > self.max_page_bytes:
            raise BadRecord("member_too_large", f"{len(capture.data)} bytes; at most {self.max_page_bytes}")

        def lookup(candidate: str, base: str | None) -> Stored | None:
            return archived.get(_address(_join(_join(capture.url, base or ""), candidate)))

        return self.page_example(
            unit, key, provenance, capture.data, lookup, capture.charset, capture.url, capture.robots, tags
        )


def _is_picture(capture: Capture) -> bool:
    return capture.fault is None and capture.status in (None, 200) and capture.content_type.startswith("image/")


def _join(base: str, reference: str) -> str:
    try:
        return urljoin(base, reference)
    except ValueError:
        return reference


def _address(url: str) -> str:
    """What two spellings of the address of one picture have in common."""
    return urldefrag(url)[0].removeprefix("https:").removeprefix("http:")
