"""Perceptual hashes of pictures: 256 bits that stay nearly the same when a picture is resized or encoded again.

In the manner of pHash (Zauner 2010) and PDQ (Facebook 2019): the 16 x 16 lowest frequencies of the cosine transform of
a grey picture of 64 x 64 pixels, without the means of rows and columns, each one bit: above the median or not. Half of
the bits of unrelated pictures differ. Low frequencies come first: the first k^2 bits are the k x k lowest. The
transform is computed in whole numbers, so the same pixels give the same bits everywhere.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import UnidentifiedImageError

from omnimill.pipelines.decoders.pixels import load_grey
from omnimill.rng import generator
from omnimill.schema import Image

BITS = 256
_SIDE, _FREQUENCIES = 64, 16
# The bits that bands are made of: the lowest frequencies, which change least when a picture is cut at its sides.
_BAND_BITS = 64
# Pictures are decoded to about this size, where libjpeg can scale while it decodes.
_DECODED = 128
# A picture whose grey values vary by less has no features to be known by: standard deviation of 64 x 64 pixels.
_FLAT = 2.0

_COSINES = np.round(4096 * np.cos(np.pi / _SIDE * np.outer(np.arange(1, _FREQUENCIES + 1), np.arange(_SIDE) + 0.5)))


# Places in the transform, read row by row, by the higher of their two frequencies.
_ORDER = np.argsort(np.maximum(*np.indices((_FREQUENCIES, _FREQUENCIES))).reshape(-1), kind="stable")


def hash_picture(image: Image) -> NDArray[np.uint8] | None:
    """The hash of a stored picture and that of its mirror image, uint8 [2, 32]; None when it is one plain colour.

    A picture that cannot be decoded any more has none either.
    """
    try:
        grey = load_grey(image, _DECODED)
    except (ValueError, OSError, UnidentifiedImageError):
        return None
    return hash_pixels(grey)


def hash_pixels(grey: NDArray[np.uint8]) -> NDArray[np.uint8] | None:
    """As `hash_picture`, of grey pixels [height, width]."""
    small = cv2.resize(grey, (_SIDE, _SIDE), interpolation=cv2.INTER_AREA).astype(np.float64)
    if small.std() < _FLAT:
        return None
    # Whole numbers below 2^53: exact in float64, whatever the order of summation.
    waves: NDArray[np.float64] = _COSINES @ small @ _COSINES.T
    mirrored = waves.copy()
    # The k-th cosine is mirrored to itself, or to its negative when k is odd.
    mirrored[:, 0::2] *= -1
    both = np.stack([waves, mirrored]).reshape(2, BITS)[:, _ORDER]
    return np.packbits(both > np.median(both, axis=1, keepdims=True), axis=1)


def distances(left: NDArray[np.uint8], right: NDArray[np.uint8]) -> NDArray[np.int64]:
    """Bits that differ in pairs of hashes, int64 [pairs]."""
    differ: NDArray[Any] = np.bitwise_count(np.ascontiguousarray(left ^ right).view(np.uint64))
    total: NDArray[np.int64] = differ.sum(axis=1, dtype=np.int64)
    return total


def hash_bands(hashes: NDArray[np.uint8], bands: int, bits: int) -> NDArray[np.uint64]:
    """Keys of the bands of hashes, uint64 [rows, bands], each made of so many of the first 64 bits.

    The 64 bits are put in a random order, the same for all hashes, and cut into 64 / bits bands; then in another order,
    until there are `bands`. So two hashes share a band if fewer than 64 / bits of these bits differ.
    """
    unpacked = np.unpackbits(hashes[:, : _BAND_BITS // 8], axis=1)
    keys = np.empty((len(hashes), bands), np.uint64)
    for band, places in enumerate(_places(bands, bits)):
        packed = np.zeros((len(hashes), 8), np.uint8)
        packed[:, : (bits + 7) // 8] = np.packbits(unpacked[:, places], axis=1)
        keys[:, band] = packed.view("<u8")[:, 0]
    return keys


@cache
def _places(bands: int, bits: int) -> tuple[NDArray[np.int64], ...]:
    """The bits of each band."""
    each = _BAND_BITS // bits
    orders = [generator("image bands", i).permutation(_BAND_BITS) for i in range(-(-bands // each))]
    return tuple(order[bits * i : bits * (i + 1)] for order in orders for i in range(each))[:bands]
