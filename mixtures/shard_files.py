"""Token shards opened: record batches by number, mapped where the shard is local, read by ranges where it is not."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from functools import lru_cache

import polars as pl
import pyarrow as pa

from omnimill.infra import storage
from omnimill.infra.arrow_files import BATCH_ROWS
from omnimill.tokens import LENGTH_COLUMNS, TOKEN_SCHEMA, check_token_schema

# Opened shards that are remembered, and of each remote one record batches, megabytes each.
_OPEN_SHARDS, _REMOTE_BATCHES = 64, 2
# Of a remote shard, columns of lengths are kilobytes with megabytes of media between them.
_PIECE_BYTES = 64 << 10


class ShardFile:
    """One shard; may be used by several threads.

    Args:
        url: of the shard.
        columns: those that record batches have, in the schema's order; all when none is named. Of a remote shard only
            these are read.
    """

    def __init__(self, url: str, columns: Sequence[str] = ()) -> None:
        local = storage.is_local(url)
        source = pa.memory_map(storage.filesystem(url)[1]) if local else storage.open_read(url, _PIECE_BYTES)
        self._file = pa.ipc.open_file(source)
        check_token_schema(self._file.schema, url)
        if columns:
            chosen = [TOKEN_SCHEMA.get_field_index(name) for name in columns]
            self._file = pa.ipc.open_file(source, options=pa.ipc.IpcReadOptions(included_fields=chosen))
        self._lock = threading.Lock()
        self._most = self._file.num_record_batches if local else _REMOTE_BATCHES
        self._batches: dict[int, pa.RecordBatch] = {}

    def locate(self, row: int) -> tuple[pa.RecordBatch, int]:
        """The record batch that holds a row, and the row's number in it."""
        number, place = divmod(row, BATCH_ROWS)
        with self._lock:
            batch = self._batches.pop(number, None)
            if batch is None:
                batch = self._file.get_batch(number)
                if len(self._batches) == self._most:
                    del self._batches[next(iter(self._batches))]
            self._batches[number] = batch
        return batch, place

    def table(self, first: int = 0, rows: int | None = None) -> pa.Table:
        """Rows from `first` on, as many as there are, or `rows`."""
        last = self._file.num_record_batches if rows is None else -(-(first + rows) // BATCH_ROWS)
        numbers = range(self._file.num_record_batches)[first // BATCH_ROWS : last]
        with self._lock:
            batches = [self._file.get_batch(number) for number in numbers]
        return pa.Table.from_batches(batches, self._file.schema).slice(first % BATCH_ROWS, rows)


# Shards are named by content and never change, so one cache serves every task of the process.
@lru_cache(maxsize=_OPEN_SHARDS)
def open_shard(url: str, columns: tuple[str, ...] = ()) -> ShardFile:
    """A shard, opened once."""
    return ShardFile(url, columns)


def shard_columns(url: str, columns: Sequence[str], first: int = 0, rows: int | None = None) -> pa.Table:
    """Some columns of a shard, of the rows from `first` on, in the order asked for."""
    return open_shard(url, tuple(columns)).table(first, rows).select(list(columns))


def shard_lengths(url: str) -> pl.DataFrame:
    """The length columns of a shard."""
    frame = pl.from_arrow(shard_columns(url, LENGTH_COLUMNS))
    assert isinstance(frame, pl.DataFrame)
    return frame
