"""Where one shot of a film ends and the next begins: hard cuts, from small copies of the frames.

Fades and dissolves are not looked for.
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
import numpy.typing as npt
from pydantic import Field

from omnimill.config import Config

THUMBNAIL_WIDTH, THUMBNAIL_HEIGHT = 64, 36

Planes = tuple[npt.NDArray[np.uint8], ...]


class ShotSettings(Config):
    """When a change between two frames is a cut.

    The measure of change is the mean absolute difference of the samples, on 64 x 36 copies in Y'CbCr, summed over the
    three components (0 to 765). The rule is that of PySceneDetect's adaptive detector (`AdaptiveDetector`, there on
    HSV): a cut changes more than `min_change`, and `ratio` times as much as the mean of the `window` changes before
    and after it, so that a moving camera or flicker, which changes every frame, is none.

    ratio: 3, as there. window: frames on either side, 2 as there.
    min_change: 15, as there for a sum over three components of which each is a mean.
    min_seconds: no shot is shorter; of two cuts nearer than that the first counts (15 frames there).
    """

    ratio: float = Field(3.0, gt=1)
    window: int = Field(2, ge=1, le=16)
    min_change: float = Field(15.0, gt=0)
    min_seconds: float = Field(0.6, ge=0)


class ShotDetector:
    """Sees the frames of a film in order of time."""

    def __init__(self) -> None:
        self._before: Planes | None = None
        self._times: list[float] = []
        self._changes: list[float] = []

    def see(self, time: float, planes: Planes) -> None:
        """planes: thumbnails of Y, Cb and Cr, uint8 [height, width] each."""
        if self._before is not None:
            pairs = zip(planes, self._before, strict=True)
            self._times.append(time)
            self._changes.append(sum(cv2.norm(now, before, cv2.NORM_L1) / now.size for now, before in pairs))
        self._before = planes

    def cuts(self, settings: ShotSettings) -> list[float]:
        """Times of the first frames of all shots but the first, in seconds."""
        return find_cuts(self._times, self._changes, settings)


def find_cuts(times: Sequence[float], changes: Sequence[float], settings: ShotSettings) -> list[float]:
    """Times at which the changes say that a shot begins.

    Args:
        times: seconds, ascending; `changes` are those from the frame before to the frame at the time.
    """
    if not len(changes):
        return []
    size = settings.window
    values = np.asarray(changes, np.float64)
    padded = np.pad(values, size)
    counted = np.pad(np.ones_like(values), size)
    width = 2 * size + 1
    around = np.convolve(padded, np.ones(width), "valid") - values
    neighbours = np.convolve(counted, np.ones(width), "valid") - 1
    mean = around / np.maximum(neighbours, 1)
    cuts: list[float] = []
    for index in map(int, np.flatnonzero((values >= settings.min_change) & (values >= settings.ratio * mean))):
        if times[index] - (cuts[-1] if cuts else 0.0) >= settings.min_seconds:
            cuts.append(float(times[index]))
    return cuts
