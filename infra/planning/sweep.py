"""What a scenario does to a plan: a line for every size of units, time between failures and number of retries."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from omnimill.infra.planning.forecast import Forecast, forecast
from omnimill.infra.planning.machines import Cluster
from omnimill.infra.planning.rates import Rate
from omnimill.infra.planning.simulation import Outcome, Scenario, Work, simulate, simulate_training


@dataclass(frozen=True)
class Simulated:
    """One line. unit_size: times the present size; None of training. at_once: the longest unit, or what a checkpoint
    keeps. mtbf_hours: None when nothing fails; hours: None when it never ends. The rest is as in `Outcome`."""

    unit_size: float | None
    at_once: str
    mtbf_hours: float | None
    retries: int | None
    hours: float | None
    failures: int
    wasted_hours: float
    away_hours: float
    again: int
    given_up: int


@dataclass(frozen=True)
class Planned:
    """A source at a stage, as it was told, and the rate that it was told from."""

    forecast: Forecast
    rate: Rate

    def work(self, cluster: Cluster, unit_size: float = 1.0) -> Work:
        """What to simulate; the slots are spread evenly over the machines.

        Args:
            unit_size: units of so many times their size. Their seconds are sums over parts that differ.
        """
        told, rate = self.forecast, self.rate
        larger = {"examples_per_unit": rate.examples_per_unit * unit_size, "spread": rate.spread / math.sqrt(unit_size)}
        rate = rate.model_copy(update=larger)
        row = forecast(told.source, told.stage, told.examples, rate, cluster)
        machines = cluster.of(row.stage).count
        return Work(row.units, row.unit_seconds, rate.spread, machines, max(1, round(row.slots / machines)))


def sweep(
    planned: Sequence[Planned], cluster: Cluster, scenario: Scenario, training_hours: float | None
) -> list[Simulated]:
    """All that is planned one after the other, and then training.

    Args:
        training_hours: what training takes when nothing fails; None for none.
    """
    machines = cluster.of("train").count
    return [*_of_units(planned, cluster, scenario), *_of_training(training_hours, machines, scenario)]


def _of_units(planned: Sequence[Planned], cluster: Cluster, scenario: Scenario) -> Iterator[Simulated]:
    if not planned:
        return
    for factor in scenario.unit_sizes:
        resized = [one.work(cluster, factor) for one in planned]
        longest = _duration(max(one.unit_seconds for one in resized))
        # Where nothing fails nothing is tried again.
        cases = [(math.inf, scenario.retries[0]), *itertools.product(scenario.mtbf_hours, scenario.retries)]
        for mtbf, retries in cases:
            outcomes = (simulate(one, scenario, mtbf, retries) for one in resized)
            yield _line(factor, longest, mtbf, retries, sum(outcomes, Outcome(0.0)))


def _of_training(hours: float | None, machines: int, scenario: Scenario) -> Iterator[Simulated]:
    if hours is None:
        return
    for minutes, mtbf in itertools.product(scenario.checkpoint_minutes, (math.inf, *scenario.mtbf_hours)):
        outcome = simulate_training(hours, machines, scenario, mtbf, minutes)
        yield _line(None, f"training, a checkpoint every {_duration(minutes * 60)}", mtbf, None, outcome)


def _line(factor: float | None, at_once: str, mtbf: float, retries: int | None, outcome: Outcome) -> Simulated:
    fails = math.isfinite(mtbf)
    return Simulated(
        unit_size=factor,
        at_once=at_once,
        mtbf_hours=mtbf if fails else None,
        retries=retries if fails else None,
        hours=outcome.hours if math.isfinite(outcome.hours) else None,
        failures=outcome.failures,
        wasted_hours=outcome.wasted_hours,
        away_hours=outcome.away_hours,
        again=outcome.again,
        given_up=outcome.given_up,
    )


def _duration(seconds: float) -> str:
    for unit, length in (("h", 3600.0), ("min", 60.0)):
        if seconds >= length:
            return f"{seconds / length:.3g} {unit}"
    return f"{seconds:.3g} s"
