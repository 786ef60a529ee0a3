"""Long texts cut to a budget where a reader would pause: at the ends of paragraphs, of sentences, of words."""

from __future__ import annotations

import re
from collections.abc import Iterator

from pydantic import Field

from omnimill.config import Config

# Marks that end a sentence before white space, those of Chinese and Japanese that need none, and what closes quotes.
_MARKS, _WIDE_MARKS = r"!?\u2026\u061f\u06d4\u0964", r"\u3002\uff01\uff1f"
_CLOSING = r"\"'\u2019\u201d\u00bb)\]\u300d\u300f\uff09"
# From the best place to cut to the worst; a cut comes behind the match.
_ENDS = (
    re.compile(r"(?:\r?\n[^\S\r\n]*){2,}"),  # blank lines
    re.compile(rf"(?<=[.:{_MARKS}{_WIDE_MARKS}{_CLOSING}])[^\S\r\n]*\r?\n"),  # a line that ends with a sentence
    re.compile(rf"[.{_MARKS}][{_CLOSING}]{{0,8}}\s+|[{_WIDE_MARKS}][{_CLOSING}]{{0,8}}\s*"),
    re.compile(r"\s+"),
)


class CutSettings(Config):
    """The size of the parts that long texts are cut into.

    max_tokens: most tokens of a part, counted as its bytes in UTF-8 over `bytes_per_token`.
    bytes_per_token: of the tokenizer on texts like these. SentencePiece models of 32,000 pieces take about 4 bytes of
        English a token, and fewer of code and of languages that they saw little of.
    """

    max_tokens: int = Field(ge=1)
    bytes_per_token: float = Field(4.0, gt=0)

    @property
    def max_bytes(self) -> int:
        """The budget of a part in bytes of UTF-8, at least one character's."""
        return max(4, int(self.max_tokens * self.bytes_per_token))


def cut(text: str, max_bytes: int) -> list[str]:
    """Consecutive parts of a text, each of at most `max_bytes` in UTF-8; joined they are the text.

    A part ends at the end of a paragraph. Paragraphs that are too long themselves are cut behind line ends that end a
    sentence, then behind sentences, then behind white space, then between characters.

    Args:
        max_bytes: at least 4.
    """
    parts: list[str] = []
    begin = end = size = 0
    for piece in _split(text, max_bytes, 0):
        length = len(piece.encode())
        if size + length > max_bytes:
            parts.append(text[begin:end])
            begin, size = end, 0
        end += len(piece)
        size += length
    return [*parts, text[begin:]] if begin < len(text) else parts


def _split(text: str, max_bytes: int, level: int) -> Iterator[str]:
    """The text in pieces that fit, cut at `level` and, where these are too long, below it."""
    if level == len(_ENDS):
        yield from _characters(text, max_bytes)
        return
    ends = [match.end() for match in _ENDS[level].finditer(text)]
    begin = 0
    for end in [*ends, len(text)]:
        piece, begin = text[begin:end], end
        if len(piece.encode()) > max_bytes:
            yield from _split(piece, max_bytes, level + 1)
        elif piece:
            yield piece


def _characters(text: str, max_bytes: int) -> Iterator[str]:
    begin = size = 0
    for i, character in enumerate(text):
        length = len(character.encode())
        if size + length > max_bytes:
            yield text[begin:i]
            begin, size = i, 0
        size += length
    yield text[begin:]
