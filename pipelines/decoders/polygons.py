"""Masks given as polygons, from untrusted JSON."""

from __future__ import annotations

from typing import Any

import numpy as np

from omnimill.errors import BadRecord
from omnimill.pipelines.decoders.masks import Mask, decode_rle
from omnimill.pipelines.decoders.numbers import is_finite_number

# Annotated polygons have some hundreds of corners; what a mask may cost is bounded by the rows that edges cross.
_MAX_CORNERS = 20_000
_MAX_CROSSINGS = 20_000_000


def decode_segmentation(segmentation: Any, height: int, width: int) -> Mask:
    """A mask in any of COCO's forms, bool [height, width]: a list of polygons, or run lengths (`decode_rle`).

    Raises:
        BadRecord: ``mask_malformed``, ``mask_size_mismatch``.
    """
    if not isinstance(segmentation, list):
        return decode_rle(segmentation, height, width)
    mask = np.zeros((height, width), np.bool_)
    for polygon in segmentation:
        mask |= polygon_mask(polygon, height, width)
    return mask


def polygon_mask(polygon: Any, height: int, width: int) -> Mask:
    """The pixels whose centres lie in a polygon, bool [height, width]; where it crosses itself, by the even-odd rule.

    COCO's own tools draw edges on a grid five times as fine and so differ in single pixels along the border.

    Args:
        polygon: x, y, x, y, … in pixels from the upper left corner of the picture; parts outside are cut off.

    Raises:
        BadRecord: ``mask_malformed``: fewer than three corners, no numbers, or more than any annotator draws.
    """
    if not isinstance(polygon, list) or len(polygon) < 6 or len(polygon) % 2 or not all(map(is_finite_number, polygon)):
        raise BadRecord("mask_malformed", "a polygon that is not three or more pairs of numbers")
    if len(polygon) > 2 * _MAX_CORNERS:
        raise BadRecord("mask_malformed", f"a polygon of {len(polygon) // 2} corners; at most {_MAX_CORNERS}")
    corners = np.array(polygon, np.float64).reshape(-1, 2)
    begin, end = corners, np.roll(corners, -1, axis=0)
    low, high = np.minimum(begin[:, 1], end[:, 1]), np.maximum(begin[:, 1], end[:, 1])
    # Rows r whose centre r + 0.5 lies in low <= y < high.
    first = np.ceil(low.clip(0, height) - 0.5).astype(np.int64)
    last = np.minimum(np.ceil(high.clip(0, height) - 0.5).astype(np.int64), height)
    spans = (last - first).clip(0)
    if int(spans.sum()) > _MAX_CROSSINGS:
        raise BadRecord("mask_malformed", f"a polygon whose edges cross {int(spans.sum())} rows")
    edge = np.repeat(np.arange(len(corners)), spans)
    rows = np.arange(len(edge)) - np.repeat(np.cumsum(spans) - spans, spans) + first[edge]
    with np.errstate(over="ignore", invalid="ignore"):
        share = (rows + 0.5 - begin[edge, 1]) / (end[edge, 1] - begin[edge, 1])
        x = begin[edge, 0] + share * (end[edge, 0] - begin[edge, 0])
    columns = np.ceil(np.nan_to_num(x).clip(0, width) - 0.5).astype(np.int64).clip(0, width)
    turns = np.zeros((height, width + 1), np.int32)
    np.add.at(turns, (rows, columns), 1)
    return (np.cumsum(turns, axis=1)[:, :width] % 2).astype(np.bool_)
