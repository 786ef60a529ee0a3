"""Packing as plain loops over one stream: what the packer has to choose."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Generic, Protocol, TypeVar

from omnimill.training.packing.settings import PackingSettings


class Pending(Protocol):
    """Anything with a cost per budget, in the order of `Budgets.limits`."""

    @property
    def costs(self) -> tuple[int, ...]: ...

    @property
    def drawn(self) -> int:
        """Its number among the stream's draws."""
        ...


T = TypeVar("T", bound=Pending)
WHOLE, PRICE = 1 << 24, 1 << 16


class PlainPacker(Generic[T]):
    """Packs a stream's examples as `draw` gives them.

    Attributes:
        pool: pending examples, oldest first; may be changed between sequences.
        drawn: draws that were made.
        loads: by budget, the means of what was drawn: by volume, and rounded down to halves.
    """

    def __init__(self, draw: Callable[[], T], settings: PackingSettings) -> None:
        self.pool: list[T] = []
        self._draw, self._settings = draw, settings
        self.drawn = 0
        self._limits = settings.budgets.limits
        self.loads = [(0, 0)] * len(self._limits)

    def next_sequence(self) -> list[T]:
        # Full already, but at first and where selections emptied places.
        while self._has_room():
            self._fill_one()
        prices = self._prices()
        chosen = [self._take(self._first(prices))]
        while True:
            while self._has_room():
                self._fill_one()
            left = [m - sum(item.costs[i] for item in chosen) for i, m in enumerate(self._limits)]
            fitting = [place for place, item in enumerate(self.pool) if _fits(item.costs, left)]
            if not fitting:
                return chosen
            heaviest = sorted(fitting, key=lambda place: (self._weight(place, prices), -place), reverse=True)
            if one_is_scarce(prices):
                joins = max(heaviest[:8], key=lambda place: self._with_another(place, fitting, left, prices))
            else:
                joins = heaviest[0]
            chosen.append(self._take(joins))

    def _has_room(self) -> bool:
        return len(self.pool) < min(self._settings.pool, max(16, self.drawn // 4))

    def _fill_one(self) -> None:
        self.pool.append(item := self._draw())
        self.drawn = item.drawn + 1
        known = min(self.drawn, 1024)
        self.loads = [
            (volume + (new[0] - volume) // known, halves + (new[1] - halves) // known)
            for (volume, halves), new in zip(self.loads, self._shares(item.costs), strict=True)
        ]

    def _first(self, prices: list[int]) -> int:
        if self.drawn - 1 - self.pool[0].drawn > self._settings.patience:
            return 0
        return max(range(len(self.pool)), key=lambda place: (self._weight(place, prices), -place))

    def _take(self, place: int) -> T:
        item = self.pool.pop(place)
        assert _fits(item.costs, self._limits), "an example does not fit an empty sequence"
        return item

    def _weight(self, place: int, prices: list[int]) -> int:
        found = 0
        for cost, limit, price in zip(self.pool[place].costs, self._limits, prices, strict=True):
            found += cost * (price * 1024 // max(limit, 1))
            if one_is_scarce(prices):
                found += min(4 * cost // max(limit, 1), 3) * (price * 1024 // 12)
            else:
                found += min(3 * cost // max(limit, 1), 2) * (price * 1024 // 2)
        return found

    def _with_another(self, place: int, fitting: list[int], left: list[int], prices: list[int]) -> int:
        """What an example weighs together with the heaviest that fits beside it."""
        room = [have - cost for have, cost in zip(left, self.pool[place].costs, strict=True)]
        beside = [other for other in fitting if other != place and _fits(self.pool[other].costs, room)]
        return self._weight(place, prices) + max((self._weight(other, prices) for other in beside), default=0)

    def _prices(self) -> list[int]:
        loads = [max(both) for both in self.loads]
        prices = [(load * 64 // max(*loads, 1) * (PRICE // 64)) ** 3 // PRICE**2 for load in loads]
        for _ in range(2):
            prices = [price * price // PRICE for price in prices]
        return prices

    def _shares(self, costs: Sequence[int]) -> list[tuple[int, int]]:
        return [
            (cost * WHOLE // max(limit, 1), min(3 * cost // max(limit, 1), 2) * WHOLE // 2)
            for cost, limit in zip(costs, self._limits, strict=True)
        ]


def one_is_scarce(prices: list[int]) -> bool:
    return sum(price >= PRICE // 16 for price in prices) < 2


def _fits(costs: Sequence[int], left: Sequence[int]) -> bool:
    return all(cost <= room for cost, room in zip(costs, left, strict=True))
