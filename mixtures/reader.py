"""The media of a mixture's rows in its order, as they lie in the shards: for training loops of one's own.

Nothing is decoded, rendered or packed, and of local shards nothing is copied: what comes out are views of mapped
memory. What is read next is asked for ahead, in large pieces, so that a cold disk keeps up.
"""

from __future__ import annotations

import ctypes
import mmap
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from functools import lru_cache
from math import gcd
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from omnimill.errors import IntegrityError
from omnimill.infra import arrow_files
from omnimill.infra.arrow_files import BATCH_ROWS
from omnimill.mixtures.draw_blocks import next_block
from omnimill.mixtures.rows import TaskRows
from omnimill.mixtures.sampler import Sampler, StreamState
from omnimill.tokens import check_token_schema

Int64s = npt.NDArray[np.int64]
Column = Literal["image_data", "audio_data"]

# Draws that are made at a time, and of these, media that are looked up at a time. The first batch is drawn alone, so
# that it comes soon.
_DRAWS, _MEDIA = 16_384, 2048
# Records that are nearer to each other are asked for in one piece.
_GAP_BYTES = 1 << 20
_OPEN_SHARDS = 4096


class Batch(NamedTuple):
    """Draws that came together: of each the task, its row, the epoch (int64 [n]), and its current picture or clip."""

    task: Int64s
    row: Int64s
    epoch: Int64s
    media: list[memoryview]


