"""How the learning rate goes: a linear warm-up to the peak, then one of four ways down, or none.

Every schedule is a share of the optimizer's peak that depends on the update's number alone, never on how many updates
the run is to do: a run that goes on for longer has learnt the same up to there.
"""

from __future__ import annotations

import math
from typing import Annotated, Literal, Self

from pydantic import Field, PositiveFloat, PositiveInt, model_validator

from omnimill.config import Config

_Share = Annotated[float, Field(ge=0, lt=1)]


class InverseRoot(Config):
    """One over the square root of the update's number (Unified-IO 2, arXiv 2312.17172, section 3.5).

    T5X writes it as ``factor / sqrt(max(k, warmup))``: a factor f is a peak of ``f / sqrt(warmup)``.
    """

    name: Literal["inverse_root"] = "inverse_root"


class Cosine(Config):
    """Half a cosine from the peak down to `end` of it (arXiv 1608.03983), reached at update `until` and then kept."""

    name: Literal["cosine"]
    until: PositiveInt
    end: _Share = 0.1


class WarmupStableDecay(Config):
    """The peak until update `decay_from`, then linearly down to `end` of it at update `until` (arXiv 2404.06395)."""

    name: Literal["wsd"]
    decay_from: PositiveInt
    until: PositiveInt
    end: _Share = 0.0

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.until <= self.decay_from:
            raise ValueError(f"until ({self.until}) must come after decay_from ({self.decay_from})")
        return self


class Constant(Config):
    """The peak."""

    name: Literal["constant"]


Schedule = Annotated[InverseRoot | Cosine | WarmupStableDecay | Constant, Field(discriminator="name")]


class Scheduled(Config):
    """What every optimizer's rate has.

    peak_learning_rate: reached after `warmup_steps` updates. schedule: how it goes on from there.
    """

    peak_learning_rate: PositiveFloat
    warmup_steps: PositiveInt
    schedule: Schedule = InverseRoot()

    @model_validator(mode="after")
    def _goes_down_after_warm_up(self) -> Self:
        until = getattr(self.schedule, "until", None)
        if until is not None and until <= self.warmup_steps:
            raise ValueError(f"schedule.until ({until}) must come after warmup_steps ({self.warmup_steps})")
        return self


def learning_rate(config: Scheduled, step: int) -> float:
    """The rate of the update with index `step` (from 0).

    With Adafactor's defaults this is ``min(1, k / 5000) / sqrt(max(k, 5000))`` at update k = step + 1 (paper, section
    3.5).
    """
    update, warmup = step + 1, config.warmup_steps
    share = update / warmup if update < warmup else _share(config.schedule, update, warmup)
    return config.peak_learning_rate * share


def _share(schedule: InverseRoot | Cosine | WarmupStableDecay | Constant, update: int, warmup: int) -> float:
    """Of the peak, at an update not before the end of the warm-up; updates are counted from 1."""
    match schedule:
        case InverseRoot():
            return math.sqrt(warmup / update)
        case Cosine():
            done = min((update - warmup) / (schedule.until - warmup), 1.0)
            return schedule.end + (1.0 - schedule.end) * (1.0 + math.cos(math.pi * done)) / 2.0
        case WarmupStableDecay():
            done = (update - schedule.decay_from) / (schedule.until - schedule.decay_from)
            return 1.0 - (1.0 - schedule.end) * min(max(done, 0.0), 1.0)
        case Constant():
            return 1.0
