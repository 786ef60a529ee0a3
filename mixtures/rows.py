"""The rows of token datasets that a task can use, numbered 0 … n-1 in the order of datasets and manifests.

Rows that a selection leaves out, or that are erased, when a run begins have no number. The numbers are for good: rows
that come in while a run goes on are numbered after those that were there, and rows that a later selection leaves out or
that are erased later keep their numbers but are void.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, replace
from functools import cached_property, partial
from itertools import accumulate
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

from omnimill.errors import ConfigError
from omnimill.infra.dataset import Commit, FileRef
from omnimill.mixtures import eligibility, row_index
from omnimill.mixtures.config import Task
from omnimill.mixtures.row_columns import ARRAY_COLUMNS, PLAIN_COLUMNS, RowContent, RowLengths
from omnimill.mixtures.row_index import Found, Reasons
from omnimill.mixtures.shard_files import ShardFile, open_shard, shard_columns, shard_lengths
from omnimill.mixtures.versions import TokenData
from omnimill.tokens import LENGTH_COLUMNS

Int64s = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Span:
    """The rows of one shard that a task can use.

    unit: that the shard belongs to. rows: how many. eligible: which rows of the shard; None: the first `rows`, which
    are all of them.
    """

    url: str
    unit: str
    source: str
    rows: int
    eligible: npt.NDArray[np.int32] | None

    @property
    def key(self) -> tuple[str, str]:
        """URL and unit: what the span is known by in any version of the data."""
        return self.url, self.unit

    @property
    def digest(self) -> str:
        """Of the shard."""
        return self.url.rpartition("/")[2].removesuffix(".arrow")

    def shard_row(self, index: int) -> int:
        return index if self.eligible is None else int(self.eligible[index])

    def index(self, shard_row: int) -> int | None:
        """The inverse of `shard_row`; None for a row that is not eligible."""
        if self.eligible is None:
            return shard_row
        index = int(np.searchsorted(self.eligible, shard_row))
        return index if index < self.rows and self.eligible[index] == shard_row else None

    def shard_rows(self) -> Int64s:
        """All of them."""
        return np.arange(self.rows) if self.eligible is None else self.eligible.astype(np.int64)


class TaskRows:
    """A task's eligible rows, in the order of datasets and manifests (source, unit, shard, row).

    Memory: one entry per shard, and four bytes per row in shards of which only some rows are eligible.

    Attributes:
        sizes: eligible rows by source, in the order of the rows.
        reasons: by source, rows that are not eligible, counted by reason; see `eligibility.reasons`, ``left_out``
            for those that a selection leaves out, and ``erased`` for others that were asked to be erased.
        stretches: how many rows were there at first, and came in with each addition.
        void: numbers of rows that are not to be used any more, sorted.
    """

    def __init__(
        self,
        task: Task,
        spans: Sequence[Span],
        reasons: Mapping[str, Mapping[str, int]],
        stretches: Sequence[int] | None = None,
        void: Int64s | None = None,
    ) -> None:
        self.task = task
        self.reasons = reasons
        self._given = list(spans)
        self._spans = [span for span in spans if span.rows]
        self._starts = list(accumulate((span.rows for span in self._spans), initial=0))
        self.stretches = tuple(stretches) if stretches is not None else (self._starts[-1],)
        self.void = np.empty(0, np.int64) if void is None else void
        self.sizes: dict[str, int] = Counter()
        for span in self._spans:
            self.sizes[span.source] += span.rows

    @classmethod
    def open(cls, data: TokenData, task: Task) -> TaskRows:
        """The rows of `task` in some versions of token datasets; reads the length columns of their shards.

        Raises:
            ConfigError: no row is eligible; says why, with counts.
        """
        rows = scan(data, [task])[0]
        if not len(rows):
            raise ConfigError(rows.describe_empty())
        return rows

    def at(self, data: TokenData) -> TaskRows:
        """These rows as they stand with other versions of the data: what came in is added, what went is void.

        Raises:
            ConfigError: a shard that had rows is gone, and no selection leaves those out; or no row is left.
        """
        present = {(url, commit.unit) for commit, _, url in data.shards() if commit.source in self.task.sources}
        void = []
        for start, span in zip(self._starts, self._spans, strict=False):
            gone = np.isin(span.shard_rows(), data.gone(span.digest, span.url if span.key in present else None))
            if span.key not in present and not gone.all():
                raise ConfigError(
                    f"task {self.task.name!r}: shard {span.url} of unit {span.unit} is not in the data any more, but "
                    f"{int((~gone).sum()):,} of its rows are in this run; go on with a version that has it, or with a "
                    "selection that leaves those rows out"
                )
            void.append(start + np.flatnonzero(gone))
        voided = np.concatenate(void).astype(np.int64)
        known = {span.key for span in self._given}
        new = scan(data, [self.task], known)[0]
        if len(voided) == len(self) and not len(new):
            raise ConfigError(f"task {self.task.name!r}: selections leave out every row, or they are erased")
        stretches = (*self.stretches, len(new)) if len(new) else self.stretches
        return TaskRows(self.task, [*self._given, *new._given], self.reasons, stretches, voided)

    def __len__(self) -> int:
        return self._starts[-1]

    def lengths(self, index: int) -> RowLengths:
        """Length columns of one row; no media are touched. Raises IndexError outside the rows."""
        batch, row = self._batch(index, partial(open_shard, columns=LENGTH_COLUMNS))
        return RowLengths(*(batch.column(name)[row].as_py() for name in LENGTH_COLUMNS))

    def fetch(self, index: int, opened: Callable[[str], ShardFile] = open_shard) -> RowContent:
        """Everything that one row holds.

        Args:
            opened: gives the shard of a URL.
        """
        batch, row = self._batch(index, opened)
        values: dict[str, Any] = {name: batch.column(name)[row].as_py() for name in PLAIN_COLUMNS}
        for name in ARRAY_COLUMNS:
            # An ids or codes array is a view of the shard's memory: copied only where someone changes it.
            values[name] = [item.values.to_numpy() for item in batch.column(name)[row]]
        return RowContent(**values)

    def id(self, index: int) -> str:
        """The example's id."""
        batch, row = self._batch(index, partial(open_shard, columns=("id",)))
        return str(batch.column("id")[row].as_py())

    def locate_ids(self, example_ids: Set[str]) -> list[int]:
        """The rows that hold these examples, in order. Scans the id columns."""
        wanted = pa.array(sorted(example_ids), pa.string())
        found = []
        for start, span in zip(self._starts, self._spans, strict=False):
            held = pc.is_in(shard_columns(span.url, ("id",)).column("id"), wanted).to_numpy(zero_copy_only=False)
            indices = (span.index(position) for position in np.flatnonzero(held).tolist())
            found += [start + index for index in indices if index is not None]
        return found

    def locate(self, shards: Mapping[str, Int64s]) -> list[int]:
        """The rows that are some rows of shards, by the shards' digests, in order. Reads nothing."""
        found: list[int] = []
        for start, span in zip(self._starts, self._spans, strict=False):
            if (rows := shards.get(span.digest)) is not None:
                found += (start + np.flatnonzero(np.isin(span.shard_rows(), rows))).tolist()
        return found

    def shards(self) -> Iterator[tuple[str, str, int]]:
        """Source, digest and number of rows of every shard that rows lie in."""
        return ((span.source, span.digest, span.rows) for span in self._spans)

    def share_of(self, shards: Mapping[str, float]) -> float:
        """Which share of the rows lies in some shards, of each of which only some share counts, by their digests."""
        counted = sum(span.rows * shards[span.digest] for span in self._spans if span.digest in shards)
        return counted / max(len(self), 1)

    def holds(self, url: str, shard_row: int) -> bool:
        """Whether a shard's row is one of these, by its number in the shard."""
        return any(span.index(shard_row) is not None for span in self._by_url.get(url, ()))

    def shard(self, index: int) -> str:
        """URL of the shard that a row lies in."""
        return self._spans[self._find(index)].url

    def by_shard(self, indices: Int64s) -> Iterator[tuple[str, Int64s, Int64s]]:
        """Rows by the shard that they lie in: its URL, their places in `indices`, their numbers in the shard."""
        spans = np.searchsorted(self._starts, indices, side="right") - 1
        order = np.argsort(spans, kind="stable")
        for places in np.split(order, np.flatnonzero(np.diff(spans[order])) + 1) if len(indices) else ():
            number = int(spans[places[0]])
            span, rows = self._spans[number], indices[places] - self._starts[number]
            yield span.url, places, rows if span.eligible is None else span.eligible[rows].astype(np.int64)

    def describe_empty(self) -> str:
        """Why there are no eligible rows."""
        return f"task {self.task.name!r}: no eligible row: {'; '.join(map(self.describe_source, self.task.sources))}"

    def describe_source(self, source: str) -> str:
        """How many rows of a source are not eligible, and why."""
        counts = self.reasons.get(source, {})
        return f"{source}: " + (", ".join(f"{why} {count:,}" for why, count in sorted(counts.items())) or "has no rows")

    @cached_property
    def _by_url(self) -> dict[str, list[Span]]:
        found: dict[str, list[Span]] = {}
        for span in self._spans:
            found.setdefault(span.url, []).append(span)
        return found

    def _find(self, index: int) -> int:
        if not 0 <= index < len(self):
            raise IndexError(f"task {self.task.name!r} has {len(self)} rows, asked for row {index}")
        return bisect_right(self._starts, index) - 1

    def _batch(self, index: int, opened: Callable[[str], ShardFile]) -> tuple[pa.RecordBatch, int]:
        number = self._find(index)
        span = self._spans[number]
        row = span.shard_row(index - self._starts[number])
        return opened(span.url).locate(row)


