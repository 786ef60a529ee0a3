"""Pictures of nothing but writing: scanned pages, screenshots of text, slides."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Literal

import cv2
import numpy as np
import numpy.typing as npt
from pydantic import Field

from omnimill.pipelines.base import Operator
from omnimill.pipelines.decoders.pixels import fitted, load_grey
from omnimill.schema import Example

Mask = npt.NDArray[np.uint8]

# Sizes in pixels of a picture whose longer side is 512.
_SIDE = 512
_STROKE = 15
_NEIGHBOURHOOD = 31
_MAX_LETTER_HEIGHT = 42
_GAP = 15
_MIN_LINE_HEIGHT = 4
# Width over height.
_MIN_LINE = 2.5
# In grey levels of 0 to 255.
_MIN_CONTRAST = 32
_MAX_UNEVENNESS = 10
_MIN_LETTERS = 0.005


class ImageTextOnly(Operator):
    """Drops an example whose pictures all show nothing but writing.

    The measure is the share of letters in all that is not paper. Strokes are what the morphological top-hat leaves of a
    picture (Soille, "Morphological Image Analysis", section 4.7), which does without an even light; letters are
    pieces of strokes no higher than a twelfth of the picture's longer side that stand in lines (after Fletcher and
    Kasturi, "A robust algorithm for text string separation from mixed text/graphics images", PAMI 1988); paper is where
    the background behind the strokes is even. The smallest value of the example's pictures is its score
    ``image_text``. Line drawings and charts with much lettering come near to pages of text.
    """

    per_example: ClassVar[bool] = True
    reads: ClassVar[tuple[str, ...]] = ("images",)
    writes: ClassVar[tuple[str, ...]] = ("meta",)

    op: Literal["image_text_only"]
    max_share: float | None = Field(0.8, ge=0, le=1)

    def looks_at(self, width: int, height: int) -> tuple[int, int]:
        return fitted(width, height, None, _SIDE)

    def __call__(self, examples: Sequence[Example]) -> list[str | None]:
        return [self._judge(example) for example in examples]

    def _judge(self, example: Example) -> str | None:
        if not example.images:
            return None
        share = min(letter_share(load_grey(image, _SIDE)) for image in example.images)
        example.meta.scores["image_text"] = share
        return "image_text_only" if self.max_share is not None and share > self.max_share else None


def letter_share(grey: npt.NDArray[np.uint8]) -> float:
    """Share of letters in what is not paper, of a picture uint8 [height, width]: dark on light, or light on dark."""
    return max(_dark_letters(grey), _dark_letters(np.asarray(255 - grey, np.uint8)))


def _dark_letters(grey: npt.NDArray[np.uint8]) -> float:
    paper = cv2.morphologyEx(grey, cv2.MORPH_CLOSE, np.ones((_STROKE, _STROKE), np.uint8))
    strokes = np.asarray(cv2.subtract(paper, grey) >= _MIN_CONTRAST, np.uint8)
    mean = cv2.blur(paper, (_NEIGHBOURHOOD, _NEIGHBOURHOOD))
    uneven = np.asarray(cv2.absdiff(paper, mean) > _MAX_UNEVENNESS)
    letters = _pieces(strokes, max_height=_MAX_LETTER_HEIGHT)
    joined = np.asarray(cv2.morphologyEx(letters, cv2.MORPH_CLOSE, np.ones((1, _GAP), np.uint8)), np.uint8)
    lines = _pieces(joined, min_height=_MIN_LINE_HEIGHT, min_ratio=_MIN_LINE)
    written = (letters > 0) & (lines > 0) & ~uneven
    count = int(written.sum())
    if count < _MIN_LETTERS * grey.size:
        return 0.0
    return count / int((written | uneven | (strokes > 0)).sum())


def _pieces(mask: Mask, min_height: int = 0, max_height: int = _SIDE, min_ratio: float = 0) -> Mask:
    """The connected pieces of a mask, uint8 of 0 and 1, of some heights in pixels and ratios of width to height."""
    _, labels, boxes, _ = cv2.connectedComponentsWithStats(mask, connectivity=8)
    widths, heights = np.asarray(boxes[:, cv2.CC_STAT_WIDTH]), np.asarray(boxes[:, cv2.CC_STAT_HEIGHT])
    fitting = (heights >= min_height) & (heights <= max_height) & (widths >= min_ratio * heights)
    fitting[0] = False  # what is outside of the mask
    return np.asarray(fitting[labels], np.uint8)
