"""Objectives: how an example's target is divided between the encoder's input and the decoder's output.

Everything is decided from lengths and keyed draws, so planning and rendering decide alike. Text denoising follows UL2
(arXiv 2205.05131, Table 1) with the span corruption of T5 (arXiv 1910.10683, section 3.1.4); masked pictures and sound
follow Unified-IO 2 (arXiv 2312.17172, section 3.3).
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass
from typing import Self

import numpy as np
import numpy.typing as npt
from pydantic import Field, model_validator

from omnimill.config import Config
from omnimill.registry import Registry
from omnimill.rng import choose, generator, subkey, unit
from omnimill.tokenizers.vocabulary import SENTINELS, TextVocabulary
from omnimill.training.draws import Purpose
from omnimill.vocabulary_layout import Paradigm

Ids = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]


class Denoiser(Config):
    """One setting of text denoising.

    paradigm: the prefix token that announces it. rate: share of the tokens that the decoder must produce.
    mean_span: tokens per corrupted span, of which there are many. None (paradigm S): the tokens to produce are one
    suffix, without sentinels; rate 1 is then causal language modelling. weight: how often, relative to the others.
    """

    paradigm: Paradigm
    rate: float = Field(gt=0, le=1)
    mean_span: float | None = Field(default=None, ge=1)
    weight: float = Field(default=1.0, ge=0)

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if (self.paradigm == "S") != (self.mean_span is None):
            raise ValueError("paradigm S takes no mean_span, R and X need one")
        if self.mean_span is not None and self.rate == 1:
            raise ValueError("span corruption must leave some text: rate below 1")
        return self


UL2 = (
    Denoiser(paradigm="R", mean_span=3, rate=0.15),
    Denoiser(paradigm="R", mean_span=8, rate=0.15),
    Denoiser(paradigm="S", rate=0.25),
    Denoiser(paradigm="X", mean_span=3, rate=0.5),
    Denoiser(paradigm="X", mean_span=8, rate=0.5),
    Denoiser(paradigm="X", mean_span=64, rate=0.15),
    Denoiser(paradigm="X", mean_span=64, rate=0.5),
)


class ObjectiveSettings(Config):
    """denoisers: settings of text denoising, one drawn per example; UL2's seven, equally often, by default.

    image_mask, audio_mask: lowest and highest share of the target's own input patches that a denoising example hides,
    drawn uniformly. The reference never published its share; the default is ours.
    """

    denoisers: tuple[Denoiser, ...] = Field(default=UL2, min_length=1)
    image_mask: tuple[float, float] = (0.5, 0.9)
    audio_mask: tuple[float, float] = (0.5, 0.9)

    @model_validator(mode="after")
    def _possible(self) -> Self:
        for name in ("image_mask", "audio_mask"):
            low, high = getattr(self, name)
            if not 0 < low <= high <= 1:
                raise ValueError(f"{name} must be two shares, low then high, above 0 and up to 1; found {low}, {high}")
        if not any(denoiser.weight for denoiser in self.denoisers):
            raise ValueError("some denoiser must have a weight above 0")
        return self


@dataclass(frozen=True, slots=True)
class TextSplit:
    """How a target text is divided, decided from its length.

    start, length: the window of the text that is used. noise: tokens of it that the decoder produces.
    spans: runs that these form, each with a sentinel; 0: they are the window's suffix, and there are no sentinels.
    """

    paradigm: Paradigm
    start: int
    length: int
    noise: int
    spans: int
    key: int

    @property
    def inputs(self) -> int:
        """Tokens for the encoder, without EOS."""
        return self.length - self.noise + self.spans

    @property
    def targets(self) -> int:
        """Tokens for the decoder, without EOS."""
        return self.noise + self.spans

    def apply(self, ids: Ids, vocabulary: TextVocabulary) -> tuple[Ids, Ids]:
        """The encoder's and the decoder's part of a text, both without EOS.

        Args:
            ids: int64, the whole text.
            vocabulary: gives the sentinels.
        """
        window = ids[self.start : self.start + self.length]
        if not self.spans:
            cut = self.length - self.noise
            return window[:cut], window[cut:]
        mask = noise_mask(self.length, self.noise, self.spans, generator(subkey(self.key, Purpose.NOISE)))
        return corrupt(window, mask, vocabulary)


def noise_counts(length: int, rate: float, mean_span: float) -> tuple[int, int]:
    """Noise tokens and spans of a text of `length` >= 2 tokens, as T5 counts them (rounding half to even)."""
    noise = min(max(round(length * rate), 1), length - 1)
    spans = max(round(noise / mean_span), 1)
    return noise, min(spans, length - noise)


def noise_mask(length: int, noise: int, spans: int, rng: np.random.Generator) -> Mask:
    """Random spans of noise: bool [length], clean first, noise last, runs uniform over all ways to cut."""
    runs = np.empty(2 * spans, np.int64)
    runs[0::2] = _parts(length - noise, spans, rng)
    runs[1::2] = _parts(noise, spans, rng)
    return np.repeat(np.arange(2 * spans) % 2 == 1, runs)


def _parts(total: int, parts: int, rng: np.random.Generator) -> Ids:
    """`total` as a sum of `parts` numbers of at least 1."""
    cuts = np.sort(rng.choice(total - 1, parts - 1, replace=False)) + 1
    return np.diff(np.concatenate([[0], cuts, [total]]))


def corrupt(ids: Ids, mask: Mask, vocabulary: TextVocabulary) -> tuple[Ids, Ids]:
    """Inputs with every run of noise replaced by one sentinel, targets with every clean run replaced by one."""
    return _replace_runs(ids, mask, vocabulary), _replace_runs(ids, ~mask, vocabulary)


def _replace_runs(ids: Ids, mask: Mask, vocabulary: TextVocabulary) -> Ids:
    starts = mask & ~np.concatenate([[False], mask[:-1]])
    sentinels = vocabulary.sentinels[np.cumsum(starts) - 1]
    result: Ids = np.where(starts, sentinels, ids)[~mask | starts]
    return result


class Objective:
    """The base is what objective ``generate`` does: the target is absent from the input.

    Attributes:
        media_paradigm: of the prefix token when the target is an image or audio.
    """

    media_paradigm: Paradigm = "S"

    def split(self, length: int, room: int, target_room: int, settings: ObjectiveSettings, key: int) -> TextSplit:
        """Divide a text target.

        Args:
            length: tokens of the text.
            room, target_room: most tokens for encoder and decoder, without EOS.
            settings: numbers of the denoisers.
            key: of the example's draws.
        """
        del room, settings
        kept = min(length, target_room)
        return TextSplit("S", 0, kept, kept, 0, key)

    def hidden_share(self, settings: ObjectiveSettings, key: int) -> float | None:
        """Share of an image or audio target's own patches hidden from the encoder; None: it is not an input at all."""
        del settings, key
        return None


