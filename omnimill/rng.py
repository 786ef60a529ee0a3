"""Counter-based randomness: every random choice is a pure function of named keys.

Nothing in the project keeps generator state between records, so the order in which work is done, the number
of workers and restarts cannot change a draw.

Keys of a few things that have names are hashed (`digest64`). Keys of what is counted in billions are derived from
one another by integer arithmetic (`subkey`), for one key (Python integers) and for many (NumPy, uint64); both give the
same numbers on every platform.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from blake3 import blake3

Key = str | int
UInt64s = npt.NDArray[np.uint64]
Int64s = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

_MASK = (1 << 64) - 1
_GOLDEN = 0x9E3779B97F4A7C15
_MIX_A = 0xBF58476D1CE4E5B9
_MIX_B = 0x94D049BB133111EB
_SHIFT_1, _SHIFT_2, _SHIFT_3 = np.uint64(30), np.uint64(27), np.uint64(31)
_FACTOR_A, _FACTOR_B = np.uint64(_MIX_A), np.uint64(_MIX_B)


def digest64(*keys: Key) -> int:
    """An unsigned 64-bit hash of the keys, the same on every platform and Python version."""
    payload = "\x1f".join(f"{type(key).__name__}:{key}" for key in keys)
    return int.from_bytes(blake3(payload.encode()).digest(length=8), "little")


def uniform(*keys: Key) -> float:
    """A float in [0, 1) that depends on the keys alone."""
    return unit(digest64(*keys))


def generator(*keys: Key) -> np.random.Generator:
    """A NumPy generator (Philox, counter based) whose stream depends on the keys alone."""
    return np.random.Generator(np.random.Philox(key=digest64(*keys)))


def mix(value: int) -> int:
    """Spreads 64 bits evenly (the finaliser of SplitMix64: Steele, Lea and Flood, 2014)."""
    value = ((value ^ (value >> 30)) * _MIX_A) & _MASK
    value = ((value ^ (value >> 27)) * _MIX_B) & _MASK
    return value ^ (value >> 31)


def mix_many(values: UInt64s) -> UInt64s:
    """:func:`mix` of every element."""
    mixed = values ^ (values >> _SHIFT_1)
    mixed *= _FACTOR_A
    mixed ^= mixed >> _SHIFT_2
    mixed *= _FACTOR_B
    mixed ^= mixed >> _SHIFT_3
    return mixed


def subkey(key: int, *parts: int) -> int:
    """A key derived from `key` and a path of integers in [0, 2^64)."""
    for part in parts:
        key = mix((key + (part + 1) * _GOLDEN) & _MASK)
    return key


def subkey_many(key: int | UInt64s, *parts: int | UInt64s) -> UInt64s:
    """:func:`subkey` with arrays for the key or any part."""
    keys = np.atleast_1d(np.asarray(key, dtype=np.uint64))
    for part in parts:
        keys = mix_many(keys + (np.atleast_1d(np.asarray(part, dtype=np.uint64)) + np.uint64(1)) * np.uint64(_GOLDEN))
    return keys


def unit(key: int) -> float:
    """A float in [0, 1) from the upper bits of a key."""
    return (key >> 11) * 2.0**-53


def unit_many(keys: UInt64s) -> Floats:
    """:func:`unit` of every key."""
    return (keys >> np.uint64(11)).astype(np.float64) * 2.0**-53


def choose(key: int, options: int) -> int:
    """A number in range(options), `options` below 2^32, from the upper bits of a key."""
    return ((key >> 32) * options) >> 32


def choose_many(keys: UInt64s, options: Int64s) -> Int64s:
    """:func:`choose` of every key among its own number of options."""
    return (((keys >> np.uint64(32)) * options.astype(np.uint64)) >> np.uint64(32)).astype(np.int64)
