"""From what is written to what is sampled: plain tasks, each with its absolute rate from which step on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pydantic import ValidationError

from omnimill.config import Location
from omnimill.errors import ConfigError
from omnimill.mixtures.catalog_entries import catalog
from omnimill.mixtures.catalog_tasks import from_dataset, token_dataset
from omnimill.mixtures.config import Mixture, Phase, Task
from omnimill.mixtures.faults import Fault, MixtureFaults
from omnimill.mixtures.language import GroupSpec, Members, MixtureSpec, Rated, Shared, TaskSpec
from omnimill.mixtures.rate_shares import Member, phases_of, total_faults
from omnimill.mixtures.schedules import levels
from omnimill.mixtures.task_families import families

_SHARED = tuple(Shared.model_fields)
# What a task says itself, beside what it shares with its groups.
_OWN = ("objective", "inputs", "optional", "target", "prompts", "size", "tokens")


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
    root = Member((), "the mixture", Rated(), None, None, _members(spec, (), (), work), spec, None)
    if not work.tasks:
        work.faults.append(Fault((), "a mixture needs a task that is drawn"))
    if not work.datasets:
        work.faults.append(Fault((), "datasets: name the token datasets, or datasets of the catalog in tasks"))
    faults = work.faults or total_faults(root)
    phases: list[Phase] = []
    if not faults:
        phases, faults = phases_of(root)
    if faults:
        raise MixtureFaults(faults)
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


def _members(spec: Members, where: Location, path: tuple[GroupSpec, ...], work: _Resolving) -> list[Member]:
    """What is drawn of a group's tasks and groups."""
    found: list[Member] = []
    for number, one in enumerate(spec.tasks):
        place = (*where, "tasks", number)
        task = _task(one, place, path, work)
        if task is None:
            continue
        if _inherited("held_out", one, path):
            work.held_out.append((task, place))
            continue
        work.tasks.append((task, place))
        found.append(Member(place, task.name, one, levels(one, work.ramp_levels), task, [], None, task.size))
    for number, group in enumerate(spec.groups):
        place = (*where, "groups", number)
        if not group.tasks and not group.groups:
            work.faults.append(Fault(place, f"group {group.name!r} has nothing in it: remove it, or add a task"))
        if members := _members(group, place, (*path, group), work):
            sizes = [member.size for member in members]
            size = group.size or (None if None in sizes else sum(size or 0 for size in sizes))
            found.append(Member(place, group.name, group, levels(group, work.ramp_levels), None, members, group, size))
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
    text = str(fault["msg"]).removeprefix("Value error, ")
    keys = ".".join(map(str, fault["loc"]))
    return f"{keys}: {text}; found {fault['input']!r}" if keys else text
