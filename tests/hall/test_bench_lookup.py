"""The simulated catalog answers like one that was made by the commands, and its questions find what was planned."""

from __future__ import annotations

from itertools import islice
from pathlib import Path

import pytest

from omnimill.bench import lookup, lookup_catalog
from omnimill.bench.lookup_catalog import Size, write
from omnimill.training.checkpoints.checkpoint import read_record
from omnimill.training.lineage import audit, waypoints
from omnimill.training.lineage.replay import ledger_entries
from omnimill.training.runs.inputs import open_streams


def test_questions_over_a_small_catalog_find_the_very_steps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waypoints, "EVERY", 16)
    written = write(tmp_path, Size(shards=132, rows=5, streams=8, steps=120, other_runs=2))
    for name, prepare in lookup._questions(str(tmp_path), written).items():
        assert prepare()() >= 0, name
    (run,) = audit.impact(str(tmp_path), written.url)["runs"]
    # The catalog holds the shards of one stream alone, so nothing else can be replayed.
    record = read_record(written.checkpoint)
    streams = open_streams(record, str(tmp_path), ledger_entries(written.checkpoint, str(tmp_path)))
    steps = islice(streams.planner([lookup_catalog._STREAM]), record.step)
    items = ((one.step, item.example_id) for sequences in steps for one in sequences for item in one.items)
    expected = [step for step, id_ in items if id_ == written.id]
    assert run["steps"] == expected
    assert len(expected) > 1
