"""Optical flow as RGB targets: the colour wheel of the Middlebury benchmark, and flow read back from colours.

Baker, Scharstein, Lewis, Roth, Black and Szeliski, A Database and Evaluation Methodology for Optical Flow, IJCV 2011:
the direction is one of 55 hues, interpolated, and the magnitude is saturation, white for none. Unified-IO 2 (arXiv
2312.17172) renders flow as RGB, but does not publish how, nor its largest magnitude. Here the magnitude that has full
saturation is stated, and a faster motion keeps its direction and is shown with that magnitude (the benchmark's own
program darkens it and loses how fast it was); so every colour of the wheel has one meaning.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from omnimill.tokenizers.dense import DoubleArray, as_map, positive, shares
from omnimill.tokenizers.image import BoolArray, ByteArray, FloatArray

# Hues between red, yellow, green, cyan, blue, magenta and red again, as the eye tells them apart.
_STEPS = (15, 6, 4, 11, 13, 6)
_CORNERS = ((1, 0, 0), (1, 1, 0), (0, 1, 0), (0, 1, 1), (0, 0, 1), (1, 0, 1), (1, 0, 0))
# The benchmark's files write this or more where the flow is not known.
_UNKNOWN = 1e9


def encode_flow(flow: ArrayLike, maximum: float) -> tuple[ByteArray, BoolArray]:
    """A flow field as colours.

    Args:
        flow: [H, W, 2], pixels to the right and downwards. Not finite, or 1e9 and more: not known, black.
        maximum: magnitude in pixels that has full saturation; what is faster is shown as this.

    Returns:
        uint8 [H, W, 3], and bool [H, W], True where the flow is known. :func:`decode_flow` gives back a known flow up
        to the maximum within 1 % of the maximum.

    Raises:
        BadRecord: ``flow_shape``. ConfigError: the maximum is no positive number.
    """
    values = as_map(flow, "flow", 3, 2)
    known = _known(values)
    right, down = np.moveaxis(np.where(known[..., None], values, 0.0), -1, 0)
    saturation = np.minimum(np.hypot(right, down) / positive(maximum, "flow"), 1.0)[..., None]
    place = (np.arctan2(-down, -right) / np.pi + 1.0) / 2.0 * (len(_wheel()) - 1)
    low = place.astype(np.int64)
    part = (place - low)[..., None]
    hue = (1.0 - part) * _wheel()[low] + part * _wheel()[(low + 1) % len(_wheel())]
    levels = np.rint(255.0 * (1.0 - saturation * (1.0 - hue)))
    return np.where(known[..., None], levels, 0.0).astype(np.uint8), known


def decode_flow(rgb: ByteArray | FloatArray, maximum: float) -> FloatArray:
    """Colours [H, W, 3] as a flow field, float32 [H, W, 2]: pixels to the right and downwards.

    Every colour has a meaning, by its hue and saturation, but those darker than half are not known (NaN).
    """
    red, green, blue = np.moveaxis(shares(rgb).astype(np.float64), -1, 0)
    top, bottom = np.maximum(np.maximum(red, green), blue), np.minimum(np.minimum(red, green), blue)
    span = np.where(top > bottom, top - bottom, 1.0)
    # The hexagon's hue: 0 red, 1 yellow, … 6 red; the wheel's entries lie on it in their order, unevenly.
    hexagon = np.select(
        [top == red, top == green],
        [((green - blue) / span) % 6.0, (blue - red) / span + 2.0],
        (red - green) / span + 4.0,
    )
    place = np.interp(hexagon, _hexagon(), np.arange(len(_wheel()) + 1))
    angle = (place / (len(_wheel()) - 1) * 2.0 - 1.0) * np.pi
    magnitude = (top - bottom) / np.where(top > 0, top, 1.0) * positive(maximum, "flow")
    flow = np.stack([-magnitude * np.cos(angle), -magnitude * np.sin(angle)], axis=-1)
    return np.where((top >= 0.5)[..., None], flow, np.nan).astype(np.float32)


def largest_flow(flow: NDArray[Any]) -> float:
    """The magnitude of the fastest known motion of a field [H, W, 2], in pixels; 1 when nothing moves."""
    known = flow[_known(flow)].astype(np.float64)
    return float(np.hypot(known[:, 0], known[:, 1]).max(initial=0.0)) or 1.0


def _known(flow: NDArray[Any]) -> BoolArray:
    return np.asarray((np.isfinite(flow) & (np.abs(flow) < _UNKNOWN)).all(axis=-1), np.bool_)


@lru_cache(maxsize=1)
def _wheel() -> DoubleArray:
    """Colours of the wheel, in whole levels as the benchmark's program has them: float64 [55, 3] in 0..1."""
    colours = [
        np.array(begin) * 255 + (np.array(end) - np.array(begin)) * (255 * i // count)
        for count, begin, end in zip(_STEPS, _CORNERS[:-1], _CORNERS[1:], strict=True)
        for i in range(count)
    ]
    return np.array(colours) / 255.0


@lru_cache(maxsize=1)
def _hexagon() -> DoubleArray:
    """Where the wheel's colours, and its first one again, lie on the hexagon: float64 [56], ascending from 0 to 6."""
    places = [sector + 255 * i // count / 255.0 for sector, count in enumerate(_STEPS) for i in range(count)]
    return np.array([*places, 6.0])
