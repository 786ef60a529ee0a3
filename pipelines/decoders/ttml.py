"""TTML (and its ancestor DFXP) captions: timed paragraphs of XML, as broadcasters and YouTube write them.

Of the Timed Text Markup Language 2 (W3C, 2018): clock and offset time expressions, ``begin``, ``end`` and ``dur``,
nested times (parallel containers), frame and tick rates. Layout and style are passed over.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import Any
from xml.etree.ElementTree import ParseError

from defusedxml import ElementTree
from defusedxml.common import DefusedXmlException

from omnimill.pipelines.decoders.cues import Cue, Word, malformed, span, spread

# Hours and the unit of seconds may be left out, as Apple does.
_CLOCK = re.compile(r"(?:(\d{1,4}):)?(\d{1,2}):(\d{2})(?:(\.\d{1,9})|:(\d{1,4})(?:\.\d+)?)?")
_OFFSET = re.compile(r"(\d{1,12}(?:\.\d{1,9})?)(h|ms|m|s|f|t|)")
_MAX_DEPTH = 100
_FOREVER = float("inf")
_APPLE = "{http://music.apple.com/lyric-ttml-internal}"


@dataclass(frozen=True)
class _Clock:
    """frames, ticks: per second. absolute: all times count from the start of the film, as in Apple's files."""

    frames: Fraction
    ticks: Fraction
    absolute: bool

    def seconds(self, text: str) -> float:
        text = text.strip()
        if match := _CLOCK.fullmatch(text):
            hours, minutes, seconds, fraction, frames = match.groups()
            whole = int(hours or 0) * 3600 + int(minutes) * 60 + int(seconds)
            return whole + float(fraction or 0) + float(int(frames or 0) / self.frames)
        if match := _OFFSET.fullmatch(text):
            unit = {
                "h": Fraction(3600),
                "m": Fraction(60),
                "s": Fraction(1),
                "": Fraction(1),
                "ms": Fraction(1, 1000),
                "f": 1 / self.frames,
                "t": 1 / self.ticks,
            }[match[2]]
            return float(Fraction(match[1]) * unit)
        raise malformed(f"no valid time: {text[:80]!r}")


def parse_ttml(data: bytes) -> list[Cue]:
    """The paragraphs with text and times of a TTML file, by start time.

    Entities and document types are not expanded: a file that declares any is refused.

    Raises:
        BadRecord: ``transcript_malformed``.
    """
    try:
        root = ElementTree.fromstring(data, forbid_dtd=True)
    except (ParseError, DefusedXmlException, ValueError, LookupError) as error:
        raise malformed(f"no XML that is read: {type(error).__name__}: {error}") from None
    if _name(root.tag) != "tt":
        raise malformed(f"the root is {_name(root.tag)[:40]!r}, not tt")
    cues = [cue for cue in _paragraphs(root, _clock(root), 0.0, _FOREVER, 0) if cue.words]
    if not cues:
        raise malformed("it holds no timed text")
    return sorted(cues, key=lambda cue: (cue.start, cue.end))


def _clock(root: Any) -> _Clock:
    try:
        rate = Fraction(_attribute(root, "frameRate") or "30")
        top, _, bottom = (_attribute(root, "frameRateMultiplier") or "1 1").replace(":", " ").partition(" ")
        frames = rate * Fraction(int(top), int(bottom or 1))
        ticks = Fraction(_attribute(root, "tickRate") or (frames if _attribute(root, "frameRate") else 1))
    except (ValueError, ZeroDivisionError):
        frames = ticks = Fraction(0)
    if frames <= 0 or ticks <= 0:
        raise malformed("a frame or tick rate that is none")
    return _Clock(frames, ticks, any(key.startswith(_APPLE) for key in root.attrib))


def _paragraphs(element: Any, clock: _Clock, begin: float, limit: float, depth: int) -> Iterator[Cue]:
    if depth > _MAX_DEPTH:
        raise malformed(f"elements nested more than {_MAX_DEPTH} deep")
    start, end = _times(element, clock, begin, limit)
    if _name(element.tag) == "p":
        if end < _FOREVER:
            words = [word for piece in _pieces(element, clock, start, end, depth) for word in spread(*piece)]
            yield Cue(start, end, " ".join(word.text for word in words), tuple(_in_order(words)))
        return
    if _name(element.tag) not in ("head", "metadata"):
        for child in element:
            yield from _paragraphs(child, clock, start, end, depth + 1)


def _pieces(element: Any, clock: _Clock, start: float, end: float, depth: int) -> Iterator[tuple[str, float, float]]:
    """Runs of text with their times: those of the innermost element that has some.

    Text between elements without times of their own is one run, so that its words share the time.
    """
    if depth > _MAX_DEPTH:
        raise malformed(f"elements nested more than {_MAX_DEPTH} deep")
    run = [element.text or ""]
    for child in element:
        timed = any(_attribute(child, name) for name in ("begin", "end", "dur"))
        if timed:
            yield " ".join(run), start, end
            run = []
            yield from _pieces(child, clock, *_times(child, clock, start, end), depth + 1)
        elif _name(child.tag) == "br":
            run.append(" ")
        elif _name(child.tag) != "metadata":
            for text, begin, until in _pieces(child, clock, start, end, depth + 1):
                if (begin, until) == (start, end):
                    run.append(text)
                else:
                    yield " ".join(run), start, end
                    run = []
                    yield text, begin, until
        run.append(child.tail or "")
    yield "".join(run), start, end


def _in_order(words: list[Word]) -> list[Word]:
    return sorted(words, key=lambda word: word.start)


def _times(element: Any, clock: _Clock, begin: float, limit: float) -> tuple[float, float]:
    """When an element is shown, given its parent's begin and end: times count from the parent's begin."""
    own, until, lasts = (_attribute(element, name) for name in ("begin", "end", "dur"))
    base = 0.0 if clock.absolute else begin
    start = base + clock.seconds(own) if own else begin
    end = limit
    if until:
        end = min(end, base + clock.seconds(until))
    if lasts:
        end = min(end, start + clock.seconds(lasts))
    return span(start, end, f"<{_name(element.tag)[:40]}> at {start:g} s")


def _name(tag: Any) -> str:
    """An element's name without its namespace; comments have none."""
    return tag.rsplit("}", 1)[-1] if isinstance(tag, str) else ""


def _attribute(element: Any, name: str) -> str | None:
    return next((value for key, value in element.attrib.items() if _name(key) == name), None)
