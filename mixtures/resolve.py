"""From what is written to what is sampled: plain tasks, each with its absolute rate from which step on."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

from pydantic import ValidationError

from omnimill.config import Location
from omnimill.errors import ConfigError
from omnimill.mixtures.catalog_entries import catalog
from omnimill.mixtures.catalog_tasks import from_dataset, token_dataset
from omnimill.mixtures.config import Mixture, Phase, Task
from omnimill.mixtures.language import GroupSpec, Members, MixtureSpec, Shared, TaskSpec
from omnimill.mixtures.schedules import Levels, at, levels
from omnimill.mixtures.task_families import families

# Changes of rates in a run: each costs every draw a look-up, and a table of all tasks in the saved mixture.
MOST_PHASES = 4096
_SHARED = tuple(Shared.model_fields)
# What a task says itself, beside what it shares with its groups.
_OWN = ("objective", "inputs", "optional", "target", "prompts", "size", "tokens")


@dataclass(frozen=True)
class Fault:
    """One thing that is wrong. where: keys and list indices that lead to it in the mixture."""

    where: Location
    message: str


class MixtureFaults(ConfigError):
    """Everything that is wrong with a mixture, without the places in its files."""

    def __init__(self, faults: Sequence[Fault]) -> None:
        super().__init__("\n".join(fault.message for fault in faults))
        self.faults = list(faults)


@dataclass
class _Member:
    """A task or a group that is drawn, and where it is written.

    rates: its own, if it has any. task: without its rate; None for groups. size: examples, where known.
    """

    where: Location
    name: str
    rates: Levels | None
    task: Task | None
    members: list[_Member]
    spec: Members | None
    size: int | None


@dataclass
class _Resolving:
    """What is gathered on the way. `tasks` and `held_out` come with the place where each is written."""

    ramp_levels: int
    faults: list[Fault] = field(default_factory=list)
    tasks: list[tuple[Task, Location]] = field(default_factory=list)
    held_out: list[tuple[Task, Location]] = field(default_factory=list)
    datasets: dict[str, None] = field(default_factory=dict)


@dataclass(frozen=True)
class Resolved:
    """A mixture, and where each of its tasks is written: first the drawn ones, then those held out."""

    mixture: Mixture
    where: tuple[Location, ...]


def resolve(spec: MixtureSpec) -> Resolved:
    """The mixture that a specification stands for.

    Raises:
        MixtureFaults: names every task, family, dataset and rate that is wrong.
    """
    work = _Resolving(spec.ramp_levels, datasets=dict.fromkeys(spec.datasets))
    root = _Member((), "the mixture", None, None, _members(spec, (), (), work), spec, None)
    if not work.tasks:
        work.faults.append(Fault((), "a mixture needs a task that is drawn"))
    if not work.datasets:
        work.faults.append(Fault((), "datasets: name the token datasets, or datasets of the catalog in tasks"))
    if not work.faults:
        _check_totals(root, work.faults)
    phases = _phases(root, work) if not work.faults else []
    if work.faults:
        raise MixtureFaults(work.faults)
    first, *later = phases
    try:
        mixture = Mixture(
            datasets=tuple(work.datasets),
            selections=spec.selections,
            seed=spec.seed,
            window=spec.window,
            rate_unit=spec.rate_unit,
            tasks=tuple(
                task.model_copy(update={"rate": rate}) for (task, _), rate in zip(work.tasks, first.rates, strict=True)
            ),
            schedule=tuple(later),
            held_out=tuple(task for task, _ in work.held_out),
        )
    except ValidationError as error:
        raise MixtureFaults([Fault((), _text(fault)) for fault in error.errors()]) from None
    return Resolved(mixture, tuple(where for _, where in (*work.tasks, *work.held_out)))


def _members(spec: Members, where: Location, path: tuple[GroupSpec, ...], work: _Resolving) -> list[_Member]:
    """What is drawn of a group's tasks and groups."""
    found: list[_Member] = []
    for number, one in enumerate(spec.tasks):
        place = (*where, "tasks", number)
        task = _task(one, place, path, work)
        if task is None:
            continue
        if _inherited("held_out", one, path):
            work.held_out.append((task, place))
            continue
        work.tasks.append((task, place))
        found.append(_Member(place, task.name, levels(one, work.ramp_levels), task, [], None, task.size))
    for number, group in enumerate(spec.groups):
        place = (*where, "groups", number)
        if members := _members(group, place, (*path, group), work):
            sizes = [member.size for member in members]
            size = group.size or (None if None in sizes else sum(size or 0 for size in sizes))
            found.append(_Member(place, group.name, levels(group, work.ramp_levels), None, members, group, size))
    return found


