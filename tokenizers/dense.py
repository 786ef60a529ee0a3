"""Dense structures as RGB targets: masks, depth maps and surface normals as pictures, and read back from pictures.

Renderings as in Unified-IO 2 (arXiv 2312.17172, section B.1); where the paper is silent a docstring says what is done.
A map is rendered at its own size, and then laid onto the target canvas exactly as the picture that it belongs to, by
nearest sampling (as the released code does), because a mean of two depths or directions is neither. Optical flow is in
:mod:`omnimill.tokenizers.optical_flow`.

Readers take bytes, or a network's output in 0..1. Errors are stated for bytes and a map at its own size; on the way
over a smaller canvas a pixel takes the value of another one at most one canvas pixel away.
"""

from __future__ import annotations

import math
from typing import Any, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from omnimill.errors import BadRecord, ConfigError
from omnimill.tokenizers.image import BoolArray, ByteArray, FloatArray, opened, placement
from omnimill.tokenizers.image_geometry import nearest
from omnimill.tokens import ImageLayout

DoubleArray = NDArray[np.float64]
Value = TypeVar("Value", bound=np.generic)

# Metres; of NYU Depth v2, the paper's depth data.
DEPTH_MAXIMUM = 10.0
# What stands for a component of zero, and for its unit, in 8-bit normals; GRIT's evaluation reads with the second.
NORMAL_CENTRE = 127.5
GRIT_NORMAL_CENTRE = 122.5


def render_mask(png: bytes, height: int, width: int, layout: ImageLayout) -> ByteArray:
    """An annotation's mask on the target canvas of its picture.

    Args:
        png: PNG of one bit per pixel, white inside, that covers the whole picture at any scale
            (`omnimill.schema.Annotation.mask`).
        height, width: of the picture, in pixels.
        layout: sizes.

    Returns:
        uint8 [target_size, target_size, 3], white inside, black outside and around the picture.

    Raises:
        BadRecord: as :func:`decode_mask_png`; ``mask_shape_mismatch`` when it is not of the picture's shape.
    """
    mask = decode_mask_png(png)
    check_shape("mask", mask.shape, height, width)
    return onto_canvas(encode_mask(mask), height, width, layout.target_size)


def check_shape(what: str, shape: tuple[int, ...], height: int, width: int) -> None:
    """Raises BadRecord ``<what>_shape_mismatch`` unless a map [H, W, …] is its picture at some scale."""
    rows, columns = shape[:2]
    # Scaled by any factor and rounded to pixels, sides a, b and h, w have |a w - b h| of at most a + b or h + w.
    if abs(rows * width - columns * height) > max(rows + columns, height + width):
        raise BadRecord(f"{what}_shape_mismatch", f"{columns} x {rows} on a picture of {width} x {height}")


def decode_mask_png(png: bytes) -> BoolArray:
    """A mask from its PNG: bool [H, W], True where it is white (of grey levels, from 128 on).

    Raises:
        BadRecord: ``mask_undecodable``, ``mask_too_large`` (more than `omnimill.tokenizers.image.MAX_PIXELS`).
    """
    with opened(png, "mask", ("PNG",)) as picture:
        if picture.mode not in ("1", "L"):
            raise BadRecord("mask_undecodable", f"pixels of mode {picture.mode}, wanted is one bit or one level")
        return np.asarray(picture.convert("L"), np.uint8) >= 128


def encode_mask(mask: BoolArray) -> ByteArray:
    """bool [H, W] as uint8 [H, W, 3]: white inside, black outside. The same for maps of edges."""
    return _grey(np.where(mask, 255, 0))


def decode_mask(rgb: ByteArray | FloatArray) -> BoolArray:
    """[H, W, 3] as bool [H, W]: where the mean of the channels is above one half. Inverse of :func:`encode_mask`."""
    return np.asarray(shares(rgb).mean(axis=-1) > 0.5)


def encode_depth(depth: ArrayLike, maximum: float = DEPTH_MAXIMUM) -> tuple[ByteArray, BoolArray]:
    """A depth map as grey levels, bright is far.

    Args:
        depth: [H, W], metres. Not finite, zero or negative: not measured, black.
        maximum: metres that are white; what is farther is white too.

    Returns:
        uint8 [H, W, 3], and bool [H, W], True where depth is known. :func:`decode_depth` gives back known depths up to
        the maximum within maximum / 510.

    Raises:
        BadRecord: ``depth_shape``. ConfigError: the maximum is no positive number.
    """
    values = as_map(depth, "depth", 2)
    known: BoolArray = np.isfinite(values) & (values > 0)
    share = np.minimum(np.where(known, values, 0.0), positive(maximum, "depth")) / maximum
    return _grey(np.rint(share * 255.0)), known


def decode_depth(rgb: ByteArray | FloatArray, maximum: float = DEPTH_MAXIMUM) -> FloatArray:
    """[H, W, 3] as metres, float32 [H, W]: the mean of the channels times the maximum."""
    depth: FloatArray = (shares(rgb).mean(axis=-1) * positive(maximum, "depth")).astype(np.float32)
    return depth


