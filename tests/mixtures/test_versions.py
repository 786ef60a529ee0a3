"""Rows of several datasets, less what selections leave out, and their numbers when data change."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from omnimill.errors import ConfigError, OmnimillError
from omnimill.infra.dataset import Dataset
from omnimill.infra.selections import Selection, publish_left_out, publish_selection
from omnimill.mixtures.config import Mixture
from omnimill.mixtures.course import check_change, new_course, open_course
from omnimill.mixtures.ledger import Change
from omnimill.mixtures.rows import TaskRows, scan
from omnimill.mixtures.versions import TokenData, Versions, current_versions, open_versions

Maker = Callable[..., Any]


def mixture(*datasets: str, selections: tuple[str, ...] = (), sources: tuple[str, ...] = ("a", "b")) -> Mixture:
    task = {"name": "t", "rate": 1, "sources": sources, "target": "text:caption"}
    return Mixture.model_validate({"datasets": datasets, "selections": selections, "window": 3, "tasks": [task]})


def rows_of(row: Maker, source: str, count: int, start: int = 0) -> list[dict[str, Any]]:
    return [row(f"{source}{i}", [("caption", 2)]) for i in range(start, start + count)]


def select(root: Path, name: str, out: dict[str, list[int]], dataset: str = "tokens", called: str = "x") -> None:
    """A selection that leaves out rows by the digest of their shard."""
    store = Dataset(str(root), dataset)
    digest, manifest = store.manifest()
    parts = []
    for commit in manifest.commits:
        for shard in commit.shards:
            if out.get(shard.digest):
                ids = store.read(shard).column("id").to_pylist()
                table = [
                    {"row": i, "id": ids[i], "step": "s", "reason": "r", "twin": None, "score": None}
                    for i in out[shard.digest]
                ]
                parts.append(publish_left_out(store, shard.digest, table))
    kept = manifest.rows - sum(len(rows) for rows in out.values())
    publish_selection(
        store, Selection(name=name, dataset=dataset, manifest=digest, config={}, kept=kept, shards=tuple(parts))
    )


def shards(root: Path, dataset: str = "tokens") -> list[tuple[str, int]]:
    return [(s.digest, s.rows) for c in Dataset(str(root), dataset).manifest()[1].commits for s in c.shards]


def keys(rows: TaskRows) -> list[str]:
    return [rows.fetch(i).key for i in range(len(rows))]


def test_a_mixture_over_two_datasets(tmp_path: Path, row: Maker, tokens: Maker) -> None:
    tokens(tmp_path, {"b": rows_of(row, "b", 4)}, name="one")
    tokens(tmp_path, {"a": rows_of(row, "a", 4)}, name="two")
    course = new_course(str(tmp_path), mixture("two", "one"), 2)
    assert keys(course.rows[0]) == ["a0", "a1", "a2", "a3", "b0", "b1", "b2", "b3"]
    assert course.rows[0].sizes == {"a": 4, "b": 4}
    tokens(tmp_path, {"a": rows_of(row, "a", 1)}, name="three")
    with pytest.raises(ConfigError, match="one dataset each; in several: a"):
        new_course(str(tmp_path), mixture("two", "one", "three"), 2)
    with pytest.raises(OmnimillError, match="no dataset 'four'"):
        new_course(str(tmp_path), mixture("two", "four"), 2)


@given(data=st.data())
@settings(max_examples=12, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_selections_exclude_exactly_their_rows(
    data: st.DataObject, tmp_path_factory: pytest.TempPathFactory, row: Maker, tokens: Maker
) -> None:
    root = tmp_path_factory.mktemp("root")
    tokens(root, {"a": rows_of(row, "a", 7), "b": rows_of(row, "b", 5)}, shard_rows=3)
    out = {digest: sorted(data.draw(st.sets(st.integers(0, rows - 1)))) for digest, rows in shards(root)}
    out[shards(root)[0][0]] = out[shards(root)[0][0]][:2]  # not all of the rows there are
    select(root, "x", out)
    plain = scan(open_versions(str(root), current_versions(str(root), mixture("tokens"))), mixture("tokens").tasks)[0]
    found = scan(
        open_versions(str(root), current_versions(str(root), mixture("tokens", selections=("x",)))),
        mixture("tokens").tasks,
    )[0]
    gone = [
        number
        for number, (shard, i) in enumerate((digest, i) for digest, rows in shards(root) for i in range(rows))
        if i in out[shard]
    ]
    assert keys(found) == [key for number, key in enumerate(keys(plain)) if number not in gone]
    assert sum(counts.get("left_out", 0) for counts in found.reasons.values()) == len(gone)
    # In mid-run the same rows become void, and no number moves.
    if len(gone) < len(plain):
        later = plain.at(open_versions(str(root), current_versions(str(root), mixture("tokens", selections=("x",)))))
        assert keys(later) == keys(plain)
        assert later.void.tolist() == gone
        assert later.stretches == plain.stretches


def test_a_selection_of_the_examples_leaves_out_their_tokens(tmp_path: Path, row: Maker, tokens: Maker) -> None:
    """A dataset was tokenized before its examples were judged."""
    # The examples' store is any dataset with ids here: what a selection says of rows is what counts.
    tokens(tmp_path, {"a": rows_of(row, "a", 6)}, name="examples")
    select(tmp_path, "clean", {shards(tmp_path, "examples")[1][0]: [0, 2]}, dataset="examples")
    tokens(tmp_path, {"a": rows_of(row, "a", 6)[::-1]}, name="tokens", shard_rows=4)
    dataset = Dataset(str(tmp_path), "tokens")
    _, manifest = dataset.manifest()
    parents = {"examples": Dataset(str(tmp_path), "examples").manifest()[0]}
    dataset.publish_manifest("tokens", manifest.commits, parents=parents, attributes=manifest.attributes)
    course = new_course(str(tmp_path), mixture("tokens", selections=("clean",), sources=("a",)), 2)
    assert keys(course.rows[0]) == ["a4", "a2", "a1", "a0"]
    with pytest.raises(ConfigError, match=r"found 'dirty', which neither tokens nor the examples.*; allowed: clean"):
        new_course(str(tmp_path), mixture("tokens", selections=("dirty",), sources=("a",)), 2)


def test_rows_that_come_in_are_numbered_after_the_others(tmp_path: Path, row: Maker, tokens: Maker) -> None:
    root = str(tmp_path)
    first = tokens(tmp_path, {"b": rows_of(row, "b", 5)}, shard_rows=2)
    now = current_versions(root, mixture("tokens", sources=("b",)))
    plan = Change(step=0, mixture=mixture("tokens", sources=("b",)), versions=now)
    tokens(tmp_path, {"b": rows_of(row, "b", 7, start=100)}, shard_rows=3, name="more")
    added = Dataset(root, "more").manifest()[1].commits[0]
    dataset = Dataset(root, "tokens")
    for shard in added.shards:
        dataset.publish_shard(Dataset(root, "more").read(shard))
    # A unit that comes before the others in the manifest.
    commits = [added.model_copy(update={"unit": "b-"}), *first.commits]
    dataset.publish_manifest("tokens", commits, attributes=first.attributes)
    grown = Change(step=6, mixture=plan.mixture, versions=current_versions(root, plan.mixture))
    course = open_course(root, [plan, grown], 3)
    (rows,) = course.rows
    assert keys(rows)[:5] == [f"b{i}" for i in range(5)]
    assert sorted(keys(rows)[5:]) == [f"b{i}" for i in range(100, 107)]
    assert rows.stretches == (5, 7)
    assert course.timeline.sampler(5).sizes == [5]
    assert course.timeline.sampler(6).sizes == [12]
    assert course.digest(6) == open_course(root, [plan], 3).digest(6) != course.digest(7)


def test_a_shard_that_goes_must_be_left_out_by_a_selection(tmp_path: Path, row: Maker, tokens: Maker) -> None:
    root = str(tmp_path)
    manifest = tokens(tmp_path, {"a": rows_of(row, "a", 2), "b": rows_of(row, "b", 2)})
    data = TokenData(root, (manifest,))
    rows = scan(data, mixture("tokens").tasks)[0]
    (lost,) = [commit for commit in manifest.commits if commit.source == "a"]
    less = manifest.model_copy(update={"commits": tuple(c for c in manifest.commits if c.source == "b")})
    with pytest.raises(ConfigError, match=r"shard .* of unit a-0 is not in the data any more, but 2 of its rows"):
        rows.at(TokenData(root, (less,)))
    void = rows.at(TokenData(root, (less,), {lost.shards[0].digest: np.array([0, 1])}))
    assert void.void.tolist() == [0, 1]
    assert keys(void) == keys(rows)
    with pytest.raises(ConfigError, match="selections leave out every row"):
        rows.at(TokenData(root, (manifest,), {s.digest: np.array([0, 1]) for c in manifest.commits for s in c.shards}))


@pytest.mark.parametrize(("old", "new"), [(None, 3.0), (2.0, 1.0), (2.5, 4.0)])
def test_caps_that_would_move_what_was_read_are_refused(old: float | None, new: float | None) -> None:
    before, now = (
        plain.model_copy(update={"tasks": (plain.tasks[0].model_copy(update={"max_epochs": cap}),)})
        for plain, cap in zip([mixture("tokens")] * 2, (old, new), strict=True)
    )
    versions = Versions(datasets=())
    first, later = (Change(step=step, mixture=one, versions=versions) for step, one in ((0, before), (5, now)))
    with pytest.raises(ConfigError, match=r"max_epochs: was .* a whole number can be raised or removed"):
        check_change(first, later, {"t": before.tasks[0]})
    check_change(first, first, {"t": before.tasks[0]})