def _task(one: TaskSpec, where: Location, path: tuple[GroupSpec, ...], work: _Resolving) -> Task | None:
    """The task with all that it takes over, without its rate; None with a fault said."""
    shared = {key: _inherited(key, one, path) for key in _SHARED if key != "held_out"}
    settings: dict[str, Any] = {}
    try:
        if shared["dataset"] is not None:
            settings = from_dataset(shared["dataset"], shared["family"])
            work.datasets[token_dataset(catalog()[shared["dataset"]])] = None
        elif shared["family"] is not None:
            settings = families()[shared["family"]].defaults()
    except ConfigError as error:
        work.faults.append(Fault(where, f"task {one.name!r}: {error}"))
        return None
    if shared["sources"] is not None and one.sources is None:
        settings |= {"size": next((group.size for group in reversed(path) if group.sources is not None), None)}
    own = {key: getattr(one, key) for key in _OWN}
    # Family and dataset have given what they have.
    said = {**shared, **own, "family": None, "dataset": None}
    settings |= {key: value for key, value in said.items() if value is not None}
    settings["prompts"] = (*settings.get("prompts", ()), *one.more_prompts)
    group = "/".join(group.name for group in path) or one.group or "default"
    if path and one.group:
        work.faults.append(Fault((*where, "group"), f"task {one.name!r} is in group {group!r} already"))
    if not {"sources", "target"} <= settings.keys():
        missing = [key for key in ("sources", "target") if key not in settings]
        message = f"task {one.name!r}: required key is missing: {', '.join(missing)}; or name a family and a dataset"
        work.faults.append(Fault(where, message))
        return None
    try:
        return Task(name=one.name, group=group, rate=0, **settings)
    except ValidationError as error:
        for fault in error.errors():
            message = f"task {one.name!r}: {_text(fault)}"
            work.faults.append(Fault((*where, *fault["loc"]), message))
        return None


def _inherited(key: str, one: TaskSpec, path: tuple[GroupSpec, ...]) -> Any:
    values = (getattr(spec, key) for spec in (one, *reversed(path)))
    return next((value for value in values if value is not None), None)


def _text(fault: Mapping[str, Any]) -> str:
    keys = ".".join(map(str, fault["loc"]))
    return (f"{keys}: " if keys else "") + str(fault["msg"]).removeprefix("Value error, ")


def _check_totals(member: _Member, faults: list[Fault]) -> None:
    """Do the rates of every group with a total add up to it?"""
    spec = member.spec
    for inner in member.members:
        _check_totals(inner, faults)
    if spec is None or spec.total is None:
        return
    found = sum((_stated(inner) for inner in member.members), Fraction())
    # Rates are decimal numbers as binary ones: their sum is off by rounding in the 16th digit.
    off = abs(found - Fraction(spec.total)) - Fraction(spec.gap)
    if off > Fraction(spec.total) / 10**9:
        gap = f", give or take {spec.gap:g}" if spec.gap else ""
        names = ", ".join(f"{inner.name} {float(_stated(inner)):g}" for inner in member.members[:5])
        more = f", … ({len(member.members)} in all)" if len(member.members) > len(member.members[:5]) else ""
        where = (*member.where, "total")
        message = f"{member.name}: rates add up to {float(found):.6g}, allowed: {spec.total:g}{gap}; {names}{more}"
        faults.append(Fault(where, message))


def _stated(member: _Member) -> Fraction:
    """The rate of a task or group before any change of its schedule."""
    if member.rates is None:
        return sum((_stated(inner) for inner in member.members), Fraction())
    # A rate that warms in counts with what it rises to.
    return max(rate for _, rate in member.rates)


def _phases(root: _Member, work: _Resolving) -> list[Phase]:
    steps = sorted({0} | {step for member in _all(root) for step, _ in member.rates or ()})
    if len(steps) > MOST_PHASES:
        message = f"rates change at {len(steps):,} steps, allowed: {MOST_PHASES:,}; lower ramp_levels"
        work.faults.append(Fault((), message))
        return []
    phases: list[Phase] = []
    for step in steps:
        shares: list[Fraction] = []
        _share_out(root, Fraction(1), step, shares, work.faults)
        if work.faults:
            return []
        rates = tuple(map(float, shares))
        if not phases or rates != phases[-1].rates:
            phases.append(Phase(first_step=step, rates=rates))
    return phases


def _all(member: _Member) -> Iterator[_Member]:
    yield member
    for inner in member.members:
        yield from _all(inner)


def _share_out(member: _Member, share: Fraction, step: int, shares: list[Fraction], faults: list[Fault]) -> None:
    """Append the shares of all tasks in a member, in order, of which the member has `share`."""
    if member.task is not None:
        shares.append(share)
        return
    weights = _weights(member, step, faults)
    whole = sum(weights, Fraction())
    if share and not whole and not faults:
        faults.append(Fault(member.where, f"{member.name}: from step {step} on nothing in it has a rate above 0"))
    for inner, weight in zip(member.members, weights, strict=True):
        _share_out(inner, share * weight / whole if whole else Fraction(), step, shares, faults)


def _weights(member: _Member, step: int, faults: list[Fault]) -> list[Fraction]:
    """What each task and group in a group weighs against the others."""
    alpha = member.spec.alpha if member.spec else None
    return [_weight(inner, alpha, step, faults) for inner in member.members]


def _weight(member: _Member, alpha: float | None, step: int, faults: list[Fault]) -> Fraction:
    rate = at(member.rates, step) if member.rates is not None else None
    if alpha is not None:
        if member.size is None and alpha > 0:
            faults.append(Fault(member.where, f"{member.name}: its size is not known, which alpha {alpha:g} needs"))
            return Fraction()
        # Powers may differ in the last digit between machines; twelve digits do not.
        by_size = Fraction(f"{float(member.size or 1) ** alpha:.12g}")
        return by_size * (1 if rate is None else rate)
    if rate is not None:
        return rate
    if member.task is not None:
        faults.append(Fault(member.where, f"task {member.name!r}: give it a rate, or its group an alpha"))
        return Fraction()
    if member.spec is not None and member.spec.alpha is not None:
        faults.append(Fault(member.where, f"group {member.name!r}: a group with an alpha needs a rate"))
        return Fraction()
    return sum(_weights(member, step, faults), Fraction())
