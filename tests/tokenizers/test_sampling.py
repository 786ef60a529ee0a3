"""Random patch sub-sampling: valid patches first, as many as asked for, keyed."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from omnimill.tokenizers.sampling import patch_count, sample_patches, shuffled_patches


def test_the_reference_counts() -> None:
    # Picture, history picture, clip: pre-training keeps half, instruction tuning seven eighths.
    assert [patch_count(patches, 0.5) for patches in (576, 256, 128)] == [288, 128, 64]
    assert [patch_count(patches, 0.875) for patches in (576, 256, 128)] == [504, 224, 112]
    assert [patch_count(576, keep) for keep in (100, 576, 9999, 1)] == [100, 576, 576, 1]
    # Shares are rounded down, and something is always kept.
    assert [patch_count(576, keep) for keep in (1.0, 0.999, 0.0001)] == [576, 575, 1]


@given(st.lists(st.booleans(), min_size=1, max_size=200), st.integers(0, 1 << 30), st.floats(0.01, 1.0))
def test_valid_patches_come_first_and_none_twice(valid: list[bool], key: int, keep: float) -> None:
    mask = np.array(valid)
    order = shuffled_patches(mask, "test", key)
    assert sorted(order) == list(range(len(mask)))
    assert mask[order].tolist() == sorted(valid, reverse=True)
    chosen = sample_patches(mask, keep, "test", key)
    np.testing.assert_array_equal(chosen, order[: patch_count(len(mask), keep)])
    np.testing.assert_array_equal(chosen, sample_patches(mask, keep, "test", key))


def test_every_patch_is_as_likely() -> None:
    valid = np.arange(24) % 3 > 0
    kept = np.zeros(24)
    for key in range(2000):
        kept[sample_patches(valid, 8, "likely", key)] += 1
    assert not kept[~valid].any()
    assert np.abs(kept[valid] / 2000 - 0.5).max() < 0.06
