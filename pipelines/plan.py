"""What an ingestion has to do: list the units of every source and take over those that are committed already."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from omnimill.errors import OmnimillError
from omnimill.infra.dataset import Commit, Dataset, Unit
from omnimill.pipelines.dag import Dag, Pipeline
from omnimill.pipelines.process import Marks, input_marks
from omnimill.pipelines.recipe import recipe_digest

Stored = Mapping[str, Sequence[tuple[Commit, Mapping[str, Any]]]]


@dataclass(frozen=True)
class SourcePlan:
    """The units of one source.

    taken: commits that still hold: same recipe, and every input file as it was when the unit was done.
    todo: the other units. Those whose input turns out to have the same content are not done again either, but that
        takes a worker to find out.
    attempts: of units to do that were done again on demand before, or are to be now: see `process_unit`.
    standing: commits that still hold of units to do again on demand; they stay when that comes to nothing.
    input_bytes, todo_bytes: size of the files of all units and of those to do; a file of several units counts once.
    """

    pipeline: Pipeline
    units: tuple[Unit, ...]
    taken: tuple[Commit, ...]
    todo: tuple[Unit, ...]
    attempts: Mapping[str, Sequence[int]]
    standing: Mapping[str, Commit]
    input_bytes: int
    todo_bytes: int


def plan(dag: Dag, dataset: Dataset, again: Mapping[str, int] | None = None, verify: bool = False) -> list[SourcePlan]:
    """Compare what the sources hold with what the dataset has.

    Args:
        again: units to do again although they are committed, by id, with the number of the attempt.
        verify: take over no unit before its files were hashed again, whatever their marks say.

    Raises:
        OmnimillError: a source lists no units, or two units of the same id.
    """
    stored: defaultdict[str, list[tuple[Commit, Mapping[str, Any]]]] = defaultdict(list)
    for commit, observed in dataset.commits():
        stored[commit.unit].append((commit, observed))
    pinned = (pipeline.model_copy(update={"source": pipeline.source.pinned()}) for pipeline in dag.sources)
    return [plan_source(pipeline, stored, again or {}, verify) for pipeline in pinned]


def plan_source(pipeline: Pipeline, stored: Stored, again: Mapping[str, int], verify: bool = False) -> SourcePlan:
    """The plan of one source; `stored` has the dataset's commits, with what was observed, by unit id."""
    units = _units(pipeline)
    recipe = recipe_digest(pipeline.source, pipeline.operators)
    marks = input_marks({uri for unit in units.values() for uri in unit.files})
    candidates = {
        name: sorted(fitting, key=lambda item: -item[0].attempt)
        for name in units
        if (fitting := [item for item in stored.get(name, ()) if item[0].recipe == recipe])
    }
    others = {uri for found in candidates.values() for _, observed in found for uri in observed.get("inputs", ())}
    marks_now = marks if others <= marks.keys() else marks | input_marks(others - marks.keys())
    taken: list[Commit] = []
    todo: list[str] = []
    attempts: dict[str, Sequence[int]] = {}
    standing: dict[str, Commit] = {}
    for name, unit in units.items():
        found = candidates.get(name, ())
        commit = None if verify else _still_good(found, unit, marks_now)
        if commit is not None and commit.attempt >= again.get(name, 0):
            taken.append(commit)
            continue
        todo.append(name)
        if commit is not None:
            standing[name] = commit
        if name in again:
            attempts[name] = (again[name],)
        elif found and found[0][0].attempt:
            attempts[name] = range(found[0][0].attempt, -1, -1)
    return SourcePlan(
        pipeline=pipeline,
        units=tuple(units.values()),
        taken=tuple(taken),
        todo=tuple(units[name] for name in todo),
        attempts=attempts,
        standing=standing,
        input_bytes=_size(marks, units.values()),
        todo_bytes=_size(marks, (units[name] for name in todo)),
    )


def _units(pipeline: Pipeline) -> dict[str, Unit]:
    """The source's units by id, which takes a digest to work out."""
    units: dict[str, Unit] = {}
    for unit in pipeline.source.units():
        name = unit.id
        if name in units:
            raise OmnimillError(f"source {describe(pipeline)} lists unit {name} more than once")
        units[name] = unit
    if not units:
        raise OmnimillError(f"source {describe(pipeline)} lists no units: nothing there fits its settings")
    return units


def describe(pipeline: Pipeline) -> str:
    """A source for a message: name, type and what it reads."""
    settings = pipeline.source.model_dump(mode="json", exclude={"name", "type"}, exclude_defaults=True)
    told = ", ".join(f"{name}: {value}" for name, value in settings.items())
    return f"{pipeline.name!r} (type: {pipeline.source.type}{', ' if told else ''}{told})"


def _still_good(found: Sequence[tuple[Commit, Mapping[str, Any]]], unit: Unit, marks: Marks) -> Commit | None:
    """The latest commit whose inputs are what they were: the unit's own files, and others that reading it turned up."""
    for commit, observed in found:
        before: Marks = observed.get("inputs", {})
        own = all(before.get(uri) == marks[uri] is not None for uri in unit.files)
        if commit.inputs and own and all(marks[uri] == mark for uri, mark in before.items()):
            return commit
    return None


def _size(marks: Marks, units: Iterable[Unit]) -> int:
    found = (marks[uri] for uri in {uri for unit in units for uri in unit.files})
    return sum(int(mark["bytes"]) for mark in found if mark is not None)
