"""Stages on machines that fail, as discrete events: what is worked on there is lost and done again elsewhere.

Units wait in one queue and go in blocks to slots (a core or a GPU each). A machine fails after an exponentially
distributed time and is replaced; what its slots were at is tried again on others, and units of a block that were
committed before stay. A unit whose workers died on every try is given up (in truth it is then done with care,
`omnimill.pipelines.careful`). What limits all slots together, the driver or the network, makes units longer.

So that billions of examples can be simulated, a slot takes many blocks at a time while many are left, and few towards
the end (guided self-scheduling: Polychronopoulos and Kuck, 1987). How many units it had done when its machine failed is
told from the time, so that a failure costs what it would have cost.

Training is the other kind: all machines work as one, and when one fails all go back to the last checkpoint.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Generator
from dataclasses import dataclass
from typing import Any

import numpy as np
import simpy
from pydantic import Field, model_validator

from omnimill import rng
from omnimill.config import Config
from omnimill.infra.blocks import units_per_block

# A slot takes this share of what is left for it at a time.
_SHARE = 0.25
# A training that takes so many times as long as without failures is told as one that never ends.
_PATIENCE = 20

Events = Generator[simpy.Event, Any, None]


class Scenario(Config):
    """What is simulated; every combination of the lists is one line.

    mtbf_hours: mean time between failures of one machine. unit_sizes: units of so many times their present size.
    retries: of a unit whose worker died. repair_minutes: until a failed machine is replaced. worker_start_seconds: of
    every worker, and again after its machine failed. checkpoint_minutes, restart_minutes: of training.
    """

    mtbf_hours: tuple[float, ...] = Field(min_length=1)
    unit_sizes: tuple[float, ...] = Field((1.0,), min_length=1)
    retries: tuple[int, ...] = Field((3,), min_length=1)
    repair_minutes: float = Field(10.0, ge=0)
    worker_start_seconds: float = Field(5.0, ge=0)
    checkpoint_minutes: tuple[float, ...] = Field((30.0,), min_length=1)
    restart_minutes: float = Field(5.0, ge=0)
    seed: int = 0

    @model_validator(mode="after")
    def _can_get_done(self) -> Scenario:
        for name in ("mtbf_hours", "unit_sizes", "checkpoint_minutes"):
            if min(getattr(self, name)) <= 0:
                raise ValueError(f"{name} must be above 0, found {min(getattr(self, name))}")
        if min(self.retries) < 0:
            raise ValueError(f"retries must be 0 or more, found {min(self.retries)}")
        if min(self.mtbf_hours) * 3600 <= self.worker_start_seconds:
            raise ValueError(
                f"machines that fail every {min(self.mtbf_hours)} h never get workers started that take "
                f"{self.worker_start_seconds} s"
            )
        return self


@dataclass(frozen=True)
class Work:
    """What a stage does.

    unit_seconds: of a slot, on average, the start of a worker aside; spread: their standard deviation as a share of
    that. slots: of each machine.
    """

    units: int
    unit_seconds: float
    spread: float
    machines: int
    slots: int


@dataclass(frozen=True)
class Outcome:
    """How it went.

    failures: of machines. wasted_hours: of slots, on work that was lost; away_hours: of slots, while their machine
    was replaced. again: units that were tried again; given_up: on all tries.
    """

    hours: float
    failures: int = 0
    wasted_hours: float = 0.0
    away_hours: float = 0.0
    again: int = 0
    given_up: int = 0

    def __add__(self, other: Outcome) -> Outcome:
        return Outcome(
            self.hours + other.hours,
            self.failures + other.failures,
            self.wasted_hours + other.wasted_hours,
            self.away_hours + other.away_hours,
            self.again + other.again,
            self.given_up + other.given_up,
        )


def simulate(work: Work, scenario: Scenario, mtbf_hours: float, retries: int) -> Outcome:
    """One stage from its first unit to its last.

    Args:
        mtbf_hours: of one machine; infinite for machines that do not fail.
        retries: of a unit whose worker died.
    """
    stage = _Stage(work, scenario, mtbf_hours * 3600, retries)
    stage.env.run(until=stage.finished)
    return Outcome(
        hours=stage.env.now / 3600,
        failures=stage.failures,
        wasted_hours=stage.wasted / 3600,
        away_hours=stage.away / 3600,
        again=stage.again,
        given_up=stage.given_up,
    )


@dataclass
class _Task:
    """Units that a slot takes at a time. deaths: of workers on the first of its blocks."""

    units: int
    deaths: int = 0


class _Stage:
    """The queue of a stage, its machines, and the account of both."""

    def __init__(self, work: Work, scenario: Scenario, mtbf: float, retries: int) -> None:
        self.env = simpy.Environment()
        self._work, self._scenario, self._mtbf, self._retries = work, scenario, mtbf, retries
        self._slots = work.machines * work.slots
        self._per_block = units_per_block(work.units, work.unit_seconds, self._slots)
        self._fresh = self._open = work.units
        self._returned: deque[_Task] = deque()
        self.finished, self._more = self.env.event(), self.env.event()
        self.wasted = self.away = 0.0
        self.again = self.given_up = self.failures = 0
        for machine in range(work.machines):
            self.env.process(self._machine(machine))

    def _machine(self, number: int) -> Events:
        """A machine's life: its slots work until it fails, and again once it is replaced."""
        draws = rng.generator("simulation", self._scenario.seed, number)
        while True:
            slots = [self.env.process(self._slot(draws)) for _ in range(self._work.slots)]
            if math.isinf(self._mtbf):
                return
            yield self.env.timeout(draws.exponential(self._mtbf))
            self.failures += 1
            for slot in slots:
                slot.interrupt()
            repair = self._scenario.repair_minutes * 60
            yield self.env.timeout(repair)
            self.away += repair * self._work.slots

    def _slot(self, draws: np.random.Generator) -> Events:
        """A worker's life, which ends with its machine."""
        task: _Task | None = None
        began = seconds = 0.0
        try:
            yield self.env.timeout(self._scenario.worker_start_seconds)
            while True:
                task = self._take()
                if task is None:
                    yield self._more
                    continue
                began, seconds = self.env.now, self._duration(task.units, draws)
                yield self.env.timeout(seconds)
                self._done(task.units)
                task = None
        except simpy.Interrupt:
            if task is not None:
                self._lost(task, self.env.now - began, seconds)

    def _duration(self, units: int, draws: np.random.Generator) -> float:
        """Seconds of so many units: a sum of independent gamma variates is one."""
        if not self._work.spread:
            return units * self._work.unit_seconds
        shape = self._work.spread**-2
        return float(draws.gamma(units * shape, self._work.unit_seconds / shape))

    def _take(self) -> _Task | None:
        """What a slot does next; None when nothing waits."""
        if self._returned:
            return self._returned.popleft()
        if not self._fresh:
            return None
        share = int(self._fresh * _SHARE / self._slots)
        units = min(self._fresh, max(self._per_block, share - share % self._per_block))
        self._fresh -= units
        return _Task(units)

    def _done(self, units: int) -> None:
        self._open -= units
        if not self._open:
            self.finished.succeed()

    def _lost(self, task: _Task, spent: float, seconds: float) -> None:
        """Units that were done stay; the rest of the block is tried again, and blocks not begun wait as before."""
        each = seconds / task.units
        done = min(int(spent / each), task.units - 1)
        self.wasted += spent - done * each
        left = task.units - done
        block = min(left, self._per_block - done % self._per_block)
        self._fresh += left - block
        deaths = 1 + (task.deaths if done < self._per_block else 0)
        if deaths <= self._retries:
            self.again += block
            self._returned.append(_Task(block, deaths))
        else:
            self.given_up += block
            done += block
        if done:
            self._done(done)
        woken, self._more = self._more, self.env.event()
        woken.succeed()


