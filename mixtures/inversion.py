"""From a row back to its draws: who reads it, and when."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from omnimill.mixtures.sampler import Draw, Sampler, StreamState
from omnimill.mixtures.shares import owner


def locate(
    sampler: Sampler, task: int, row: int, epoch: int, state_of: Callable[[int], StreamState] | None = None
) -> tuple[int, int]:
    """Who draws a row of a task for the `epoch`-th time (from 0).

    Args:
        state_of: state of a stream, for the passes with which additions came in; that before the first draw when not
            given. Rates do not matter.

    Returns:
        The stream, and k: it is the stream's k-th draw (from 0) of that task.

    Raises:
        IndexError: there is no such row, or it is not drawn so often, or its addition has not joined the share yet.
    """
    if not 0 <= row < sampler.sizes[task]:
        raise IndexError(f"task {task} has {sampler.sizes[task]} rows, asked for row {row}")
    stream, _ = owner(sampler.layouts[task], row, epoch)
    state = (state_of or sampler.start)(stream)
    return stream, sampler.share(stream, task, state).position(row, epoch)


def index_of(sampler: Sampler, stream: int, task: int, k: int, state: StreamState | None = None) -> int | None:
    """Which of a stream's draws is its k-th (from 0) of a task, at the sampler's rates.

    Args:
        state: to look from; that of the first draw when not given. The draw must not be before it.

    Returns:
        The draw's number; None when the task's cap or rate lets it never come.
    """
    for begin, circle, length in sampler.spans(stream, sampler.start(stream) if state is None else state, None):
        if not circle.width(task):
            continue
        point, wanted = sampler.point(stream, begin.draws), k - begin.taken[task]
        if length is None or circle.count(point, task, length) > wanted:
            return begin.draws + circle.index_of(point, task, wanted)
    return None


def draws_of(sampler: Sampler, task: int, row: int, draws: Sequence[int]) -> Iterator[Draw]:
    """Every draw of a row while stream v makes its first ``draws[v]`` draws, by epoch."""
    epoch, out = 0, 0
    _, owners = owner(sampler.layouts[task], row, 0)
    # Owners of a shared row need not be equally far: stop when each of them has run out.
    while out < owners:
        try:
            stream, k = locate(sampler, task, row, epoch)
        except IndexError:
            return  # beyond the cap
        index = index_of(sampler, stream, task, k)
        if index is None or index >= draws[stream]:
            out += 1
        else:
            out = 0
            yield Draw(stream, index, task, row, epoch)
        epoch += 1
