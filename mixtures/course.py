"""The course of a run: its tasks, rows and timeline, put together from what its ledger says."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from omnimill.config import digest_json
from omnimill.errors import ConfigError
from omnimill.mixtures.config import Mixture, Task
from omnimill.mixtures.ledger import Change, Entry, Update, changes, updates
from omnimill.mixtures.rows import TaskRows, scan
from omnimill.mixtures.sampler import Sampler
from omnimill.mixtures.timeline import Era, Timeline
from omnimill.mixtures.versions import TokenData, current_versions, open_versions
from omnimill.tokens import TokenLayout

# Of a task, what may differ between two mixtures in which it is the same task.
_FREE = frozenset({"group", "family", "kind", "rate", "max_epochs", "size", "tokens"})
# Of a mixture, what may change in mid-run.
_FIXED = ("seed", "window")


@dataclass(frozen=True)
class Course:
    """What a run draws from.

    mixture: the last one; its tasks are all that were ever drawn, in the order in which they came, those of the first
        mixture first. rows: of these tasks. timeline: which sampler of them holds when.
    layout: of the token datasets. streams: number of virtual streams. entries: of the ledger.
    """

    mixture: Mixture
    rows: list[TaskRows]
    timeline: Timeline
    layout: TokenLayout
    streams: int
    entries: list[Entry]

    def weigh(self, update: Update) -> None:
        """Take in a decision of online mixing."""
        names = [rows.task.name for rows in self.rows]
        self.timeline.weigh(update.step, [update.weights.get(name, 1.0) for name in names])
        self.entries.append(update)

    def digest(self, step: int) -> str:
        """64 hex digits of all that decided what was drawn before `step`."""
        before = sorted((entry for entry in self.entries if entry.step < max(step, 1)), key=lambda entry: entry.step)
        return digest_json(
            [entry.model_dump(mode="json", exclude={"streams", "losses", "decided"}) for entry in before]
        )


def open_course(root: str, entries: Sequence[Entry], streams: int) -> Course:
    """Read the data of every change and number their rows.

    Args:
        root: where the token datasets lie.
        entries: that hold; the first is a change at step 0.
        streams: number of virtual streams.

    Raises:
        ConfigError: a task has no rows; or a change is not one that a run can go on through.
    """
    made = changes(entries)
    if not made or made[0].step:
        raise ConfigError("a run's first change is that at step 0, which says what it began with")
    opened: dict[str, TokenData] = {}
    tasks: dict[str, _Known] = {}
    eras: list[Era] = []
    for before, change in zip([None, *made], made, strict=False):
        if before is not None:
            check_change(before, change, {name: known.task for name, known in tasks.items()})
        # Data that did not change are opened once.
        digest = change.versions.content_digest()
        data = opened.setdefault(digest, opened.get(digest) or open_versions(root, change.versions))
        first = next(iter(opened.values()))
        if data.layout != first.layout:
            raise ConfigError(
                f"from step {change.step} on the tokens have another layout: what their numbers mean differs"
            )
        _update(tasks, change.mixture, data, digest)
        eras.append(_era(change, tasks, streams))
    mixture = made[-1].mixture.model_copy(update={"tasks": tuple(known.task for known in tasks.values())})
    course = Course(mixture, [known.rows for known in tasks.values()], Timeline(eras), first.layout, streams, [*made])
    for update in updates(entries):
        course.weigh(update)
    return course


def new_course(root: str, mixture: Mixture, streams: int) -> Course:
    """The course of a run that begins now, over the current versions of its data."""
    return open_course(root, [Change(step=0, mixture=mixture, versions=current_versions(root, mixture))], streams)


def check_change(before: Change, now: Change, known: Mapping[str, Task]) -> None:
    """Whether a run can go on through a change with nothing skipped or repeated.

    Args:
        known: tasks that were ever drawn, as they were last.

    Raises:
        ConfigError: it cannot; says what stands against it.
    """
    faults = []
    for name in _FIXED:
        old, new = getattr(before.mixture, name), getattr(now.mixture, name)
        if old != new:
            faults.append(f"{name}: was {old}, is {new}; it decides the order of every task's examples")
    for task in now.mixture.tasks:
        if task.name in known:
            faults += _differences(known[task.name], task)
    if faults:
        listed = "\n".join(f"  {fault}" for fault in faults)
        raise ConfigError(f"the mixture cannot change like this in mid-run (step {now.step}):\n{listed}")


@dataclass(frozen=True)
class _Known:
    """A task as it was last, and its rows as they stood with the data of a digest."""

    task: Task
    rows: TaskRows
    data: str


def _differences(old: Task, new: Task) -> list[str]:
    """Why a task is not the same task any more."""
    was, now = (task.model_dump(mode="json", exclude=set(_FREE)) for task in (old, new))
    faults = [
        f"task {new.name!r}: {key}: was {was[key]!r}, is {now[key]!r}; a task that reads or asks for something else "
        "needs another name"
        for key in was
        if was[key] != now[key]
    ]
    cap = old.max_epochs
    if new.max_epochs != cap and (cap is None or cap % 1 or (new.max_epochs is not None and new.max_epochs < cap)):
        faults.append(
            f"task {new.name!r}: max_epochs: was {cap or 'not set'}, is {new.max_epochs or 'not set'}; a whole number "
            "can be raised or removed; to stop drawing a task give it the rate 0"
        )
    return faults


def _update(tasks: dict[str, _Known], mixture: Mixture, data: TokenData, digest: str) -> None:
    """Bring the tasks of a mixture to where they stand with `data`; new ones come after the others."""
    added = [task for task in mixture.tasks if task.name not in tasks]
    found = dict(zip((task.name for task in added), scan(data, added), strict=True))
    if empty := [rows.describe_empty() for rows in found.values() if not len(rows)]:
        raise ConfigError("\n".join(empty))
    for task in mixture.tasks:
        if task.name in found:
            tasks[task.name] = _Known(task, found[task.name], digest)
            continue
        known = tasks[task.name]
        if len(known.rows.stretches) > 1 and known.task.max_epochs != task.max_epochs:
            raise ConfigError(f"task {task.name!r}: max_epochs cannot change once examples were added to the task")
        rows = known.rows if known.data == digest else known.rows.at(data)
        tasks[task.name] = _Known(task, rows, digest)


def _era(change: Change, tasks: Mapping[str, _Known], streams: int) -> Era:
    mixture = change.mixture
    places = {task.name: place for place, task in enumerate(mixture.tasks)}
    phases = tuple(
        (phase.first_step, tuple(phase.rates[places[name]] if name in places else 0.0 for name in tasks))
        for phase in mixture.phases
    )
    sampler = Sampler(
        phases[0][1],
        [known.rows.stretches for known in tasks.values()],
        streams,
        mixture.seed,
        list(tasks),
        mixture.window,
        [known.task.max_epochs for known in tasks.values()],
    )
    return Era(
        change.step, sampler, phases, tuple(known.rows.void for known in tasks.values()), change.online is not None
    )
