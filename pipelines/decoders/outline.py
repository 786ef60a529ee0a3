"""Where a page's pictures stand between its paragraphs: the order of the document, and a text found in it again.

What finds the main content of a page gives paragraphs and loses most pictures on the way. So pictures are taken from
the page itself, and put where they stood: a paragraph is looked up in the page's text, all white space left out, and a
picture whose place lies in or near what was kept comes between the paragraphs that it stood between.
"""

from __future__ import annotations

import re
import unicodedata
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

# Characters (white space left out) that may lie between a picture and the kept text that it belongs to: a headline,
# a caption and a credit that were left out, not another article.
NEAR = 250
# A paragraph shorter than this is looked for only so far ahead: short texts come again and again.
_SHORT, _AHEAD = 24, 4000
_PREFIX = 48
_MAX_URL = 8192
_MAX_CANDIDATES = 16

_NOTHING = re.compile(r"[\s\x00-\x1f\x7f-\x9f\u00ad\u200b-\u200f\u2028-\u202f\u2060-\u206f\ufeff]+")
_UNSEEN = {"head", "script", "style", "template", "iframe", "object", "embed", "select", "button", "textarea", "svg"}
_UNSEEN |= {"math", "canvas", "audio", "video", "nav", "footer"}
_DESCRIPTOR = re.compile(r"([^\s,]\S*[^\s,])(?:\s+(\d{1,6}(?:\.\d{1,3})?)[wx])?\s*(?:,|$)")
_FILE = re.compile(r"\.(?:avif|gif|jpe?g|png|webp)$", re.IGNORECASE)
_LAZY = ("data-src", "data-original", "data-lazy-src", "data-lazy", "data-full-src", "data-actualsrc")
_LAZY_SETS = ("data-srcset", "data-lazy-srcset", "srcset")


@dataclass(frozen=True)
class PictureRef:
    """A picture of a page. candidates: URLs as written, the one most wanted first. alt: its alternative text."""

    candidates: tuple[str, ...]
    alt: str | None = None


@dataclass(frozen=True)
class Outline:
    """A page's visible text without white space, and its pictures, each with its place in that text."""

    text: str
    pictures: tuple[tuple[int, PictureRef], ...]


@dataclass(frozen=True)
class Block:
    """A kept paragraph. raw: its text as the page has it, when `text` was put into another form.

    tight: it belongs to the block before it (items of a list, rows of a table).
    """

    text: str
    raw: str
    tight: bool = False


def squash(text: str) -> str:
    """Text without white space and invisible characters, in composed form."""
    bare = _NOTHING.sub("", text)
    return bare if bare.isascii() else unicodedata.normalize("NFC", bare)


def outline(root: Any) -> Outline:
    """The outline of an lxml tree of HTML."""
    from lxml import etree  # noqa: PLC0415 - optional

    pieces: list[str] = []
    pictures: list[tuple[int, PictureRef]] = []
    place = mute = 0
    walker = etree.iterwalk(root, events=("start", "end"))
    for event, element in walker:
        tag = element.tag if isinstance(element.tag, str) else ""
        if event == "start":
            if tag in _UNSEEN or not tag:
                walker.skip_subtree()
                continue
            mute += tag == "noscript"
            if tag == "img" and (picture := _picture(element)) is not None:
                _add(pictures, place, picture, fallback=mute > 0)
            said = element.text
        else:
            mute -= tag == "noscript"
            said = element.tail
        if said and not mute:
            pieces.append(squash(said))
            place += len(pieces[-1])
    return Outline("".join(pieces), tuple(pictures))


def interleave(blocks: Sequence[Block], page: Outline) -> Iterator[str | PictureRef]:
    """Kept blocks in their order, and between them the pictures that stood in or near them; adjacent text is joined."""
    starts, ends = _spans(blocks, page.text)
    following: list[list[PictureRef]] = [[] for _ in range(len(blocks) + 1)]
    for place, picture in page.pictures:
        after = bisect_left(starts, place)
        gaps = [max(0, place - ends[after - 1])] if after else []
        gaps += [starts[after] - place] if after < len(starts) else []
        if gaps and min(gaps) <= NEAR:
            following[after].append(picture)
    yield from following[0]
    text = ""
    for block, pictures in zip(blocks, following[1:], strict=True):
        text += ("\n" if block.tight else "\n\n") * bool(text) + block.text
        if pictures:
            yield text
            yield from pictures
            text = ""
    if text:
        yield text


def _spans(blocks: Sequence[Block], text: str) -> tuple[list[int], list[int]]:
    """Where blocks begin and end in the page's text, never falling; one that is not found has no length."""
    starts: list[int] = []
    ends: list[int] = []
    cursor = 0
    for block in blocks:
        bare = squash(block.raw)
        limit = len(text) if len(bare) >= _SHORT else cursor + len(bare) + _AHEAD
        start = text.find(bare, cursor, limit) if bare else -1
        if start < 0 and len(bare) > _PREFIX:
            start = text.find(bare[:_PREFIX], cursor)
        starts.append(max(start, cursor))
        cursor = ends_at = min(start + len(bare), len(text)) if start >= 0 else cursor
        ends.append(ends_at)
    return starts, ends


def _add(pictures: list[tuple[int, PictureRef]], place: int, picture: PictureRef, *, fallback: bool) -> None:
    """Note a picture, once if it comes twice in one place; that of a ``noscript`` stands for the lazy one before it."""
    if pictures and pictures[-1][0] == place:
        before = pictures[-1][1]
        if fallback or set(before.candidates) & set(picture.candidates):
            merged = tuple(dict.fromkeys((*picture.candidates, *before.candidates)))[:_MAX_CANDIDATES]
            pictures[-1] = (place, PictureRef(merged, before.alt or picture.alt))
            return
    pictures.append((place, picture))


def _picture(image: Any) -> PictureRef | None:
    sets = [image.get(name) for name in _LAZY_SETS]
    above = image.getparent()
    while above is not None and above.tag == "source":  # which the parser takes for elements with content
        above = above.getparent()
    if above is not None and above.tag == "picture":
        sets += [source.get(name) for source in above.iter("source") for name in _LAZY_SETS]
    # A thumbnail that leads to a picture is a small copy of it.
    link = next(image.iterancestors("a"), None)
    target = link.get("href") if link is not None else None
    single = [target if target is not None and _FILE.search(target) else None, *(image.get(name) for name in _LAZY)]
    found = [*_clean(single), *(url for value in sets for url in _largest_first(value)), *_clean([image.get("src")])]
    # An inline picture is often what a lazy page shows until the real one is there.
    found.sort(key=lambda url: url[:5].lower() == "data:")
    candidates = tuple(dict.fromkeys(found))[:_MAX_CANDIDATES]
    alt = " ".join((image.get("alt") or "").split())
    return PictureRef(candidates, alt or None) if candidates else None


def _clean(urls: Iterable[str | None]) -> list[str]:
    stripped = [url.strip() for url in urls if url is not None]
    return [url for url in stripped if url and (len(url) <= _MAX_URL or url[:5].lower() == "data:")]


def _largest_first(srcset: str | None) -> list[str]:
    if srcset is None or len(srcset) > _MAX_URL:
        return []
    found = [(float(size or 1), url) for url, size in _DESCRIPTOR.findall(srcset)]
    return [url for _, url in sorted(found, key=lambda item: -item[0])]
