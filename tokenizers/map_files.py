"""Depth, surface normals and optical flow from the files of targets, as colours on a canvas.

Formats and units are those of `omnimill.schema.Target`. A map is sampled to the size that it has on the canvas before
it is rendered, so what it costs does not grow with its size. Pickled arrays are never read.
"""

from __future__ import annotations

import io
import math
import tokenize
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from omnimill.errors import BadRecord
from omnimill.schema import Target
from omnimill.tokenizers import image
from omnimill.tokenizers.dense import (
    check_shape,
    decode_normals,
    encode_depth,
    encode_normals,
    known_codes,
    onto_canvas,
)
from omnimill.tokenizers.image import BoolArray, ByteArray, decode_rgb, opened, scaled_size
from omnimill.tokenizers.image_geometry import nearest
from omnimill.tokenizers.optical_flow import encode_flow, largest_flow
from omnimill.tokens import ImageLayout

Values = NDArray[Any]
Rendered = tuple[ByteArray, BoolArray]

# Axes of an array in an NPY file, by kind of map; None: as many as there are pixels.
SHAPES: dict[str, tuple[int | None, ...]] = {
    "depth": (None, None),
    "normals": (None, None, 3),
    "flow": (None, None, 2),
}
# A header of three entries; the longest that NumPy writes for an array of numbers has about 120 characters.
_HEADER_CHARACTERS = 1000


def render_map(target: Target, height: int, width: int, layout: ImageLayout) -> tuple[ByteArray, BoolArray]:
    """A target that is a map, where its picture of `height` x `width` pixels would lie on the target canvas.

    Returns:
        uint8 [target_size, target_size, 3], black around the picture and where nothing is known; bool [codes], which
        codes stand for what is known, as :func:`omnimill.tokenizers.dense.known_codes`.

    Raises:
        BadRecord: the file is not a map of its kind, not of its picture's shape, or nothing in it is known
            (``<kind>_unknown``); a scale is missing or no positive number.
    """
    values, render = _read(target)
    if not values.size:
        raise BadRecord("dense_empty", f"a map of {values.shape[1]} x {values.shape[0]} pixels")
    check_shape(target.kind, values.shape, height, width)
    size = layout.target_size
    colours, known = render(nearest(values, *scaled_size(height, width, size)))
    codes = known_codes(known, height, width, layout)
    if not codes.any():
        raise BadRecord(f"{target.kind}_unknown", f"a map of {values.shape[1]} x {values.shape[0]} pixels, none known")
    return onto_canvas(colours, height, width, size), codes


def _read(target: Target) -> tuple[Values, Callable[[Values], Rendered]]:
    """The numbers or levels of a map's file, and what makes colours of any part of them."""
    array = decode_npy(target.data, target.kind) if target.format == "npy" else None
    if target.kind == "depth":
        if array is not None:
            return array, encode_depth
        metres = _scale(target.scale, "depth")
        return decode_levels(target.data), lambda levels: encode_depth(levels.astype(np.float64) * metres)
    if target.kind == "normals":
        if array is not None:
            return array, encode_normals
        return decode_rgb(target.data), lambda colours: encode_normals(decode_normals(colours))
    if array is not None:
        fastest = largest_flow(array) if target.scale is None else _scale(target.scale, "flow")
        return array, lambda values: encode_flow(values, fastest)
    # Colours of the wheel already, all of which are brighter than half.
    return decode_rgb(target.data), lambda colours: (colours, np.asarray(colours.max(axis=-1) >= 128, np.bool_))


def decode_levels(data: bytes) -> Values:
    """The levels of a grey picture of 8 or 16 bits, [H, W].

    Raises:
        BadRecord: ``depth_undecodable``, ``depth_too_large``.
    """
    with opened(data, "depth") as picture:
        if picture.mode in ("L", "I;16", "I;16B", "I"):
            return np.asarray(picture)
        if picture.mode == "RGB" and picture.format == "WEBP":  # which has no grey pictures
            levels = np.asarray(picture)
            if (levels == levels[..., :1]).all():
                return levels[..., 0]
        raise BadRecord("depth_undecodable", f"pixels of mode {picture.mode}, wanted is one level of 8 or 16 bits")


def decode_npy(data: bytes, kind: str) -> Values:
    """The array of floating-point numbers in an NPY file, a view of its bytes.

    Args:
        data: the file.
        kind: of map, decides its axes (`SHAPES`).

    Raises:
        BadRecord: ``npy_malformed``, ``<kind>_shape``, ``<kind>_too_large`` (more than
            `omnimill.tokenizers.image.MAX_PIXELS`).
    """
    stream = io.BytesIO(data)
    try:
        version = np.lib.format.read_magic(stream)
        read = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}.get(version)
        if read is None:
            raise BadRecord("npy_malformed", f"version {version}; allowed: 1.0, 2.0")
        shape, fortran, dtype = read(stream, max_header_size=_HEADER_CHARACTERS)
    except (ValueError, TypeError, SyntaxError, tokenize.TokenError, RecursionError, MemoryError) as error:
        raise BadRecord("npy_malformed", f"{type(error).__name__}: {error}") from None
    if dtype.kind != "f" or dtype.hasobject or dtype.itemsize > 8:
        raise BadRecord("npy_malformed", f"numbers of type {dtype}; allowed: floating point of at most 64 bits")
    wanted = SHAPES[kind]
    if len(shape) != len(wanted) or any(want not in (None, side) for want, side in zip(wanted, shape, strict=True)):
        raise BadRecord(f"{kind}_shape", f"an array of {list(shape)}, wanted is {['H', 'W', *wanted[2:]]}")
    if shape[0] * shape[1] > image.MAX_PIXELS:
        raise BadRecord(f"{kind}_too_large", f"{shape[1]} x {shape[0]} pixels, allowed are {image.MAX_PIXELS:,}")
    content = memoryview(data)[stream.tell() :]
    if len(content) != math.prod(shape) * dtype.itemsize:
        raise BadRecord("npy_malformed", f"{len(content)} bytes for an array of {list(shape)} of {dtype}")
    return np.frombuffer(content, dtype).reshape(shape, order="F" if fortran else "C")


def _scale(scale: float | None, kind: str) -> float:
    if scale is None or not (math.isfinite(scale) and scale > 0):
        raise BadRecord(f"{kind}_scale", f"found {scale}; allowed: a number above 0")
    return scale