def scan(data: TokenData, tasks: Sequence[Task], known: Set[tuple[str, str]] = frozenset()) -> list[TaskRows]:
    """The rows of several tasks; a task may come out empty. What was found before is read from its index.

    Args:
        known: URLs and units of shards to pass over.
    """
    shards = list(data.shards())
    kept = None if known else data.name
    found = [None if kept is None else row_index.read(data.root, kept, task) for task in tasks]
    missing = [number for number, one in enumerate(found) if one is None]
    made = _look(data, shards, [tasks[number] for number in missing], known)
    for number, one in zip(missing, made, strict=True):
        found[number] = one
        if kept is not None:
            row_index.write(data.root, kept, tasks[number], *one)
    return [_task_rows(data, task, shards, *one) for task, one in zip(tasks, found, strict=True) if one is not None]


def _task_rows(
    data: TokenData,
    task: Task,
    shards: Sequence[tuple[Commit, FileRef, str]],
    found: Sequence[Found],
    reasons: Reasons,
) -> TaskRows:
    spans = []
    counts = {source: dict(why) for source, why in sorted(reasons.items())}
    for one in found:
        commit, ref, url = shards[one.shard]
        span = Span(url, commit.unit, commit.source, one.rows, one.eligible)
        if ref.digest in data.erased:
            span, lost = _less(span, data.erased[ref.digest])
            if lost:
                why = counts.setdefault(commit.source, {})
                why["erased"] = why.get("erased", 0) + lost
        spans.append(span)
    return TaskRows(task, spans, counts)


