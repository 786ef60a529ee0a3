"""Online mixing: rates that follow the losses, without gradients.

Every so many updates of the model the rates are multiplied by new weights, computed from the tasks' training losses.
Each decision is an entry of the run's ledger (`Update`), with the losses that caused it, and holds from a later step
on, so that every worker plans with it. What a run drew is replayed from those entries; no loss is needed for that.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

from omnimill.errors import ConfigError
from omnimill.mixtures.config import Mixture
from omnimill.mixtures.ledger import Update
from omnimill.mixtures.online_config import OnlineConfig
from omnimill.registry import Registry

Losses = Mapping[str, float]
# From the losses of the first decision and of the last `window` ones, the latest last, to the logarithm of each task's
# weight.
Rule = Callable[[OnlineConfig, Sequence[Losses]], dict[str, float]]

RULES: Registry[Rule] = Registry("rule of online mixing")

# The logarithm of how far weights may be apart: what falls further behind would not be drawn, and so not learn, again.
_WIDEST = math.log(1e6)


@RULES.register("skill_it")
def skill_it(config: OnlineConfig, losses: Sequence[Losses]) -> dict[str, float]:
    """Skill-It's update (Chen et al., "Skill-it! A Data-Driven Skills Framework for Understanding and Training Language
    Models", 2023, arXiv 2307.14430, its online algorithm; `trainer/mw_trainer.py` of the released code): the weight of
    skill i is proportional to ``exp(eta * sum over the last `window` decisions, sum over j, of A[i, j] * loss_j)``.

    There, losses are measured on validation data. Here, they are the training losses since the decision before. The
    prior that is multiplied, uniform in the paper, is the mixture's rates.
    """
    names = list(losses[-1])
    skills = config.skills or {name: {name: 1.0} for name in names}
    recent = losses[-config.window :]
    return {
        name: config.eta * math.fsum(by * one[other] for one in recent for other, by in skills.get(name, {}).items())
        for name in names
    }


@RULES.register("loss_ratio")
def loss_ratio(config: OnlineConfig, losses: Sequence[Losses]) -> dict[str, float]:
    """The weight of a task is (its loss / its first loss)^eta: more of what has been learnt least.

    The ratio is the inverse training rate of GradNorm (Chen et al., 2018, arXiv 1711.02257).
    """
    first = losses[0]
    return {name: config.eta * math.log(max(loss, 1e-9) / max(first[name], 1e-9)) for name, loss in losses[-1].items()}


def check_online(config: OnlineConfig, mixture: Mixture) -> None:
    """Raise ConfigError where `skills` names a task that the mixture has not."""
    names = [task.name for task in mixture.tasks]
    named = {*config.skills, *(other for row in config.skills.values() for other in row)}
    if unknown := sorted(named - set(names)):
        raise ConfigError(f"online.skills: unknown task {unknown[0]!r}; allowed: {', '.join(names)}")


def next_horizon(config: OnlineConfig, done: int) -> int:
    """The first step whose rates are still to be decided when `done` updates, and their decisions, are done."""
    return (done // config.every + 1) * config.every + config.lag


def decide(
    config: OnlineConfig, mixture: Mixture, past: Sequence[Update], steps: Sequence[Losses], done: int
) -> Update:
    """The decision that is due after `done` updates.

    Args:
        past: earlier decisions of this run, in order.
        steps: of every update since the last of them, the mean loss of each task in the batch.
    """
    seen: dict[str, list[float]] = {}
    for losses in steps:
        for name, loss in losses.items():
            if math.isfinite(loss):
                seen.setdefault(name, []).append(loss)
    means = {name: math.fsum(values) / len(values) for name, values in sorted(seen.items())}
    measured = [*(update.losses for update in past), means]
    return Update(decided=done, step=done + config.lag, losses=means, weights=weights_of(config, mixture, measured))


def weights_of(config: OnlineConfig, mixture: Mixture, measured: Sequence[Losses]) -> dict[str, float]:
    """Weights after the last of some measurements, scaled so that the rates keep their sum.

    A task that was not seen counts with its last known loss, or with the mean of the others before it has any.
    """
    known: dict[str, float] = {}
    complete: list[Losses] = []
    for number, losses in enumerate(measured):
        known |= losses
        # Rules look at the first measurement and at the last ones.
        if known and (not complete or number >= len(measured) - config.window):
            mean = math.fsum(known.values()) / len(known)
            complete.append({task.name: known.get(task.name, mean) for task in mixture.tasks})
    if not complete:
        return {}
    logs = RULES[config.rule](config, complete)
    most = max(logs.values())
    plain = {name: math.exp(max(log - most, -_WIDEST)) for name, log in logs.items()}
    scale = math.fsum(task.rate * plain[task.name] for task in mixture.tasks) / math.fsum(
        task.rate for task in mixture.tasks
    )
    return {name: weight / scale for name, weight in plain.items()}
