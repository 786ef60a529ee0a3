"""The order in which a stretch of rows is read: shuffled in windows, so that reads stay nearly sequential."""

from __future__ import annotations

import numpy as np

from omnimill.mixtures.permutation import Permutation
from omnimill.rng import UInt64s, subkey, subkey_many

_WINDOWS, _ROWS, _ROTATION = 0, 1, 2


class WindowedOrder:
    """A family of orders of range(size); a 64-bit key chooses one.

    The rows are cut into windows of `window` consecutive rows (counted from a place that the key chooses, around the
    end), the windows are permuted, and so are the rows inside each. What is left over when `window` does not divide
    `size` is a shorter window that comes last. While a window is read, nothing outside it is.
    """

    def __init__(self, size: int, window: int) -> None:
        self.size = size
        self.window = min(window, size)
        self._full, rest = divmod(size, self.window)
        self._windows = Permutation(self._full)
        self._inside = Permutation(self.window)
        self._rest = Permutation(rest) if rest else None

    def forward(self, position: int, key: int) -> int:
        """The row at a position."""
        slot, inside = divmod(position, self.window)
        last = slot == self._full
        window = slot if last else self._windows.forward(slot, subkey(key, _WINDOWS))
        inside = self._permutation(last).forward(inside, subkey(key, _ROWS, window))
        return (window * self.window + inside + subkey(key, _ROTATION) % self.size) % self.size

    def inverse(self, row: int, key: int) -> int:
        """The position of a row."""
        window, inside = divmod((row - subkey(key, _ROTATION)) % self.size, self.window)
        last = window == self._full
        inside = self._permutation(last).inverse(inside, subkey(key, _ROWS, window))
        slot = window if last else self._windows.inverse(window, subkey(key, _WINDOWS))
        return slot * self.window + inside

    def forward_many(self, positions: UInt64s, keys: UInt64s) -> UInt64s:
        """:meth:`forward` of many positions, each under its own key."""
        size, width = np.uint64(self.size), np.uint64(self.window)
        slots, inside = np.divmod(positions, width)
        windows, shuffled = slots.copy(), np.empty_like(inside)
        full = slots < self._full
        windows[full] = self._windows.forward_many(slots[full], subkey_many(keys[full], _WINDOWS))
        row_keys = subkey_many(subkey_many(keys, _ROWS), windows)
        shuffled[full] = self._inside.forward_many(inside[full], row_keys[full])
        if self._rest:
            shuffled[~full] = self._rest.forward_many(inside[~full], row_keys[~full])
        # Both terms are below 2^63, so the sum does not wrap.
        return (windows * width + shuffled + subkey_many(keys, _ROTATION) % size) % size

    def _permutation(self, last: bool) -> Permutation:
        return self._rest if last and self._rest else self._inside
