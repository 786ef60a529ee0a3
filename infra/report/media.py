"""Pictures, sound and films small enough to live inside a page, as ``data:`` URLs."""

from __future__ import annotations

import base64
import heapq
import html
import io
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import av
import numpy as np
import numpy.typing as npt
import soundfile
import soxr
from av.container import OutputContainer
from av.packet import Packet
from PIL import Image

THUMBNAIL = 220
# A clip beyond this is cut for the page.
_CLIP_SECONDS = 15.0
_FILM_SIDE = 256
# Opus knows this rate, and every browser plays it.
_OPUS_RATE = 48_000
_TICKS = 1000  # a second
_TIME_BASE = Fraction(1, _TICKS)


@dataclass(frozen=True)
class Box:
    """A mark as the overlay of a picture draws it: percent of the picture's sides.

    shape: rect or circle. side: read or written.
    """

    shape: str
    x: float
    y: float
    width: float
    height: float
    label: str
    side: str


def box(numbers: Sequence[float], label: str, side: str = "read") -> Box:
    """Of a box (y1, x1, y2, x2) or a point (y, x) in shares of the picture's sides."""
    percent = [100 * number for number in numbers]
    if len(percent) == 2:
        return Box("circle", percent[1], percent[0], 0.0, 0.0, label, side)
    y1, x1, y2, x2 = percent
    return Box("rect", x1, y1, x2 - x1, y2 - y1, label, side)


def data_url(data: bytes, media_type: str) -> str:
    """Bytes as a ``data:`` URL."""
    return f"data:{media_type};base64,{base64.b64encode(data).decode()}"


def thumbnail(data: bytes) -> str:
    """A picture as a small JPEG data URL."""
    with Image.open(io.BytesIO(data)) as image:
        image.draft("RGB", (THUMBNAIL, THUMBNAIL))
        small = image.convert("RGB")
    small.thumbnail((THUMBNAIL, THUMBNAIL))
    stream = io.BytesIO()
    small.save(stream, "JPEG", quality=80)
    return data_url(stream.getvalue(), "image/jpeg")


def sound(data: bytes, media_type: str, seconds: float) -> str:
    """A clip as a data URL: as it is when it is short, else its beginning as FLAC."""
    if seconds <= _CLIP_SECONDS:
        return data_url(data, media_type)
    with soundfile.SoundFile(io.BytesIO(data)) as file:
        waveform, rate = file.read(int(_CLIP_SECONDS * file.samplerate), dtype="float32"), file.samplerate
    stream = io.BytesIO()
    soundfile.write(stream, waveform, rate, format="FLAC")
    return data_url(stream.getvalue(), "audio/flac")


def shown_seconds(seconds: float) -> str:
    """What a caption says of a clip's length."""
    return f"{seconds:.2f} s" if seconds <= _CLIP_SECONDS else f"the first {_CLIP_SECONDS:.0f} of {seconds:.0f} s"


def film(pictures: Sequence[tuple[float, bytes]], clips: Sequence[tuple[float, bytes]], end: float) -> str:
    """Pictures, each shown until the next, and sound as a WebM (VP8, Opus) data URL.

    Args:
        pictures, clips: encoded, with the seconds at which they begin; the first picture at 0.
        end: seconds that the film lasts.
    """
    stream = io.BytesIO()
    with av.open(stream, "w", format="webm", options={"fflags": "+bitexact"}) as container:
        streams = [_shown(container, pictures, end), *([_heard(container, clips, end)] if clips else [])]
        # Pictures and sound that lie apart in the file would not play.
        for packet in heapq.merge(*streams, key=_time):
            container.mux(packet)
    return data_url(stream.getvalue(), "video/webm")


def _time(packet: Packet[Any]) -> Fraction:
    """In seconds."""
    return (packet.dts or 0) * packet.time_base


def _shown(container: OutputContainer, pictures: Sequence[tuple[float, bytes]], end: float) -> list[Packet[Any]]:
    """Encoded pictures."""
    frames = [(time, _frame(data)) for time, data in pictures]
    # The last one again, so that the film lasts to its end.
    frames.append((max(end - 0.04, frames[-1][0] + 0.04), frames[-1][1]))
    height, width = frames[0][1].shape[:2]
    stream = container.add_stream("libvpx", rate=25, options={"crf": "12", "b:v": "800k", "deadline": "realtime"})
    assert isinstance(stream, av.VideoStream)
    stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
    stream.codec_context.thread_count, stream.codec_context.time_base = 1, _TIME_BASE
    packets: list[Packet[Any]] = []
    for time, pixels in frames:
        frame = av.VideoFrame.from_ndarray(_resized(pixels, (width, height)), format="rgb24")
        frame.pts, frame.time_base = round(time * _TICKS), _TIME_BASE
        packets += stream.encode(frame)
    return [*packets, *stream.encode(None)]


def _heard(container: OutputContainer, clips: Sequence[tuple[float, bytes]], end: float) -> list[Packet[Any]]:
    """Encoded sound."""
    stream = container.add_stream("libopus", rate=_OPUS_RATE, layout="mono")
    assert isinstance(stream, av.AudioStream)
    frame = av.AudioFrame.from_ndarray(_waveform(clips, end)[None], format="flt", layout="mono")
    frame.sample_rate, frame.pts = _OPUS_RATE, 0
    return [*stream.encode(frame), *stream.encode(None)]


def captions(cues: Sequence[tuple[float, float, str]]) -> str:
    """A WebVTT data URL of (start, end, text)."""
    lines = ["WEBVTT", ""]
    for start, end, text in cues:
        lines += [f"{_stamp(start)} --> {_stamp(end)}", html.escape(" ".join(text.split()), quote=False), ""]
    return data_url("\n".join(lines).encode(), "text/vtt")


def _stamp(seconds: float) -> str:
    minutes, rest = divmod(max(0.0, seconds), 60)
    return f"{int(minutes):02d}:{rest:06.3f}"


def _frame(data: bytes) -> npt.NDArray[np.uint8]:
    """A picture as uint8 [H, W, 3], of even sides that are no longer than a film's."""
    with Image.open(io.BytesIO(data)) as image:
        small = image.convert("RGB")
    small.thumbnail((_FILM_SIDE, _FILM_SIDE))
    return _resized(np.asarray(small), (small.width // 2 * 2 or 2, small.height // 2 * 2 or 2))


def _resized(pixels: npt.NDArray[np.uint8], size: tuple[int, int]) -> npt.NDArray[np.uint8]:
    if pixels.shape[1::-1] == size:
        return pixels
    return np.asarray(Image.fromarray(pixels).resize(size, Image.Resampling.LANCZOS))


def _waveform(clips: Sequence[tuple[float, bytes]], end: float) -> npt.NDArray[np.float32]:
    """All clips in their places: float32 [samples] at Opus's rate."""
    whole = np.zeros(round(end * _OPUS_RATE), np.float32)
    for start, data in clips:
        waveform, rate = soundfile.read(io.BytesIO(data), dtype="float32", always_2d=True)
        mono = soxr.resample(waveform.mean(axis=1), rate, _OPUS_RATE)
        first = round(start * _OPUS_RATE)
        part = mono[: max(0, len(whole) - first)]
        whole[first : first + len(part)] = part
    return whole