def simulate_training(
    hours: float, machines: int, scenario: Scenario, mtbf_hours: float, checkpoint_minutes: float
) -> Outcome:
    """A training on all machines at once, from its first step to its last.

    Args:
        hours: it takes when nothing fails.
        mtbf_hours: of one machine; infinite for machines that do not fail.
        checkpoint_minutes: between two checkpoints, which are written while training goes on.
    """
    env = simpy.Environment()
    failed = [0, 0.0]
    env.run(until=env.process(_training(env, hours, machines, scenario, mtbf_hours, checkpoint_minutes / 60, failed)))
    failures, wasted = failed
    if env.now > _PATIENCE * hours:
        return Outcome(math.inf, int(failures), wasted * machines)
    away = failures * (scenario.repair_minutes + scenario.restart_minutes) / 60
    return Outcome(env.now, int(failures), wasted * machines, away * machines)


def _training(
    env: simpy.Environment,
    hours: float,
    machines: int,
    scenario: Scenario,
    mtbf: float,
    every: float,
    failed: list[float],
) -> Events:
    """Hours are the clock's unit; `failed` gets the number of failures and the hours of work that they undid."""
    draws = rng.generator("simulation", scenario.seed, "training")
    done = 0.0
    while env.now <= _PATIENCE * hours:
        lives = math.inf if math.isinf(mtbf) else float(draws.exponential(mtbf / machines))
        if lives >= hours - done:
            yield env.timeout(hours - done)
            return
        yield env.timeout(lives + (scenario.repair_minutes + scenario.restart_minutes) / 60)
        kept = every * int((done + lives) / every)
        failed[0] += 1
        failed[1] += done + lives - max(kept, done)
        done = max(kept, done)
