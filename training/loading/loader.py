"""The loader: packed batches of one worker's virtual streams, planned, read and decoded ahead of the training step.

Worker r of W serves the streams v with v mod W = r, in the order of v. What a stream holds does not depend on W, so a
state saved by any number of workers is taken up by any other.

One thread plans, some steps ahead, and has the shards of a remote root fetched; a pool of threads reads and decodes the
examples of the next few steps; another thread lays them out as batches and begins to copy them to the device.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from types import TracebackType
from typing import Any, Self

import torch

from omnimill.errors import BadRecord, ConfigError, IntegrityError
from omnimill.mixtures.course import Course
from omnimill.mixtures.ledger import Update
from omnimill.mixtures.rows import TaskRows
from omnimill.tokenizers.text import TextTokenizer
from omnimill.training.loading.background import Background
from omnimill.training.loading.batch import PackedBatch
from omnimill.training.loading.collate import collate
from omnimill.training.loading.settings import LoaderSettings
from omnimill.training.loading.shard_use import ShardUse
from omnimill.training.loading.transfer import Arriving, Transfer
from omnimill.training.packing.settings import PackingSettings
from omnimill.training.planning.planner import PackedSequence, PlannedExample, VirtualStreams
from omnimill.training.rendering.pairs import Rendered
from omnimill.training.rendering.settings import RenderSettings

Step = tuple[int, PackedBatch, list[PackedSequence]]


@dataclass(frozen=True)
class _Planned:
    """What a step holds, the streams' states after it, and the shards that it reads."""

    sequences: list[PackedSequence]
    states: Callable[[], dict[str, Any]]
    shards: list[str]


class Loader(Iterator[Step]):
    """Iterates (step, batch, the sequences it was made from) for one worker, without end.

    Use it as a context manager, or call :meth:`close`: work goes on in background threads. What goes wrong there is
    raised where the next step is asked for.

    Args:
        course, text, packing, render: see `VirtualStreams`.
        rank, world: this worker and the number of workers, which all have a stream at least.
        state: where to start: a :meth:`state_dict`, or :func:`merge_states` of those of several workers.
        settings: how much is made ahead.
        threads: for reading and decoding, where the settings do not say.
        device: where batches are brought; they stay in this process's memory when not given.

    Raises:
        ConfigError: as of `VirtualStreams`; or there are more workers than streams; or `state` belongs to another
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
        settings: LoaderSettings | None = None,
        threads: int = 1,
        device: torch.device | None = None,
    ) -> None:
        if course.streams < world:
            raise ConfigError(f"{course.streams} streams cannot be shared by {world} workers")
        self._streams = VirtualStreams(course, text, packing=packing, render=render)
        self._planner = self._streams.planner(range(rank, course.streams, world))
        if state is not None:
            self._restore(state)
        self._states = self._planner.snapshot()
        settings = settings or LoaderSettings()
        self._ahead = settings.ahead
        self._threads = settings.threads or threads
        self._shards = ShardUse(settings)
        self._transfer = Transfer(device or torch.device("cpu"))
        self._decided = threading.Condition()
        self._closed = False
        self._plans = Background(self._plan(), settings.plan_ahead, "plan")
        self._batches = Background(self._make(), 1, "loader")

    def __next__(self) -> Step:
        """The next step; raises what went wrong in the background, located by task, example and shard."""
        planned, batch = next(self._batches)
        self._states = planned.states
        return planned.sequences[0].step, batch.take(), planned.sequences

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
        with self._decided:
            self._streams.course.timeline.horizon = horizon
            self._decided.notify_all()

    def close(self) -> None:
        """Stop the background work; afterwards iteration is at its end."""
        with self._decided:
            self._closed = True
            self._decided.notify_all()
        self._plans.end()
        self._batches.end()
        # What waits for a shard that is being fetched must not hold this up.
        self._shards.close()
        self._batches.close()
        self._plans.close()

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

    def _plan(self) -> Generator[_Planned]:
        """Steps as they are planned; those whose rates are not decided yet are waited for."""
        while self._is_decided():
            sequences = next(self._planner)
            items = (item for sequence in sequences for item in sequence.items)
            # Each once, in the order in which they are read.
            shards = list(dict.fromkeys(self._streams.rows[item.task].shard(item.row) for item in items))
            self._shards.hold(shards)
            yield _Planned(sequences, self._planner.snapshot(), shards)

    def _is_decided(self) -> bool:
        """Wait until the next step's rates are known; False when the loader was closed meanwhile."""
        timeline = self._streams.course.timeline
        with self._decided:
            self._decided.wait_for(
                lambda: self._closed or timeline.horizon is None or self._planner.step < timeline.horizon
            )
            return not self._closed

    def _make(self) -> Generator[tuple[_Planned, Arriving]]:
        """Batches of planned steps, of which `ahead` are being decoded at a time."""
        # PyTorch's number of threads is each thread's own: with more than one, those of the pool and those of the step
        # would fight over the cores.
        alone = partial(torch.set_num_threads, 1)
        alone()
        pool = ThreadPoolExecutor(self._threads, thread_name_prefix="decode", initializer=alone)
        under_way: deque[tuple[_Planned, list[list[Future[Rendered]]]]] = deque()
        try:
            while True:
                # Planning may itself be waiting for what training does with these steps.
                if len(under_way) == self._ahead or (under_way and not self._plans.waiting):
                    yield self._finish(*under_way.popleft())
                elif (planned := next(self._plans, None)) is not None:
                    under_way.append((planned, self._begin(pool, planned)))
                else:
                    return
        finally:
            pool.shutdown(cancel_futures=True)

    def _begin(self, pool: ThreadPoolExecutor, planned: _Planned) -> list[list[Future[Rendered]]]:
        return [[pool.submit(self._render, item) for item in sequence.items] for sequence in planned.sequences]

    def _finish(self, planned: _Planned, examples: list[list[Future[Rendered]]]) -> tuple[_Planned, Arriving]:
        rendered = [[example.result() for example in sequence] for sequence in examples]
        batch = collate(rendered, self._streams.packing.budgets)
        self._shards.release(planned.shards)
        return planned, self._transfer.begin(batch)

    def _render(self, item: PlannedExample) -> Rendered:
        rows: TaskRows = self._streams.rows[item.task]
        try:
            content = rows.fetch(item.row, self._shards.open)
            return self._streams.renderer.render(item.task, content, item.epoch)
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
