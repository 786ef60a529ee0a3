"""Settings of online mixing: rates that follow the losses."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, PositiveFloat, PositiveInt

from omnimill.config import Config

# Loaders plan further ahead, and wait for decisions; with a lag below this training would wait with them.
LEAST_LAG = 8


class OnlineConfig(Config):
    """How often and by which rule losses change the rates.

    rule: a name of the registry in `omnimill.mixtures.online`.
    every: model updates between two decisions. lag: steps from a decision to the first step that it holds for;
        loaders plan no step before its rates are known, so this much they are ahead of training when it is decided.
    eta: how strongly losses weigh. window: decisions whose losses `skill_it` adds up.
    skills: `skill_it`: how much training on the first-named task lowers the loss of the second, 0 for pairs that are
        not named; empty: each task helps itself alone.
    """

    rule: Literal["skill_it", "loss_ratio"] = "skill_it"
    every: PositiveInt = 100
    lag: int = Field(default=16, ge=LEAST_LAG)
    eta: PositiveFloat = 0.2
    window: PositiveInt = 3
    skills: dict[str, dict[str, float]] = Field(default_factory=dict)