class Reader(Iterator[Batch]):
    """Iterates batches of drawn media, without end.

    The streams take turns, a draw each. State is where every stream is; it does not depend on who serves which streams.

    Args:
        rows: of every task. sampler: of the same tasks.
        column: pictures or clips; of each row the last one, the current.
        batch: draws in a batch.
        streams: numbers of those to serve; all when not given.
        state: where to start, see :meth:`state_dict`; may hold other streams, too.
    """

    def __init__(
        self,
        rows: Sequence[TaskRows],
        sampler: Sampler,
        column: Column = "image_data",
        batch: int = 64,
        streams: Sequence[int] | None = None,
        state: Mapping[str, Any] | None = None,
    ) -> None:
        self._rows = rows
        self._sampler = sampler
        self._column: Column = column
        self._batch = batch
        self._streams = list(range(sampler.streams) if streams is None else streams)
        self._states = [
            sampler.start(stream) if state is None else StreamState.from_json(state[str(stream)])
            for stream in self._streams
        ]
        # Whole batches and whole rounds of the streams.
        self._unit = batch * len(self._streams) // gcd(batch, len(self._streams))
        self._used = self._first = 0
        self._media: list[memoryview] = []
        self._asking = ThreadPoolExecutor(1, "ask")
        self._asked: Future[None] = Future()
        self._asked.set_result(None)
        self._draw(batch)

    def __next__(self) -> Batch:
        if self._used == len(self._row):
            self._states = self._after
            self._draw(_DRAWS)
        if self._used == self._first + len(self._media):
            self._first = self._used
            part = slice(self._first, self._first + max(_MEDIA // self._batch, 1) * self._batch)
            self._media = self._views(self._task[part], self._row[part])
        part = slice(self._used, self._used + self._batch)
        media = self._media[part.start - self._first : part.stop - self._first]
        self._used = part.stop
        return Batch(self._task[part], self._row[part], self._epoch[part], media)

    def state_dict(self) -> dict[str, Any]:
        """Where the streams are after the last batch, as JSON."""
        rounds, more = divmod(self._used, len(self._streams))
        return {
            str(stream): self._sampler.advance(stream, state, rounds + (place < more)).as_json()
            for place, (stream, state) in enumerate(zip(self._streams, self._states, strict=True))
        }

    def _draw(self, count: int) -> None:
        """Make about `count` draws, of which none is used yet."""
        rounds = max(count // self._unit, 1) * self._unit // len(self._streams)
        drawn, self._after = next_block(self._sampler, self._streams, self._states, [rounds] * len(self._streams))
        self._task, self._row, self._epoch = (
            np.stack([getattr(draws, name) for draws in drawn], axis=1).reshape(-1) for name in ("task", "row", "epoch")
        )
        self._media = []
        self._used = self._first = 0

    def _views(self, task: Int64s, row: Int64s) -> list[memoryview]:
        """The media of drawn rows, asked for."""
        found: list[memoryview] = [_NOTHING] * len(task)
        wanted = []
        for number in sorted(set(task.tolist())):
            own = np.flatnonzero(task == number)
            for url, places, shard_rows in self._rows[number].by_shard(row[own]):
                shard = _shard_media(url, self._column)
                part, begin, end = shard.locate(shard_rows)
                wanted.append(np.stack([shard.address[part] + begin, shard.address[part] + end]))
                views = zip(own[places].tolist(), part.tolist(), begin.tolist(), end.tolist(), strict=True)
                for place, number_of_part, first, last in views:
                    found[place] = shard.views[number_of_part][first:last]
        # Of a single batch nothing can be asked for ahead. Whoever hands media on without a look at them is not held up
        # by a disk that is behind.
        if len(task) > self._batch and self._asked.done():
            self._asked = self._asking.submit(_ask_for, np.concatenate(wanted, axis=1))
        return found


_NOTHING = memoryview(b"")


class _ShardMedia:
    """Where the media of a shard's rows lie. Of each record batch that is learnt when one of its rows is asked for.

    Attributes:
        views: of the media of each record batch. address: of each view in memory, int64.
    """

    def __init__(self, url: str, column: Column) -> None:
        self._url, self._column = url, column
        self._memory = arrow_files.map_bytes(url)
        with _scattered(self._memory):
            # With all columns: pyarrow copies where it is asked for some.
            self._file = pa.ipc.open_file(self._memory)
        check_token_schema(self._file.schema, url)
        count = self._file.num_record_batches
        self._begin, self._end = np.empty((2, count * BATCH_ROWS), np.int64)
        self._missing = np.ones(count, np.bool_)
        self.views = [_NOTHING] * count
        self.address = np.zeros(count, np.int64)

    def locate(self, rows: Int64s) -> tuple[Int64s, Int64s, Int64s]:
        """Of some rows the view, and from where to where in it they are."""
        batch = rows // BATCH_ROWS
        if self._missing.any():
            with _scattered(self._memory):
                for number in sorted(set(batch[self._missing[batch]].tolist())):
                    self._learn(number)
        return batch, self._begin[rows], self._end[rows]

    def _learn(self, number: int) -> None:
        media = self._file.get_batch(number).column(self._column)
        if len(media) != BATCH_ROWS and number != len(self.views) - 1:
            raise IntegrityError(f"{self._url}: record batch {number} has {len(media)} rows, not {BATCH_ROWS}")
        # Not by `to_numpy`, which imports pandas. A batch of a file begins at the beginning of its buffers.
        _, list_ends, _, value_ends, data = media.buffers()
        lists = np.frombuffer(list_ends, np.int32, len(media) + 1)
        offsets = np.frombuffer(value_ends, np.int64, int(lists[-1]) + 1)
        # An empty list has no medium: nothing, where the next one would begin.
        last = np.maximum(lists[1:] - 1, lists[:-1])
        part = slice(number * BATCH_ROWS, number * BATCH_ROWS + len(media))
        self._begin[part] = offsets[last]
        self._end[part] = offsets[np.where(lists[1:] > lists[:-1], last + 1, last)]
        if data is not None:
            self.views[number], self.address[number] = memoryview(data), data.address
        self._missing[number] = False


_shard_media = lru_cache(maxsize=_OPEN_SHARDS)(_ShardMedia)


def _ask_for(stretches: Int64s) -> None:
    """Tell the kernel which mapped memory will be read: addresses from and to, int64 [2, n]."""
    begin, end = stretches[:, np.argsort(stretches[0])]
    if not len(begin):
        return
    reach = np.maximum.accumulate(end)
    first = np.flatnonzero(np.concatenate([[True], begin[1:] > reach[:-1] + _GAP_BYTES]))
    last = np.concatenate([first[1:], [len(begin)]]) - 1
    for start, stop in zip(begin[first].tolist(), reach[last].tolist(), strict=True):
        _advise(start, stop, mmap.MADV_WILLNEED)


@contextmanager
def _scattered(memory: pa.Buffer) -> Iterator[None]:
    """While single pages of a mapped file are looked at: the kernel would read megabytes around each."""
    ends = (memory.address, memory.address + memory.size)
    _advise(*ends, mmap.MADV_RANDOM)
    try:
        yield
    finally:
        _advise(*ends, mmap.MADV_NORMAL)


def _advise(start: int, stop: int, advice: int) -> None:
    """Tell the kernel how mapped memory will be read."""
    page = start // mmap.PAGESIZE * mmap.PAGESIZE
    # What is not mapped, such as a remote shard that was read whole, is refused, and that is all right.
    _LIBC.madvise(ctypes.c_void_p(page), ctypes.c_size_t(stop - page), ctypes.c_int(advice))


_LIBC = ctypes.CDLL(None)
