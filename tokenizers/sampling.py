"""Which patches of a picture or clip the encoder sees: a random part of them, those that show something first."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from omnimill.rng import Key, generator

Index = NDArray[np.int64]
BoolArray = NDArray[np.bool_]


def patch_count(patches: int, keep: float) -> int:
    """How many of a canvas' patches are kept, at least one.

    Args:
        patches: of the canvas.
        keep: a number of patches when it is an int, a share when it is a float, rounded down as the reference does.
    """
    wanted = min(keep, patches) if isinstance(keep, int) else int(patches * keep)
    return max(wanted, 1)


def shuffled_patches(valid: BoolArray, *keys: Key) -> Index:
    """All patches in random order, the valid ones before the padding: int64 [patches] of grid indices.

    The first n of them are the reference's random sub-sample; their indices are their positions on the grid.
    """
    rng = generator(*keys)
    return np.concatenate([rng.permutation(np.flatnonzero(valid)), rng.permutation(np.flatnonzero(~valid))])


def sample_patches(valid: BoolArray, keep: float, *keys: Key) -> Index:
    """Grid indices of the patches that are kept, int64 [:func:`patch_count`]; padding only if nothing else is left."""
    return shuffled_patches(valid, *keys)[: patch_count(len(valid), keep)]
