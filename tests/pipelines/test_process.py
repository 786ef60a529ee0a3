"""One unit: every record ends somewhere, the account balances, and threads do not change a byte."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from omnimill.errors import ConfigError, OmnimillError
from omnimill.infra import storage
from omnimill.infra.dataset import Commit, Dataset
from omnimill.pipelines.base import Operator
from omnimill.pipelines.process import process_unit
from omnimill.pipelines.recipe import recipe_digest
from omnimill.schema import from_row

Write = Callable[[dict[str, str]], str]

EVERY_END = """\
a good hello
b bad image_truncated
c drop sidecar
d raise value
e many one,two,no
f many
g many a,b
a good again
h good explode
i many fine,spoiled
j good last
"""


def process(source: Any, dataset: Dataset, operators: tuple[Operator, ...] = (), **options: Any) -> Commit:
    (unit,) = source.units()
    return process_unit(source, operators, unit, dataset, **options)


def rows(dataset: Dataset, commit: Commit) -> list[dict[str, Any]]:
    return [row for ref in commit.shards for row in dataset.read(ref).to_pylist()]


def test_every_record_is_kept_dropped_or_quarantined(write: Write, script: Any, operators: Any, tmp_path: Path) -> None:
    shortest, tagger = operators
    dataset = Dataset(str(tmp_path), "made")
    commit = process(script(path=write({"one": EVERY_END})), dataset, (shortest(), tagger()))
    counts = commit.counts
    assert counts.records_in == 11
    assert counts.kept == 4  # a, e, g (all its examples dropped) and j
    assert counts.records_dropped == {"no_examples": 1, "sidecar": 1}
    assert counts.quarantined == {"duplicate_key": 1, "image_truncated": 1, "spoiled": 1, "unexpected_error": 2}
    assert counts.examples_written == 4
    assert counts.examples_dropped == {"too_short": 3}
    assert [row["key"] for row in rows(dataset, commit)] == ["a", "e/0", "e/1", "j"]
    assert all(from_row(row).meta.scores == {"seen": 1.0} for row in rows(dataset, commit))
    assert commit.drops is not None
    drops = dataset.read(commit.drops, "drops").to_pylist()
    assert [(row["key"], row["level"], row["operator"], row["reason"]) for row in drops] == [
        ("c", "record", "decode", "sidecar"),
        ("e/2", "example", "shortest", "too_short"),
        ("f", "record", "decode", "no_examples"),
        ("g/0", "example", "shortest", "too_short"),
        ("g/1", "example", "shortest", "too_short"),
    ]


def test_quarantine_says_what_where_and_why(write: Write, script: Any, operators: Any, tmp_path: Path) -> None:
    dataset = Dataset(str(tmp_path), "made")
    folder = write({"one": EVERY_END})
    commit = process(script(path=folder), dataset, (operators[0](),))
    assert commit.quarantine is not None
    found = {row["key"] + row["operator"]: row for row in dataset.read(commit.quarantine, "quarantine").to_pylist()}
    assert set(found) == {"bdecode", "ddecode", "aread", "hshortest", "ishortest"}
    assert found["ddecode"]["message"] == "ValueError: d raised"
    assert found["ishortest"]["reason"] == "spoiled"
    assert found["bdecode"]["data"] == b"b bad image_truncated"
    assert all(row["uri"] == f"{folder}/one.txt" and row["tries"] == 1 for row in found.values())


@pytest.mark.parametrize(("verb", "reason"), [("stop", "archive_truncated"), ("break", "unreadable_unit")])
def test_a_reader_that_fails_quarantines_the_unread_rest(
    write: Write, script: Any, tmp_path: Path, verb: str, reason: str
) -> None:
    dataset = Dataset(str(tmp_path), "made")
    commit = process(script(path=write({"one": f"a good x\nb {verb}\nc good y\n"})), dataset)
    assert (commit.counts.records_in, commit.counts.kept, commit.counts.quarantined) == (2, 1, {reason: 1})
    assert commit.quarantine is not None
    (row,) = dataset.read(commit.quarantine, "quarantine").to_pylist()
    assert "0x1" not in row["message"] and "0x7" not in row["message"], "an address differs from run to run"


def test_a_fault_of_the_machine_or_the_settings_is_no_verdict_on_data(
    write: Write, script: Any, tmp_path: Path
) -> None:
    dataset = Dataset(str(tmp_path), "made")
    with pytest.raises(MemoryError):
        process(script(path=write({"one": "a raise memory\n"})), dataset)
    with pytest.raises(ConfigError):
        process(script(path=write({"one": "a raise config\n"})), dataset)
    assert dataset.commits() == []


def test_an_operator_that_answers_too_little_is_an_error(write: Write, script: Any, tmp_path: Path) -> None:
    class Silent(Operator):
        op: str = "silent"

        def __call__(self, examples: Any) -> list[str | None]:
            return []

    with pytest.raises(OmnimillError, match="operator silent gave 0 verdicts for 1 examples"):
        process(script(path=write({"one": "a good x\n"})), Dataset(str(tmp_path), "made"), (Silent(),))


def stored_bytes(root: Path) -> dict[str, bytes]:
    """Every stored file; commit records without what was observed."""
    found = {}
    for path in sorted(root.rglob("*")):
        if path.is_file():
            data = path.read_bytes()
            if path.parent.name == "commits":
                data = json.dumps(json.loads(data)["commit"]).encode()
            found[str(path.relative_to(root))] = data
    return found


def test_threads_do_not_change_a_byte(write: Write, script: Any, operators: Any, tmp_path: Path) -> None:
    slow_first = "".join(f"s{i} {'slow' if i % 3 == 0 else 'good'} text {i}\n" for i in range(40))
    source = script(path=write({"one": slow_first + EVERY_END}))
    for threads in (1, 3, 8):
        process(source, Dataset(str(tmp_path), f"made{threads}"), (operators[0](),), threads=threads)
    one, three, eight = (stored_bytes(tmp_path / f"made{threads}") for threads in (1, 3, 8))
    assert one == three == eight
    assert any(name.startswith("shards/") for name in one)


VERBS = st.sampled_from(
    ["good", "bad r1", "bad r2", "drop d1", "raise value", "many aa,b,cccc", "many", "good explode"]
)


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.integers(0, 9), VERBS), max_size=30))
def test_accounts_balance_whatever_comes(
    write: Write, script: Any, operators: Any, tmp_path: Path, lines: list[tuple[int, str]]
) -> None:
    source = script(path=write({"one": "".join(f"k{key} {verb}\n" for key, verb in lines)}))
    dataset = Dataset(str(tmp_path), "made")
    commit = process(source, dataset, (operators[0](),))
    counts = commit.counts
    counts.check("unit")
    assert counts.records_in == len(lines)
    assert counts.examples_written == len(rows(dataset, commit))
    quarantined = 0 if commit.quarantine is None else commit.quarantine.rows
    assert quarantined == sum(counts.quarantined.values())
    dropped = 0 if commit.drops is None else commit.drops.rows
    assert dropped == sum(counts.records_dropped.values()) + sum(counts.examples_dropped.values())


def test_a_large_unit_is_split_into_shards_in_order(write: Write, script: Any, tmp_path: Path) -> None:
    dataset = Dataset(str(tmp_path), "made")
    source = script(path=write({"one": "".join(f"k{i:04d} good {'x' * 100}\n" for i in range(1500))}))
    commit = process(source, dataset, shard_bytes=50_000)
    assert len(commit.shards) > 2
    assert sum(shard.rows for shard in commit.shards) == 1500
    assert [row["key"] for row in rows(dataset, commit)] == [f"k{i:04d}" for i in range(1500)]


def test_a_committed_unit_is_left_as_it_is(write: Write, script: Any, tmp_path: Path) -> None:
    dataset = Dataset(str(tmp_path), "made")
    source = script(path=write({"one": "a good x\n"}))
    first = process(source, dataset)
    shard = Path(storage.filesystem(dataset.shard_url(first.shards[0]))[1])
    before = shard.stat().st_mtime_ns
    assert process(source, dataset) == first
    assert shard.stat().st_mtime_ns == before


def test_an_input_that_cannot_be_opened_is_quarantined_and_tried_again(
    write: Write, script: Any, tmp_path: Path
) -> None:
    dataset = Dataset(str(tmp_path), "made")
    folder = write({"one": "a good x\n"})
    source = script(path=folder)
    (unit,) = source.units()
    Path(folder, "one.txt").unlink()
    gone = process_unit(source, (), unit, dataset)
    assert gone.counts.quarantined == {"unreadable_input": 1}
    assert gone.inputs == ()
    write({"one": "a good x\n"})
    assert process_unit(source, (), unit, dataset).counts.kept == 1


def test_recipe_changes_with_what_decides_the_outcome_only(script: Any, operators: Any) -> None:
    shortest, tagger = operators
    source = script(path="here")
    base = recipe_digest(source, (shortest(), tagger()))
    assert base == recipe_digest(script(path="here", only="x"), (shortest(), tagger()))
    later = type("Later", (shortest,), {"version": 2, "__module__": __name__})
    others = [
        recipe_digest(source, (tagger(), shortest())),
        recipe_digest(source, (shortest(characters=4), tagger())),
        recipe_digest(script(path="here", licence="CC0"), (shortest(), tagger())),
        recipe_digest(source, (later(), tagger())),
    ]
    assert len({base, *others}) == 5
