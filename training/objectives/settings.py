"""Numbers of the objectives that a run sets; what the objectives are is in `omnimill.mixtures.objectives`."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import Field, model_validator

from omnimill.config import Config
from omnimill.mixtures.config import Task
from omnimill.mixtures.objectives import OBJECTIVES, UL2, Denoiser, NamedDenoiser

_Count = Annotated[int, Field(ge=1)]


class TokenBudgets(Config):
    """Objective ``token_budgets``: how many tokens of an example are shown, and how many asked for.

    input_tokens, target_tokens: least and most of them, drawn uniformly; patches of the current picture and clip count
    as tokens. The defaults are those of 4M with seven modalities.
    alphas: of a symmetric Dirichlet distribution, by which the modalities share a budget; one is drawn per example and
    budget. Small ones give a budget to one modality, large ones to all alike. The defaults are 4M-21's.
    mean_span: tokens per hidden span of text.
    """

    input_tokens: tuple[_Count, _Count] = (128, 128)
    target_tokens: tuple[_Count, _Count] = (128, 128)
    alphas: tuple[Annotated[float, Field(gt=0, le=1000)], ...] = Field(default=(0.01, 0.1, 1.0, 10.0), min_length=1)
    mean_span: float = Field(default=3, ge=1)

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        for name in ("input_tokens", "target_tokens"):
            low, high = getattr(self, name)
            if low > high:
                raise ValueError(f"{name} must be two numbers, low then high; found {low}, {high}")
        return self


class ObjectiveSettings(Config):
    """denoisers: what ``text_denoising`` mixes, one drawn per example; UL2's seven, equally often, by default.

    image_mask, audio_mask: lowest and highest share of the target's own input patches that a denoising example hides,
    drawn uniformly. The reference never published its share; the default is ours.
    token_budgets: of the objective of that name.
    """

    denoisers: tuple[NamedDenoiser, ...] = Field(default=UL2, min_length=1)
    image_mask: tuple[float, float] = (0.5, 0.9)
    audio_mask: tuple[float, float] = (0.5, 0.9)
    token_budgets: TokenBudgets = TokenBudgets()

    def denoisers_of(self, task: Task) -> tuple[Denoiser, ...]:
        """What a task that denoises text draws from."""
        one = OBJECTIVES[task.objective].denoiser
        return self.denoisers if one is None else (one,)

    def mask_of(self, task: Task) -> tuple[float, float]:
        """The range of shares of the target's own stream that a task hides."""
        return OBJECTIVES[task.objective].mask or (self.image_mask if task.own_stream == "image" else self.audio_mask)

    @model_validator(mode="after")
    def _possible(self) -> Self:
        for name in ("image_mask", "audio_mask"):
            low, high = getattr(self, name)
            if not 0 < low <= high <= 1:
                raise ValueError(f"{name} must be two shares, low then high, above 0 and up to 1; found {low}, {high}")
        if not any(denoiser.weight for denoiser in self.denoisers):
            raise ValueError("some denoiser must have a weight above 0")
        return self
