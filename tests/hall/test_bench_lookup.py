"""The simulated catalog answers like one that was made by the commands, and its questions find what was planned."""

from __future__ import annotations

from pathlib import Path

import pytest

from omnimill.bench import lookup
from omnimill.bench.lookup_catalog import Size, write
from omnimill.training import audit, waypoints
from omnimill.training.replay import consumed


def test_questions_over_a_small_catalog_find_the_very_steps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waypoints, "EVERY", 16)
    written = write(tmp_path, Size(shards=132, rows=5, streams=8, steps=120, other_runs=2))
    for name, prepare in lookup._questions(str(tmp_path), written).items():
        assert prepare()() >= 0, name
    (run,) = audit.impact(str(tmp_path), written.url)["runs"]
    expected = [one.step for one in consumed(written.checkpoint, {written.id}, str(tmp_path))]
    assert run["steps"] == expected
    assert len(expected) > 1
