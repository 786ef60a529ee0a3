"""What takes the time of work that goes on or is done, as its commits tell: by dataset, source, step, machine and unit.

Every commit keeps beside it what its execution took. Commits are there as soon as their units are done, so this answers
for a run that goes on as for one that has ended.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from omnimill.infra.dataset import Commit, Dataset
from omnimill.infra.planning.rates import Stored, busy_seconds, processor_seconds

_UNITS_SHOWN = 5
# A machine is called slow that takes so many times as long as all would for the same rows of the same sources.
_SLOW_MACHINE = 1.5
# A process is called waiting that was on the processor for less than this share of its time.
_WAITS = 0.5


@dataclass(frozen=True)
class Part:
    """The units of one dataset, source or machine.

    busy_seconds: processes at work, together. processor_share: of these, how much they were on the processor (above 1
    with several threads); None when units do not tell. seconds_per_row: busy; None without rows.
    """

    name: str
    units: int
    rows: int
    busy_seconds: float
    processor_share: float | None
    seconds_per_row: float | None


@dataclass(frozen=True)
class Step:
    """A step of the units of a source. seconds: over all threads. share: of all steps of the source."""

    source: str
    step: str
    seconds: float
    share: float


@dataclass(frozen=True)
class SlowUnit:
    """A unit that took long. times_mean: against the mean of its source."""

    unit: str
    source: str
    file: str
    host: str
    seconds: float
    times_mean: float


@dataclass(frozen=True)
class Profile:
    """Where the time of a dataset's units went; each list has what took most first."""

    dataset: str
    whole: Part
    sources: tuple[Part, ...]
    steps: tuple[Step, ...]
    machines: tuple[Part, ...]
    units: tuple[SlowUnit, ...]
    findings: tuple[str, ...]


def profile(dataset: Dataset, since: float = 0.0) -> Profile | None:
    """Look at the units of a dataset; None when it has none.

    Args:
        since: only at units that were begun after this moment, in seconds since the epoch.
    """
    stored = [
        one
        for one in dataset.commits()
        if (one[0].inputs or one[0].shards) and float(one[1].get("begun", since)) >= since
    ]
    if not stored:
        return None
    sources = _parts(stored, lambda commit, _: commit.source)
    machines = _parts(stored, lambda _, observed: str(observed.get("host", "unknown")))
    whole, steps, units = _part(dataset.name, stored), _steps(stored), _units(stored)
    findings = _findings(whole, sources, steps, _paces(stored, sources), units)
    return Profile(dataset.name, whole, sources, steps, machines, units[:_UNITS_SHOWN], tuple(findings))


def _parts(stored: Sequence[Stored], key: Callable[[Commit, Mapping[str, Any]], str]) -> tuple[Part, ...]:
    groups: dict[str, list[Stored]] = defaultdict(list)
    for one in stored:
        groups[key(*one)].append(one)
    return tuple(sorted((_part(name, own) for name, own in groups.items()), key=lambda part: -part.busy_seconds))


def _part(name: str, stored: Sequence[Stored]) -> Part:
    busy = busy_seconds(observed for _, observed in stored)
    rows = sum(commit.counts.examples_written for commit, _ in stored)
    processor = processor_seconds(observed for _, observed in stored)
    share = processor / busy if processor is not None and busy else None
    return Part(name, len(stored), rows, busy, share, busy / rows if rows else None)


def _paces(stored: Sequence[Stored], sources: Sequence[Part]) -> dict[str, float]:
    """How many times as long each machine takes as all would for its rows, whatever sources it got; slowest first."""
    per_row = {part.name: part.seconds_per_row or 0.0 for part in sources}
    usual: dict[str, float] = defaultdict(float)
    taken: dict[str, list[Mapping[str, Any]]] = defaultdict(list)
    for commit, observed in stored:
        host = str(observed.get("host", "unknown"))
        usual[host] += commit.counts.examples_written * per_row[commit.source]
        taken[host].append(observed)
    paces = {host: busy_seconds(taken[host]) / usual[host] for host in taken if usual[host]}
    return dict(sorted(paces.items(), key=lambda item: -item[1]))


def _steps(stored: Sequence[Stored]) -> tuple[Step, ...]:
    seconds: dict[tuple[str, str], float] = defaultdict(float)
    for commit, observed in stored:
        for step, took in observed.get("steps", {}).items():
            seconds[commit.source, step] += took
    sums: dict[str, float] = defaultdict(float)
    for (source, _), took in seconds.items():
        sums[source] += took
    found = [Step(source, step, took, took / sums[source]) for (source, step), took in seconds.items() if took]
    return tuple(sorted(found, key=lambda step: -step.seconds))


def _units(stored: Sequence[Stored]) -> tuple[SlowUnit, ...]:
    times: dict[str, list[float]] = defaultdict(list)
    for commit, observed in stored:
        times[commit.source].append(float(observed.get("seconds", 0.0)))
    means = {source: sum(found) / len(found) for source, found in times.items()}
    units = (
        SlowUnit(
            commit.unit,
            commit.source,
            commit.inputs[0].uri if commit.inputs else "",
            str(observed.get("host", "")),
            seconds,
            seconds / means[commit.source] if means[commit.source] else 1.0,
        )
        for commit, observed in stored
        for seconds in [float(observed.get("seconds", 0.0))]
    )
    return tuple(sorted(units, key=lambda unit: -unit.seconds))


def _findings(
    whole: Part, sources: Sequence[Part], steps: Sequence[Step], paces: Mapping[str, float], units: Sequence[SlowUnit]
) -> Iterable[str]:
    """What stands out, in words."""
    first = sources[0]
    if whole.busy_seconds:
        yield f"source {first.name} takes {first.busy_seconds / whole.busy_seconds:.0%} of the time"
    step = next((step for step in steps if step.source == first.name), None)
    if step is not None:
        yield f"of that, the step {step.step} takes {step.share:.0%}"
    if first.processor_share is not None and first.processor_share < _WAITS:
        yield (
            f"its processes are on the processor for {first.processor_share:.0%} of the time: they wait, for the "
            "store, the network or other processes"
        )
    for machine, pace in paces.items():
        if pace > _SLOW_MACHINE:
            yield f"machine {machine} takes {pace:.1f} times as long as all do on average for the same rows"
    if units and units[0].times_mean > 10:
        yield f"unit {units[0].unit} took {units[0].times_mean:.0f} times as long as its source's units do on average"
