"""What sources of web pages share: limits, opt-outs, and the example that a page becomes."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Callable, Sequence

from pydantic import Field

from omnimill.errors import RecordDropped
from omnimill.infra.dataset import Unit
from omnimill.pipelines.base import Source
from omnimill.pipelines.decoders.webpage import Page, read_page
from omnimill.pipelines.fetching.robots import opts_out
from omnimill.pipelines.sources.documents import DocumentPictures, document_example
from omnimill.pipelines.spool import Stored
from omnimill.schema import Example, Meta, Provenance

_DATA_URI = re.compile(r"data:image/[\w.+-]{1,40}(?:;[\w=-]{1,40}){0,4};base64,", re.IGNORECASE)


class PageSource(Source):
    """Base of sources whose records are web pages. Role ``body``; title, date and the like become tags.

    max_page_bytes: of a page's HTML. timeout_seconds: for finding the main content of one page.
    pictures: which pictures are kept.
    opt_outs: directives by which a page asks not to be used; it is dropped as ``robots_opt_out``. ``none`` is short for
        ``noindex, nofollow``; ``tdm-reservation`` stands for the value 1 in the TDM Reservation Protocol.
    picture_opt_outs: directives by which a page asks not to use its pictures; its text is kept.
    """

    max_page_bytes: int = Field(8 << 20, gt=0)
    timeout_seconds: float = Field(30.0, gt=0)
    pictures: DocumentPictures = DocumentPictures()
    opt_outs: tuple[str, ...] = ("noai", "noindex", "none", "tdm-reservation")
    picture_opt_outs: tuple[str, ...] = ("noimageai", "noimageindex")

    def page_example(
        self,
        unit: Unit,
        key: str,
        provenance: Provenance,
        data: bytes,
        lookup: Callable[[str, str | None], Stored | None],
        charset: str | None = None,
        url: str | None = None,
        said: Sequence[str] = (),
        tags: dict[str, str] | None = None,
    ) -> Sequence[Example]:
        """The example of a page.

        Args:
            lookup: a picture by its URL as the page writes it, given what the page wants it to be seen from; inline
                pictures are not asked for.
            charset, url, said: what HTTP says: the charset, where it came from, robots headers.

        Raises:
            BadRecord: see `read_page`.
            RecordDropped: ``robots_opt_out``, and see `document_example`.
        """
        page = read_page(data, self.timeout_seconds, charset)
        robots = (*page.robots, *said)
        if opts_out(robots, "", self.opt_outs):
            raise RecordDropped("robots_opt_out")
        items = page.items
        if opts_out(robots, "", self.picture_opt_outs):
            items = tuple(item for item in items if isinstance(item, str))
        meta = Meta(
            url=url or page.url, language=page.language, licence=page.licence, tags={**_tags(page, url), **(tags or {})}
        )

        def find(candidate: str) -> Stored | None:
            if candidate[:5].lower() == "data:":
                return _inline(candidate, provenance.uri)
            return lookup(candidate, page.base)

        return document_example(self, unit, key, provenance, items, find, self.pictures, meta)


def _tags(page: Page, url: str | None) -> dict[str, str]:
    canonical = page.url if url is not None and page.url != url else None
    found = {"title": page.title, "date": page.date, "canonical_url": canonical}
    return {name: value for name, value in found.items() if value is not None}


def _inline(uri: str, page: str) -> Stored:
    """The picture of a data URI; one that cannot be decoded has no bytes."""
    head = _DATA_URI.match(uri)
    try:
        data = base64.b64decode(re.sub(r"\s+", "", uri[head.end() :])) if head else b""
    except (binascii.Error, ValueError):
        data = b""
    return Stored(data, f"{page}#data")
