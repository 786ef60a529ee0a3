"""Numbers among text: as location tokens, one each, or as decimal numbers in brackets.

Both forms write a sequence of parts: groups of numbers (all with the same ranges: points, boxes, poses) and words
between them. What is read back are the same groups, within the form's error, and the same words; neighbouring words
come back as one part, and the character U+2581, which SentencePiece keeps for itself, as a space.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from typing import Protocol

from omnimill.errors import BadRecord, ConfigError
from omnimill.locations import Range, from_bin, to_bin
from omnimill.tokenizers.text import TextTokenizer
from omnimill.vocabulary_layout import NumberLayout

Numbers = tuple[float, ...]
Part = Numbers | str

# Words between groups of numbers, by whether a group stands before and behind them: set off by one space from each.
_SET_OFF = {
    (False, False): re.compile(r"(.*)", re.DOTALL),
    (False, True): re.compile(r"(?:(.*) )?", re.DOTALL),
    (True, False): re.compile(r"(?: (.*))?", re.DOTALL),
    (True, True): re.compile(r" (?:(.*) )?", re.DOTALL),
}


class NumberFormat(Protocol):
    """How numbers become ids of the text table, and what ids say."""

    def write(self, parts: Iterable[Sequence[float] | str], ranges: Sequence[Range]) -> list[int]:
        """Ids of numbers and words.

        Args:
            parts: groups of as many numbers as there are ranges, and words; empty words write nothing.
            ranges: of the numbers of every group. What lies outside is clipped.

        Raises:
            BadRecord: ``vector_length`` when a group has not as many numbers as there are ranges,
                ``number_not_finite``.
        """
        ...

    def read(self, ids: Sequence[int], ranges: Sequence[Range]) -> list[Part]:
        """Inverse of :meth:`write`, up to :meth:`error`.

        Raises:
            BadRecord: ``numbers_malformed``; the message says what was found and what is allowed.
        """
        ...

    def error(self, within: Range) -> float:
        """Largest difference between a number inside a range and what comes back."""
        ...


def number_format(layout: NumberLayout, text: TextTokenizer) -> NumberFormat:
    """The form that a layout asks for.

    Raises:
        ConfigError: location tokens are asked for, and the vocabulary has none.
    """
    if layout.form == "decimals":
        return DecimalFormat(text, layout.digits)
    return LocationFormat(text)


class LocationFormat:
    """A number is one location token, see `omnimill.locations`; the error is one bin, downwards."""

    def __init__(self, text: TextTokenizer) -> None:
        self.locations = text.vocabulary.layout.locations
        if not self.locations:
            raise ConfigError("layout.numbers.form: 'locations' needs location tokens, found layout.vocabulary with 0")
        self._text = text
        self._vocabulary = text.vocabulary

    def write(self, parts: Iterable[Sequence[float] | str], ranges: Sequence[Range]) -> list[int]:
        ids: list[int] = []
        for part in parts:
            if isinstance(part, str):
                ids += self._text.encode(part)
            else:
                bins = [to_bin(value, within, self.locations) for value, within in _paired(part, ranges)]
                ids += map(self._vocabulary.location, bins)
        return ids

    def read(self, ids: Sequence[int], ranges: Sequence[Range]) -> list[Part]:
        parts: list[Part] = []
        for numeric, run in groupby(ids, self._vocabulary.is_location):
            tokens = list(run)
            if not numeric:
                parts.append(_words(self._text, tokens))
                continue
            if len(tokens) % len(ranges):
                raise BadRecord(
                    "numbers_malformed",
                    f"found {len(tokens)} location tokens in a row; allowed: groups of {len(ranges)}",
                )
            values = [self._value(token, ranges[i % len(ranges)]) for i, token in enumerate(tokens)]
            parts += [tuple(values[i : i + len(ranges)]) for i in range(0, len(values), len(ranges))]
        return parts

    def error(self, within: Range) -> float:
        return within.error(self.locations)

    def _value(self, token: int, within: Range) -> float:
        return from_bin(self._vocabulary.location_bin(token), within, self.locations)


class DecimalFormat:
    """A group of numbers is text like ``[0.250, -1.000]``; the error is half a unit of the last digit.

    Brackets among words are doubled, so that words cannot be taken for numbers.

    Args:
        text: makes ids of the text.
        digits: behind the point; with 0 there is no point.
    """

    def __init__(self, text: TextTokenizer, digits: int) -> None:
        self.digits = digits
        self._text = text
        number = r"-?[0-9]+" + (rf"\.[0-9]{{{digits}}}" if digits else "")
        self._scanner = re.compile(rf"\[({number}(?:, {number})*)\]|(\[\[|\]\])|[\[\]]")

    def write(self, parts: Iterable[Sequence[float] | str], ranges: Sequence[Range]) -> list[int]:
        written = []
        for part in parts:
            if isinstance(part, str):
                written.append(part.replace("[", "[[").replace("]", "]]"))
            else:
                written.append(f"[{', '.join(self._number(v, within) for v, within in _paired(part, ranges))}]")
        return self._text.encode(" ".join(filter(None, written)))

    def read(self, ids: Sequence[int], ranges: Sequence[Range]) -> list[Part]:
        groups, between = self._scan(_words(self._text, ids))
        parts: list[Part] = []
        for i, words in enumerate(between):
            after, before = i > 0, i < len(groups)
            found = _SET_OFF[after, before].fullmatch(words)
            if found is None:
                raise self._malformed(f"{words[:40]!r} beside a group of numbers", "words set off by one space")
            parts += filter(None, [found[1]])
            if before:
                parts.append(self._group(groups[i], ranges))
        return parts

    def error(self, within: Range) -> float:
        return min(0.5 * 10.0**-self.digits, within.high - within.low)

    def _number(self, value: float, within: Range) -> str:
        if not math.isfinite(value):
            raise BadRecord("number_not_finite", f"found {value}")
        written = f"{min(max(value, within.low), within.high):.{self.digits}f}"
        return written.removeprefix("-") if float(written) == 0 else written

    def _scan(self, text: str) -> tuple[list[str], list[str]]:
        """The n groups of a text, without brackets, and the n + 1 stretches of words around them."""
        groups, between, end = [], [""], 0
        for found in self._scanner.finditer(text):
            between[-1] += text[end : found.start()]
            end = found.end()
            if found[1]:
                groups.append(found[1])
                between.append("")
            elif found[2]:
                between[-1] += found[2][0]
            else:
                raise self._malformed(
                    f"{text[found.start() : found.start() + 40]!r} at character {found.start()}",
                    f"numbers with {self.digits} digits behind the point, separated by ', ', in brackets",
                )
        between[-1] += text[end:]
        return groups, between

    def _group(self, written: str, ranges: Sequence[Range]) -> Numbers:
        values = [float(number) for number in written.split(", ")]
        if len(values) != len(ranges):
            raise self._malformed(f"{len(values)} numbers in [{written[:80]}]", f"groups of {len(ranges)}")
        return tuple(self._checked(value, within) for value, within in zip(values, ranges, strict=True))

    def _checked(self, value: float, within: Range) -> float:
        """A number that was read; rounding may have put it just outside its range."""
        rounding = 0.5 * 10.0**-self.digits
        if not within.low - rounding <= value <= within.high + rounding:
            raise self._malformed(f"the number {value}", f"{within.low} to {within.high}")
        return min(max(value, within.low), within.high)

    def _malformed(self, found: str, allowed: str) -> BadRecord:
        return BadRecord("numbers_malformed", f"found {found}; allowed: {allowed}")


def _paired(values: Sequence[float], ranges: Sequence[Range]) -> Iterator[tuple[float, Range]]:
    if len(values) != len(ranges):
        raise BadRecord("vector_length", f"found {len(values)} values where {len(ranges)} have a range")
    return zip(values, ranges, strict=True)


def _words(text: TextTokenizer, ids: Sequence[int]) -> str:
    for token in ids:
        surface = text.vocabulary.surface(token)
        if surface is not None:
            raise BadRecord("numbers_malformed", f"found token {surface} ({token}); allowed: text and numbers")
    return text.decode(ids)
