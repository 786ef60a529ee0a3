"""What an ingestion has to do: list the units of every source and take over those that are committed already."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from omnimill.errors import OmnimillError
from omnimill.infra.dataset import Commit, Dataset, Unit
from omnimill.pipelines.dag import Dag, Pipeline
from omnimill.pipelines.process import Marks, input_marks
from omnimill.pipelines.recipe import recipe_digest

_STAT_THREADS = 16

Stored = Mapping[str, Sequence[tuple[Commit, Mapping[str, Any]]]]


@dataclass(frozen=True)
class SourcePlan:
    """The units of one source.

    taken: commits that still hold: same recipe, and every input file as it was when the unit was done.
    todo: the other units. Those whose input turns out to have the same content are not done again either, but that
        takes a worker to find out.
    input_bytes, todo_bytes: size of the files of all units and of those to do; a file of several units counts once.
    """

    pipeline: Pipeline
    units: tuple[Unit, ...]
    taken: tuple[Commit, ...]
    todo: tuple[Unit, ...]
    input_bytes: int
    todo_bytes: int


def plan(dag: Dag, dataset: Dataset) -> list[SourcePlan]:
    """Compare what the sources hold with what the dataset has.

    Raises:
        OmnimillError: a source lists no units, or two units of the same id.
    """
    stored: defaultdict[str, list[tuple[Commit, Mapping[str, Any]]]] = defaultdict(list)
    for commit, observed in dataset.commits():
        stored[commit.unit].append((commit, observed))
    return [plan_source(pipeline, stored) for pipeline in dag.sources]


def plan_source(pipeline: Pipeline, stored: Stored) -> SourcePlan:
    """The plan of one source; `stored` has the dataset's commits, with what was observed, by unit id."""
    source = pipeline.source
    units = tuple(source.units())
    if not units:
        raise OmnimillError(f"source {describe(pipeline)} lists no units: nothing there fits its settings")
    doubled = [unit for unit, count in Counter(unit.id for unit in units).items() if count > 1]
    if doubled:
        raise OmnimillError(f"source {describe(pipeline)} lists unit {doubled[0]} more than once")
    recipe = recipe_digest(source, pipeline.operators)
    with ThreadPoolExecutor(_STAT_THREADS) as pool:
        marks = list(pool.map(lambda unit: input_marks(unit.files), units))
        candidates = ([item for item in stored.get(unit.id, ()) if item[0].recipe == recipe] for unit in units)
        taken = list(pool.map(_still_good, candidates, marks))
    todo = [i for i, commit in enumerate(taken) if commit is None]
    return SourcePlan(
        pipeline=pipeline,
        units=units,
        taken=tuple(commit for commit in taken if commit is not None),
        todo=tuple(units[i] for i in todo),
        input_bytes=_size(marks),
        todo_bytes=_size(marks[i] for i in todo),
    )


def describe(pipeline: Pipeline) -> str:
    """A source for a message: name, type and what it reads."""
    settings = pipeline.source.model_dump(mode="json", exclude={"name", "type"}, exclude_defaults=True)
    told = ", ".join(f"{name}: {value}" for name, value in settings.items())
    return f"{pipeline.name!r} (type: {pipeline.source.type}{', ' if told else ''}{told})"


def _still_good(candidates: Sequence[tuple[Commit, Mapping[str, Any]]], marks: Marks) -> Commit | None:
    """The commit whose inputs are what they were: the unit's own files, and others that reading it turned up."""
    for commit, observed in candidates:
        before: Marks = observed.get("inputs", {})
        if not commit.inputs or any(before.get(uri) != mark or mark is None for uri, mark in marks.items()):
            continue
        others = [uri for uri in before if uri not in marks]
        if all(mark == before[uri] for uri, mark in input_marks(others).items()):
            return commit
    return None


def _size(marks: Iterable[Marks]) -> int:
    files = {uri: mark for unit in marks for uri, mark in unit.items()}
    return sum(int(mark["bytes"]) for mark in files.values() if mark is not None)
