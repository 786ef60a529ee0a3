"""The rows of a token dataset that a task can use, numbered 0 … n-1 in the manifest's order."""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from functools import lru_cache
from itertools import accumulate
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

from omnimill.errors import ConfigError
from omnimill.infra import arrow_files
from omnimill.infra.dataset import Dataset, Manifest
from omnimill.mixtures import eligibility
from omnimill.mixtures.config import Task
from omnimill.tokens import LENGTH_COLUMNS, check_token_schema

# Shards kept open at a time; a local one costs a memory map, a remote one its size in memory.
_OPEN_SHARDS = 64


@dataclass
class RowLengths:
    """How long every stream of one row is; the columns of `omnimill.tokens` of the same names.

    The lists that start with ``text_`` are parallel (one entry per segment), so are those of images, of audio clips and
    of target pictures.
    """

    text_roles: list[str]
    text_images: list[int | None]
    text_audio: list[int | None]
    text_items: list[int | None]
    text_lengths: list[int]
    image_patches: list[int]
    history_patches: list[int]
    audio_patches: list[int]
    image_codes_lengths: list[int]
    audio_codes_lengths: list[int]
    target_roles: list[str]
    target_images: list[int | None]
    target_items: list[int | None]
    target_codes_lengths: list[int]

    def texts(self, role: str) -> list[int]:
        """Segments that stand for `role`, in order, empty ones left out.

        Those of the current (last) image or the current clip if there are any, else all of that role.
        """
        segments = [i for i, name in enumerate(self.text_roles) if name == role and self.text_lengths[i] > 0]
        image, clip = len(self.image_patches) - 1, len(self.audio_patches) - 1
        current = [i for i in segments if self.text_images[i] == image or self.text_audio[i] == clip]
        return current or segments


@dataclass
class RowContent(RowLengths):
    """All columns of one row.

    text_ids: int32 arrays without EOS. image_data: JPEG or PNG, audio_data: FLAC. image_codes, audio_codes,
    target_codes: uint16 arrays, empty where a medium was not encoded. target_heights, target_widths: pixels of the
    target canvas that a target picture covers.
    """

    id: str
    source: str
    key: str
    text_ids: list[npt.NDArray[np.int32]]
    image_data: list[bytes]
    image_codes: list[npt.NDArray[np.uint16]]
    audio_data: list[bytes]
    audio_codes: list[npt.NDArray[np.uint16]]
    target_heights: list[int]
    target_widths: list[int]
    target_codes: list[npt.NDArray[np.uint16]]


_ARRAYS = ("text_ids", "image_codes", "audio_codes", "target_codes")
_PLAIN = tuple(field.name for field in fields(RowContent) if field.name not in _ARRAYS)


@dataclass(frozen=True)
class Span:
    """The rows of one shard that a task can use.

    rows: how many. eligible: which rows of the shard; None: the first `rows`, which are all of them.
    """

    url: str
    source: str
    rows: int
    eligible: npt.NDArray[np.int32] | None

    def shard_row(self, index: int) -> int:
        return index if self.eligible is None else int(self.eligible[index])

    def index(self, shard_row: int) -> int | None:
        """The inverse of `shard_row`; None for a row that is not eligible."""
        if self.eligible is None:
            return shard_row
        index = int(np.searchsorted(self.eligible, shard_row))
        return index if index < self.rows and self.eligible[index] == shard_row else None


