"""Counter-based randomness: every random choice is a pure function of named keys.

Nothing in the project keeps generator state between records, so the order in which work is done, the number
of workers and restarts cannot change a draw.
"""

from __future__ import annotations

import numpy as np
from blake3 import blake3

Key = str | int


def digest64(*keys: Key) -> int:
    """An unsigned 64-bit hash of the keys, the same on every platform and Python version."""
    payload = "\x1f".join(f"{type(key).__name__}:{key}" for key in keys)
    return int.from_bytes(blake3(payload.encode()).digest(length=8), "little")


def uniform(*keys: Key) -> float:
    """A float in [0, 1) that depends on the keys alone."""
    return (digest64(*keys) >> 11) * 2.0**-53


def generator(*keys: Key) -> np.random.Generator:
    """A NumPy generator (Philox, counter based) whose stream depends on the keys alone."""
    return np.random.Generator(np.random.Philox(key=digest64(*keys)))
