"""Decoded frames as JPEG and as thumbnails."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import simplejpeg
from av.video.reformatter import Interpolation, VideoReformatter
from blake3 import blake3

from omnimill.pipelines.decoders.probe import VideoTrack
from omnimill.pipelines.decoders.shots import THUMBNAIL_HEIGHT, THUMBNAIL_WIDTH, Planes
from omnimill.schema import Image

JPEG_QUALITY = 90
_EXACT = Interpolation.AREA | Interpolation.ACCURATE_RND | Interpolation.FULL_CHR_H_INT | Interpolation.BITEXACT
_THUMBNAIL = Interpolation.AREA | Interpolation.BITEXACT


class Scaler:
    """Scales the frames of a film: square pixels, the right way up, no side longer than `max_side`."""

    def __init__(self, track: VideoTrack, max_side: int) -> None:
        self._aspect = track.aspect
        self._max_side = max_side
        self._pictures = VideoReformatter()
        self._thumbnails = VideoReformatter()
        self.shown: tuple[int, int] | None = None  # width and height of the film the right way up, once known

    def picture(self, frame: Any, time: float) -> Image:
        """A frame as JPEG."""
        wide, high = frame.width * self._aspect, float(frame.height)
        share = min(1.0, self._max_side / max(wide, high))
        width, height = (max(1, int(side * share + 0.5)) for side in (wide, high))
        turns, flipped = _turned(frame)
        rgb = self._pictures.reformat(frame, width, height, "rgb24", interpolation=_EXACT, threads=1).to_ndarray()
        rgb = np.rot90(rgb[:, ::-1] if flipped else rgb, turns)
        if self.shown is None:
            sides = (max(1, round(wide)), frame.height)
            self.shown = sides[::-1] if turns % 2 else sides
        return jpeg(np.ascontiguousarray(rgb), time)

    def thumbnail(self, frame: Any) -> Planes:
        """Y, Cb and Cr of a frame, 64 x 36 and half of that for the colours."""
        small = self._thumbnails.reformat(
            frame, THUMBNAIL_WIDTH, THUMBNAIL_HEIGHT, "yuv420p", interpolation=_THUMBNAIL, threads=1
        )
        return tuple(
            np.frombuffer(memoryview(plane), np.uint8).reshape(plane.height, plane.line_size)[:, : plane.width].copy()
            for plane in small.planes
        )


def _turned(frame: Any) -> tuple[int, bool]:
    """How a frame has to be turned for display: mirrored left to right or not, then quarter turns to the left.

    From the display matrix, nine numbers of 16.16 fixed point (ISO/IEC 14496-12, 8.2.2), rounded to quarter turns.
    """
    side = frame.side_data.get("DISPLAYMATRIX")
    if side is None:
        return 0, False
    matrix = np.frombuffer(side, np.int32)[:9].astype(np.float64)
    a, b, c, d = matrix[0], matrix[1], matrix[3], matrix[4]
    flipped = a * d - b * c < 0
    if flipped:
        a, b = -a, -b
    turns = round(float(np.degrees(np.arctan2(-b, a))) / 90) % 4
    return turns, bool(flipped)


def jpeg(rgb: npt.NDArray[np.uint8], time: float | None) -> Image:
    """A picture, uint8 [height, width, 3], as JPEG; its digest is that of the JPEG, as a frame has no file."""
    data = simplejpeg.encode_jpeg(rgb, quality=JPEG_QUALITY, colorspace="RGB", colorsubsampling="420")
    height, width = rgb.shape[:2]
    return Image(data=data, format="jpeg", width=width, height=height, digest=blake3(data).hexdigest(), time=time)
