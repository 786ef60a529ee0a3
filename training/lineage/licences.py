"""Under which licences, and from which sources, came what a checkpoint has learnt from.

Exactly, by planning all its steps again; or what is expected, from how often each task was drawn, which is known
exactly, and how many of its rows came under which licence, as the indexes of datasets count them.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.compute as pc

from omnimill.errors import OmnimillError
from omnimill.infra import arrow_files, storage
from omnimill.infra.arrow_files import BATCH_ROWS
from omnimill.infra.dataset import Dataset
from omnimill.infra.index import open_index
from omnimill.mixtures.ledger import Entry, changes
from omnimill.mixtures.rows import TaskRows
from omnimill.mixtures.versions import open_versions
from omnimill.progress import progress
from omnimill.rng import Int64s
from omnimill.training.checkpoints.checkpoint import CheckpointRecord, read_record, root_of
from omnimill.training.lineage.replay import check_order, ledger_entries
from omnimill.training.planning.block_planner import Measure
from omnimill.training.planning.bulk_lengths import costs_of
from omnimill.training.planning.planner import VirtualStreams
from omnimill.training.planning.row_measure import RowMeasure
from omnimill.training.rendering.forms import bulk_lengths
from omnimill.training.runs.inputs import open_streams

NOT_STATED, UNKNOWN = "not stated", "unknown"
# Rows of each task and source whose tokens are counted for the mean, in so many places.
_SAMPLE, _PLACES = 64, 4

Cell = tuple[str, str]  # source, licence


@dataclass
class _Amount:
    examples: float = 0.0
    tokens: float = 0.0


def licences(checkpoint: str | Path, root: str | None = None, *, exact: bool = False) -> dict[str, Any]:
    """What a checkpoint has learnt from, by licence and by source.

    Args:
        checkpoint: its folder or ``checkpoint.json``.
        root: where the datasets lie; what the checkpoint lies under when None.
        exact: plan all steps again, and look at the licence of each row.

    Returns:
        ``{"checkpoint", "step", "exact", "examples", "tokens", "licences": [{"licence", "examples", "tokens",
        "examples_share", "tokens_share"}], "sources": [...]}``, the most tokens first; tokens are those of encoder and
        decoder. ``exact`` says of examples and of tokens whether they are.
    """
    record = read_record(checkpoint)
    root = root or root_of(checkpoint)
    entries = ledger_entries(checkpoint, root)
    streams = open_streams(record, root, entries)
    if exact:
        check_order(record, streams)
    examples = _Examples(root, entries)
    cells, sure = _exact(record, streams, examples) if exact else _expected(record, streams, examples)
    return {
        "checkpoint": str(checkpoint),
        "step": record.step,
        "exact": {"examples": exact or sure, "tokens": exact},
        "examples": sum(record.examples.values()),
        "tokens": round(sum(one.tokens for one in cells.values())),
        "licences": _table("licence", cells, lambda cell: cell[1]),
        "sources": _table("source", cells, lambda cell: cell[0]),
    }


class _Examples:
    """The example shards that token shards were made from, and their licences."""

    def __init__(self, root: str, entries: list[Entry]) -> None:
        self._root = root
        self._made_from: dict[str, tuple[str, str]] = {}
        self._versions: dict[str, set[str]] = defaultdict(set)
        for change in changes(entries):
            for manifest in open_versions(root, change.versions).manifests:
                for name, digest in manifest.parents.items():
                    self._versions[name].add(digest)
                for commit in manifest.commits:
                    for ref in commit.shards if commit.inputs else ():
                        uri = commit.inputs[0].uri
                        self._made_from[ref.digest] = uri.split("/", 1)[0], commit.inputs[0].digest
        self._counts: dict[str, dict[str, Mapping[str, int]]] = {}

    def shares(self, shard: str) -> dict[str, float]:
        """Which shares of the examples behind a token shard came under which licence."""
        name, digest = self._made_from.get(shard, ("", ""))
        counts = self._indexed(name).get(digest, {}) if name in self._versions else {}
        total = sum(counts.values())
        return {said or NOT_STATED: count / total for said, count in counts.items()} if total else {UNKNOWN: 1.0}

    def of(self, shard: str, ids: list[str]) -> list[str]:
        """The licences of some examples behind a token shard."""
        name, digest = self._made_from.get(shard, ("", ""))
        url = storage.join(self._root, name, "shards", f"{digest}.arrow")
        if name not in self._versions or not storage.exists(url):
            return [UNKNOWN] * len(ids)
        with arrow_files.open_batches(url) as reader:
            every = np.arange(reader.num_record_batches) * BATCH_ROWS
        known: dict[str, str] = {}
        for _, table in arrow_files.read_batches(url, every, ("id", "meta")):
            stated = pc.struct_field(table.column("meta"), "licence").to_pylist()
            known |= zip(table.column("id").to_pylist(), (said or NOT_STATED for said in stated), strict=True)
        return [known.get(id_, UNKNOWN) for id_ in ids]

    def _indexed(self, name: str) -> dict[str, Mapping[str, int]]:
        if name not in self._counts:
            try:
                index = open_index(Dataset(self._root, name), sorted(self._versions[name]))
            except OmnimillError:
                self._counts[name] = {}  # the examples are not there any more
            else:
                self._counts[name] = {file.name: counts for file, counts in index.licences().items()}
        return self._counts[name]


def _exact(record: CheckpointRecord, streams: VirtualStreams, examples: _Examples) -> tuple[dict[Cell, _Amount], bool]:
    drawn: dict[int, dict[int, list[int]]] = defaultdict(lambda: defaultdict(lambda: [0, 0]))
    planner = streams.planner(range(record.config.streams))
    with progress("plan again", record.step, "steps") as advance:
        for step, sequences in enumerate(islice(planner, record.step)):
            for sequence in sequences if not record.config.leaves_out(step) else ():
                for item in sequence.items:
                    amount = drawn[item.task][item.row]
                    amount[0] += 1
                    amount[1] += sum(item.costs[:2])
            advance(1)
    cells: dict[Cell, _Amount] = defaultdict(_Amount)
    for task, by_row in drawn.items():
        rows = streams.rows[task]
        numbers = np.fromiter(by_row, np.int64, len(by_row))
        amounts = np.array([by_row[row] for row in numbers.tolist()])
        sources = {digest: source for source, digest, _ in rows.shards()}
        for url, places, shard_rows in rows.by_shard(numbers):
            digest = url.rpartition("/")[2].removesuffix(".arrow")
            for place, said in zip(places.tolist(), examples.of(digest, _ids(url, shard_rows)), strict=True):
                cell = cells[sources[digest], said]
                cell.examples += amounts[place, 0]
                cell.tokens += amounts[place, 1]
    return cells, True


def _ids(url: str, rows: Int64s) -> list[str]:
    """Ids of rows of a token shard, in the order of the rows given."""
    found: dict[int, str] = {}
    for first, table in arrow_files.read_batches(url, np.unique(rows), ("id",)):
        found |= enumerate(table.column("id").to_pylist(), first)
    return [found[row] for row in rows.tolist()]


def _expected(
    record: CheckpointRecord, streams: VirtualStreams, examples: _Examples
) -> tuple[dict[Cell, _Amount], bool]:
    """The second: whether the examples are exact, for each task has one source and one licence."""
    cells: dict[Cell, _Amount] = defaultdict(_Amount)
    measure = RowMeasure(streams.rows, bulk_lengths(streams.renderer.recipes))
    sure = True
    for task, rows in enumerate(streams.rows):
        count = record.examples.get(rows.task.name, 0)
        if not count:
            continue
        own: dict[Cell, float] = defaultdict(float)
        for source, digest, number in rows.shards():
            for said, share in examples.shares(digest).items():
                own[source, said] += share * number / len(rows)
        tokens = {source: _mean_tokens(measure, task, part) for source, part in _parts(rows)}
        for (source, said), share in own.items():
            cells[source, said].examples += count * share
            cells[source, said].tokens += count * share * tokens[source]
        sure = sure and len(own) == 1
    return cells, sure


def _parts(rows: TaskRows) -> Iterator[tuple[str, list[range]]]:
    """Of every source the ranges of its rows."""
    found: dict[str, list[range]] = defaultdict(list)
    first = 0
    for source, _, number in rows.shards():
        found[source].append(range(first, first + number))
        first += number
    yield from found.items()


def _mean_tokens(measure: Measure, task: int, ranges: list[range]) -> float:
    """Tokens of an example of a task, encoder and decoder together: the mean of rows in a few places."""
    chosen = (ranges[i * len(ranges) // _PLACES][: _SAMPLE // _PLACES] for i in range(_PLACES))
    rows = np.unique(np.concatenate([np.arange(one.start, one.stop) for one in chosen]))
    _, lengths = measure(task, rows, np.zeros(len(rows), np.int64))
    return float(costs_of(lengths)[:2].sum()) / len(rows)


def _table(name: str, cells: Mapping[Cell, _Amount], by: Callable[[Cell], str]) -> list[dict[str, Any]]:
    sums: dict[str, _Amount] = defaultdict(_Amount)
    for cell, amount in cells.items():
        one = sums[by(cell)]
        one.examples, one.tokens = one.examples + amount.examples, one.tokens + amount.tokens
    examples, tokens = (sum(getattr(one, key) for one in sums.values()) or 1.0 for key in ("examples", "tokens"))
    return [
        {
            name: key,
            "examples": round(one.examples),
            "tokens": round(one.tokens),
            "examples_share": one.examples / examples,
            "tokens_share": one.tokens / tokens,
        }
        for key, one in sorted(sums.items(), key=lambda item: (-item[1].tokens, item[0]))
    ]
