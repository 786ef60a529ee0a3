"""Packing as plain loops over one stream: what the packer has to choose."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol, TypeVar

from omnimill.training.packing import PackingSettings


class Pending(Protocol):
    """Anything with a cost per budget, in the order of `Budgets.limits`."""

    @property
    def costs(self) -> tuple[int, ...]: ...


T = TypeVar("T", bound=Pending)


def pack_plainly(pool: list[T], draw: Callable[[], T], settings: PackingSettings) -> list[T]:
    """One sequence from a stream's pool (pending examples, oldest first; changed in place); `draw` gives the next."""
    left = settings.budgets.limits
    chosen: list[T] = []
    while True:
        while len(pool) < settings.pool:
            pool.append(draw())
        place = _best(pool, left) if chosen else 0
        if place is None:
            return chosen
        costs = pool[place].costs
        assert _fits(costs, left), "an example does not fit an empty sequence"
        left = tuple(room - cost for room, cost in zip(left, costs, strict=True))
        chosen.append(pool.pop(place))


def _fits(costs: Sequence[int], left: Sequence[int]) -> bool:
    return all(cost <= room for cost, room in zip(costs, left, strict=True))


def _best(pool: Sequence[Pending], left: Sequence[int]) -> int | None:
    """Place in the pool of the largest example that fits; None when none does."""
    fitting = [(sum(item.costs[:2]), -place) for place, item in enumerate(pool) if _fits(item.costs, left)]
    return -max(fitting)[1] if fitting else None
