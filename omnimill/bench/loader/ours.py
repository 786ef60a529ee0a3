"""The records of the loader benchmark as a token dataset, and our reader of it."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pyarrow as pa

from omnimill.bench.loader.peers import protocol
from omnimill.infra.dataset import Commit, Counts, Dataset
from omnimill.mixtures.config import Mixture, Task
from omnimill.mixtures.reader import Reader
from omnimill.mixtures.rows import TaskRows, scan
from omnimill.mixtures.sampler import Sampler, StreamState
from omnimill.mixtures.versions import current_versions, open_versions
from omnimill.tokens import TOKEN_SCHEMA, TokenLayout

WEIGHTS = (0.7, 0.3)
_SHARD_ROWS = 1280  # 64 MB of records, as the peers' shards
_STREAMS = 8
# Of the order that is gone on with: rows, streams (four and three ranks share them), draws of a stream in each part.
_SCALE = 1_000_000_000
_BIG_STREAMS = 12
_DRAWS = 500


def write(folder: Path, part: int, records: Iterable[bytes]) -> None:
    """A token dataset of one source, whose rows are records in place of pictures."""
    dataset = Dataset(str(folder), f"part-{part}")
    shards, rows, count = [], list[bytes](), 0
    for record in records:
        rows.append(record)
        if len(rows) == _SHARD_ROWS:
            shards.append(dataset.publish_shard(_table(part, count, rows)))
            count, rows = count + len(rows), []
    if rows:
        shards.append(dataset.publish_shard(_table(part, count, rows)))
        count += len(rows)
    source = f"source-{part}"
    counts = Counts(records_in=count, kept=count, examples_written=count)
    commit = Commit(unit=source, source=source, recipe="bench", inputs=(), shards=tuple(shards), counts=counts)
    layout = TokenLayout(tokenizers="bench", digests={})
    dataset.publish_manifest("tokens", [commit], attributes={"layout": layout.model_dump(mode="json")})
    if part == len(WEIGHTS) - 1:
        _rows(folder)  # finds them once, as whoever checks a mixture does; peers make their indexes when they write


def _table(part: int, first: int, records: list[bytes]) -> pa.Table:
    count = len(records)
    columns: dict[str, Any] = {
        "id": [f"{part:08x}{first + number:024x}" for number in range(count)],
        "source": [f"source-{part}"] * count,
        "key": [str(first + number) for number in range(count)],
        "image_patches": [[1]] * count,
        "history_patches": [[1]] * count,
        "image_codes_lengths": [[0]] * count,
        "image_codes": [[[]]] * count,
        "image_data": [[record] for record in records],
        "text_roles": [["label"]] * count,
        "text_images": [[0]] * count,
        "text_audio": [[None]] * count,
        "text_items": [[None]] * count,
        "text_lengths": [[1]] * count,
        "text_ids": [[[3]]] * count,
    }
    return pa.table({name: columns.get(name, [[]] * count) for name in TOKEN_SCHEMA.names}, schema=TOKEN_SCHEMA)


def mixture() -> Mixture:
    """Both parts by weight."""
    tasks = tuple(
        Task(name=f"part-{part}", rate=weight, sources=(f"source-{part}",), inputs=("image",), target="text:label")
        for part, weight in enumerate(WEIGHTS)
    )
    return Mixture(datasets=("part-0", "part-1"), tasks=tasks, seed=1)


def _rows(folder: Path) -> list[TaskRows]:
    both = mixture()
    return scan(open_versions(str(folder), current_versions(str(folder), both)), both.tasks)


def load(folder: Path, workers: int) -> Iterator[list[memoryview]]:
    """Our reader over both parts; there is nothing that workers would do for it."""
    del workers
    both, rows = mixture(), _rows(folder)
    sampler = Sampler.of(both, [len(one) for one in rows], _STREAMS)
    for found in Reader(rows, sampler, batch=protocol.BATCH):
        yield found.media


def resume(folder: Path) -> dict[str, Any]:
    """An order of 10^9 rows begun by one rank, gone on with by four and then by three: when the first draw comes.

    Returns:
        seconds: from states in JSON to the first draw of a rank, the slower of both changes. skipped, repeated: rows of
        the undisturbed order that are missing, and that are there twice.
    """
    del folder
    sampler = _big()
    whole = {stream: sampler.next_many(stream, sampler.start(stream), 3 * _DRAWS)[0] for stream in range(_BIG_STREAMS)}
    states = {str(stream): sampler.start(stream).as_json() for stream in range(_BIG_STREAMS)}
    seen: list[tuple[int, int]] = []
    slowest = 0.0
    for ranks in (1, 4, 3):
        said, after = json.dumps(states), {}
        for rank in range(ranks):
            started = time.perf_counter()
            own, given = _big(), json.loads(said)
            for stream in range(rank, _BIG_STREAMS, ranks):
                state = StreamState.from_json(given[str(stream)])
                draws, state = own.next_many(stream, state, 1)
                if ranks > 1 and stream == rank:
                    slowest = max(slowest, time.perf_counter() - started)
                rest, state = own.next_many(stream, state, _DRAWS - 1)
                after[str(stream)] = state.as_json()
                for part in (draws, rest):
                    seen += zip(part.task.tolist(), part.row.tolist(), strict=True)
        states = after
    wanted = {pair for draws in whole.values() for pair in zip(draws.task.tolist(), draws.row.tolist(), strict=True)}
    return {"seconds": slowest, "skipped": len(wanted - set(seen)), "repeated": len(seen) - len(set(seen))}


def _big() -> Sampler:
    return Sampler(WEIGHTS, [_SCALE * 7 // 10, _SCALE * 3 // 10], _BIG_STREAMS, seed=1)


if __name__ == "__main__":
    protocol.serve(write, load, lambda: version("omnimill"), resume)
