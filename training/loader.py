"""The loader: packed batches of one worker's virtual streams, planned, read and decoded ahead of the training step.

Worker r of W serves the streams v with v mod W = r, in the order of v. What a stream holds does not depend on W, so a
state saved by any number of workers is taken up by any other.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from queue import Empty, Queue
from types import TracebackType
from typing import Any, Self

from omnimill.errors import BadRecord, ConfigError, IntegrityError
from omnimill.mixtures.course import Course
from omnimill.mixtures.ledger import Update
from omnimill.mixtures.rows import TaskRows
from omnimill.tokenizers.text import TextTokenizer
from omnimill.training.batch import PackedBatch
from omnimill.training.collate import collate
from omnimill.training.packing import PackingSettings
from omnimill.training.planner import PackedSequence, PlannedExample, VirtualStreams
from omnimill.training.render_settings import RenderSettings
from omnimill.training.rendering import Rendered

Step = tuple[int, PackedBatch, list[PackedSequence]]


@dataclass(frozen=True)
class _Planned:
    """A step that is being read: its sequences, the streams' states after it, and the examples to come."""

    sequences: list[PackedSequence]
    states: Callable[[], dict[str, Any]]
    examples: list[list[Future[Rendered]]]


class Loader(Iterator[Step]):
    """Iterates (step, batch, the sequences it was made from) for one worker, without end.

    Use it as a context manager, or call :meth:`close`: work goes on in background threads. What goes wrong there is
    raised where the next step is asked for.

    Args:
        course, text, packing, render: see `VirtualStreams`.
        rank, world: this worker and the number of workers, which must divide the number of streams.
        state: where to start: a :meth:`state_dict`, or :func:`merge_states` of those of several workers.
        ahead: steps that are being read and decoded at a time, at least 1, besides those that are ready.
        threads: for reading and decoding.

    Raises:
        ConfigError: as of `VirtualStreams`; or the streams cannot be shared equally; or `state` belongs to another
            order of examples or lacks one of the streams.
    """

    def __init__(
        self,
        course: Course,
        text: TextTokenizer,
        *,
        packing: PackingSettings,
        render: RenderSettings,
        rank: int = 0,
        world: int = 1,
        state: Mapping[str, Any] | None = None,
        ahead: int = 2,
        threads: int = 2,
    ) -> None:
        if course.streams % world:
            raise ConfigError(f"{course.streams} streams cannot be shared equally by {world} workers")
        self._streams = VirtualStreams(course, text, packing=packing, render=render)
        self._planner = self._streams.planner(range(rank, course.streams, world))
        self._ahead = ahead
        self._threads = threads
        if state is not None:
            self._restore(state)
        self._states = self._planner.snapshot()
        self._ready: Queue[tuple[_Planned, PackedBatch] | None] = Queue(maxsize=1)
        self._stop = threading.Event()
        self._failure: BaseException | None = None
        # A daemon: a program that ends without closing its loader must not hang.
        self._producer = threading.Thread(target=self._run, name="loader", daemon=True)

    def __next__(self) -> Step:
        """The next step; raises what went wrong in the background, located by task, example and shard."""
        if self._stop.is_set():
            raise StopIteration
        if not self._producer.ident:
            self._producer.start()
        item = self._ready.get()
        if item is None:
            self._ready.put(None)
            assert self._failure is not None
            raise self._failure
        planned, batch = item
        self._states = planned.states
        return planned.sequences[0].step, batch, planned.sequences

    def state_dict(self) -> dict[str, Any]:
        """Where this worker's streams are after the last step that was handed out, as JSON."""
        states = self._states()
        step = next(iter(states.values()))["step"]
        return {"order": self._streams.order(step), "streams": states}

    def weigh(self, update: Update, horizon: int) -> None:
        """Plan by a decision of online mixing from its step on; steps from `horizon` on wait for the next one."""
        self._streams.course.weigh(update)
        self.expect(horizon)

    def expect(self, horizon: int) -> None:
        """Say that the rates of steps from `horizon` on are still to be decided."""
        self._streams.course.timeline.horizon = horizon

    def close(self) -> None:
        """Stop the background work; afterwards iteration is at its end."""
        self._stop.set()
        while self._producer.is_alive():
            with suppress(Empty):
                self._ready.get(timeout=0.05)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _restore(self, state: Mapping[str, Any]) -> None:
        step = next(iter(state["streams"].values()))["step"]
        if state["order"] != self._streams.order(step):
            raise ConfigError(
                "the loader's state belongs to another order of examples: mixture and dataset versions up to its step, "
                "packing, render settings and number of streams must be those it was saved with"
            )
        for stream in self._planner.streams:
            if str(stream) not in state["streams"]:
                found = ", ".join(state["streams"])
                raise ConfigError(f"the loader's state lacks stream {stream}; it holds {found}")
        self._planner.restore(state["streams"])

    def _run(self) -> None:
        try:
            self._produce()
        except BaseException as error:  # noqa: BLE001 - whatever it is, the consumer raises it
            self._failure = error
            self._ready.put(None)

    def _produce(self) -> None:
        """Keep `ahead` steps planned and being read; hand them over in order until stopped."""
        pool = ThreadPoolExecutor(self._threads, thread_name_prefix="decode")
        under_way: deque[_Planned] = deque()
        try:
            while not self._stop.is_set():
                while len(under_way) < self._ahead:
                    under_way.append(self._begin(pool))
                planned = under_way.popleft()
                rendered = [[example.result() for example in examples] for examples in planned.examples]
                self._ready.put((planned, collate(rendered, self._streams.packing.budgets)))
        finally:
            pool.shutdown(cancel_futures=True)

    def _begin(self, pool: ThreadPoolExecutor) -> _Planned:
        sequences = next(self._planner)
        examples = [[pool.submit(self._render, item) for item in sequence.items] for sequence in sequences]
        return _Planned(sequences, self._planner.snapshot(), examples)

    def _render(self, item: PlannedExample) -> Rendered:
        rows: TaskRows = self._streams.rows[item.task]
        try:
            return self._streams.renderer.render(item.task, rows.fetch(item.row), item.epoch)
        except (BadRecord, IntegrityError) as error:
            raise IntegrityError(
                f"task {rows.task.name!r}, example {item.example_id} in {rows.shard(item.row)}: {error}"
            ) from error


def merge_states(states: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The states of all workers at one step as one, which any number of workers can start from.

    Raises:
        IntegrityError: they are of different steps or of different orders of examples.
    """
    streams = {stream: state for one in states for stream, state in one["streams"].items()}
    orders, steps = {one["order"] for one in states}, {state["step"] for state in streams.values()}
    if len(orders) != 1 or len(steps) != 1:
        raise IntegrityError(f"the workers' loader states disagree: steps {sorted(steps)}, {len(orders)} orders")
    return {"order": orders.pop(), "streams": dict(sorted(streams.items(), key=lambda item: int(item[0])))}
