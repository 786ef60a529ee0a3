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

# Opened shards that are remembered, and record batches of remote ones, megabytes each.
_OPEN_SHARDS, _REMOTE_BATCHES = 64, 16
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
        self.batch = lru_cache(maxsize=None if local else _REMOTE_BATCHES)(self._read)

    def locate(self, row: int) -> tuple[pa.RecordBatch, int]:
        """The record batch that holds a row, and the row's number in it."""
        number, place = divmod(row, BATCH_ROWS)
        return self.batch(number), place

    def table(self, first: int = 0, rows: int | None = None) -> pa.Table:
        """Rows from `first` on, as many as there are, or `rows`."""
        last = self._file.num_record_batches if rows is None else -(-(first + rows) // BATCH_ROWS)
        numbers = range(self._file.num_record_batches)[first // BATCH_ROWS : last]
        table = pa.Table.from_batches([self._read(number) for number in numbers], self._file.schema)
        return table.slice(first % BATCH_ROWS, rows)

    def _read(self, number: int) -> pa.RecordBatch:
        with self._lock:
            return self._file.get_batch(number)


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
