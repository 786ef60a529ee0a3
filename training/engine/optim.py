"""Optimizers, with the reference's settings as defaults."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Any, Literal

import torch
from pydantic import Field, PositiveFloat, PositiveInt
from torch.nn import Parameter

from omnimill.training.engine.adafactor import Adafactor
from omnimill.training.engine.schedules import Scheduled


class AdafactorConfig(Scheduled):
    """Adafactor as Unified-IO 2 trains with it (paper, section 3.5; T5X settings).

    peak_learning_rate: relative to every parameter's own scale; 1/sqrt(5000) is the reference's.
    decay_exponent: the second moment's decay at update k is ``1 - k ** -decay_exponent``.
    update_clip: root mean square that no parameter's update may exceed.
    epsilons: added to squared gradients; least parameter scale.
    min_factored_dim: a matrix is factored when its smaller side is at least this long.
    """

    name: Literal["adafactor"] = "adafactor"
    peak_learning_rate: PositiveFloat = 5000**-0.5
    warmup_steps: PositiveInt = 5000
    momentum: float = Field(default=0.9, ge=0, lt=1)
    decay_exponent: float = Field(default=0.8, gt=0)
    update_clip: PositiveFloat = 1.0
    parameter_scale: bool = True
    epsilons: tuple[PositiveFloat, PositiveFloat] = (1e-30, 1e-3)
    min_factored_dim: PositiveInt = 128


class AdamWConfig(Scheduled):
    """AdamW with decoupled weight decay."""

    name: Literal["adamw"]
    peak_learning_rate: PositiveFloat = 3e-4
    warmup_steps: PositiveInt = 1000
    betas: tuple[float, float] = (0.9, 0.95)
    epsilon: PositiveFloat = 1e-8
    weight_decay: float = Field(default=0.0, ge=0)


OptimizerConfig = Annotated[AdafactorConfig | AdamWConfig, Field(discriminator="name")]


def build_optimizer(config: AdafactorConfig | AdamWConfig, *groups: Iterable[Parameter]) -> torch.optim.Optimizer:
    """The configured optimizer; its learning rate is set anew before every update.

    Its whole state is there from the beginning, so that a checkpoint can be read into a new one.

    Args:
        groups: of parameters, possibly sharded. Those of a group get gradients together or not at all.
    """
    parameters = [{"params": list(group)} for group in groups]
    if isinstance(config, AdafactorConfig):
        return Adafactor(
            parameters,
            lr=config.peak_learning_rate,
            momentum=config.momentum,
            decay_exponent=config.decay_exponent,
            update_clip=config.update_clip,
            parameter_scale=config.parameter_scale,
            epsilons=config.epsilons,
            min_factored_dim=config.min_factored_dim,
        )
    return _AdamW(
        parameters,
        lr=config.peak_learning_rate,
        betas=config.betas,
        eps=config.epsilon,
        weight_decay=config.weight_decay,
    )


class _AdamW(torch.optim.AdamW):
    """PyTorch's, with its state there from the beginning."""

    def __init__(self, parameters: list[dict[str, Any]], **settings: Any) -> None:
        super().__init__(parameters, **settings)
        for group in self.param_groups:
            for parameter in group["params"]:
                averages = {name: torch.zeros_like(parameter) for name in ("exp_avg", "exp_avg_sq")}
                self.state[parameter] = {"step": torch.tensor(0.0), **averages}