def _less(span: Span, erased: Int64s) -> tuple[Span, int]:
    """A span without the erased rows of its shard, and how many it loses."""
    rows = span.shard_rows()
    kept = rows[~np.isin(rows, erased)]
    return replace(span, rows=len(kept), eligible=kept.astype(np.int32)), len(rows) - len(kept)


def _look(
    data: TokenData,
    shards: Sequence[tuple[Commit, FileRef, str]],
    tasks: Sequence[Task],
    known: Set[tuple[str, str]],
) -> list[tuple[list[Found], Reasons]]:
    """The rows of tasks, each shard's length columns read once."""
    found: list[list[Found]] = [[] for _ in tasks]
    reasons: list[dict[str, Counter[str]]] = [defaultdict(Counter) for _ in tasks]
    for place, (commit, ref, url) in enumerate(shards):
        using = [number for number, task in enumerate(tasks) if commit.source in task.sources]
        if not using or (url, commit.unit) in known:
            continue
        lengths, out = shard_lengths(url), data.left_out(ref.digest, url)
        for number in using:
            why = eligibility.reasons(lengths, tasks[number])
            if out.size:
                why[out] = "left_out"
            eligible = why.is_null().arg_true().cast(pl.Int32).to_numpy()
            found[number].append(Found(place, len(eligible), None if len(eligible) == len(why) else eligible))
            reasons[number][commit.source].update(why.drop_nulls().to_list())
    return list(zip(found, reasons, strict=True))
