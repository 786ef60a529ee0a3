"""Hashes of all runs of n words of many texts at once, in NumPy: no loop over texts, words or bytes.

A **word** is a run of letters and digits; ASCII punctuation, white space and general punctuation (U+2000 to U+206F,
to U+303F) separate. Characters of scripts that put no spaces between words (Thai, Lao, Tibetan, Burmese, Khmer, and all
from U+3000 on: Chinese, Japanese, Korean, …) are words of their own. Letter case makes no difference.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from omnimill.pipelines.dedup.texts import FlatTexts, flat_texts

U64 = NDArray[np.uint64]

_SPACE = 0x20
_FOLD = bytes(byte if byte >= 0x80 or chr(byte).isalnum() else _SPACE for byte in bytes(range(256)).lower())
_LOW_BYTES = np.array([(1 << 8 * n) - 1 for n in range(9)], np.uint64)
_WORD_FACTOR = np.uint64(0x9E3779B97F4A7C15)
_RUN_FACTOR = np.uint64(0xD1342543DE82EF95)
_MIX_FACTOR = np.uint64(0xD6E8FEB86659FD93)


@dataclass(frozen=True)
class Shingles:
    """Hashes of the runs of words of some rows: uint64 [shingles], rows one after the other.

    rows: where each row's begin, int64 [rows + 1]. words: how many each row has, int64 [rows].
    """

    hashes: U64
    rows: NDArray[np.int64]
    words: NDArray[np.int64]

    @property
    def row_of(self) -> NDArray[np.int64]:
        """The row of each shingle, int64 [shingles]."""
        return np.repeat(np.arange(len(self.rows) - 1), np.diff(self.rows))


def shingles(texts: FlatTexts, words: int) -> Shingles:
    """Every run of `words` words of each row, in order, with repeats; all its words when a row has fewer.

    Runs go over the borders of segments, words do not. A hash is a polynomial of words' hashes modulo 2^64, mixed.
    """
    hashes, starts = _words(texts)
    counts = np.diff(starts)
    runs = np.maximum(counts - words + 1, np.minimum(counts, 1))
    rows = np.append(0, np.cumsum(runs))
    # Position of each run's first word: runs of a row are consecutive.
    first = np.arange(rows[-1]) + np.repeat(starts[:-1] - rows[:-1], runs)
    whole = counts >= words
    found = np.empty(rows[-1], np.uint64)
    long = np.repeat(whole, runs)
    found[long] = _polynomial(hashes, words)[first[long]]
    for short in range(1, words):
        some = np.flatnonzero(counts == short)
        found[rows[some]] = _polynomial(hashes, short)[starts[some]] if len(some) else 0
    return Shingles(mix(found), rows, counts)


def shingles_of(texts: list[str], words: int) -> Shingles:
    """As `shingles`, of a list of texts."""
    column = pa.chunked_array([pa.array([[{"text": text}] for text in texts])])
    (flat,) = flat_texts(column)
    return shingles(flat, words)


def mix(values: U64) -> U64:
    """A bijection of 64 bits in which every bit of the input changes about half of those of the output."""
    for _ in range(2):
        values = (values ^ (values >> np.uint64(32))) * _MIX_FACTOR
    return values ^ (values >> np.uint64(32))


def _polynomial(values: U64, length: int) -> U64:
    """A hash of every `length` consecutive values, uint64 [values - length + 1]."""
    count = max(len(values) - length + 1, 0)
    result = values[:count].copy()
    for i in range(1, length):
        result *= _RUN_FACTOR
        result += values[i : i + count]
    return result


def _words(texts: FlatTexts) -> tuple[U64, NDArray[np.int64]]:
    """A hash of every word, uint64 [words], and which word each row starts with, int64 [rows + 1]."""
    if len(texts.data) and texts.data.max() >= 0x80:
        texts = _lower(texts)
    folded = np.frombuffer(texts.data.tobytes().translate(_FOLD) + bytes(8), np.uint8)
    cuts = texts.segments
    if len(folded) and folded.max() >= 0xE0:
        folded, alone = _characters(folded)
        cuts = np.union1d(cuts, alone)
    letters = folded != _SPACE
    letters[len(texts.data) :] = False
    # A word begins at a letter behind a space or a cut, and ends before a space or a cut.
    borders = np.empty(len(letters) + 1, np.bool_)
    borders[0], borders[-1] = letters[0] if len(letters) else False, False
    np.not_equal(letters[1:], letters[:-1], out=borders[1:-1])
    begins = borders[:-1] & letters
    ends = borders.copy()
    ends[:-1] &= ~letters
    inner = cuts[(cuts > 0) & (cuts < len(texts.data))]
    inner = inner[letters[inner] & letters[inner - 1]]
    begins[inner] = True
    ends[inner] = True
    start, end = np.flatnonzero(begins), np.flatnonzero(ends)
    return _hash_words(folded, start, end - start), np.searchsorted(start, texts.row_bytes)


def _hash_words(folded: NDArray[np.uint8], start: NDArray[np.int64], length: NDArray[np.int64]) -> U64:
    """Words hashed eight bytes at a time; `folded` has eight bytes behind the last word."""
    eights = np.ndarray((max(len(folded) - 7, 0),), "<u8", folded, 0, (1,))
    result = (eights[start] & _LOW_BYTES[np.minimum(length, 8)]) * _WORD_FACTOR
    some = np.flatnonzero(length > 8)
    done = 8
    while len(some):
        more = eights[start[some] + done] & _LOW_BYTES[np.minimum(length[some] - done, 8)]
        before = result[some]
        result[some] = ((before ^ (before >> np.uint64(29))) + more) * _WORD_FACTOR
        done += 8
        some = some[length[some] > done]
    return mix(result)


def _lower(texts: FlatTexts) -> FlatTexts:
    """The same texts in lower case, which may have other lengths."""
    if not len(texts.segments) - 1:
        return texts
    offsets = pa.py_buffer(texts.segments.astype(np.int64))
    strings = pa.LargeStringArray.from_buffers(len(texts.segments) - 1, offsets, pa.py_buffer(texts.data))
    lower = pc.utf8_lower(strings)
    ends = np.frombuffer(lower.buffers()[1], np.int64)[: len(texts.segments)]
    return FlatTexts(np.frombuffer(lower.buffers()[2], np.uint8)[: ends[-1]], ends, texts.rows)


def _characters(folded: NDArray[np.uint8]) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """General punctuation made spaces, and the places before and behind characters that are words of their own."""
    folded = folded.copy()
    lead = np.flatnonzero(folded >= 0xE0)
    first, second = folded[lead], folded[lead + 1]
    marks = ((first == 0xE2) & ((second == 0x80) | (second == 0x81))) | ((first == 0xE3) & (second == 0x80))
    for i in range(3):
        folded[lead[marks] + i] = _SPACE
    unspaced = (
        (first >= 0xE3)
        | ((first == 0xE0) & (second >= 0xB8))
        | ((first == 0xE1) & np.isin(second, (0x80, 0x81, 0x9E, 0x9F)))
    )
    alone = lead[unspaced & ~marks]
    return folded, np.concatenate([alone, alone + np.where(folded[alone] >= 0xF0, 4, 3)])
