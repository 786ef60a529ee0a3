"""Resizing by the kernels that training draws from: those of ``tf.image.resize`` with antialiasing.

A kernel's support is stretched by the factor of shrinking, and its weights are cut at the picture's edges and sum to
one. Keys 1981 for ``bicubic`` (a = -1/2), Mitchell and Netravali 1988 for ``mitchell`` (B = C = 1/3).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
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
    for line, (begin, weights) in zip(resized, _taps(found, wanted, window, kernel), strict=True):
        taken = np.ascontiguousarray(values[begin : begin + len(weights)])
        np.matmul(weights, taken.reshape(len(weights), -1), out=line)
    return resized.reshape(-1, others, channels)


def _taps(found: int, wanted: int, window: slice, kernel: Kernel) -> Iterator[tuple[int, FloatArray]]:
    """For each new line of the window: the first old one that it takes something of, and the weights from there on."""
    step = found / wanted
    stretch = max(step, 1.0)
    for place in range(window.start, window.stop):
        centre = (place + 0.5) * step
        if kernel == "nearest":
            yield min(int(centre), found - 1), np.ones(1, np.float32)
            continue
        reach = step / 2 if kernel == "area" else _SHAPES[kernel][1] * stretch
        begin, end = max(int(centre - reach), 0), min(int(np.ceil(centre + reach)), found)
        old = np.arange(begin, end)
        if kernel == "area":
            weights = np.minimum(centre + reach, old + 1) - np.maximum(centre - reach, old)
        else:
            shape, radius = _SHAPES[kernel]
            distance = np.abs(centre - (old + 0.5)) / stretch
            weights = np.where(distance < radius, shape(distance), 0.0)
        yield begin, (weights / weights.sum()).astype(np.float32)


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
