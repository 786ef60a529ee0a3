"""Examples to token rows while networks never wait: threads prepare examples, one thread runs the networks.

Examples come in chunks from any number of threads. What is to be encoded is gathered by network, across chunks, into
full batches; a batch is cut short only when nothing more is on its way. Since a batch has one shape whatever is in it,
codes do not depend on what was gathered. The number of media that are on their way is bounded, and so is memory.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from omnimill.errors import BadRecord
from omnimill.schema import Example
from omnimill.tokenizers.encode import ALL_PARTS, NETWORKS, Input, Network, Prepared, Rejected, prepare
from omnimill.tokenizers.store import Tokenizers
from omnimill.tokenizers.vq import Batches, CodeArray, as_codes
from omnimill.tokens import PARTS, TOKEN_SCHEMA

# Media on their way: batches for the networks, and what each thread may have finished ahead of them.
_BATCHES_AHEAD = 3
_MEDIA_PER_THREAD = 16


@dataclass(frozen=True)
class Encoded:
    """What became of a chunk of examples.

    rows: columns of the wanted parts, and those that no part names. kept: index in the chunk of each row.
    """

    rows: pa.Table
    kept: list[int]
    rejected: list[Rejected]


class Encoder:
    """Encodes chunks of examples; to be closed after use.

    Args:
        tokenizers: the set.
        jpeg_quality: of stored pictures.
        threads: that prepare examples.
    """

    def __init__(self, tokenizers: Tokenizers, jpeg_quality: int = 95, threads: int = 1) -> None:
        self._tokenizers = tokenizers
        self._jpeg_quality = jpeg_quality
        # A new thread does not know how many threads PyTorch's matrix products may use.
        own = (torch.get_num_threads(),)
        self._pool = ThreadPoolExecutor(threads, "prepare", initializer=torch.set_num_threads, initargs=own)
        networks: dict[Network, Batches] = {}
        if tokenizers.image_codes is not None:
            networks["image"] = tokenizers.image_codes.encoder
        if tokenizers.audio_codes is not None:
            networks["audio"] = tokenizers.audio_codes.encoder
        self._networks = _Networks(networks)
        batch = max((one.size for one in networks.values()), default=0)
        self._room = _Room(_BATCHES_AHEAD * batch + _MEDIA_PER_THREAD * threads)

    def submit(
        self, load: Callable[[], Sequence[Example]], media: int, parts: Collection[str] = ALL_PARTS
    ) -> Callable[[], Encoded]:
        """Have a chunk encoded; blocks while too much is on its way.

        Args:
            load: called on a thread, gives the examples.
            media: how many pictures and clips they hold.
            parts: that are wanted (`omnimill.tokens.PARTS`).

        Returns:
            What waits for the outcome; it raises what went wrong, for example OmnimillError when the set lacks a
            network that the examples need.
        """
        weight = max(media, 1)
        self._room.take(weight)
        self._networks.expect()
        prepared = self._pool.submit(self._prepare, load, weight, frozenset(parts))
        return lambda: prepared.result().encoded()

    def close(self) -> None:
        """End the threads, once what was submitted is done."""
        self._pool.shutdown()
        self._networks.close()

    def _prepare(self, load: Callable[[], Sequence[Example]], weight: int, parts: frozenset[str]) -> _Chunk:
        inputs: list[tuple[Network, Input]] = []
        chunk = _Chunk(parts)
        try:
            for index, example in enumerate(load()):
                try:
                    row = prepare(example, self._tokenizers, self._jpeg_quality, parts)
                except BadRecord as bad:
                    chunk.rejected.append(Rejected(example, bad))
                    continue
                chunk.add(index, row)
                inputs += [(NETWORKS[part], one) for part, found in row.inputs.items() for one in found]
                row.inputs.clear()
            self._need({network for network, _ in inputs})
        except BaseException:
            inputs.clear()
            raise
        finally:
            chunk.codes = self._networks.submit(inputs)
            chunk.codes.add_done_callback(lambda _: self._room.give(weight))
        return chunk

    def _need(self, networks: Collection[Network]) -> None:
        """Raises OmnimillError when the set lacks one."""
        for network in networks:
            _ = self._tokenizers.image if network == "image" else self._tokenizers.audio


class _Chunk:
    """Prepared rows whose codes are on their way."""

    def __init__(self, parts: frozenset[str]) -> None:
        self.rejected: list[Rejected] = []
        self.codes: Future[list[CodeArray]] = Future()
        self._rows: list[tuple[int, Prepared, dict[str, int]]] = []
        wanted = {column for part in parts for column in PARTS[part]}
        named = {column for columns in PARTS.values() for column in columns}
        fields = [field for field in TOKEN_SCHEMA if field.name in wanted or field.name not in named]
        self._schema = pa.schema(fields, TOKEN_SCHEMA.metadata)

    def add(self, index: int, row: Prepared) -> None:
        self._rows.append((index, row, {part: len(found) for part, found in row.inputs.items()}))

    def encoded(self) -> Encoded:
        codes = iter(self.codes.result())
        rows = [
            row.row({part: [next(codes) for _ in range(count)] for part, count in counts.items()})
            for _, row, counts in self._rows
        ]
        return Encoded(pa.Table.from_pylist(rows, self._schema), [index for index, _, _ in self._rows], self.rejected)


class _Room:
    """So many places; who asks for more than there are at all gets them once all are free."""

    def __init__(self, places: int) -> None:
        self._places = places
        self._taken = 0
        self._freed = threading.Condition()

    def take(self, count: int) -> None:
        with self._freed:
            self._freed.wait_for(lambda: not self._taken or self._taken + count <= self._places)
            self._taken += count

    def give(self, count: int) -> None:
        with self._freed:
            self._taken -= count
            self._freed.notify_all()


class _Group:
    """Codes of one chunk, as they come."""

    def __init__(self, count: int) -> None:
        self.future: Future[list[CodeArray]] = Future()
        self._codes: dict[int, CodeArray] = {}
        self._count = count
        self._settle()

    def put(self, index: int, codes: CodeArray) -> None:
        self._codes[index] = codes
        self._settle()

    def fail(self, fault: BaseException) -> None:
        if not self.future.done():
            self.future.set_exception(fault)

    def _settle(self) -> None:
        if len(self._codes) == self._count and not self.future.done():
            self.future.set_result([self._codes[index] for index in range(self._count)])


_Waiting = tuple[Input, _Group, int]


class _Networks:
    """Runs networks on one thread, on full batches of what other threads hand over."""

    def __init__(self, networks: Mapping[Network, Batches]) -> None:
        self._networks = networks
        self._ahead = max((one.ahead for one in networks.values()), default=1)
        self._waiting: dict[Network, deque[_Waiting]] = {name: deque() for name in networks}
        self._expected = 0
        self._closed = False
        self._changed = threading.Condition()
        self._threads = torch.get_num_threads()
        self._thread = threading.Thread(target=self._serve, name="networks", daemon=True)
        self._thread.start()

    def expect(self) -> None:
        """Inputs will come: until they have been submitted, no batch is cut short."""
        with self._changed:
            self._expected += 1

    def submit(self, inputs: Sequence[tuple[Network, Input]]) -> Future[list[CodeArray]]:
        """Inputs that were expected; the future gives their codes in the same order."""
        group = _Group(len(inputs))
        with self._changed:
            self._expected -= 1
            for index, (network, one) in enumerate(inputs):
                self._waiting[network].append((one, group, index))
            self._changed.notify_all()
        return group.future

    def close(self) -> None:
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        self._thread.join()

    def _serve(self) -> None:
        torch.set_num_threads(self._threads)
        running: deque[tuple[list[_Waiting], Callable[[], Tensor]]] = deque()
        while True:
            with self._changed:
                self._changed.wait_for(lambda: running or self._closed or self._ready() is not None)
                network = self._ready()
                batch = [] if network is None else self._take(network)
            if network is not None:
                with _told(batch):
                    running.append((batch, self._start(network, batch)))
            elif not running:
                return
            while running and (network is None or len(running) >= self._ahead):
                batch, finish = running.popleft()
                with _told(batch):
                    _hand_out(batch, finish())

    def _ready(self) -> Network | None:
        """The network to run next: the one with most that fills a batch, or with anything when no more is expected."""
        least = {name: 1 if not self._expected else one.size for name, one in self._networks.items()}
        found = [name for name, waiting in self._waiting.items() if len(waiting) >= least[name]]
        return max(found, key=lambda name: len(self._waiting[name]), default=None)

    def _take(self, network: Network) -> list[_Waiting]:
        waiting = self._waiting[network]
        return [waiting.popleft() for _ in range(min(self._networks[network].size, len(waiting)))]

    def _start(self, network: Network, batch: Sequence[_Waiting]) -> Callable[[], Tensor]:
        return self._networks[network].start(torch.from_numpy(np.stack([one for one, _, _ in batch])))


def _hand_out(batch: Sequence[_Waiting], results: Tensor) -> None:
    for (_, group, index), codes in zip(batch, as_codes(results), strict=True):
        group.put(index, codes)


@contextmanager
def _told(batch: Iterable[_Waiting]) -> Iterator[None]:
    """What goes wrong with a batch is told to those who wait for it."""
    try:
        yield
    except Exception as fault:  # noqa: BLE001 - raised where the chunk's outcome is asked for
        for _, group, _ in batch:
            group.fail(fault)
