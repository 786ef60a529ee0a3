"""MinHash signatures of many texts at once, by one permutation.

One-permutation hashing (Li, Owen, Zhang 2012, arXiv 1208.1259) puts each shingle into one of k bins by its hash and
keeps the smallest hash of each bin: one hash per shingle instead of k. Empty bins borrow from others by optimal
densification (Shrivastava 2017, arXiv 1703.04664): bin i asks the bins h(i, 1), h(i, 2), … until one of them is not
empty, with the same h for all texts. Two signatures agree in a bin with a probability that is the Jaccard similarity of
the two sets of shingles.
"""

from __future__ import annotations

from functools import cache

import numpy as np
from numpy.typing import NDArray

from omnimill.pipelines.dedup.shingles import Shingles, mix

# Attempts of densification that are looked up at once.
_ATTEMPTS = 32
_EMPTY = np.uint64(0xFFFFFFFFFFFFFFFF)


def signatures(shingles: Shingles, bins: int) -> NDArray[np.uint16]:
    """The signatures of some rows, uint16 [rows, bins]; all zero where a row has no words."""
    rows = len(shingles.rows) - 1
    flat = np.full(rows * bins, _EMPTY, np.uint64)
    bin_of = (shingles.hashes >> np.uint64(32)) * np.uint64(bins) >> np.uint64(32)
    np.minimum.at(flat, shingles.row_of * bins + bin_of.astype(np.int64), shingles.hashes)
    smallest = flat.reshape(rows, bins)
    smallest[shingles.words == 0] = 0
    _densify(smallest)
    # 16 of the 64 bits: two bins that differ agree in them once in 65,536 times. Mixed again, because the smallest of
    # many hashes all begin with zeros.
    return (mix(smallest) >> np.uint64(48)).astype(np.uint16)


def band_keys(signature: NDArray[np.uint16], bands: int) -> NDArray[np.uint64]:
    """A hash of each band of signatures, uint64 [rows, bands], different for equal bands in different places."""
    rows = signature.shape[1] // bands
    parts = signature[:, : bands * rows].reshape(len(signature), bands, rows).astype(np.uint64)
    keys = np.broadcast_to(np.arange(1, bands + 1, dtype=np.uint64), parts.shape[:2])
    for i in range(rows):
        keys = mix(keys * np.uint64(0x9E3779B97F4A7C15) + parts[:, :, i])
    return keys


def sketch(signature: NDArray[np.uint16]) -> NDArray[np.uint8]:
    """Four bits of each bin, two bins to a byte: uint8 [rows, ceil(bins / 2)]; see `similarity`."""
    low = (signature & 0xF).astype(np.uint8)
    if low.shape[1] % 2:
        low = np.pad(low, ((0, 0), (0, 1)))
    packed: NDArray[np.uint8] = low[:, 0::2] | (low[:, 1::2] << np.uint8(4))
    return packed


def similarity(left: NDArray[np.uint8], right: NDArray[np.uint8], bins: int) -> NDArray[np.float64]:
    """Jaccard similarity estimated from pairs of sketches, float64 [pairs].

    Of bins that differ, one in 16 agrees by chance, which is taken off (b-bit minwise hashing, Li and König 2010, arXiv
    0910.3349). The standard deviation is about sqrt(j (1 - j) / bins) at similarity j.
    """
    differ = left ^ right
    agree = np.count_nonzero(differ & 0x0F == 0, axis=1) + np.count_nonzero(differ & 0xF0 == 0, axis=1) - bins % 2
    estimate: NDArray[np.float64] = np.maximum((agree / bins - 1 / 16) / (1 - 1 / 16), 0.0)
    return estimate


def _densify(smallest: NDArray[np.uint64]) -> None:
    """Fill the empty bins of every row from its other bins; a row has one at least."""
    row, bin_ = np.nonzero(smallest == _EMPTY)
    full = smallest != _EMPTY
    attempt = 0
    while len(row):
        donor = _donors(smallest.shape[1], attempt // _ATTEMPTS)[bin_, attempt % _ATTEMPTS]
        found = full[row, donor]
        smallest[row[found], bin_[found]] = smallest[row[found], donor[found]]
        row, bin_ = row[~found], bin_[~found]
        attempt += 1


@cache
def _donors(bins: int, block: int) -> NDArray[np.int64]:
    """Which bin each bin asks at some attempts, int64 [bins, attempts]."""
    seed = np.arange(bins, dtype=np.uint64)[:, None] << np.uint64(32)
    attempts = np.arange(block * _ATTEMPTS, (block + 1) * _ATTEMPTS, dtype=np.uint64)
    hashes = mix(mix(seed + attempts + np.uint64(1)) + np.uint64(bins))
    return ((hashes >> np.uint64(32)) * np.uint64(bins) >> np.uint64(32)).astype(np.int64)
