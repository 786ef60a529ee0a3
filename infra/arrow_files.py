"""Arrow IPC files named by content: the same table always gives the same bytes, read back by memory map."""

from __future__ import annotations

import mmap
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
from blake3 import blake3

from omnimill.infra import storage
from omnimill.rng import Int64s

# Rows per record batch: small enough that reading one row touches few pages, large enough to be cheap to scan.
BATCH_ROWS = 256


class _Hashing:
    """A file that hashes what it writes, so that a shard is read only once."""

    def __init__(self, path: Path) -> None:
        self.hasher = blake3()
        self.size = 0
        self._stream = path.open("wb")

    def write(self, data: bytes) -> int:
        view = memoryview(data).cast("B")
        self.hasher.update(view)
        self.size += len(view)
        return self._stream.write(view)

    def flush(self) -> None:
        self._stream.flush()

    def close(self) -> None:
        self._stream.close()

    @property
    def closed(self) -> bool:
        return self._stream.closed

    def writable(self) -> bool:
        return True

    def readable(self) -> bool:
        return False

    def seekable(self) -> bool:
        return False


def publish_table(table: pa.Table, folder: str) -> tuple[str, int]:
    """Write `table` as ``<folder>/<digest>.arrow``.

    Returns:
        The digest (64 hex digits of blake3 over the file) and the file's size in bytes.
    """
    temporary, sink = _write(table, storage.join(folder, "shard"), BATCH_ROWS)
    digest = sink.hasher.hexdigest()
    storage.publish_file(temporary, storage.join(folder, f"{digest}.arrow"))
    return digest, sink.size


def write_table(table: pa.Table, url: str) -> None:
    """Write `table` under a name of the caller's choice, as one batch; it appears whole."""
    storage.publish_file(_write(table, url, max(table.num_rows, 1))[0], url)


def _write(table: pa.Table, url: str, batch_rows: int) -> tuple[Path, _Hashing]:
    """`table` in a local file that is to become `url`, and the account of its bytes."""
    temporary = storage.scratch_path(url)
    sink = _Hashing(temporary)
    try:
        # Copying into fresh contiguous buffers drops whatever offsets and padding the input's slices carried.
        batches = table.combine_chunks().to_batches(max_chunksize=batch_rows)
        with pa.PythonFile(sink, mode="w") as stream, pa.ipc.new_file(stream, table.schema) as writer:
            for batch in batches:
                writer.write_batch(batch)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    finally:
        sink.close()
    return temporary, sink


def map_bytes(url: str) -> pa.Buffer:
    """A file's bytes: mapped memory when local, of which nothing is asked for yet; read whole otherwise."""
    if storage.is_local(url):
        with Path(storage.filesystem(url)[1]).open("rb") as file:
            return pa.py_buffer(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
    return pa.py_buffer(storage.read_bytes(url))


def read_table(url: str) -> pa.Table:
    """An Arrow file as a table: memory-mapped when local (no copy), read whole otherwise."""
    if storage.is_local(url):
        _, path = storage.filesystem(url)
        return pa.ipc.open_file(pa.memory_map(path)).read_all()
    return pa.ipc.open_file(pa.py_buffer(storage.read_bytes(url))).read_all()


def open_batches(url: str, options: pa.ipc.IpcReadOptions | None = None) -> pa.ipc.RecordBatchFileReader:
    """An Arrow file whose record batches are read one by one when they are asked for."""
    if storage.is_local(url):
        return pa.ipc.open_file(pa.memory_map(storage.filesystem(url)[1]), options=options)
    return pa.ipc.open_file(pa.PythonFile(storage.open_read(url), mode="r"), options=options)


def read_batches(url: str, rows: Int64s, columns: Sequence[str] = ()) -> Iterator[tuple[int, pa.Table]]:
    """The record batches of a shard that some rows lie in, one by one, each with the number of its first row.

    Args:
        rows: of the shard, sorted.
        columns: those that are read; all when none is named.
    """
    options = None
    if columns:
        with open_batches(url) as reader:
            options = pa.ipc.IpcReadOptions(included_fields=[reader.schema.get_field_index(name) for name in columns])
    with open_batches(url, options) as reader:
        for number in np.unique(rows // BATCH_ROWS).tolist():
            yield number * BATCH_ROWS, pa.Table.from_batches([reader.get_batch(number)])
