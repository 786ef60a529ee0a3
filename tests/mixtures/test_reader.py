"""The reader hands out what the sampler draws, as it lies in the shards, and goes on where it was left."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from omnimill.mixtures.config import Mixture, Task
from omnimill.mixtures.reader import Reader
from omnimill.mixtures.rows import TaskRows, scan
from omnimill.mixtures.sampler import Sampler
from omnimill.mixtures.versions import current_versions, open_versions

from .conftest import token_row, write_tokens

TASKS = tuple(
    Task(name=name, rate=rate, sources=(name,), inputs=("image",), target="text:label")
    for name, rate in (("few", 0.3), ("many", 0.7))
)


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> list[TaskRows]:
    """Two sources in shards of three rows; of some rows several pictures, one row that neither task can use."""
    root = tmp_path_factory.mktemp("reader")
    sources = {
        name: [
            {
                **token_row(f"{name}-{number}", [("label", 2)], images=1 + number % 3),
                "image_data": [
                    f"{name} {number} {picture}".encode() * (number + 1) for picture in range(1 + number % 3)
                ],
            }
            for number in range(count)
        ]
        for name, count in (("few", 5), ("many", 23))
    }
    sources["many"].insert(7, token_row("none", [("label", 2)]))
    write_tokens(root, sources)
    mixture = Mixture(datasets=("tokens",), tasks=TASKS)
    return scan(open_versions(str(root), current_versions(str(root), mixture)), TASKS)


def _sampler(rows: list[TaskRows], streams: int) -> Sampler:
    return Sampler([0.3, 0.7], [len(one) for one in rows], streams, seed=3, names=["few", "many"], window=4)


def test_media_are_those_of_the_drawn_rows(rows: list[TaskRows]) -> None:
    reader = Reader(rows, _sampler(rows, 3), batch=6)
    for _ in range(60):
        batch = next(reader)
        wanted = [rows[task].fetch(row).image_data[-1] for task, row in zip(batch.task, batch.row, strict=True)]
        assert [bytes(view) for view in batch.media] == wanted


def test_streams_take_turns(rows: list[TaskRows]) -> None:
    sampler = _sampler(rows, 4)
    reader = Reader(rows, sampler, batch=8)
    found = [batch for batch, _ in zip(reader, range(50), strict=False)]
    drawn = np.concatenate([np.stack([batch.task, batch.row, batch.epoch]) for batch in found], axis=1)
    for stream in range(4):
        draws, _ = sampler.next_many(stream, sampler.start(stream), 100)
        np.testing.assert_array_equal(drawn[:, stream::4], np.stack([draws.task, draws.row, draws.epoch]))


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(before=st.integers(0, 400), batch=st.sampled_from([1, 3, 6, 16]))
def test_it_goes_on_where_it_was_left_whoever_serves_the_streams(rows: list[TaskRows], before: int, batch: int) -> None:
    sampler = _sampler(rows, 6)
    first = Reader(rows, sampler, batch=batch)
    for _ in range(before):
        next(first)
    state = first.state_dict()
    for ranks in (1, 2, 3):
        for rank in range(ranks):
            streams = list(range(rank, 6, ranks))
            reader = Reader(rows, sampler, batch=len(streams), streams=streams, state=state)
            batches = [next(reader) for _ in range(5)]
            for place, stream in enumerate(streams):
                # Streams whose turn comes later may be a draw behind.
                done = (before * batch + 5 - stream) // 6
                draws, _ = sampler.next_many(stream, sampler.start(stream, done), 5)
                assert [int(found.row[place]) for found in batches] == draws.row.tolist()


def test_few_bytes_of_state(rows: list[TaskRows]) -> None:
    reader = Reader(rows, _sampler(rows, 2), batch=2)
    next(reader)
    assert max(len(str(state)) for state in reader.state_dict().values()) < 200


def test_sound_and_rows_without(rows: list[TaskRows], tmp_path: Path) -> None:
    task = Task(name="t", rate=1, sources=("s",), target="text:label", prompts=("What?",))
    made = [token_row("a", [("label", 1)], audio=2), token_row("b", [("label", 1)])]
    write_tokens(tmp_path, {"s": made})
    mixture = Mixture(datasets=("tokens",), tasks=(task,))
    found = scan(open_versions(str(tmp_path), current_versions(str(tmp_path), mixture)), (task,))
    batch = next(Reader(found, Sampler([1.0], [2], 1, seed=0), column="audio_data", batch=2))
    assert sorted(bytes(view) for view in batch.media) == [b"", b"clip 1"]


def test_the_page_says_how(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = (Path(__file__).parents[2] / "docs" / "mixtures.md").read_text()
    (block,) = re.findall(r"```python\n(from omnimill.mixtures.loading.*?)```", page, re.DOTALL)
    (tmp_path / "mixtures").mkdir()
    task = {"name": "t", "rate": 1, "sources": ["s"], "inputs": ["image"], "target": "text:label"}
    (tmp_path / "mixtures" / "demo.yaml").write_text(yaml.safe_dump({"datasets": ["tokens"], "tasks": [task]}))
    made = [token_row(str(number), [("label", 1)], images=1) for number in range(30)]
    write_tokens(tmp_path / "runs" / "demo", {"s": made})
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    exec(block, names)
    assert len(names["batch"].media) == 64
    assert list(names["state"]) == ["0", "4", "8"]