def encode_normals(normals: ArrayLike) -> tuple[ByteArray, BoolArray]:
    """Surface normals as colours: x, y, z as red, green, blue, each (n + 1) / 2 * 255, rounded.

    Args:
        normals: [H, W, 3], of any length. Not finite or of length zero: not known, black.

    Returns:
        uint8 [H, W, 3], and bool [H, W], True where the normal is known. :func:`decode_normals` gives back known
        directions within 0.4 degrees (a component is off by at most 1 / 255, three of them by sqrt(3) / 255).

    Raises:
        BadRecord: ``normals_shape``.
    """
    values = as_map(normals, "normals", 3, 3)
    finite = np.asarray(np.isfinite(values).all(axis=-1), np.bool_)
    values = np.where(finite[..., None], values, 0.0)
    largest = np.abs(values).max(axis=-1)
    known: BoolArray = finite & (largest > 0)
    scaled = values / np.where(known, largest, 1.0)[..., None]
    unit = scaled / np.where(known, np.linalg.norm(scaled, axis=-1), 1.0)[..., None]
    levels = np.rint((unit + 1.0) * NORMAL_CENTRE)
    return np.where(known[..., None], levels, 0.0).astype(np.uint8), known


def decode_normals(rgb: ByteArray | FloatArray, centre: float = NORMAL_CENTRE) -> FloatArray:
    """[H, W, 3] as unit vectors, float32 [H, W, 3]; zero where the colour is black.

    Args:
        rgb: bytes, or 0..1.
        centre: the level that stands for zero. `GRIT_NORMAL_CENTRE` reads as GRIT's evaluation does, which turns a
            direction by up to 4.3 degrees against how it was rendered.
    """
    levels = shares(rgb).astype(np.float64) * 255.0
    vectors = np.where(levels.max(axis=-1, keepdims=True) > 0, levels - centre, 0.0)
    lengths = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return (vectors / np.where(lengths > 0, lengths, 1.0)).astype(np.float32)


def onto_canvas(rendered: ByteArray, height: int, width: int, size: int) -> ByteArray:
    """A rendered map on a canvas, where its picture would lie.

    Args:
        rendered: uint8 [H, W, 3], covers the whole picture at any scale.
        height, width: of the picture. size: of the canvas, in pixels.

    Returns:
        uint8 [size, size, 3], black around the picture.

    Raises:
        BadRecord: ``dense_empty``, the map has no pixel.
    """
    if not rendered.size:
        raise BadRecord("dense_empty", f"a map of {rendered.shape[1]} x {rendered.shape[0]} pixels")
    rows, columns = placement(height, width, size)
    canvas = np.zeros((size, size, 3), np.uint8)
    canvas[rows, columns] = nearest(rendered, rows.stop - rows.start, columns.stop - columns.start)
    return canvas


def from_canvas(canvas: NDArray[Value], height: int, width: int) -> NDArray[Value]:
    """What a square canvas [size, size, …] shows of a picture, at the picture's size: [height, width, …].

    Inverse of :func:`onto_canvas` for maps of the picture's size that the canvas does not shrink.
    """
    return nearest(canvas[placement(height, width, len(canvas))], height, width)


def known_codes(known: BoolArray, height: int, width: int, layout: ImageLayout) -> BoolArray:
    """Which codes of the target canvas stand for pixels whose value is known, at their centres: bool [codes].

    Args:
        known: bool [H, W], as encoders return it. height, width: of the picture.
    """
    step = layout.code_stride
    canvas = onto_canvas(encode_mask(known), height, width, layout.target_size)
    return decode_mask(canvas[step // 2 :: step, step // 2 :: step]).reshape(-1)


def pack_known(known: BoolArray) -> bytes | None:
    """Which codes are known, a bit for each, as token rows hold it; None when all are."""
    return None if known.all() else np.packbits(known).tobytes()


def unpack_known(packed: bytes | None, codes: int) -> BoolArray:
    """Inverse of :func:`pack_known`: bool [codes]."""
    if packed is None:
        return np.ones(codes, np.bool_)
    return np.unpackbits(np.frombuffer(packed, np.uint8), count=codes).astype(np.bool_)


def _grey(levels: NDArray[Any]) -> ByteArray:
    return np.repeat(levels.astype(np.uint8)[..., None], 3, axis=-1)


def shares(rgb: ByteArray | FloatArray) -> FloatArray:
    """Values in 0..1 of bytes, or of a network's output, which can leave that range a little."""
    if rgb.dtype == np.uint8:
        return rgb.astype(np.float32) / np.float32(255.0)
    return np.clip(rgb, 0.0, 1.0).astype(np.float32, copy=False)


def as_map(values: ArrayLike, name: str, axes: int, channels: int | None = None) -> DoubleArray:
    """A map as float64; BadRecord ``<name>_shape`` when it has other axes or channels."""
    found = np.asarray(values, np.float64)
    if found.ndim != axes or (channels is not None and found.shape[-1] != channels):
        wanted = "[H, W]" if channels is None else f"[H, W, {channels}]"
        raise BadRecord(f"{name}_shape", f"an array of {list(found.shape)}, wanted is {wanted}")
    return found


def positive(maximum: float, name: str) -> float:
    """The maximum of a structure; ConfigError when it is no positive number."""
    if not (math.isfinite(maximum) and maximum > 0):
        raise ConfigError(f"the maximum of {name} must be a positive number, found {maximum}")
    return maximum
