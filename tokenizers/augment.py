"""Training augmentation of input pictures: random scale, random crop, random resize kernel; nothing is mirrored.

The rules and numbers of the released training code of Unified-IO 2 (arXiv 2312.17172). Every draw is keyed, so a
picture's augmentation is a function of the keys and its size alone; boxes and targets follow through the geometry.
"""

from __future__ import annotations

from typing import Self

import numpy as np
from pydantic import Field, model_validator

from omnimill.config import Config
from omnimill.rng import Key, digest64, uniform
from omnimill.tokenizers.image import BoolArray, ByteArray, FloatArray
from omnimill.tokenizers.image_geometry import Geometry
from omnimill.tokenizers.resampling import KERNELS, Kernel, resample


class AugmentConfig(Config):
    """How pictures are scaled in training; the defaults are the reference's.

    scale_low, scale_high: the canvas' side is multiplied by a factor drawn between them. fill: how often the picture
    is scaled to fill the resulting square (and cropped) instead of fitting it. min_side: no side is scaled below it, so
    that of a very long picture a part is seen instead of a line.
    """

    scale_low: float = Field(default=0.75, gt=0, le=16)
    scale_high: float = Field(default=1.3333, gt=0, le=16)
    fill: float = Field(default=0.5, ge=0, le=1)
    min_side: int = Field(default=64, ge=1)

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.scale_low > self.scale_high:
            raise ValueError(f"scale_low must not be above scale_high, found {self.scale_low} and {self.scale_high}")
        return self


REFERENCE = AugmentConfig()


def draw_geometry(height: int, width: int, size: int, *keys: Key, config: AugmentConfig = REFERENCE) -> Geometry:
    """A random placement of a picture of the given size on a canvas; equal keys give equal placements."""
    factor = config.scale_low + (config.scale_high - config.scale_low) * uniform(*keys, "scale")
    side = np.float32(max(int(np.float32(factor) * np.float32(size)), 1))
    shorter, longer = np.float32(min(height, width)), np.float32(max(height, width))
    scale = side / (shorter if uniform(*keys, "fill") < config.fill else longer)
    scale = np.float32(max(scale, np.float32(config.min_side) / shorter))
    rows, columns = (max(int(np.float32(length) * scale), 1) for length in (height, width))
    offset_y, offset_x = (
        int(max(scaled - size, 0) * uniform(*keys, axis)) for scaled, axis in ((rows, "top"), (columns, "left"))
    )
    return Geometry(size, height, width, scale, rows, columns, offset_y, offset_x)


def draw_kernel(*keys: Key) -> Kernel:
    """One of the resize kernels."""
    return KERNELS[digest64(*keys, "kernel") % len(KERNELS)]


def place(rgb: ByteArray, geometry: Geometry, kernel: Kernel) -> tuple[FloatArray, BoolArray]:
    """A picture on its canvas.

    Args:
        rgb: uint8 [H, W, 3], of the geometry's height and width.
        geometry: where it lies.
        kernel: that it is resized with.

    Returns:
        float32 [size, size, 3] in 0..1, black around the picture, and bool [size, size], True where the picture is.
    """
    rows, columns = geometry.rows, geometry.columns
    window = (
        slice(geometry.offset_y, geometry.offset_y + rows.stop - rows.start),
        slice(geometry.offset_x, geometry.offset_x + columns.stop - columns.start),
    )
    pixels = rgb.astype(np.float32) / np.float32(255.0)
    shown = resample(pixels, geometry.scaled_height, geometry.scaled_width, kernel, window)
    canvas = np.zeros((geometry.size, geometry.size, 3), np.float32)
    canvas[rows, columns] = np.clip(shown, 0.0, 1.0)
    return canvas, geometry.mask
