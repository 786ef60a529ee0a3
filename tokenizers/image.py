"""Pictures before a network sees them: decoding, resizing with padding, patches, normalisation.

Follows the evaluation preprocessing of Unified-IO 2 (arXiv 2312.17172, section B and its released preprocessing):
aspect ratio kept, antialiased bilinear resize, zero padding around the centred picture.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import simplejpeg
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from omnimill.errors import BadRecord

FloatArray = NDArray[np.float32]
ByteArray = NDArray[np.uint8]
BoolArray = NDArray[np.bool_]

# Channel statistics of the image encoder's training data (open_clip).
MEAN = np.array([0.48145466, 0.4578275, 0.40821073], np.float32)
STD = np.array([0.26862954, 0.26130258, 0.27577711], np.float32)

MAX_PIXELS = 100_000_000
FORMATS = ("JPEG", "PNG", "WEBP")


def scaled_size(height: int, width: int, size: int) -> tuple[int, int]:
    """Height and width of a picture after scaling to fit a square canvas: the longer side becomes `size`.

    Sides are truncated in float32, as the reference does; none becomes less than one pixel.
    """
    scale = np.float32(size) / np.float32(max(height, width))
    return max(int(np.float32(height) * scale), 1), max(int(np.float32(width) * scale), 1)


def placement(height: int, width: int, size: int) -> tuple[slice, slice]:
    """Rows and columns of a square canvas that a picture of the given size covers after scaling."""
    rows, columns = scaled_size(height, width, size)
    top, left = (size - rows) // 2, (size - columns) // 2
    return slice(top, top + rows), slice(left, left + columns)


def valid_patches(height: int, width: int, size: int, patch: int) -> BoolArray:
    """Which patches of the canvas show the picture, from its size alone: bool [grid * grid], rows first.

    A patch counts when its centre pixel (nearest sampling of the pixel mask) lies inside the picture.
    """
    return covered_patches(*scaled_size(height, width, size), size, patch)


def covered_patches(height: int, width: int, size: int, patch: int) -> BoolArray:
    """As :func:`valid_patches`, of a picture that covers `height` x `width` pixels in the middle of the canvas."""
    centres = np.arange(size // patch) * patch + patch // 2
    inside_rows, inside_columns = (
        (centres >= (size - side) // 2) & (centres < (size - side) // 2 + side) for side in (height, width)
    )
    return np.outer(inside_rows, inside_columns).reshape(-1)


def decode_rgb(data: bytes) -> ByteArray:
    """A JPEG, PNG or WebP picture as uint8 [H, W, 3], turned upright by its EXIF tag, transparency laid over white.

    Raises:
        BadRecord: ``image_undecodable`` or ``image_too_large`` (more than `MAX_PIXELS`).
    """
    if data[:2] == b"\xff\xd8" and b"Exif" not in data[:65536]:
        pixels = _decode_plain_jpeg(data)
        if pixels is not None:
            return pixels
    with opened(data) as picture:
        upright = ImageOps.exif_transpose(picture)
        if upright.has_transparency_data:
            layer = upright.convert("RGBA")
            upright = Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer)
        return np.asarray(upright.convert("RGB"), np.uint8)


@contextmanager
def opened(data: bytes, what: str = "image", formats: tuple[str, ...] = FORMATS) -> Iterator[Image.Image]:
    """A picture file whose header was read, for as long as its pixels are.

    Raises:
        BadRecord: ``<what>_undecodable``, also when its pixels turn out to be; ``<what>_too_large`` (more than
            `MAX_PIXELS`).
    """
    try:
        with Image.open(io.BytesIO(data), formats=formats) as picture:
            _check_pixels(picture.height, picture.width, what)
            yield picture
    except UnidentifiedImageError:
        # Its own message holds an address, which differs from run to run.
        raise BadRecord(f"{what}_undecodable", f"{len(data)} bytes that are no {' or '.join(formats)}") from None
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise BadRecord(f"{what}_undecodable", f"{type(error).__name__}: {error}") from None


def _decode_plain_jpeg(data: bytes) -> ByteArray | None:
    """A JPEG without EXIF through libjpeg-turbo; None when it is of a kind (CMYK, …) that needs the general decoder."""
    try:
        height, width, colourspace, _ = simplejpeg.decode_jpeg_header(data)
        if colourspace not in ("YCbCr", "Gray", "RGB"):
            return None
        _check_pixels(height, width, "image")
        return np.asarray(simplejpeg.decode_jpeg(data, "RGB"))
    except ValueError as error:
        raise BadRecord("image_undecodable", str(error)) from None


def _check_pixels(height: int, width: int, what: str) -> None:
    if height * width > MAX_PIXELS:
        raise BadRecord(f"{what}_too_large", f"{width} x {height} pixels, allowed are {MAX_PIXELS:,}")


def encode_jpeg(rgb: ByteArray, quality: int = 95) -> bytes:
    """uint8 [H, W, 3] as JPEG without chroma subsampling; equal pixels give equal bytes."""
    return bytes(simplejpeg.encode_jpeg(np.ascontiguousarray(rgb), quality, "RGB", "444"))


def encode_png(rgb: ByteArray) -> bytes:
    """uint8 [H, W, 3] as PNG."""
    buffer = io.BytesIO()
    Image.fromarray(rgb).save(buffer, "PNG")
    return buffer.getvalue()


def to_bytes(image: FloatArray) -> ByteArray:
    """Values 0..1 as uint8, rounded to nearest."""
    rounded: ByteArray = np.rint(np.clip(image, 0.0, 1.0) * 255.0).astype(np.uint8)
    return rounded


def resize(rgb: ByteArray, height: int, width: int) -> FloatArray:
    """uint8 [H, W, 3] resized to float32 [height, width, 3] in 0..1: bilinear, antialiased when shrinking."""
    plain = rgb.astype(np.float32) / np.float32(255.0)
    if rgb.shape[:2] == (height, width):
        return plain
    pixels = torch.from_numpy(plain).permute(2, 0, 1)[None]
    pixels = F.interpolate(pixels, (height, width), mode="bilinear", antialias=True)
    result: FloatArray = pixels[0].permute(1, 2, 0).clamp(0.0, 1.0).contiguous().numpy()
    return result


def fit(rgb: ByteArray, size: int) -> ByteArray:
    """The picture shrunk to fit a square of `size` pixels; a smaller one is returned as it is."""
    if max(rgb.shape[:2]) <= size:
        return rgb
    return to_bytes(resize(rgb, *scaled_size(rgb.shape[0], rgb.shape[1], size)))


def to_canvas(rgb: ByteArray, size: int) -> tuple[FloatArray, BoolArray]:
    """A picture scaled to fit, centred on a black square.

    Args:
        rgb: uint8 [H, W, 3].
        size: side of the canvas in pixels.

    Returns:
        float32 [size, size, 3] in 0..1, and bool [size, size], True where the picture is.
    """
    rows, columns = placement(rgb.shape[0], rgb.shape[1], size)
    canvas = np.zeros((size, size, 3), np.float32)
    mask = np.zeros((size, size), np.bool_)
    canvas[rows, columns] = resize(rgb, rows.stop - rows.start, columns.stop - columns.start)
    mask[rows, columns] = True
    return canvas, mask


def patchify(canvas: FloatArray, patch: int) -> FloatArray:
    """[size, size, 3] cut into [grid * grid, patch * patch * 3], values in (row, column, channel) order."""
    grid = canvas.shape[0] // patch
    cut = canvas.reshape(grid, patch, grid, patch, 3).transpose(0, 2, 1, 3, 4)
    return np.ascontiguousarray(cut.reshape(grid * grid, patch * patch * 3))


def normalise(patches: FloatArray) -> FloatArray:
    """Patches of values 0..1 as the image encoder wants them: minus `MEAN`, over `STD`, per channel."""
    shaped = patches.reshape(*patches.shape[:-1], -1, 3)
    return ((shaped - MEAN) / STD).reshape(patches.shape).astype(np.float32, copy=False)
