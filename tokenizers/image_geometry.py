"""Where a picture lies on its square canvas, scaled, cropped and padded, and the way back to its own pixels.

Follows the released preprocessing of Unified-IO 2 (arXiv 2312.17172, `resize_and_pad`), in the float32 arithmetic that
it uses. Coordinates are pixels in turns of y and x; boxes are y1, x1, y2, x2.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from omnimill.tokenizers.image import BoolArray, ByteArray, FloatArray, scaled_size

Value = TypeVar("Value", bound=np.generic)

# A line of a film belongs to its content when one of its values reaches this; at most this share goes at each side.
BORDER_LEVEL = 16
BORDER_SHARE = 0.3


@dataclass(frozen=True)
class Geometry:
    """How a picture was brought onto a canvas: scaled as a whole, cut to the canvas, centred.

    size: side of the canvas. height, width: of the picture. scale: of both sides. scaled_height, scaled_width: after
    scaling. offset_y, offset_x: of the cut's first row and column in the scaled picture. All but `scale` in pixels.
    """

    size: int
    height: int
    width: int
    scale: np.float32
    scaled_height: int
    scaled_width: int
    offset_y: int = 0
    offset_x: int = 0

    @property
    def rows(self) -> slice:
        """Rows of the canvas that show the picture."""
        return _centred(self.scaled_height, self.size)

    @property
    def columns(self) -> slice:
        """Columns of the canvas that show the picture."""
        return _centred(self.scaled_width, self.size)

    @property
    def info(self) -> FloatArray:
        """The reference's `image_info`, float32 [11].

        Rows above, columns to the left, 1 / scale, the picture's height and width, the cut's offset as shares of these,
        the offset in pixels, the scaled height and width.
        """
        sides = np.array([self.height, self.width], np.float32)
        offset = np.array([self.offset_y, self.offset_x], np.float32)
        return np.array(
            [
                self.rows.start,
                self.columns.start,
                np.float32(1.0) / self.scale,
                *sides,
                *(offset / sides),
                *offset,
                self.scaled_height,
                self.scaled_width,
            ],
            np.float32,
        )

    @property
    def mask(self) -> BoolArray:
        """bool [size, size], True where the canvas shows the picture."""
        mask = np.zeros((self.size, self.size), np.bool_)
        mask[self.rows, self.columns] = True
        return mask

    def valid_patches(self, patch: int) -> BoolArray:
        """Which patches of `patch` pixels show the picture at their centre: bool [grid * grid], rows first."""
        return self.mask[patch // 2 :: patch, patch // 2 :: patch].reshape(-1)

    def onto_canvas(self, points: ArrayLike) -> FloatArray:
        """Points of the picture [..., 2 n], y and x in turns, where they lie on the canvas or beside it."""
        values = np.asarray(points, np.float32)
        shift = self._turns(values, (self.rows.start - self.offset_y, self.columns.start - self.offset_x))
        return (values * self.scale + shift).astype(np.float32, copy=False)

    def from_canvas(self, points: ArrayLike) -> FloatArray:
        """Inverse of :meth:`onto_canvas`; what lies on the padding goes to the picture's nearest edge."""
        values = np.asarray(points, np.float32)
        shift = self._turns(values, (self.rows.start - self.offset_y, self.columns.start - self.offset_x))
        found = (values - shift) * (np.float32(1.0) / self.scale)
        inside: FloatArray = np.clip(found, 0.0, self._turns(values, (self.height, self.width)))
        return inside

    def boxes(self, boxes: ArrayLike) -> tuple[FloatArray, NDArray[np.int64]]:
        """Boxes of the picture, cut to the canvas.

        Args:
            boxes: [n, 4] in the picture's pixels.

        Returns:
            float32 [m, 4] in the canvas' pixels, and int64 [m], which of the n they are: those that keep an area.
        """
        placed = np.clip(self.onto_canvas(np.reshape(boxes, (-1, 4))), 0.0, np.float32(self.size))
        kept = np.flatnonzero((placed[:, 2] > placed[:, 0]) & (placed[:, 3] > placed[:, 1]))
        return placed[kept], kept

    @staticmethod
    def _turns(values: FloatArray, pair: tuple[int, int]) -> FloatArray:
        return np.tile(np.array(pair, np.float32), values.shape[-1] // 2)


def fitted(height: int, width: int, size: int) -> Geometry:
    """The geometry without augmentation: the whole picture, its longer side as long as the canvas."""
    rows, columns = scaled_size(height, width, size)
    return Geometry(size, height, width, np.float32(size) / np.float32(max(height, width)), rows, columns)


def nearest(values: NDArray[Value], height: int, width: int) -> NDArray[Value]:
    """[H, W, …] resized to [height, width, …] by taking the pixel under each new pixel's centre; mixes no values."""
    rows = _sources(values.shape[0], height)
    columns = _sources(values.shape[1], width)
    return values[rows[:, None], columns[None, :]]


def content_window(frames: ByteArray, level: int = BORDER_LEVEL, share: float = BORDER_SHARE) -> tuple[slice, slice]:
    """Rows and columns of a film's frames without the black bars around them.

    Args:
        frames: uint8 [frames, H, W, 3].
        level: a row or column with a value of at least this in any frame is content.
        share: at most this share of the rows and columns is cut off at each side, however black they are.
    """
    lit = frames.max(axis=(0, 3)) >= level
    return _content(lit.any(axis=1), share), _content(lit.any(axis=0), share)


def _centred(length: int, size: int) -> slice:
    visible = min(length, size)
    start = (size - visible) // 2
    return slice(start, start + visible)


def _sources(found: int, wanted: int) -> NDArray[np.int64]:
    """Index of the pixel under the centre of each new one; in whole numbers, because halves are frequent."""
    return (2 * np.arange(wanted, dtype=np.int64) + 1) * found // (2 * wanted)


def _content(lit: BoolArray, share: float) -> slice:
    count = len(lit)
    places = np.flatnonzero(lit)
    # All black: everything that may be cut is.
    first, last = (int(places[0]), int(places[-1])) if len(places) else (count // 2, count // 2)
    return slice(min(first, int(count * share)), max(last + 1, int(count * (1 - share))))
