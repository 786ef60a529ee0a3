"""What is different between two mixtures."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from omnimill.mixtures.config import Mixture, Task
from omnimill.mixtures.overview import kind_shares, modality_shares

# Shares closer than this are the same: they differ by the rounding of their sums.
_SAME = 1e-12


@dataclass(frozen=True)
class Change:
    """One value in the first mixture and in the second; None where there is none."""

    was: Any
    now: Any


@dataclass(frozen=True)
class TaskChange:
    """What is different in a task that both have, rates apart. fields: by name, without prompts."""

    name: str
    fields: dict[str, Change]
    prompts_added: list[str]
    prompts_removed: list[str]


@dataclass(frozen=True)
class MixtureDiff:
    """The second mixture as seen from the first.

    settings: of the whole (datasets, seed, …). added, removed: tasks, drawn or held out. rates: shares of the first
    step's draws that differ, by task, the largest difference first. inputs, targets, kinds: shares of draws that
    differ, by modality and kind of task.
    """

    settings: dict[str, Change]
    added: list[str]
    removed: list[str]
    changed: list[TaskChange]
    rates: dict[str, Change]
    inputs: dict[str, Change]
    targets: dict[str, Change]
    kinds: dict[str, Change]

    @property
    def same(self) -> bool:
        """Whether they sample and render alike."""
        return not (self.settings or self.added or self.removed or self.changed or self.rates)


def diff(first: Mixture, second: Mixture) -> MixtureDiff:
    """What `second` changes."""
    was, now = _tasks(first), _tasks(second)
    rates_was, rates_now = _rates(first), _rates(second)
    rates = _shares(rates_was, rates_now)
    modalities_was, modalities_now = (modality_shares(one.tasks, one.rates) for one in (first, second))
    changes = [_task(was[name], now[name]) for name in was if name in now]
    return MixtureDiff(
        settings=_settings(first, second),
        added=[name for name in now if name not in was],
        removed=[name for name in was if name not in now],
        changed=[one for one in changes if one.fields or one.prompts_added or one.prompts_removed],
        rates=dict(sorted(rates.items(), key=lambda item: -abs((item[1].now or 0) - (item[1].was or 0)))),
        inputs=_shares(modalities_was["inputs"], modalities_now["inputs"]),
        targets=_shares(modalities_was["targets"], modalities_now["targets"]),
        kinds=_shares(kind_shares(first.tasks, first.rates), kind_shares(second.tasks, second.rates)),
    )


def _tasks(mixture: Mixture) -> dict[str, Task]:
    return {task.name: task for task in (*mixture.tasks, *mixture.held_out)}


def _rates(mixture: Mixture) -> dict[str, float]:
    return {task.name: rate for task, rate in zip(mixture.tasks, mixture.rates, strict=True)}


def _shares(was: dict[str, float], now: dict[str, float]) -> dict[str, Change]:
    names = [*was, *(name for name in now if name not in was)]
    return {
        name: Change(was.get(name), now.get(name))
        for name in names
        if (name in was) != (name in now) or abs(was[name] - now[name]) > _SAME
    }


def _settings(first: Mixture, second: Mixture) -> dict[str, Change]:
    names = [name for name in Mixture.model_fields if name not in ("tasks", "schedule", "held_out")]
    found = {name: Change(getattr(first, name), getattr(second, name)) for name in names}
    found["schedule"] = Change(_schedule(first), _schedule(second))
    found["held_out"] = Change(*(sorted(task.name for task in one.held_out) for one in (first, second)))
    return {name: change for name, change in found.items() if change.was != change.now}


def _schedule(mixture: Mixture) -> dict[int, dict[str, float]]:
    """Later shares, those that change, by first step and task: comparable when the order of tasks differs."""
    names = [task.name for task in mixture.tasks]
    found: dict[int, dict[str, float]] = {}
    before = mixture.phases[0]
    for phase in mixture.phases[1:]:
        pairs = zip(names, before.rates, phase.rates, strict=True)
        found[phase.first_step] = {name: rate for name, old, rate in pairs if abs(old - rate) > _SAME}
        before = phase
    return found


def _task(was: Task, now: Task) -> TaskChange:
    names = [name for name in Task.model_fields if name not in ("name", "rate", "prompts")]
    fields = {name: Change(getattr(was, name), getattr(now, name)) for name in names}
    return TaskChange(
        name=now.name,
        fields={name: change for name, change in fields.items() if change.was != change.now},
        prompts_added=[prompt for prompt in now.prompts if prompt not in was.prompts],
        prompts_removed=[prompt for prompt in was.prompts if prompt not in now.prompts],
    )
