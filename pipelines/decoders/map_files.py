"""Maps of numbers over a picture, from untrusted files: PNG levels, NPY and PFM arrays, Middlebury's flow files.

Every reader checks the declared shape against the limit and against the bytes that are there before it allocates.
"""

from __future__ import annotations

import io
import math
import struct
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image as Pillow

from omnimill.errors import BadRecord

Array = npt.NDArray[Any]
Floats = npt.NDArray[np.float32]

_PNG = b"\x89PNG\r\n\x1a\n"
_NPY = b"\x93NUMPY"
# The float that a flow file begins with, little-endian (Middlebury's README of its flow code).
_FLO = struct.pack("<f", 202021.25)
_GREY, _RGB, _PALETTE, _GREY_ALPHA, _RGBA = 0, 2, 3, 4, 6
_MAX_HEADER = 4096


def read_map(data: bytes, max_pixels: int) -> tuple[Array, bool]:
    """A map of any of the formats but flow, and whether it holds levels (PNG) rather than numbers.

    Returns:
        integers (levels) or float32 [H, W] or [H, W, channels].

    Raises:
        BadRecord: ``unsupported_map_format``, ``map_too_large``, ``map_undecodable``, ``map_truncated``.
    """
    if data.startswith(_PNG):
        return read_levels(data, max_pixels), True
    if data.startswith(_NPY):
        return read_npy(data, max_pixels), False
    if data[:3] in (b"PF\n", b"Pf\n") or data[:2] in (b"PF", b"Pf"):
        return read_pfm(data, max_pixels), False
    raise BadRecord("unsupported_map_format", f"starts with {data[:16].hex(' ')}; read are PNG, NPY and PFM")


def read_levels(data: bytes, max_pixels: int) -> Array:
    """The levels of a PNG, as they are stored: uint8 or uint16 [H, W] or [H, W, channels]; of a palette its numbers.

    Raises:
        BadRecord: ``unsupported_map_format``, ``map_too_large``, ``map_undecodable``.
    """
    if not data.startswith(_PNG) or len(data) < 29:
        raise BadRecord("unsupported_map_format", f"starts with {data[:16].hex(' ')}, which is no PNG")
    width, height, depth, kind = struct.unpack(">IIBB", data[16:26])
    _check_size(height, width, max_pixels)
    if depth == 16 and kind not in (_GREY, _RGB):
        raise BadRecord("unsupported_map_format", "a PNG of 16 bits with transparency")
    try:
        if depth == 16 and kind == _RGB:  # Pillow would keep the high bytes alone
            found = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
            if found is None or found.dtype != np.uint16 or found.shape != (height, width, 3):
                raise BadRecord("map_undecodable", "a PNG of three 16-bit channels that cannot be read")
            return np.ascontiguousarray(found[..., ::-1])
        with Pillow.open(io.BytesIO(data), formats=["PNG"]) as opened:
            levels = np.asarray(opened)
    except BadRecord:
        raise
    except Exception as fault:  # noqa: BLE001 - decoders fed malformed bytes raise nearly any type
        raise BadRecord("map_undecodable", f"PNG: {type(fault).__name__}: {fault}") from None
    return (
        levels.astype(np.uint8) if levels.dtype == np.bool_ else levels.astype(np.uint16 if depth == 16 else np.uint8)
    )


def read_npy(data: bytes, max_pixels: int) -> Floats:
    """An NPY file of numbers: float32 [H, W] or [H, W, up to 4]; axes of length one are left out.

    Raises:
        BadRecord: ``map_undecodable``, ``map_too_large``, ``map_truncated``.
    """
    stream = io.BytesIO(data)
    try:
        version = np.lib.format.read_magic(stream)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, fortran, kind = read(stream, max_header_size=_MAX_HEADER)
    except Exception as fault:  # noqa: BLE001 - a malformed header is parsed as Python, and fails in many ways
        raise BadRecord("map_undecodable", f"NPY: {type(fault).__name__}: {fault}") from None
    if kind.kind not in "fiu" or kind.hasobject:
        raise BadRecord("map_undecodable", f"NPY: numbers of type {kind}")
    sides = [side for side in shape if side != 1] if len(shape) > 2 else list(shape)
    if len(sides) not in (2, 3) or (len(sides) == 3 and sides[2] > 4):
        raise BadRecord("map_undecodable", f"NPY: an array of {list(shape)}; a map is [H, W] or [H, W, channels]")
    _check_size(sides[0], sides[1], max_pixels)
    count = math.prod(shape)
    _check_bytes(len(data) - stream.tell(), count * kind.itemsize)
    values = np.frombuffer(data, kind, count, stream.tell()).reshape(shape, order="F" if fortran else "C")
    return _floats(values.reshape(sides))