OBJECTIVES: Registry[Objective] = Registry("objective")
OBJECTIVES.register("generate")(Objective())


class TextDenoising(Objective):
    """One of the configured denoisers, on the longest window of the text that fits; a random one of a longer text."""

    def split(self, length: int, room: int, target_room: int, settings: ObjectiveSettings, key: int) -> TextSplit:
        denoiser = _draw_denoiser(settings.denoisers, unit(subkey(key, Purpose.DENOISER)))

        def counts(window: int) -> tuple[int, int]:
            if denoiser.mean_span is None:
                return min(max(round(window * denoiser.rate), 1), window), 0
            return noise_counts(window, denoiser.rate, denoiser.mean_span)

        def too_long(window: int) -> bool:
            noise, spans = counts(window)
            return window - noise + spans > room or noise + spans > target_room or spans > SENTINELS

        window = bisect_right(range(3, length + 1), False, key=too_long) + 2
        start = choose(subkey(key, Purpose.WINDOW), length - window + 1)
        return TextSplit(denoiser.paradigm, start, window, *counts(window), key)


OBJECTIVES.register("text_denoising")(TextDenoising())


def _draw_denoiser(denoisers: tuple[Denoiser, ...], point: float) -> Denoiser:
    edges = np.cumsum([denoiser.weight for denoiser in denoisers])
    return denoisers[int(np.searchsorted(edges, point * edges[-1], side="right"))]


class MediaDenoising(Objective):
    """The target's own patches are input, except for a random share of them.

    Args:
        setting: the field of :class:`ObjectiveSettings` that holds the range of that share.
    """

    media_paradigm: Paradigm = "R"

    def __init__(self, setting: str) -> None:
        self.setting = setting

    def hidden_share(self, settings: ObjectiveSettings, key: int) -> float:
        low, high = getattr(settings, self.setting)
        return float(low + (high - low) * unit(subkey(key, Purpose.HIDDEN_SHARE)))


OBJECTIVES.register("image_denoising")(MediaDenoising("image_mask"))
OBJECTIVES.register("audio_denoising")(MediaDenoising("audio_mask"))
