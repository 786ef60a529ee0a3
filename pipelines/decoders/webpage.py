"""Web pages from untrusted bytes: main content, pictures in reading order, and what the page says about itself."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from omnimill.errors import BadRecord
from omnimill.pipelines.decoders.outline import Block, PictureRef, interleave, outline
from omnimill.pipelines.decoders.text import html_source
from omnimill.pipelines.fetching.robots import TDM_RESERVATION, headers_said
from omnimill.pipelines.isolation import isolated

# Dates of publication are believed within these bounds; the upper one is fixed so that no clock decides.
_EARLIEST, _LATEST = "1991-08-06", "2037-12-31"
_BLOCKS = {"p", "head", "list", "table", "quote", "code", "div"}
# White space between directives, which some pages have instead of commas.
_WORDS = re.compile(r"(?<![:,\s])\s+")
_LANGUAGE = re.compile(r"[A-Za-z]{2,3}(?![A-Za-z])")


@dataclass(frozen=True)
class Page:
    """A page's main content: texts and pictures in reading order.

    title, date (YYYY-MM-DD), language (of two or three letters), url (canonical), licence: as the page says.
    base: the URL that it wants references to be seen from. robots: what its robots tags say, and
    ``tdm-reservation`` when it reserves its rights (TDM Reservation Protocol).
    """

    items: tuple[str | PictureRef, ...]
    title: str | None = None
    date: str | None = None
    language: str | None = None
    url: str | None = None
    licence: str | None = None
    base: str | None = None
    robots: tuple[str, ...] = ()


def read_page(data: bytes, seconds: float, charset: str | None = None) -> Page:
    """Extract a page, in a child process.

    Args:
        seconds: limit of wall-clock time.
        charset: as HTTP says it; the page's own declaration counts when there is none.

    Raises:
        BadRecord: ``invalid_utf8``, ``html_unreadable``, ``html_timeout``, ``html_crash``, ``html_memory``.
    """
    return isolated("html", seconds, extract_page, html_source(data, charset))


def picture_references(data: bytes, seconds: float) -> tuple[str, ...]:
    """URLs of all pictures of a page, as written, without inline ones; found in a child process.

    Raises:
        BadRecord: as `read_page`.
    """
    return isolated("html", seconds, find_references, html_source(data))


def find_references(source: str) -> tuple[str, ...]:
    """What `picture_references` does in its child process; raises BadRecord ``html_unreadable``."""
    pictures = outline(_parse(source)).pictures
    found = (url for _, picture in pictures for url in picture.candidates if url[:5].lower() != "data:")
    return tuple(dict.fromkeys(found))


def extract_page(source: str) -> Page:
    """What `read_page` does in its child process.

    Raises:
        BadRecord: ``html_unreadable``.
        ImportError: trafilatura is not installed.
    """
    try:
        import trafilatura  # noqa: PLC0415 - optional
    except ImportError as error:
        raise _needed(error) from None
    root = _parse(source)
    try:
        return _extract(root, trafilatura.bare_extraction)
    except Exception as fault:  # noqa: BLE001 - whatever hostile markup makes a parser raise is a verdict on the page
        raise BadRecord("html_unreadable", f"{type(fault).__name__}: {fault}") from None


def _extract(root: Any, extraction: Callable[..., Any]) -> Page:
    page = outline(root)
    said = _said(root)
    document = extraction(
        root,
        include_comments=False,
        include_tables=True,
        with_metadata=True,
        date_extraction_params={
            "extensive_search": False,
            "original_date": True,
            "min_date": _EARLIEST,
            "max_date": _LATEST,
        },
    )
    if document is None:
        return Page((), **said)
    blocks = [block for block in _blocks(document.body) if block.text]
    return Page(
        tuple(interleave(blocks, page)),
        **{**said, "url": said["url"] or _text(document.url)},
        title=_text(document.title),
        date=_text(document.date),
        licence=_text(document.license),
    )


def _parse(source: str) -> Any:
    try:
        from lxml import etree, html  # noqa: PLC0415 - optional
    except ImportError as error:
        raise _needed(error) from None
    parser = html.HTMLParser(encoding="utf-8", remove_comments=True, remove_pis=True)
    try:
        return html.document_fromstring(source.replace("\0", "").encode(), parser=parser)
    except (etree.ParserError, etree.XMLSyntaxError, ValueError) as fault:
        raise BadRecord("html_unreadable", str(fault)) from None


def _needed(error: ImportError) -> ImportError:
    return ImportError(f"web pages need the extra 'web': pip install 'omnimill[web]' ({error})")


def _said(root: Any) -> dict[str, Any]:
    """What the head says: canonical URL, base, language and robots tags."""
    language = _LANGUAGE.match(
        (root.get("lang") or root.get("{http://www.w3.org/XML/1998/namespace}lang") or "").strip()
    )
    metas = [((meta.get("name") or "").strip().lower(), meta.get("content") or "") for meta in root.iter("meta")]
    canonical = [
        link.get("href") for link in root.iter("link") if "canonical" in (link.get("rel") or "").lower().split()
    ]
    return {
        "language": language[0].lower() if language else None,
        "url": next(
            (url.strip() for url in canonical if url and url.strip().startswith(("http://", "https://"))), None
        ),
        "base": next((base.get("href") for base in root.iter("base") if base.get("href")), None),
        "robots": headers_said(
            (_WORDS.sub(",", said.strip()) for name, said in metas if name == "robots"),
            (said for name, said in metas if name == TDM_RESERVATION),
        ),
    }


def _text(value: Any) -> str | None:
    return (" ".join(str(value).split()) or None) if value is not None else None


def _blocks(parent: Any) -> Iterator[Block]:
    """The paragraphs of an extracted body, lists item by item and tables row by row."""
    yield _block(parent.text)
    for element in parent:
        if element.tag == "list":
            for i, item in enumerate(element.iter("item")):
                raw = _flow(item, {"list"})
                yield Block(f"- {raw}" if raw else "", raw, tight=i > 0)
        elif element.tag == "table":
            for i, row in enumerate(element.iter("row")):
                cells = [_flow(cell, {"table"}) for cell in row.iter("cell")]
                told = " | ".join(cell for cell in cells if cell)
                yield Block(told, "".join(cells), tight=i > 0)
        elif element.tag == "code":
            code = "".join(element.itertext()).strip("\n")
            yield Block(code, code)
        elif any(child.tag in _BLOCKS for child in element):
            yield from _blocks(element)
        else:
            yield _block(_flow(element, set()))
        yield _block(element.tail)


def _block(text: str | None) -> Block:
    told = _lines(text or "")
    return Block(told, told)


def _flow(element: Any, without: set[str]) -> str:
    """The running text of an element, line breaks kept, what lies in elements of the tags `without` left out."""
    pieces = [element.text or ""]
    for child in element:
        if child.tag == "lb":
            pieces.append("\n")
        elif child.tag not in without:
            pieces.append(_flow(child, without))
            pieces.append(" " if child.tag in _BLOCKS else "")
        pieces.append(child.tail or "")
    return _lines("".join(pieces))


def _lines(text: str) -> str:
    lines = (" ".join(line.split()) for line in text.split("\n"))
    return "\n".join(line for line in lines if line)
