"""Masks in COCO's run-length encoding, from untrusted JSON: checked before they are drawn, stored as one-bit PNG."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image as Pillow

from omnimill.errors import BadRecord

Mask = npt.NDArray[np.bool_]

# A compressed run takes at most so many characters of six bits: 32 bits and a sign.
_CHARACTERS = 7


def decode_rle(segmentation: Any, height: int, width: int) -> Mask:
    """The mask of a picture, bool [height, width].

    Args:
        segmentation: ``{"size": [height, width], "counts": ...}``; runs of pixels outside and inside in turns, down
            the columns, as a list of numbers or as the text that pycocotools write.

    Raises:
        BadRecord: ``mask_size_mismatch`` when it is not of this size, ``mask_malformed`` when its runs are not those
            of a picture of this size. Nothing is allocated before the runs are known to fit.
    """
    if not isinstance(segmentation, dict):
        raise BadRecord("mask_malformed", f"a segmentation that is {type(segmentation).__name__}, not run lengths")
    if segmentation.get("size") != [height, width]:
        raise BadRecord("mask_size_mismatch", f"a mask of {segmentation.get('size')} on a picture of {[height, width]}")
    counts = _counts(segmentation.get("counts"), height * width)
    total = int(counts.sum())
    if len(counts) == 0 or counts.min() < 0 or counts.max() > height * width or total != height * width:
        raise BadRecord("mask_malformed", f"runs of {total} pixels in a picture of {height * width}")
    inside = np.arange(len(counts)) % 2 == 1
    return np.repeat(inside, counts).reshape(width, height).T


def mask_png(mask: Mask) -> bytes:
    """A mask as PNG of one bit per pixel: white inside, black outside."""
    height, width = mask.shape
    stream = io.BytesIO()
    packed = np.packbits(np.ascontiguousarray(mask), axis=1).tobytes()
    Pillow.frombytes("1", (width, height), packed).save(stream, "PNG")
    return stream.getvalue()


def _counts(counts: Any, pixels: int) -> npt.NDArray[np.int64]:
    if isinstance(counts, list):
        if len(counts) > pixels + 1 or not all(type(run) is int and 0 <= run <= pixels for run in counts):
            raise BadRecord("mask_malformed", f"{len(counts)} run lengths that are not all numbers of pixels")
        return np.array(counts, np.int64)
    if not isinstance(counts, str):
        raise BadRecord("mask_malformed", f"run lengths that are {type(counts).__name__}")
    if len(counts) > _CHARACTERS * (pixels + 1):
        raise BadRecord("mask_malformed", f"{len(counts)} characters of run lengths in a picture of {pixels} pixels")
    try:
        characters = np.frombuffer(counts.encode("ascii"), np.uint8).astype(np.int64) - 48
    except UnicodeEncodeError:
        raise BadRecord("mask_malformed", "run lengths with characters that are not theirs") from None
    return _uncompressed(characters)


def _uncompressed(characters: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Runs of their characters less 48: five bits each, lowest first, bit 5 set on all but the last character of a run.

    Bit 4 of the last one is the sign; from the fourth run on a run is told by its difference to the one two before.
    """
    last = np.flatnonzero(characters & 32 == 0)
    damaged = len(characters) and (
        characters.min() < 0 or characters.max() > 63 or not len(last) or last[-1] != len(characters) - 1
    )
    first = np.concatenate([[0], last[:-1] + 1]).astype(np.int64) if len(last) else last
    lengths = last - first + 1
    if damaged or (len(last) and lengths.max() > _CHARACTERS):
        raise BadRecord("mask_malformed", "run lengths that are cut off or hold characters that are not theirs")
    runs = np.zeros(len(last), np.int64)
    for place in range(int(lengths.max()) if len(last) else 0):
        longer = lengths > place
        runs[longer] |= (characters[first[longer] + place] & 31) << (5 * place)
    negative = characters[last] & 16 != 0
    runs[negative] -= np.int64(1) << (5 * lengths[negative])
    for start in (1, 2):
        runs[start::2] = np.cumsum(runs[start::2])
    return runs
