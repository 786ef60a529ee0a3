"""Resizing by the kernels that training draws from: those of ``tf.image.resize`` with antialiasing.

A kernel's support is stretched by the factor of shrinking, and its weights are cut at the picture's edges and sum to
one. Keys 1981 for ``bicubic`` (a = -1/2), Mitchell and Netravali 1988 for ``mitchell`` (B = C = 1/3).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from omnimill.tokenizers.image import FloatArray

DoubleArray = NDArray[np.float64]
Kernel = Literal["area", "bicubic", "bilinear", "gaussian", "lanczos3", "lanczos5", "mitchell", "nearest"]

KERNELS: tuple[Kernel, ...] = (
    "area",
    "bicubic",
    "bilinear",
    "gaussian",
    "lanczos3",
    "lanczos5",
    "mitchell",
    "nearest",
)
_LINES = 16


def resample(
    pixels: FloatArray, height: int, width: int, kernel: Kernel, window: tuple[slice, slice] | None = None
) -> FloatArray:
    """A picture resized, or a window of it; what lies outside the window is not computed.

    Args:
        pixels: float32 [H, W, C].
        height, width: of the whole resized picture.
        kernel: one of `KERNELS`.
        window: rows and columns of the resized picture that are wanted; all when None.

    Returns:
        float32 [rows, columns, C]; kernels with negative lobes can leave the range of the input's values.
    """
    rows, columns = window or (slice(0, height), slice(0, width))

    def downwards(values: FloatArray) -> FloatArray:
        return _first_axis(values, height, rows, kernel)

    def sideways(values: FloatArray) -> FloatArray:
        return _first_axis(values.transpose(1, 0, 2), width, columns, kernel).transpose(1, 0, 2)

    # The axis that shrinks more goes first: less work, and nothing in between is larger than picture and window.
    if (rows.stop - rows.start) * pixels.shape[1] <= (columns.stop - columns.start) * pixels.shape[0]:
        resized = sideways(downwards(pixels))
    else:
        resized = downwards(sideways(pixels))
    return np.ascontiguousarray(resized)


def _first_axis(values: FloatArray, wanted: int, window: slice, kernel: Kernel) -> FloatArray:
    """[n, m, C] resized along its first axis: the window of `wanted` lines, each a sum over a few old ones."""
    found, others, channels = values.shape
    resized = np.empty((window.stop - window.start, others * channels), np.float32)
    # Neighbouring lines take much of the same: some at once are a product of two small matrices.
    lines = max(min(_LINES, _LINES * 64 * wanted // found), 1)
    for start in range(0, len(resized), lines):
        places = np.arange(window.start + start, min(window.start + start + lines, window.stop))
        taken, weights = _weights(found, wanted, places, kernel)
        old = np.ascontiguousarray(values[taken]).reshape(weights.shape[1], -1)
        np.matmul(weights, old, out=resized[start : start + lines])
    return resized.reshape(-1, others, channels)


def _weights(found: int, wanted: int, places: NDArray[np.int64], kernel: Kernel) -> tuple[slice, FloatArray]:
    """What some neighbouring new lines take of the old ones.

    Returns:
        the old lines that they take anything of, and float32 [places, old lines], each row's sum one.
    """
    step = found / wanted
    stretch = max(step, 1.0)
    centres = (places + 0.5) * step
    if kernel == "nearest":
        reach = 0.5
    elif kernel == "area":
        reach = step / 2
    else:
        reach = _SHAPES[kernel][1] * stretch
    begin, end = max(int(centres[0] - reach), 0), min(int(np.ceil(centres[-1] + reach)), found)
    old = np.arange(begin, end)
    if kernel == "nearest":
        raw = (old == np.minimum(centres.astype(np.int64), found - 1)[:, None]).astype(np.float64)
    elif kernel == "area":
        share = np.minimum(centres[:, None] + reach, old + 1) - np.maximum(centres[:, None] - reach, old)
        raw = np.maximum(share, 0.0)
    else:
        shape, radius = _SHAPES[kernel]
        distance = np.abs(centres[:, None] - (old + 0.5)) / stretch
        raw = np.where(distance < radius, shape(distance), 0.0)
    return slice(begin, end), (raw / raw.sum(axis=1, keepdims=True)).astype(np.float32)


def _triangle(x: DoubleArray) -> DoubleArray:
    return 1.0 - x


def _keys(x: DoubleArray) -> DoubleArray:
    return np.where(x < 1, (1.5 * x - 2.5) * x * x + 1.0, ((-0.5 * x + 2.5) * x - 4.0) * x + 2.0)


def _mitchell(x: DoubleArray) -> DoubleArray:
    near = (7.0 / 6.0 * x - 2.0) * x * x + 8.0 / 9.0
    return np.where(x < 1, near, ((-7.0 / 18.0 * x + 2.0) * x - 10.0 / 3.0) * x + 16.0 / 9.0)


def _gaussian(x: DoubleArray) -> DoubleArray:
    # Deviation 1/2, cut at three of them.
    return np.asarray(np.exp(-2.0 * x * x))


def _lanczos(radius: float) -> Callable[[DoubleArray], DoubleArray]:
    return lambda x: np.asarray(np.sinc(x) * np.sinc(x / radius))


_SHAPES: dict[Kernel, tuple[Callable[[DoubleArray], DoubleArray], float]] = {
    "bilinear": (_triangle, 1.0),
    "bicubic": (_keys, 2.0),
    "mitchell": (_mitchell, 2.0),
    "gaussian": (_gaussian, 1.5),
    "lanczos3": (_lanczos(3.0), 3.0),
    "lanczos5": (_lanczos(5.0), 5.0),
}
