"""What every form of transcript becomes: cues of timed words."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from omnimill.errors import BadRecord

# A word without an end lasts until the next one begins, and no longer than this many seconds.
LONGEST_WORD = 1.0


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


def cue_of(start: float, end: float, text: str) -> Cue:
    """A cue whose words have no times of their own."""
    words = tuple(spread(text, start, end))
    return Cue(start, end, " ".join(word.text for word in words), words)


def cue_of_words(words: Sequence[Word]) -> Cue:
    """A cue of timed words, not empty; it lasts from the first to the last."""
    text = " ".join(word.text for word in words)
    return Cue(words[0].start, max(word.end for word in words), text, tuple(words))


def spread(text: str, start: float, end: float) -> Iterator[Word]:
    """The words of a piece of speech, each with a share of its time in proportion to its length."""
    words = text.split()
    whole = sum(len(word) + 1 for word in words)
    spoken = 0
    for word in words:
        begin = start + (end - start) * spoken / whole
        spoken += len(word) + 1
        yield Word(begin, start + (end - start) * spoken / whole, word)


def ended(words: Iterable[tuple[float, float | None, str]]) -> list[Word]:
    """Words by start time; one without an end lasts until the next, or `LONGEST_WORD`. A text may hold several."""
    ordered = sorted(words, key=lambda word: word[0])
    timed: list[Word] = []
    for number, (start, end, text) in enumerate(ordered):
        following = ordered[number + 1][0] if number + 1 < len(ordered) else math.inf
        timed.extend(spread(text, start, min(following, start + LONGEST_WORD) if end is None else end))
    return timed


def seconds_of(value: Any, where: str) -> float:
    """A JSON number or a text of one as a time.

    Raises:
        BadRecord: ``transcript_malformed``.
    """
    try:
        number = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if not math.isfinite(number) or number < 0:
        raise malformed(f"{where}: no valid time: {str(value)[:80]!r}")
    return number


def span(start: float, end: float, where: str) -> tuple[float, float]:
    """Both times as they are.

    Raises:
        BadRecord: ``transcript_malformed``.
    """
    if end < start:
        raise malformed(f"{where}: it ends before it begins")
    return start, end


def decode_text(data: bytes) -> str:
    """UTF-8, with or without its mark, or UTF-16 with its mark.

    Raises:
        BadRecord: ``transcript_malformed``.
    """
    encoding = "utf-16" if data[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"
    try:
        return data.decode(encoding)
    except UnicodeDecodeError as error:
        raise malformed(f"not {encoding} text: byte {error.start}") from None


def malformed(message: str) -> BadRecord:
    return BadRecord("transcript_malformed", message)
