"""Packing: which pending examples share the next sequence, under several budgets at once.

Lengths only. Nothing is lost or cut: what does not fit now stays in its stream's pool, and the pool outlives the
sequence.

An example weighs what it takes of each budget, times the budget's price: the scarcer a budget, the dearer it is. The
heaviest example of the pool opens a sequence; then, while something fits, another joins. A freed place in the pool is
refilled at once, so every choice is among a full pool. So that none waits for ever, the oldest opens the sequence when
more than `patience` draws were made after it.

What waits in the pool is what does not fit well, which is not like what was drawn: while a stream has drawn little, a
large pool would make what it has packed so far unlike what was asked for. So a pool grows with its stream's draws.

How scarce budgets are, a stream learns from what it draws. By volume alone this would be misjudged: of examples that
take more than half of a budget, only one goes into a sequence, whatever room it leaves. So the load of a budget is the
larger of two means over what was drawn: of shares, and of shares rounded down to halves as the dual feasible function
u^(2) does (Fekete and Schepers, "New classes of fast lower bounds for bin packing problems", 2001): more than a third
counts as a half, more than two thirds as a whole.

Who joins depends on how many budgets are scarce:

* One: room is what matters. Of the eight heaviest that fit, that joins which weighs most together with the heaviest
  that would fit beside it, since of two that nearly fill a sequence the heavier may leave room that nothing else uses.
  A quarter of u^(3) is added to what examples weigh, so that three which exclude a fourth are taken together.
* Several: who excludes whom matters more than room. Halves are added to what examples weigh, and the heaviest joins.

On ties it is the heavier, then the older. All of it is whole numbers, which are the same on every machine.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from omnimill.errors import OmnimillError
from omnimill.rng import Int64s
from omnimill.training.packing.kernel import pack_stream
from omnimill.training.packing.settings import PackingSettings
from omnimill.training.planning.lengths import Budgets

# Of the order in which examples are packed: to be raised whenever that changes.
VERSION = 4


@dataclass(frozen=True)
class Packed:
    """What the sequences of V streams hold.

    order: int64 [V, C]; candidates in the order in which they were placed. ends: int64 [V, S]; how many of these had
    been placed when a sequence was full. heads: int64 [V, S]; how many candidates had come into the pool by then.
    sequences: int64 [V]; how many of these count, those of whole sequences. loads: int64 [V, S, 2, budgets]; after each
    sequence, see :func:`no_loads`.
    """

    order: Int64s
    ends: Int64s
    heads: Int64s
    sequences: Int64s
    loads: Int64s


def no_loads(streams: int) -> Int64s:
    """int64 [V, 2, budgets]: what streams know of their draws at first; later means, by volume and by halves."""
    return np.zeros((streams, 2, len(Budgets.model_fields)), np.int64)


def pack(
    costs: Int64s,
    draws: Int64s,
    available: Int64s,
    pending: Int64s,
    drawn: Int64s,
    settings: PackingSettings,
    most: int,
    loads: Int64s,
) -> Packed:
    """Fill sequences of several streams until a stream's candidates or `most` sequences are through.

    Args:
        costs: int64 [budgets, V, C]; of each stream's pending examples, oldest first, then of those that it draws next.
        draws: int64 [V, C]; their numbers among the stream's draws, which grow.
        available: int64 [V]; how many of the C candidates a stream has.
        pending: int64 [V]; how many of these are in its pool.
        drawn: int64 [V]; draws that it has made for these and all before, 0 at first.
        settings: budgets, size of the pool, and patience.
        most: sequences of a stream.
        loads: int64 [V, 2, budgets]; after the sequences before these, or :func:`no_loads`.

    Raises:
        OmnimillError: an example does not fit an empty sequence.
    """
    budgets, streams, columns = costs.shape
    limits = np.array(settings.budgets.limits)
    check_fit(costs, limits)
    order, slots = np.full((streams, columns), -1, np.int64), min(most, columns)
    ends, heads = np.zeros((2, streams, slots), np.int64)
    learnt = np.zeros((streams, slots, 2, budgets), np.int64)
    packed = Packed(order, ends, heads, np.zeros(streams, np.int64), learnt)
    by_stream, draws = np.array(costs.transpose(1, 2, 0), order="C"), np.array(draws, order="C")
    for one in range(streams):
        packed.sequences[one] = pack_stream(
            by_stream[one, : available[one]],
            draws[one, : available[one]],
            pending[one],
            drawn[one],
            limits,
            settings.pool,
            settings.patience,
            False,
            loads[one].copy(),
            order[one],
            ends[one],
            heads[one],
            learnt[one],
        )
    return packed


def check_fit(costs: Int64s, limits: Int64s) -> None:
    """Raise OmnimillError when an example (costs: int64 [budgets, …]) does not fit an empty sequence."""
    too_large = (costs > limits.reshape(-1, *[1] * (costs.ndim - 1))).any(axis=0)
    if too_large.any():
        found, budgets = tuple(costs[:, too_large][:, 0].tolist()), tuple(limits.tolist())
        raise OmnimillError(f"an example takes {found} of the budgets {budgets}: it cannot be packed even alone")
