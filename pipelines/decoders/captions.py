"""WebVTT, SubRip and SubViewer captions.

Read with good will: byte order marks, CRLF, hours left out, dots for commas, missing cue numbers, missing blank
lines, empty cues, cues out of order or overlapping, styling tags. Refused: a file without any cue, a time that is
none, a cue that ends before it begins, text that belongs to no cue, a WebVTT file without its first line.
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterable, Iterator, Sequence

from omnimill.pipelines.decoders.cues import Cue, Word, decode_text, malformed, spread

_TIME = r"(?:(\d{1,4}):)?(\d{1,2}):(\d{1,2})[.,](\d{1,3})"
_TIMING = re.compile(rf"^\s*{_TIME}\s*-->\s*{_TIME}(?:\s.*)?$")
_SBV_TIMING = re.compile(rf"^\s*{_TIME}\s*,\s*{_TIME}\s*$")
_SBV_LOOKS = re.compile(r"^\s*\d+:\d+:\d+\.\d+\s*,")
_INNER_TIME = re.compile(rf"<{_TIME}>")
_TAG = re.compile(rf"</?[A-Za-z][^<>\n]*>|</>|<{_TIME}>|\{{\\[^{{}}\n]*\}}")
# Blocks of WebVTT that hold no text of a cue.
_OTHER_BLOCKS = ("NOTE", "STYLE", "REGION")

_Raw = tuple[float, float, list[str]]


def parse_captions(data: bytes, form: str) -> list[Cue]:
    """The cues with text of a WebVTT (``vtt``) or SubRip (``srt``) file, by start time.

    Captions that roll, as speech recognisers write them, show every line two or three times; it is read once.

    Raises:
        BadRecord: ``transcript_malformed`` with the line number.
    """
    lines = decode_text(data).splitlines()
    first = 0
    if form == "vtt":
        if not lines or not re.match(r"WEBVTT(\s|$)", lines[0]):
            raise malformed("line 1: a WebVTT file begins with WEBVTT")
        first = next((number for number, line in enumerate(lines) if not line.strip()), len(lines))
        # A cue may follow the header without a blank line.
        first = min(first, next((number for number, line in enumerate(lines) if "-->" in line), first))
    return _cues(_raw_cues(lines, first, form))


def parse_sbv(data: bytes) -> list[Cue]:
    """The cues with text of a SubViewer file as YouTube writes them: ``0:00:01.000,0:00:02.500`` above the text.

    Raises:
        BadRecord: ``transcript_malformed`` with the line number.
    """
    lines = decode_text(data).splitlines()
    raw: list[_Raw] = []
    for number, line in enumerate(lines):
        match = _SBV_TIMING.match(line)
        if match is not None:
            raw.append((*_span(match.groups(), number), []))
        elif _SBV_LOOKS.match(line) and not lines[max(number - 1, 0)].strip():
            raise malformed(f"line {number + 1}: no valid times: {line.strip()[:80]!r}")
        elif raw:
            raw[-1][2].append(line)
        elif line.strip():
            raise malformed(f"line {number + 1}: text that belongs to no cue: {line.strip()[:80]!r}")
    return _cues(raw)


def _cues(found: Iterable[_Raw]) -> list[Cue]:
    raw = sorted(found, key=lambda cue: (cue[0], cue[1]))
    if not raw:
        raise malformed("it holds no cue")
    if any(_INNER_TIME.search(line) for _, _, text in raw for line in text):
        raw = list(_without_repeats(raw))
    cues = (_cue(start, end, text) for start, end, text in raw)
    return [cue for cue in cues if cue.words]


def _raw_cues(lines: Sequence[str], first: int, form: str) -> Iterator[_Raw]:
    """Start, end and text lines of every cue, as they come."""
    number = first
    while number < len(lines):
        line = lines[number].strip()
        if not line:
            number += 1
        elif "-->" in line:
            start, end = _timing(lines[number], number)
            text, number = _payload(lines, number + 1, form)
            yield start, end, text
        elif number + 1 < len(lines) and "-->" in lines[number + 1]:
            number += 1  # the cue's number or name
        elif form == "vtt" and line.split()[0] in _OTHER_BLOCKS:
            while number < len(lines) and lines[number].strip() and "-->" not in lines[number]:
                number += 1
        else:
            raise malformed(f"line {number + 1}: text that belongs to no cue: {line[:80]!r}")


def _payload(lines: Sequence[str], number: int, form: str) -> tuple[list[str], int]:
    """The text lines from `number` on up to a blank line or the next cue, and the line to go on at."""
    text: list[str] = []
    while number < len(lines) and "-->" not in lines[number]:
        following = lines[number + 1] if number + 1 < len(lines) else ""
        # Without a blank line between, the next cue's number would look like text.
        if form == "srt" and "-->" in following and lines[number].strip().isdigit():
            break
        # Rolling captions begin with a line of one space, which does not end a cue of WebVTT.
        rolls = form == "vtt" and lines[number] and not text and following.strip() and "-->" not in following
        if not lines[number].strip() and not (rolls and _INNER_TIME.search(following)):
            break
        text.append(lines[number])
        number += 1
    return text, number


def _timing(line: str, number: int) -> tuple[float, float]:
    match = _TIMING.match(line)
    if match is None:
        raise malformed(f"line {number + 1}: no valid times: {line.strip()[:80]!r}")
    return _span(match.groups(), number)


def _span(parts: Sequence[str | None], number: int) -> tuple[float, float]:
    start, end = _seconds(parts[:4]), _seconds(parts[4:])
    if end < start:
        raise malformed(f"line {number + 1}: a cue that ends before it begins")
    return start, end


def _seconds(parts: Sequence[str | None]) -> float:
    hours, minutes, seconds, fraction = parts
    assert minutes is not None
    assert seconds is not None
    assert fraction is not None
    return int(hours or 0) * 3600 + int(minutes) * 60 + float(f"{seconds}.{fraction}")


def _without_repeats(cues: Iterable[_Raw]) -> Iterator[_Raw]:
    """Leave out the lines at the top of a cue that have only moved up from the bottom of the cue before."""
    before: list[str] = []
    for start, end, lines in cues:
        shown = [(line, text) for line in lines if (text := _plain(line))]
        plain = [text for _, text in shown]
        moved = next((n for n in range(min(len(plain), len(before)), 0, -1) if plain[:n] == before[-n:]), 0)
        # A line with times inside is being said now, whatever stood there before.
        fresh = next((n for n in range(moved) if _INNER_TIME.search(shown[n][0])), moved)
        yield start, end, [line for line, _ in shown[fresh:]]
        before = plain


def _plain(text: str) -> str:
    return " ".join(html.unescape(_TAG.sub("", text)).split())


def _cue(start: float, end: float, lines: Sequence[str]) -> Cue:
    text = " ".join(lines)
    words: list[Word] = []
    moment, position = start, 0
    for match in _INNER_TIME.finditer(text):
        # Times inside a cue lie within it, in order; what does not is pulled to the nearest that does.
        following = min(max(_seconds(match.groups()), moment), end)
        words.extend(spread(_plain(text[position : match.start()]), moment, following))
        moment, position = following, match.end()
    words.extend(spread(_plain(text[position:]), moment, end))
    return Cue(start, end, " ".join(word.text for word in words), tuple(words))
