"""How much of a film's picture is covered by writing: subtitles, titles, slides, watermarks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Literal

import cv2
import numpy as np
import numpy.typing as npt
from pydantic import Field

from omnimill.pipelines.base import Operator
from omnimill.pipelines.decoders.pixels import load_grey
from omnimill.schema import Example

_SIDE = 384
# A line of writing, in pixels of a picture with a longer side of 384 pixels.
_MIN_HEIGHT, _MAX_HEIGHT = 5, 64
_MIN_EDGE = 48
_GAP = 9


class VideoText(Operator):
    """Drops a run of which too much of the picture lies under lines of writing.

    A heuristic, not a reader: strokes are edges that stand close together, and lines are long runs of them. After the
    edge-based localisation of captions in video (Lyu, Song and Cai 2005, "A comprehensive method for multilingual
    video text detection, localization, and extraction"): strong gradients, joined along the line, kept where the
    joined piece is flat, full of edges, and crossed by many strokes. The mean share over the frames is the score
    ``video_text``. Fences, foliage and other fine regular texture count as writing now and then.
    """

    per_example: ClassVar[bool] = True
    reads: ClassVar[tuple[str, ...]] = ("video", "images")
    writes: ClassVar[tuple[str, ...]] = ("meta",)

    op: Literal["video_text"]
    max_share: float | None = Field(0.2, ge=0, le=1)

    def __call__(self, examples: Sequence[Example]) -> list[str | None]:
        return [self._judge(example) for example in examples]

    def _judge(self, example: Example) -> str | None:
        if example.video is None or not example.images:
            return None
        share = float(np.mean([written_share(load_grey(image, _SIDE)) for image in example.images]))
        example.meta.scores["video_text"] = share
        return "video_text" if self.max_share is not None and share > self.max_share else None


def written_share(grey: npt.NDArray[np.uint8]) -> float:
    """Share of a picture, uint8 [height, width], under boxes around lines of writing."""
    edges = cv2.morphologyEx(grey, cv2.MORPH_GRADIENT, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (3, 3)))
    strong = (edges >= _MIN_EDGE).astype(np.uint8)
    joined = cv2.morphologyEx(strong, cv2.MORPH_CLOSE, np.ones((1, _GAP), np.uint8))
    joined = cv2.morphologyEx(joined, cv2.MORPH_OPEN, np.ones((3, 5), np.uint8))
    count, _, boxes, _ = cv2.connectedComponentsWithStats(joined, connectivity=8)
    covered = np.zeros(grey.shape, bool)
    for number in range(1, count):
        left, top, width, height, area = (int(value) for value in boxes[number])
        if not _MIN_HEIGHT <= height <= _MAX_HEIGHT or width < 2 * height or area < 0.5 * width * height:
            continue
        box = slice(top, top + height), slice(left, left + width)
        if _strokes(grey[box]) >= width / (1.5 * height):
            covered[box] = True
    return float(covered.mean())


def _strokes(line: npt.NDArray[np.uint8]) -> float:
    """How often light and dark change along the rows in the middle of a line; the median of the rows, halved."""
    height = line.shape[0]
    rows = line[height // 4 : max(height // 4 + 1, 3 * height // 4)].astype(np.int16)
    middle = (rows.max(axis=1, keepdims=True) + rows.min(axis=1, keepdims=True)) // 2
    contrast = (rows.max(axis=1) - rows.min(axis=1)) >= _MIN_EDGE
    changes = (np.diff(rows > middle, axis=1) != 0).sum(axis=1)
    return float(np.median(np.where(contrast, changes, 0))) / 2
