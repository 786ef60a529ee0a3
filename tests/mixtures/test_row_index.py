"""What was found of a task's rows is kept and read again; whatever is wrong with that, the rows are right."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from omnimill.mixtures import rows as module
from omnimill.mixtures.config import Mixture, Task
from omnimill.mixtures.rows import TaskRows, scan
from omnimill.mixtures.versions import current_versions, open_versions

from .conftest import token_row, write_tokens


def task(**settings: object) -> Task:
    fixed = {"name": "t", "rate": 1, "sources": ["s", "other"], "inputs": ["image"], "target": "text:label"}
    return Task.model_validate({**fixed, **settings})


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Ten rows of which every third has no picture, and two rows of another source."""
    made = [token_row(str(number), [("label", 1)], images=int(number % 3 > 0)) for number in range(10)]
    write_tokens(tmp_path, {"s": made, "other": [token_row(name, [("label", 1)], images=1) for name in "ab"]})
    return tmp_path


def found(root: Path, *tasks: Task) -> list[TaskRows]:
    mixture = Mixture(datasets=("tokens",), tasks=tasks)
    return scan(open_versions(str(root), current_versions(str(root), mixture)), tasks)


def said(rows: TaskRows) -> tuple[object, ...]:
    keys = [rows.fetch(number).key for number in range(len(rows))]
    return keys, dict(rows.sizes), {name: dict(why) for name, why in rows.reasons.items()}


def test_an_index_says_what_the_shards_say(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tasks = (task(), task(name="words", inputs=[], prompts=["?"]))
    first = [said(rows) for rows in found(root, *tasks)]
    assert first[0] == (
        ["a", "b", "1", "2", "4", "5", "7", "8"],
        {"other": 2, "s": 6},
        {"other": {}, "s": {"no_image": 4}},
    )

    def looked(url: str) -> None:
        raise AssertionError(f"{url} was looked through")

    monkeypatch.setattr(module, "shard_lengths", looked)
    assert [said(rows) for rows in found(root, *tasks)] == first
    with pytest.raises(AssertionError, match="looked through"):
        found(root, task(target="text:caption"))


def test_other_data_have_another_index(root: Path) -> None:
    assert len(found(root, task())[0]) == 8
    write_tokens(root, {"s": [token_row("new", [("label", 1)], images=1)]})
    assert said(found(root, task(sources=["s"]))[0])[0] == ["new"]


@pytest.mark.parametrize("damage", [b"", b"no Arrow file", None])
def test_an_index_that_cannot_be_read_is_made_again(root: Path, damage: bytes | None) -> None:
    before = said(found(root, task())[0])
    for path in (root / "row_indexes").glob("*.arrow"):
        whole = path.read_bytes()
        path.write_bytes(whole[: len(whole) // 2] if damage is None else damage)
    assert said(found(root, task())[0]) == before
    assert [path.stat().st_size > 100 for path in (root / "row_indexes").glob("*.arrow")] == [True]


def test_a_root_that_cannot_be_written_to(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (root / "row_indexes").write_text("in the way")
    assert len(found(root, task())[0]) == 8


def test_eligible_rows_are_numbers(root: Path) -> None:
    for rows in (found(root, task())[0], found(root, task())[0]):
        assert np.array_equal(np.concatenate([span.shard_rows() for span in rows._spans[1:]]), [1, 2, 1, 2, 1, 2])
