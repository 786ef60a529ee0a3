"""Packing: which pending examples share the next sequence, under several budgets at once.

Lengths only. Nothing is lost or cut: what does not fit now stays in the pool, and the pool outlives the sequence.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol, TypeVar

from pydantic import Field

from omnimill.config import Config
from omnimill.errors import OmnimillError
from omnimill.training.lengths import Budgets


class Pending(Protocol):
    """Anything with a cost per budget, in the order of `Budgets.limits`."""

    @property
    def costs(self) -> tuple[int, ...]: ...


T = TypeVar("T", bound=Pending)


class PackingSettings(Config):
    """budgets: room in one packed sequence. pool: pending examples of a stream to choose from."""

    budgets: Budgets = Budgets()
    pool: int = Field(default=16, ge=1)


def pack(pool: list[T], draw: Callable[[], T], settings: PackingSettings) -> list[T]:
    """Fill one sequence from a stream's pool.

    The oldest pending example goes in first, so that each is placed at most `settings.pool` sequences after the one
    during which it was drawn. Then, while something fits, the one with the most tokens (encoder and decoder together,
    the oldest on ties) joins. A freed place in the pool is refilled at once, so every choice is among `settings.pool`
    examples.

    Args:
        pool: pending examples, oldest first; changed in place.
        draw: gives the stream's next example.
        settings: budgets and size of the pool.

    Returns:
        The sequence's examples in the order in which they were chosen; at least one.

    Raises:
        OmnimillError: an example does not fit an empty sequence.
    """
    left = settings.budgets.limits
    chosen: list[T] = []
    while True:
        while len(pool) < settings.pool:
            pool.append(draw())
        place = _best(pool, left) if chosen else 0
        if place is None:
            return chosen
        costs = pool[place].costs
        if not _fits(costs, left):
            raise OmnimillError(f"an example takes {costs} of the budgets {left}: it cannot be packed even alone")
        left = tuple(room - cost for room, cost in zip(left, costs, strict=True))
        chosen.append(pool.pop(place))


def _fits(costs: Sequence[int], left: Sequence[int]) -> bool:
    return all(cost <= room for cost, room in zip(costs, left, strict=True))


def _best(pool: Sequence[Pending], left: Sequence[int]) -> int | None:
    """Place in the pool of the largest example that fits; None when none does."""
    fitting = [(sum(item.costs[:2]), -place) for place, item in enumerate(pool) if _fits(item.costs, left)]
    return -max(fitting)[1] if fitting else None
