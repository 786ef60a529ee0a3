"""Pictures out of video files by streaming passes of ffmpeg, on the file's own clock.

Time 0 is the start of the file. What counts is when a frame is shown, so a variable frame rate, a first timestamp
that is not 0 and gaps need no special case. Pictures come the right way up and with square pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from omnimill.errors import BadRecord
from omnimill.pipelines.decoders import ffmpeg
from omnimill.pipelines.decoders.pictures import jpeg
from omnimill.pipelines.decoders.probe import VideoTrack
from omnimill.schema import Image

# Picking frames writes two dozen characters per frame into one argument of the command line, which may have 128 KiB.
_PICKED_PER_PASS = 2000
# Seconds before a wanted frame at which a pass begins to look for the key frame that it needs.
_SEEK_MARGIN = 0.5


def frames_at(
    path: str,
    demuxer: str,
    track: VideoTrack,
    times: Sequence[float],
    tolerance: float,
    max_side: int,
    timeout: float,
) -> list[Image]:
    """The frames whose presentation times are nearest to the given ones, as JPEG.

    Args:
        times: seconds, not empty.
        tolerance: seconds that a frame's time may be off.
        path: local file; `demuxer` and `track` are what :func:`~omnimill.pipelines.decoders.probe.probe` found.
        max_side: longer side in pixels at most; pictures are never scaled up.
        timeout: seconds of wall-clock time.

    Raises:
        BadRecord: ``video_timestamp_missing`` when no frame lies near enough to a time, ``video_timeout``,
            ``video_undecodable``.
    """
    nearest = _nearest(track, np.asarray(times, dtype=np.float64), tolerance)
    picked, back = np.unique(nearest, return_inverse=True)
    images: list[Image] = []
    for begin in range(0, len(picked), _PICKED_PER_PASS):
        ticks = [track.times[index] for index in picked[begin : begin + _PICKED_PER_PASS]]
        lead = max(0.0, track.start + float((ticks[0] - track.times[0]) * track.time_base) - _SEEK_MARGIN)
        found = _frames_with(path, demuxer, track, ticks, lead, max_side, timeout)
        if len(found) < len(ticks) and lead > 0:  # an index that leads past what it should lead to
            found = _frames_with(path, demuxer, track, ticks, 0.0, max_side, timeout)
        images += found
    if len(images) != len(picked):
        raise BadRecord("video_undecodable", f"{len(images)} of {len(picked)} frames could be decoded")
    return [replace(images[index], time=float(time)) for index, time in zip(back, times, strict=True)]


def _frames_with(
    path: str, demuxer: str, track: VideoTrack, ticks: Sequence[int], lead: float, max_side: int, timeout: float
) -> list[Image]:
    """The frames of these ascending ticks; `lead` seconds of the file are skipped, back to a key frame."""
    options = {"ss": f"{lead:.6f}", "noaccurate_seek": None} if lead > 0 else {}
    chosen = ffmpeg.source(path, demuxer, **options)[str(track.index)].filter("select", _any_of(ticks))
    images: list[Image] = []
    output = _portable_pixmaps(chosen, max_side, "-copyts", frames=len(ticks))
    with ffmpeg.piped(output, "video", timeout) as stream:
        while (rgb := _read_pixmap(stream)) is not None:
            images.append(jpeg(rgb, None))
    return images


def _nearest(track: VideoTrack, wanted: npt.NDArray[np.float64], tolerance: float) -> npt.NDArray[np.int64]:
    """For every wanted time the number of the frame nearest to it."""
    ticks = np.array(track.times, dtype=np.int64)
    if not len(ticks):
        raise BadRecord("video_timestamp_missing", "the video has no frames")
    clock = (ticks - ticks[0]) * float(track.time_base) + track.start
    right = np.clip(np.searchsorted(clock, wanted), 0, len(clock) - 1)
    left = np.maximum(right - 1, 0)
    nearest = np.where(np.abs(clock[left] - wanted) <= np.abs(clock[right] - wanted), left, right)
    off = np.abs(clock[nearest] - wanted)
    if off.max() > tolerance:
        worst = int(off.argmax())
        message = f"the frame nearest to {wanted[worst]:.4f} s is {off[worst]:.4f} s off, {tolerance:g} s allowed"
        raise BadRecord("video_timestamp_missing", message)
    return nearest.astype(np.int64)


def _any_of(ticks: Sequence[int]) -> str:
    """A filter expression that holds for frames at these ascending ticks: a binary search, as sums nest too deep."""
    if len(ticks) == 1:
        return f"eq(pts,{ticks[0]})"
    middle = len(ticks) // 2
    return f"if(lt(pts,{ticks[middle]}),{_any_of(ticks[:middle])},{_any_of(ticks[middle:])})"


def _stream(path: str, demuxer: str, track: VideoTrack) -> Any:
    return ffmpeg.source(path, demuxer)[str(track.index)]


def _portable_pixmaps(stream: Any, max_side: int, *global_arguments: str, frames: int | None = None) -> Any:
    """Frames as they come, in square pixels and no larger than `max_side`, as PPM: a format that states its size.

    Reading ends after so many `frames`.
    """
    share = f"min(1,{max_side}/max(iw*sar,ih))"
    scaled = stream.filter(
        "scale",
        w=f"max(1,trunc(iw*sar*{share}+0.5))",
        h=f"max(1,trunc(ih*{share}+0.5))",
        flags="area+accurate_rnd+full_chroma_int+bitexact",
    )
    ends = {} if frames is None else {"frames:v": frames}
    output = scaled.output("pipe:", format="image2pipe", vcodec="ppm", pix_fmt="rgb24", fps_mode="passthrough", **ends)
    return output.global_args(*global_arguments)


def _read_pixmap(stream: IO[bytes]) -> npt.NDArray[np.uint8] | None:
    """The next picture, uint8 [height, width, 3]; None when there is no whole one left."""
    if stream.readline() != b"P6\n":
        return None
    width, height = (int(side) for side in stream.readline().split())
    stream.readline()  # the largest value, 255
    size = width * height * 3
    data = stream.read(size)
    return np.frombuffer(data, dtype=np.uint8).reshape(height, width, 3) if len(data) == size else None
