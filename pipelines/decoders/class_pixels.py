"""Pictures whose pixels are numbers of classes or segments, from untrusted bytes."""

from __future__ import annotations

import io

import numpy as np
import numpy.typing as npt
from PIL import Image as Pillow

from omnimill.errors import BadRecord
from omnimill.pipelines.decoders.images import PIXELS_CEILING
from omnimill.pipelines.decoders.masks import Mask

Numbers = npt.NDArray[np.int32]


def class_numbers(data: bytes, size: tuple[int, int] | None = None) -> Numbers:
    """The number of every pixel of a PNG of one channel (grey, palette or 16 bits), int32 [height, width].

    Args:
        size: height and width that it must have.

    Raises:
        BadRecord: ``mask_undecodable``, ``mask_size_mismatch``.
    """
    pixels = _decoded(data, size, ("L", "P", "1", "I;16", "I"))
    return pixels.astype(np.int32)


def segment_ids(data: bytes, size: tuple[int, int] | None = None) -> Numbers:
    """The segment of every pixel of a panoptic PNG: R + 256 G + 65,536 B, int32 [height, width].

    The encoding of COCO's panoptic task (Kirillov et al., 2018, arXiv 1801.00868). Raises as :func:`class_numbers`.
    """
    pixels = _decoded(data, size, ("RGB",)).astype(np.int32)
    return pixels[..., 0] + 256 * pixels[..., 1] + 65536 * pixels[..., 2]


def class_pixels(numbers: Numbers, number: int) -> Mask:
    """Where a class or segment is, bool [height, width]."""
    return np.asarray(numbers == number, np.bool_)


def _decoded(data: bytes, size: tuple[int, int] | None, modes: tuple[str, ...]) -> npt.NDArray[np.uint8]:
    try:
        with Pillow.open(io.BytesIO(data), formats=["PNG"]) as opened:
            width, height = opened.size
            if width * height > PIXELS_CEILING:
                raise BadRecord("mask_undecodable", f"declares {width} x {height} pixels")
            if opened.mode not in modes:
                raise BadRecord("mask_undecodable", f"pixels of mode {opened.mode}, wanted {' or '.join(modes)}")
            if size is not None and (height, width) != size:
                message = f"a mask of {width} x {height} for a picture of {size[1]} x {size[0]}"
                raise BadRecord("mask_size_mismatch", message)
            return np.asarray(opened)
    except (OSError, SyntaxError, ValueError, Pillow.DecompressionBombError, Pillow.DecompressionBombWarning) as fault:
        raise BadRecord("mask_undecodable", f"{type(fault).__name__}: {fault}") from None
