"""WebVTT and SubRip transcripts: timed words out of files as people write them, and their alignment to segments.

Read with good will: byte order marks, CRLF, hours left out, dots for commas, missing cue numbers, missing blank
lines, empty cues, cues out of order or overlapping, styling tags. Refused: a file without any cue, a time that is
none, a cue that ends before it begins, text that belongs to no cue, a WebVTT file without its first line.
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from omnimill.errors import BadRecord

MAX_BYTES = 16 << 20

_TIME = r"(?:(\d{1,4}):)?(\d{1,2}):(\d{1,2})[.,](\d{1,3})"
_TIMING = re.compile(rf"^\s*{_TIME}\s*-->\s*{_TIME}(?:\s.*)?$")
_INNER_TIME = re.compile(rf"<{_TIME}>")
_TAG = re.compile(rf"</?[A-Za-z][^<>\n]*>|</>|<{_TIME}>|\{{\\[^{{}}\n]*\}}")
# Blocks of WebVTT that hold no text of a cue.
_OTHER_BLOCKS = ("NOTE", "STYLE", "REGION")


@dataclass(frozen=True)
class Word:
    """start, end: seconds."""

    start: float
    end: float
    text: str


@dataclass(frozen=True)
class Cue:
    """A caption on screen from `start` to `end` (seconds), as plain text on one line.

    words: when each is said: as the file says where it has times inside the cue, else spread over it by length.
    """

    start: float
    end: float
    text: str
    words: tuple[Word, ...]


@dataclass(frozen=True)
class Passage:
    """What is said in one segment. start, end: of its first and last word, seconds."""

    text: str
    start: float
    end: float


def parse_transcript(data: bytes, form: Literal["vtt", "srt"]) -> list[Cue]:
    """The cues with text of a transcript file, by start time.

    Raises:
        BadRecord: ``transcript_malformed`` with the line number, ``transcript_too_large``.
    """
    if len(data) > MAX_BYTES:
        raise BadRecord("transcript_too_large", f"{len(data)} bytes, {MAX_BYTES} allowed")
    lines = _decode(data).splitlines()
    first = 0
    if form == "vtt":
        if not lines or not re.match(r"WEBVTT(\s|$)", lines[0]):
            raise BadRecord("transcript_malformed", "line 1: a WebVTT file begins with WEBVTT")
        first = next((number for number, line in enumerate(lines) if not line.strip()), len(lines))
        # A cue may follow the header without a blank line.
        first = min(first, next((number for number, line in enumerate(lines) if "-->" in line), first))
    raw = list(_raw_cues(lines, first, form))
    if not raw:
        raise BadRecord("transcript_malformed", "it holds no cue")
    raw.sort(key=lambda cue: (cue[0], cue[1]))
    if any(_INNER_TIME.search(line) for _, _, text in raw for line in text):
        raw = list(_without_repeats(raw))
    cues = (_cue(start, end, text) for start, end, text in raw)
    return [cue for cue in cues if cue.words]


def align(cues: Iterable[Cue], segment: float, count: int) -> list[Passage | None]:
    """For each of `count` segments of `segment` seconds what is said in it; a word counts where its middle lies."""
    spoken: list[list[Word]] = [[] for _ in range(count)]
    for cue in cues:
        for word in cue.words:
            index = int((word.start + word.end) / 2 / segment)
            if index < count:
                spoken[index].append(word)
    return [
        Passage(" ".join(word.text for word in words), words[0].start, max(word.end for word in words))
        if words
        else None
        for words in spoken
    ]


def _decode(data: bytes) -> str:
    encoding = "utf-16" if data[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"
    try:
        return data.decode(encoding)
    except UnicodeDecodeError as error:
        raise BadRecord("transcript_malformed", f"not {encoding} text: byte {error.start}") from None


def _raw_cues(lines: Sequence[str], first: int, form: str) -> Iterator[tuple[float, float, list[str]]]:
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
            raise BadRecord("transcript_malformed", f"line {number + 1}: text that belongs to no cue: {line[:80]!r}")


def _payload(lines: Sequence[str], number: int, form: str) -> tuple[list[str], int]:
    """The text lines from `number` on up to a blank line or the next cue, and the line to go on at."""
    text: list[str] = []
    while number < len(lines) and lines[number].strip() and "-->" not in lines[number]:
        following = lines[number + 1] if number + 1 < len(lines) else ""
        # Without a blank line between, the next cue's number would look like text.
        if form == "srt" and "-->" in following and lines[number].strip().isdigit():
            break
        text.append(lines[number])
        number += 1
    return text, number


def _timing(line: str, number: int) -> tuple[float, float]:
    match = _TIMING.match(line)
    if match is None:
        raise BadRecord("transcript_malformed", f"line {number + 1}: no valid times: {line.strip()[:80]!r}")
    start, end = _seconds(match.groups()[:4]), _seconds(match.groups()[4:])
    if end < start:
        raise BadRecord("transcript_malformed", f"line {number + 1}: a cue that ends before it begins")
    return start, end


def _seconds(parts: Sequence[str | None]) -> float:
    hours, minutes, seconds, fraction = parts
    assert minutes is not None
    assert seconds is not None
    assert fraction is not None
    return int(hours or 0) * 3600 + int(minutes) * 60 + float(f"{seconds}.{fraction}")


def _without_repeats(cues: Iterable[tuple[float, float, list[str]]]) -> Iterator[tuple[float, float, list[str]]]:
    """Rolling captions, as speech recognisers write them, show every line twice: leave out a line seen just before."""
    before: list[str] = []
    for start, end, lines in cues:
        plain = [_plain(line) for line in lines]
        yield start, end, [line for line, text in zip(lines, plain, strict=True) if text not in before]
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
        words.extend(_spread(_plain(text[position : match.start()]), moment, following))
        moment, position = following, match.end()
    words.extend(_spread(_plain(text[position:]), moment, end))
    return Cue(start, end, " ".join(word.text for word in words), tuple(words))


def _spread(text: str, start: float, end: float) -> Iterator[Word]:
    """The words of a piece of speech, each with a share of its time in proportion to its length."""
    words = text.split()
    whole = sum(len(word) + 1 for word in words)
    spoken = 0
    for word in words:
        begin = start + (end - start) * spoken / whole
        spoken += len(word) + 1
        yield Word(begin, start + (end - start) * spoken / whole, word)