def read_pfm(data: bytes, max_pixels: int) -> Floats:
    """A portable float map: float32 [H, W], or [H, W, 3] of ``PF``; rows are stored from the bottom up.

    Raises:
        BadRecord: ``map_undecodable``, ``map_too_large``, ``map_truncated``.
    """
    fields = data[:256].split(maxsplit=4)
    try:
        mark, width, height, scale = fields[0], int(fields[1]), int(fields[2]), float(fields[3])
        begin = data.index(fields[3], data.index(fields[2], data.index(fields[1], 2) + len(fields[1])) + len(fields[2]))
    except (IndexError, ValueError):
        raise BadRecord("map_undecodable", f"PFM: a header of {data[:32]!r}") from None
    _check_size(height, width, max_pixels)
    channels = 3 if mark == b"PF" else 1
    start = begin + len(fields[3]) + 1
    _check_bytes(len(data) - start, height * width * channels * 4)
    values = np.frombuffer(data, "<f4" if scale < 0 else ">f4", height * width * channels, start)
    rows = values.reshape(height, width, channels)[::-1]
    return _floats(rows if channels > 1 else rows[..., 0])


def read_flo(data: bytes, max_pixels: int) -> Floats:
    """A flow file of the Middlebury benchmark: float32 [H, W, 2], pixels to the right and downwards.

    A mark, width and height (int32) and the flow row by row, all little-endian; 1e9 and more is not known, here NaN.

    Raises:
        BadRecord: ``unsupported_map_format``, ``map_too_large``, ``map_truncated``.
    """
    if not data.startswith(_FLO) or len(data) < 12:
        raise BadRecord("unsupported_map_format", f"starts with {data[:16].hex(' ')}, which is no flow file")
    width, height = struct.unpack("<ii", data[4:12])
    _check_size(height, width, max_pixels)
    _check_bytes(len(data) - 12, height * width * 8)
    flow = _floats(np.frombuffer(data, "<f4", height * width * 2, 12).reshape(height, width, 2))
    return np.where(np.isfinite(flow) & (np.abs(flow) < 1e9), flow, np.float32(np.nan)).astype(np.float32)


def read_kitti_flow(data: bytes, max_pixels: int) -> Floats:
    """KITTI's flow in a PNG of three 16-bit channels: float32 [H, W, 2], pixels to the right and downwards.

    u and v are (level - 2^15) / 64; where the third channel is 0 the flow is not known, here NaN (its development kit).

    Raises:
        BadRecord: as :func:`read_levels`; ``flow_shape`` when it is no such PNG.
    """
    levels = read_levels(data, max_pixels)
    if levels.dtype != np.uint16 or levels.ndim != 3:
        raise BadRecord("flow_shape", f"{levels.dtype} {list(levels.shape)}; flow is three channels of 16 bits")
    flow = (levels[..., :2].astype(np.float32) - np.float32(1 << 15)) / np.float32(64)
    return np.where(levels[..., 2:] > 0, flow, np.float32(np.nan)).astype(np.float32)


def npy(values: Array) -> bytes:
    """Numbers as NPY, float32."""
    stream = io.BytesIO()
    np.save(stream, np.ascontiguousarray(values, np.float32), allow_pickle=False)
    return stream.getvalue()


def png(levels: Array) -> bytes:
    """Levels as PNG: uint8 [H, W] or [H, W, 3], or uint16 [H, W]."""
    stream = io.BytesIO()
    Pillow.fromarray(np.ascontiguousarray(levels)).save(stream, "PNG")
    return stream.getvalue()


def _floats(values: Array) -> Floats:
    with np.errstate(over="ignore"):
        return values.astype(np.float32)


def _check_size(height: int, width: int, max_pixels: int) -> None:
    if height < 1 or width < 1:
        raise BadRecord("map_undecodable", f"declares {width} x {height} pixels")
    if height * width > max_pixels:
        raise BadRecord("map_too_large", f"declares {width} x {height} pixels; at most {max_pixels}")


def _check_bytes(found: int, wanted: int) -> None:
    if found < wanted:
        raise BadRecord("map_truncated", f"{found} bytes of values, declared are {wanted}")