class TaskRows:
    """A task's eligible rows, in manifest order (source, unit, shard, row).

    Memory: one entry per shard, and four bytes per row in shards of which only some rows are eligible.

    Attributes:
        sizes: eligible rows by source, in the order of the rows.
        reasons: by source, rows that are not eligible, counted by reason; see `eligibility.reasons`.
    """

    def __init__(self, task: Task, spans: Sequence[Span], reasons: Mapping[str, Mapping[str, int]]) -> None:
        self.task = task
        self.reasons = reasons
        self._spans = [span for span in spans if span.rows]
        self._starts = list(accumulate((span.rows for span in self._spans), initial=0))
        self.sizes: dict[str, int] = Counter()
        for span in self._spans:
            self.sizes[span.source] += span.rows

    @classmethod
    def open(cls, root: str, manifest: Manifest, task: Task) -> TaskRows:
        """The rows of `task` in one version of a token dataset; reads the length columns of its shards.

        Raises:
            ConfigError: no row is eligible; says why, with counts.
        """
        rows = scan(root, manifest, [task])[0]
        if not len(rows):
            raise ConfigError(rows.describe_empty())
        return rows

    def __len__(self) -> int:
        return self._starts[-1]

    def lengths(self, index: int) -> RowLengths:
        """Length columns of one row; no media are touched. Raises IndexError outside the rows."""
        batch, row = self._batch(index)
        return RowLengths(*(batch.column(name)[row].as_py() for name in LENGTH_COLUMNS))

    def fetch(self, index: int) -> RowContent:
        """Everything that one row holds."""
        batch, row = self._batch(index)
        values: dict[str, Any] = {name: batch.column(name)[row].as_py() for name in _PLAIN}
        for name in _ARRAYS:
            # An ids or codes array is a view of the shard's memory: copied only where someone changes it.
            values[name] = [item.values.to_numpy() for item in batch.column(name)[row]]
        return RowContent(**values)

    def id(self, index: int) -> str:
        """The example's id."""
        batch, row = self._batch(index)
        return str(batch.column("id")[row].as_py())

    def locate_id(self, example_id: str) -> int | None:
        """The row that holds an example; None when the task has none. Scans the id columns."""
        for start, span in zip(self._starts, self._spans, strict=False):
            position = pc.index(_shard(span.url).column("id"), example_id).as_py()
            if position >= 0 and (index := span.index(position)) is not None:
                return start + index
        return None

    def shard(self, index: int) -> str:
        """URL of the shard that a row lies in."""
        return self._spans[self._find(index)].url

    def describe_empty(self) -> str:
        """Why there are no eligible rows."""
        return f"task {self.task.name!r}: no eligible row: {'; '.join(map(self.describe_source, self.task.sources))}"

    def describe_source(self, source: str) -> str:
        """How many rows of a source are not eligible, and why."""
        counts = self.reasons.get(source, {})
        return f"{source}: " + (", ".join(f"{why} {count:,}" for why, count in sorted(counts.items())) or "has no rows")

    def _find(self, index: int) -> int:
        if not 0 <= index < len(self):
            raise IndexError(f"task {self.task.name!r} has {len(self)} rows, asked for row {index}")
        return bisect_right(self._starts, index) - 1

    def _batch(self, index: int) -> tuple[pa.RecordBatch, int]:
        number = self._find(index)
        span = self._spans[number]
        row = span.shard_row(index - self._starts[number])
        batches, starts = _batches(span.url)
        batch = bisect_right(starts, row) - 1
        return batches[batch], row - starts[batch]


def scan(root: str, manifest: Manifest, tasks: Sequence[Task]) -> list[TaskRows]:
    """The rows of several tasks, each shard's length columns read once; a task may come out empty."""
    dataset = Dataset(root, manifest.dataset)
    spans: list[list[Span]] = [[] for _ in tasks]
    reasons: list[dict[str, Counter[str]]] = [defaultdict(Counter) for _ in tasks]
    for commit in manifest.commits:
        using = [number for number, task in enumerate(tasks) if commit.source in task.sources]
        for shard in commit.shards if using else ():
            url = dataset.shard_url(shard)
            lengths = shard_lengths(url)
            for number in using:
                why = eligibility.reasons(lengths, tasks[number])
                eligible = why.is_null().arg_true().cast(pl.Int32).to_numpy()
                spans[number].append(
                    Span(url, commit.source, len(eligible), None if len(eligible) == len(why) else eligible)
                )
                reasons[number][commit.source].update(why.drop_nulls().to_list())
    return [
        TaskRows(task, found, dict(sorted(why.items()))) for task, found, why in zip(tasks, spans, reasons, strict=True)
    ]


def shard_lengths(url: str) -> pl.DataFrame:
    """The length columns of a shard."""
    frame = pl.from_arrow(_shard(url).select(list(LENGTH_COLUMNS)))
    assert isinstance(frame, pl.DataFrame)
    return frame


# Shards are named by content and never change, so one cache serves every task of the process.
@lru_cache(maxsize=_OPEN_SHARDS)
def _shard(url: str) -> pa.Table:
    table = arrow_files.read_table(url)
    check_token_schema(table.schema, url)
    return table


@lru_cache(maxsize=_OPEN_SHARDS)
def _batches(url: str) -> tuple[list[pa.RecordBatch], list[int]]:
    """A shard's record batches, and each one's first row."""
    batches = _shard(url).to_batches()
    return batches, list(accumulate((batch.num_rows for batch in batches), initial=0))[:-1]
