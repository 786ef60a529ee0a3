"""What parents of a merge have learnt from, as one mixture."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from omnimill.mixtures.config import Mixture, Task
from omnimill.mixtures.versions import Versions
from omnimill.training.checkpoints.checkpoint import CheckpointRecord


def joined_mixture(records: Sequence[CheckpointRecord], letters: Sequence[str]) -> Mixture:
    """All tasks of the parents' mixtures, equal ones once; of different ones of one name the later has its parent's
    letter before it. Its rates mean nothing."""
    mixtures = [record.mixture for record in records]
    taken: dict[str, Task] = {}
    parts = {
        kind: [
            _named(task, letter, taken)
            for mixture, letter in zip(mixtures, letters, strict=True)
            for task in getattr(mixture, kind)
        ]
        for kind in ("tasks", "held_out")
    }
    tasks = _once(parts["tasks"])
    names = {task.name for task in tasks}
    return Mixture(
        datasets=tuple(dict.fromkeys(name for mixture in mixtures for name in mixture.datasets)),
        selections=tuple(dict.fromkeys(name for mixture in mixtures for name in mixture.selections)),
        seed=mixtures[0].seed,
        window=mixtures[0].window,
        tasks=tuple(task.model_copy(update={"rate": task.rate or 1.0}) for task in tasks),
        held_out=tuple(task for task in _once(parts["held_out"]) if task.name not in names),
    )


def joined_versions(records: Sequence[CheckpointRecord]) -> Versions:
    """The versions that the parents learnt from; of different ones of one dataset the last parent's."""
    datasets = {one.name: one for record in records for one in record.versions.datasets}
    selections = {(one.dataset, one.name): one for record in records for one in record.versions.selections}
    erasures = dict.fromkeys(one for record in records for one in record.versions.erasures)
    return Versions(datasets=tuple(datasets.values()), selections=tuple(selections.values()), erasures=tuple(erasures))


def _named(task: Task, letter: str, taken: dict[str, Task]) -> Task:
    before = taken.setdefault(task.name, task)
    return task if before == task else task.model_copy(update={"name": f"{letter.lower()}-{task.name}"})


def _once(tasks: Iterable[Task]) -> list[Task]:
    return list({task.name: task for task in tasks}.values())
