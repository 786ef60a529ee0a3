"""Shares of the draws: what rates, groups, temperature and schedules come to, from which step on."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction

from omnimill.config import Location
from omnimill.mixtures.config import Phase, Task
from omnimill.mixtures.faults import Fault
from omnimill.mixtures.language import Members, Rated
from omnimill.mixtures.schedules import Levels, at

# Changes of rates in a run: each costs every draw a look-up, and a table of all tasks in the saved mixture.
MOST_PHASES = 4096
# Members of a group that a message names.
_LISTED = 5


@dataclass
class Member:
    """A task or a group that is drawn, and where it is written.

    rated: its own rates, if it has any; levels: the same by steps. task: without its rate; None for groups.
    spec: of a group. size: examples, where known.
    """

    where: Location
    name: str
    rated: Rated
    levels: Levels | None
    task: Task | None
    members: list[Member]
    spec: Members | None
    size: int | None


def total_faults(member: Member) -> list[Fault]:
    """Groups whose rates do not add up to their total."""
    spec = member.spec
    faults = [fault for inner in member.members for fault in total_faults(inner)]
    if spec is None or spec.total is None:
        return faults
    found = sum((_stated(inner) for inner in member.members), Fraction())
    # Rates are decimal numbers as binary ones: their sum is off by rounding in the 16th digit.
    off = abs(found - Fraction(spec.total)) - Fraction(spec.gap)
    if off > Fraction(spec.total) / 10**9:
        gap = f", give or take {spec.gap:g}" if spec.gap else ""
        names = ", ".join(f"{inner.name} {float(_stated(inner)):g}" for inner in member.members[:_LISTED])
        more = f", … ({len(member.members)} in all)" if len(member.members) > _LISTED else ""
        where = (*member.where, "total")
        message = f"{member.name}: rates add up to {float(found):.6g}, allowed: {spec.total:g}{gap}; {names}{more}"
        faults.append(Fault(where, message))
    return faults


def _stated(member: Member) -> Fraction:
    """The rate of a task or group before any change of its schedule."""
    if member.rated.rate is not None:
        return Fraction(member.rated.rate)
    if member.rated.schedule:
        return Fraction(member.rated.schedule[0].rate)
    return sum((_stated(inner) for inner in member.members), Fraction())


def phases_of(root: Member) -> tuple[list[Phase], list[Fault]]:
    """Shares of all tasks, in their order, from which step on; none with faults."""
    steps = sorted({0} | {step for member in _all(root) for step, _ in member.levels or ()})
    if len(steps) > MOST_PHASES:
        message = f"rates change at {len(steps):,} steps, allowed: {MOST_PHASES:,}; lower ramp_levels"
        return [], [Fault((), message)]
    phases: list[Phase] = []
    faults: list[Fault] = []
    for step in steps:
        shares: list[Fraction] = []
        _share_out(root, Fraction(1), step, shares, faults)
        if faults:
            # A group without a rate is asked for what it weighs, and again for what is in it.
            return [], list(dict.fromkeys(faults))
        rates = tuple(map(float, shares))
        if not phases or rates != phases[-1].rates:
            phases.append(Phase(first_step=step, rates=rates))
    return phases, []


def _all(member: Member) -> Iterator[Member]:
    yield member
    for inner in member.members:
        yield from _all(inner)


def _share_out(member: Member, share: Fraction, step: int, shares: list[Fraction], faults: list[Fault]) -> None:
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


def _weights(member: Member, step: int, faults: list[Fault]) -> list[Fraction]:
    """What each task and group in a group weighs against the others."""
    alpha = member.spec.alpha if member.spec else None
    return [_weight(inner, alpha, step, faults) for inner in member.members]


def _weight(member: Member, alpha: float | None, step: int, faults: list[Fault]) -> Fraction:
    rate = at(member.levels, step) if member.levels is not None else None
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
