"""Keyed permutations of range(n) that are computed, not stored, and that can be inverted.

An alternating Feistel network over Z_a x Z_b with modular addition (FE2 of Bellare, Ristenpart, Rogaway and Stegers,
"Format-Preserving Encryption", 2009), a and b close to sqrt(n), with cycle walking (Black and Rogaway, "Ciphers with
Arbitrary Finite Domains", 2002): a*b exceeds n by less than a, so hardly any index is walked twice. It orders data
evenly; it is not meant to keep secrets.

Every function comes for one index (Python integers) and for many (NumPy, uint64); both give the same numbers on every
platform.
"""

from __future__ import annotations

from collections.abc import Callable
from math import isqrt

import numpy as np

from omnimill.rng import UInt64s, mix, mix_many

LARGEST = 1 << 63
_MASK = (1 << 64) - 1
_ROUND_KEYS = tuple((number * 0x9E3779B97F4A7C15) & _MASK for number in range(1, 17))
# With fewer rounds, 400,000 keys show that pairs of elements (n >= 64) or whole orders (n < 64) are not equally likely.
_ROUNDS = 8
_ROUNDS_BELOW_64 = 16


class Permutation:
    """A family of permutations of range(n); a 64-bit key chooses one.

    Args:
        n: 1 … 2^63.
    """

    def __init__(self, n: int) -> None:
        if not 1 <= n <= LARGEST:
            raise ValueError(f"a permutation needs 1 to 2^63 elements, found {n}")
        self.n = n
        self._a = isqrt(n - 1) + 1
        self._b = -(-n // self._a)
        keys = _ROUND_KEYS[: _ROUNDS if n >= 64 else _ROUNDS_BELOW_64]
        self._rounds = tuple(zip(keys[::2], keys[1::2], strict=True))

    def forward(self, index: int, key: int) -> int:
        """The element at place `index` in the order that `key` chooses."""
        return self._walk(self._encrypt, index, key)

    def inverse(self, element: int, key: int) -> int:
        """The place of `element` in the order that `key` chooses."""
        return self._walk(self._decrypt, element, key)

    def forward_many(self, indices: UInt64s, keys: int | UInt64s) -> UInt64s:
        """:func:`forward` of many indices, under one key or one each."""
        return self._walk_many(self._encrypt_many, indices, keys)

    def inverse_many(self, elements: UInt64s, keys: int | UInt64s) -> UInt64s:
        """:func:`inverse` of many elements, under one key or one each."""
        return self._walk_many(self._decrypt_many, elements, keys)

    def _walk(self, step: Callable[[int, int], int], index: int, key: int) -> int:
        if not 0 <= index < self.n:
            raise IndexError(f"{index} is outside range({self.n})")
        index = step(index, key)
        while index >= self.n:
            index = step(index, key)
        return index

    def _walk_many(self, step: Callable[[UInt64s, UInt64s], UInt64s], indices: UInt64s, keys: int | UInt64s) -> UInt64s:
        if indices.size and int(indices.max()) >= self.n:
            raise IndexError(f"{indices.max()} is outside range({self.n})")
        keys = np.broadcast_to(np.asarray(keys, dtype=np.uint64), indices.shape)
        moved = step(indices, keys)
        outside = np.flatnonzero(moved >= self.n)
        while outside.size:
            moved[outside] = step(moved[outside], keys[outside])
            outside = outside[moved[outside] >= self.n]
        return moved

    def _encrypt(self, index: int, key: int) -> int:
        a, b = self._a, self._b
        left, right = divmod(index, b)
        for even, odd in self._rounds:
            left = (left + mix((key + even + right) & _MASK)) % a
            right = (right + mix((key + odd + left) & _MASK)) % b
        return left * b + right

    def _decrypt(self, index: int, key: int) -> int:
        a, b = self._a, self._b
        left, right = divmod(index, b)
        for even, odd in reversed(self._rounds):
            right = (right - mix((key + odd + left) & _MASK)) % b
            left = (left - mix((key + even + right) & _MASK)) % a
        return left * b + right

    def _encrypt_many(self, indices: UInt64s, keys: UInt64s) -> UInt64s:
        a, b = np.uint64(self._a), np.uint64(self._b)
        left, right = np.divmod(indices, b)
        for even, odd in self._rounds:
            left = (left + mix_many(keys + np.uint64(even) + right) % a) % a
            right = (right + mix_many(keys + np.uint64(odd) + left) % b) % b
        return left * b + right

    def _decrypt_many(self, indices: UInt64s, keys: UInt64s) -> UInt64s:
        a, b = np.uint64(self._a), np.uint64(self._b)
        left, right = np.divmod(indices, b)
        for even, odd in reversed(self._rounds):
            right = (right + b - mix_many(keys + np.uint64(odd) + left) % b) % b
            left = (left + a - mix_many(keys + np.uint64(even) + right) % a) % a
        return left * b + right
