"""Optimizers and the learning-rate schedule, with the reference's settings as defaults."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Annotated, Any, Literal

import torch
from pydantic import Field, PositiveFloat, PositiveInt
from torch import Tensor
from torch.nn import Parameter

from omnimill.config import Config


class AdafactorConfig(Config):
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


class AdamWConfig(Config):
    """AdamW with decoupled weight decay."""

    name: Literal["adamw"]
    peak_learning_rate: PositiveFloat = 3e-4
    warmup_steps: PositiveInt = 1000
    betas: tuple[float, float] = (0.9, 0.95)
    epsilon: PositiveFloat = 1e-8
    weight_decay: float = Field(default=0.0, ge=0)


OptimizerConfig = Annotated[AdafactorConfig | AdamWConfig, Field(discriminator="name")]


def learning_rate(config: AdafactorConfig | AdamWConfig, step: int) -> float:
    """Linear warm-up, then one over the square root: the rate of the update with index `step` (from 0).

    With the default peak this is ``min(1, k / 5000) / sqrt(max(k, 5000))`` at update k = step + 1 (paper, section 3.5).
    """
    update = step + 1
    warmup = config.warmup_steps
    return config.peak_learning_rate * min(update / warmup, math.sqrt(warmup / update))


def build_optimizer(config: AdafactorConfig | AdamWConfig, parameters: Iterable[Parameter]) -> torch.optim.Optimizer:
    """The configured optimizer; its learning rate is set anew before every update."""
    if isinstance(config, AdafactorConfig):
        return Adafactor(parameters, config)
    return AdamW(
        parameters,
        lr=config.peak_learning_rate,
        betas=config.betas,
        eps=config.epsilon,
        weight_decay=config.weight_decay,
    )


class AdamW(torch.optim.AdamW):
    """PyTorch's, with its state there from the beginning: a checkpoint can be read into a new one."""

    def __init__(self, parameters: Iterable[Parameter], **settings: Any) -> None:
        super().__init__(parameters, **settings)
        for group in self.param_groups:
            for parameter in group["params"]:
                averages = {name: torch.zeros_like(parameter) for name in ("exp_avg", "exp_avg_sq")}
                self.state[parameter] = {"step": torch.tensor(0.0), **averages}


class Adafactor(torch.optim.Optimizer):
    """Adafactor with momentum and parameter scale (Shazeer & Stern, arXiv 1804.04235, algorithms 4 and 5).

    ``torch.optim.Adafactor`` has no momentum, factors small matrices too and puts its own 1/sqrt(k) on the rate.

    State of a parameter: ``momentum`` (its shape), and either ``rows`` and ``columns`` (means of squared gradients
    over the longest and the second longest axis, kept as size 1) or ``second`` (its shape). The number of updates
    done is kept in the parameter group.
    """

    def __init__(self, parameters: Iterable[Parameter], config: AdafactorConfig) -> None:
        super().__init__(parameters, {"lr": config.peak_learning_rate, "updates": 0})
        self._config = config
        for group in self.param_groups:
            for parameter in group["params"]:
                self.state[parameter] = self._first_state(parameter)

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """One update of every parameter that has a gradient."""
        loss = None if closure is None else torch.enable_grad()(closure)()
        for group in self.param_groups:
            group["updates"] += 1
            decay = 1.0 - group["updates"] ** -self._config.decay_exponent
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._update(parameter, parameter.grad.float(), group["lr"], decay)
        return loss

    def _update(self, parameter: Tensor, gradient: Tensor, rate: float, decay: float) -> None:
        config, state = self._config, self.state[parameter]
        update = gradient * self._inverse_root(state, gradient.square() + config.epsilons[0], decay)
        update /= (_rms(update) / config.update_clip).clamp(min=1.0)
        if config.parameter_scale:
            update *= _rms(parameter.float()).clamp(min=config.epsilons[1])
        update *= rate
        if config.momentum:
            update = state["momentum"].mul_(config.momentum).add_(update, alpha=1.0 - config.momentum)
        parameter.sub_(update)

    def _first_state(self, parameter: Tensor) -> dict[str, Tensor]:
        zeros = torch.zeros_like(parameter, dtype=torch.float32)
        axes = factored_axes(parameter.shape, self._config.min_factored_dim)
        if axes is None:
            state = {"second": zeros}
        else:
            state = {name: zeros.mean(axis, keepdim=True) for name, axis in zip(("columns", "rows"), axes, strict=True)}
        return {**state, "momentum": zeros.clone()} if self._config.momentum else state

    def _inverse_root(self, state: dict[str, Any], squares: Tensor, decay: float) -> Tensor:
        """One over the root of the second-moment estimate, after taking in the new squared gradients."""
        axes = factored_axes(squares.shape, self._config.min_factored_dim)
        if axes is None:
            return _average(state["second"], squares, decay).rsqrt()
        second_longest, longest = axes
        rows = _average(state["rows"], squares.mean(longest, keepdim=True), decay)
        columns = _average(state["columns"], squares.mean(second_longest, keepdim=True), decay)
        return (rows / rows.mean(second_longest, keepdim=True)).rsqrt() * columns.rsqrt()


def factored_axes(shape: Iterable[int], minimum: int) -> tuple[int, int] | None:
    """The second longest and the longest axis, or None when the second moment is kept whole."""
    sizes = list(shape)
    order = sorted(range(len(sizes)), key=lambda axis: sizes[axis])
    if len(sizes) < 2 or sizes[order[-2]] < minimum:
        return None
    return order[-2], order[-1]


def _average(average: Tensor, value: Tensor, decay: float) -> Tensor:
    return average.mul_(decay).add_(value, alpha=1.0 - decay)


def _rms(value: Tensor) -> Tensor:
    return value.square().mean().sqrt()
