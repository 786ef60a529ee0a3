"""How text is divided between encoder and decoder, decided from lengths and keyed draws for many examples at once.

One example is an array of one, so planning and rendering decide alike. What a division makes of the ids themselves is
`omnimill.training.objectives.spans`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from omnimill.mixtures.objectives import MOST_MOVED, Denoiser
from omnimill.rng import Floats, Int64s, UInt64s, choose_many, generator, subkey, subkey_many, unit_many
from omnimill.tokenizers.vocabulary import SENTINELS, TextVocabulary
from omnimill.training.objectives.spans import Ids, Mask, corrupt, move_spans, noise_mask
from omnimill.training.planning.draws import Purpose
from omnimill.vocabulary_layout import Paradigm

PARADIGMS: tuple[Paradigm, ...] = ("S", "R", "X")


@dataclass(frozen=True, slots=True)
class TextSplit:
    """How a target text is divided.

    start, length: the window of the text that is used. noise: tokens of it that the decoder produces, the last ones
    unless they are spans. spans: of these tokens, how many have a sentinel. moved: they are the decoder's with all that
    is between them, and follow at its end; otherwise they are what it produces. key: of the example.
    """

    paradigm: Paradigm
    start: int
    length: int
    noise: int
    spans: int
    moved: bool
    key: int

    @property
    def inputs(self) -> int:
        """Tokens for the encoder, without EOS."""
        return self.length - self.noise + (0 if self.moved else self.spans)

    @property
    def targets(self) -> int:
        """Tokens for the decoder, without EOS."""
        return self.noise + self.spans * (2 if self.moved else 1)

    def apply(self, ids: Ids, vocabulary: TextVocabulary) -> tuple[Ids, Ids]:
        """The encoder's and the decoder's part of a text, both without EOS.

        Args:
            ids: int64, the whole text.
            vocabulary: gives the sentinels.
        """
        window = ids[self.start : self.start + self.length]
        rng = generator(subkey(self.key, Purpose.NOISE))
        if self.spans and not self.moved:
            return corrupt(window, noise_mask(self.length, self.noise, self.spans, rng), vocabulary)
        cut = self.length - self.noise
        return window[:cut], move_spans(window[cut:], self.spans, rng, vocabulary) if self.spans else window[cut:]


@dataclass(frozen=True)
class TextSplits:
    """:class:`TextSplit` of n texts: int64 [n] each, `moved` bool [n], `paradigm` places in `PARADIGMS`."""

    paradigm: Int64s
    start: Int64s
    length: Int64s
    noise: Int64s
    spans: Int64s
    moved: Mask
    keys: UInt64s

    @property
    def inputs(self) -> Int64s:
        """Tokens for the encoder, without EOS."""
        found: Int64s = self.length - self.noise + np.where(self.moved, 0, self.spans)
        return found

    @property
    def targets(self) -> Int64s:
        """Tokens for the decoder, without EOS."""
        found: Int64s = self.noise + self.spans * np.where(self.moved, 2, 1)
        return found

    def one(self, number: int = 0) -> TextSplit:
        """One of them."""
        return TextSplit(
            paradigm=PARADIGMS[int(self.paradigm[number])],
            start=int(self.start[number]),
            length=int(self.length[number]),
            noise=int(self.noise[number]),
            spans=int(self.spans[number]),
            moved=bool(self.moved[number]),
            key=int(self.keys[number]),
        )


@dataclass(frozen=True)
class Rule:
    """How each of n texts is to be divided. rate: float64 [n]. span: float64 [n], tokens of a corrupted span, 0: a
    suffix. moved: int64 [n], spans of the suffix that are moved."""

    rate: Floats
    span: Floats
    moved: Int64s

    def divide(self, window: Int64s) -> tuple[Int64s, Int64s]:
        """Tokens that the decoder produces, and spans, of windows of at least 2 tokens; as T5 rounds, half to even."""
        corrupted = self.span > 0
        noise = np.rint(window * self.rate).astype(np.int64)
        noise = np.minimum(np.maximum(noise, 1), window - corrupted)
        spans = np.rint(noise / np.where(corrupted, self.span, 1.0)).astype(np.int64)
        spans = np.minimum(np.maximum(spans, 1), window - noise)
        return noise, np.where(corrupted, spans, np.minimum(self.moved, (noise + 1) // 2))

    def fits(self, window: Int64s, room: Int64s, target_room: Int64s) -> Mask:
        """Whether both parts of a window have room; once it is too long for that, every longer one is."""
        noise, spans = self.divide(window)
        corrupted = self.span > 0
        shown = window - noise + np.where(corrupted, spans, 0)
        wanted = noise + np.where(corrupted, spans, 2 * spans)
        found: Mask = (shown <= room) & (wanted <= target_room) & (spans <= SENTINELS)
        return found

    def longest(self, whole: Int64s, room: Int64s, target_room: Int64s) -> Int64s:
        """The longest window of texts of `whole` tokens of which both parts have room, at least 2: int64 [n]."""
        low = np.full(len(whole), 2, np.int64)
        # A window is never longer than what its two sides show of it.
        high = np.maximum(np.minimum(whole, room + target_room), 2)

        def probe(window: Int64s) -> None:
            nonlocal low, high
            fits = self.fits(window, room, target_room)
            low, high = np.where(fits, window, low), np.where(fits, high, np.maximum(window - 1, low))

        probe(high)
        if (low < high).any():
            guess = self._guess(room, target_room)
            for edge in (guess - 4, guess + 4):
                probe(np.clip(edge, low, high).astype(np.int64))
        while (low < high).any():
            probe((low + high + 1) // 2)
        return low

    def _guess(self, room: Int64s, target_room: Int64s) -> Floats:
        """The longest window but for rounding."""
        spans = np.where(self.span > 0, self.rate / np.where(self.span > 0, self.span, 1.0), 0.0)
        shown, wanted = np.maximum(1 - self.rate + spans, 1e-6), np.maximum(self.rate + spans, 1e-6)
        guess: Floats = np.minimum(room / shown, target_room / wanted)
        return guess


def denoise(
    denoisers: Sequence[Denoiser], whole: Int64s, room: Int64s, target_room: Int64s, keys: UInt64s
) -> TextSplits:
    """One of the denoisers for each of n texts, on the longest window of it that fits; a random one of a longer text.

    Args:
        whole: int64 [n]; tokens of the texts, at least 2.
        room, target_room: int64 [n]; most tokens for encoder and decoder, without EOS.
        keys: uint64 [n]; of the examples.
    """
    point = unit_many(subkey_many(keys, Purpose.DENOISER))
    edges = np.cumsum([one.weight for one in denoisers])
    drawn = np.searchsorted(edges, point * edges[-1], side="right")
    low, high = (np.array([one.rates[end] for one in denoisers])[drawn] for end in (0, 1))
    rule = Rule(
        rate=low + (high - low) * unit_many(subkey_many(keys, Purpose.RATE)),
        span=np.array([one.mean_span or 0.0 for one in denoisers])[drawn],
        moved=_moved(denoisers, drawn, keys),
    )
    window = rule.longest(whole, room, target_room)
    noise, spans = rule.divide(window)
    return TextSplits(
        paradigm=np.array([PARADIGMS.index(one.paradigm) for one in denoisers])[drawn],
        start=choose_many(subkey_many(keys, Purpose.WINDOW), np.maximum(whole - window, 0) + 1),
        length=window,
        noise=noise,
        spans=spans,
        moved=rule.moved > 0,
        keys=keys,
    )


def whole_target(length: int, target_room: int, key: int) -> TextSplit:
    """All of a text as the target, as far as there is room: what objective ``generate`` does."""
    kept = min(length, target_room)
    return TextSplit("S", 0, kept, kept, 0, moved=False, key=key)


def _moved(denoisers: Sequence[Denoiser], drawn: Int64s, keys: UInt64s) -> Int64s:
    """Spans to move; 0 where none are."""
    found = np.zeros(len(keys), np.int64)
    for number, one in enumerate(denoisers):
        if one.moved_spans is not None:
            own = drawn == number
            found[own] = moved_spans(one.moved_spans, keys[own])
    return found


def moved_spans(mean: float, keys: UInt64s) -> Int64s:
    """Spans to move of n examples: a Poisson number, at least 1 and at most `MOST_MOVED`: int64 [n]."""
    point = unit_many(subkey_many(keys, Purpose.MOVED))
    below = np.cumsum([math.exp(-mean) * mean**k / math.factorial(k) for k in range(MOST_MOVED)])
    return np.maximum(np.searchsorted(below, point, side="right"), 1).astype(np.int64)
