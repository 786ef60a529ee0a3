"""What a mixture holds, group by group: shares, sizes, numbers of datasets, modalities."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import get_args

from omnimill.mixtures.config import Kind, Task
from omnimill.mixtures.language import GroupSpec
from omnimill.mixtures.loading import MixtureSource

MODALITIES = ("text", "sparse", "dense", "image", "image_history", "audio", "audio_history")


@dataclass(frozen=True)
class GroupFigures:
    """A group with all that is in it.

    path: its own name and those of the groups that it is in, outermost first, joined by ``/``. rate: share of the
    first step's draws. size: examples in one pass, None when some are not known. datasets: how many; both as stated in
    the mixture, else counted (datasets by their sources). inputs, targets: modalities of any of its tasks.
    """

    path: str
    title: str
    rate: float
    size: int | None
    datasets: int
    inputs: list[str]
    targets: list[str]


def group_figures(source: MixtureSource) -> list[GroupFigures]:
    """Every group, each before what is in it, in the mixture's order."""
    mixture = source.mixture
    specs = dict(_by_path(source.spec.groups, ()))
    rated = list(zip(mixture.tasks, mixture.rates, strict=True))
    paths: dict[str, None] = {}
    for task in mixture.tasks:
        parts = task.group.split("/")
        paths |= {"/".join(parts[: end + 1]): None for end in range(len(parts))}
    return [_figures(path, specs.get(path), [pair for pair in rated if _within(pair[0], path)]) for path in paths]


def kind_shares(tasks: Sequence[Task], rates: Sequence[float]) -> dict[str, float]:
    """Share of the draws by kind of task, kinds that are not drawn left out."""
    shares = {kind: sum(rate for task, rate in zip(tasks, rates, strict=True) if task.kind == kind) for kind in _KINDS}
    return {kind: share for kind, share in shares.items() if share}


def modality_shares(tasks: Sequence[Task], rates: Sequence[float]) -> dict[str, dict[str, float]]:
    """Share of the draws whose task reads (``inputs``) or writes (``targets``) a modality."""
    pairs = list(zip(tasks, rates, strict=True))
    read = {one: sum(rate for task, rate in pairs if one in task.input_modalities) for one in MODALITIES}
    written = {one: sum(rate for task, rate in pairs if one in task.target_modalities) for one in MODALITIES}
    return {
        "inputs": {one: share for one, share in read.items() if share},
        "targets": {one: share for one, share in written.items() if share},
    }


_KINDS: tuple[str, ...] = get_args(Kind)


def _by_path(groups: Iterable[GroupSpec], above: tuple[str, ...]) -> Iterator[tuple[str, GroupSpec]]:
    for group in groups:
        path = (*above, group.name)
        yield "/".join(path), group
        yield from _by_path(group.groups, path)


def _within(task: Task, path: str) -> bool:
    return f"{task.group}/".startswith(f"{path}/")


def _figures(path: str, spec: GroupSpec | None, rated: Sequence[tuple[Task, float]]) -> GroupFigures:
    tasks = [task for task, _ in rated]
    # Several tasks may read the same examples.
    sizes: dict[tuple[str, ...], int] = {}
    for task in tasks:
        sizes[task.sources] = max(sizes.get(task.sources, 0), task.size or 0)
    counted = sum(sizes.values()) if all(sizes.values()) else None
    return GroupFigures(
        path=path,
        title=(spec.title if spec else None) or path.rpartition("/")[2],
        rate=sum(rate for _, rate in rated),
        size=(spec.size if spec else None) or counted,
        datasets=(spec.datasets if spec else None) or len({name for task in tasks for name in task.sources}),
        inputs=_ordered(name for task in tasks for name in task.input_modalities),
        targets=_ordered(name for task in tasks for name in task.target_modalities),
    )


def _ordered(names: Iterable[str]) -> list[str]:
    found = set(names)
    return [name for name in MODALITIES if name in found]
