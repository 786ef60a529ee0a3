"""Filters of sound. Every one passes examples without sound; a bound of None only measures."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Literal

import numpy as np
from pydantic import Field, model_validator

from omnimill.pipelines.base import Operator
from omnimill.pipelines.decoders.audio import Waveform, decode_clip
from omnimill.schema import Audio, Example

# Quieter than the last bit of 16-bit sound; the level of digital silence, whose logarithm has none.
_FLOOR_DBFS = -120.0


class AudioSilence(Operator):
    """Drops an example whose clips are silent: a root mean square below `min_dbfs`, in decibels of full scale.

    when: `all` drops it when every clip is silent, `any` when one is. The level of the loudest clip (`all`) or of the
    quietest (`any`) is its score ``audio_dbfs``.
    """

    per_example: ClassVar[bool] = True
    reads: ClassVar[tuple[str, ...]] = ("audio",)
    writes: ClassVar[tuple[str, ...]] = ("meta",)

    op: Literal["audio_silence"]
    min_dbfs: float | None = Field(-60.0, le=0)
    when: Literal["all", "any"] = "all"

    def __call__(self, examples: Sequence[Example]) -> list[str | None]:
        return [self._judge(example) for example in examples]

    def _judge(self, example: Example) -> str | None:
        if not example.audio:
            return None
        levels = [_dbfs(decode_clip(clip)) for clip in example.audio]
        level = max(levels) if self.when == "all" else min(levels)
        example.meta.scores["audio_dbfs"] = level
        return "audio_silent" if self.min_dbfs is not None and level < self.min_dbfs else None


class AudioClipping(Operator):
    """Drops an example when more than `max_share` of the samples of one of its clips lie at full scale.

    The share of the worst clip is its score ``audio_clipped``.
    """

    per_example: ClassVar[bool] = True
    reads: ClassVar[tuple[str, ...]] = ("audio",)
    writes: ClassVar[tuple[str, ...]] = ("meta",)

    op: Literal["audio_clipping"]
    max_share: float | None = Field(0.01, ge=0, le=1)
    full_scale: float = Field(0.999, gt=0, le=1)

    def __call__(self, examples: Sequence[Example]) -> list[str | None]:
        return [self._judge(example) for example in examples]

    def _judge(self, example: Example) -> str | None:
        if not example.audio:
            return None
        shares = [float((np.abs(decode_clip(clip)) >= self.full_scale).mean()) for clip in example.audio]
        example.meta.scores["audio_clipped"] = max(shares)
        return "audio_clipped" if self.max_share is not None and max(shares) > self.max_share else None


class AudioDuration(Operator):
    """Drops an example with less sound in all than `min_seconds`, or more than `max_seconds`.

    The sum over its clips is its score ``audio_seconds``.
    """

    per_example: ClassVar[bool] = True
    reads: ClassVar[tuple[str, ...]] = ("audio",)
    writes: ClassVar[tuple[str, ...]] = ("meta",)

    op: Literal["audio_duration"]
    min_seconds: float = Field(0.0, ge=0)
    max_seconds: float | None = Field(None, gt=0)

    @model_validator(mode="after")
    def _ordered(self) -> AudioDuration:
        if self.max_seconds is not None and self.max_seconds < self.min_seconds:
            raise ValueError("max_seconds is below min_seconds")
        return self

    def __call__(self, examples: Sequence[Example]) -> list[str | None]:
        return [self._judge(example) for example in examples]

    def _judge(self, example: Example) -> str | None:
        if not example.audio:
            return None
        seconds = sum(_seconds(clip) for clip in example.audio)
        example.meta.scores["audio_seconds"] = seconds
        if seconds < self.min_seconds:
            return "audio_too_short"
        return "audio_too_long" if self.max_seconds is not None and seconds > self.max_seconds else None


class AudioSampleRate(Operator):
    """Drops an example whose recording was sampled below `min_hz` or above `max_hz` before it became 16 kHz.

    The rate is the score ``source_sample_rate`` that the sources of films and recordings note; without it an example
    passes. Telephone sound at 8 kHz has nothing in the upper half of a 16 kHz clip.
    """

    per_example: ClassVar[bool] = True
    reads: ClassVar[tuple[str, ...]] = ("audio", "meta")

    op: Literal["audio_sample_rate"]
    min_hz: float | None = Field(16_000.0, gt=0)
    max_hz: float | None = Field(None, gt=0)

    def __call__(self, examples: Sequence[Example]) -> list[str | None]:
        return [self._judge(example) for example in examples]

    def _judge(self, example: Example) -> str | None:
        rate = example.meta.scores.get("source_sample_rate")
        if rate is None or not example.audio:
            return None
        if self.min_hz is not None and rate < self.min_hz:
            return "audio_low_rate"
        return "audio_high_rate" if self.max_hz is not None and rate > self.max_hz else None


def _dbfs(waveform: Waveform) -> float:
    """Root mean square level of samples in -1..1, in decibels of full scale."""
    power = float(np.mean(np.square(waveform, dtype=np.float64))) if len(waveform) else 0.0
    return max(_FLOOR_DBFS, 10 * float(np.log10(power))) if power > 0 else _FLOOR_DBFS


def _seconds(clip: Audio) -> float:
    return clip.samples / clip.sample_rate
