"""What a media file holds, from its headers and packet times; no frame is decoded."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import av
from av.stream import Disposition

from omnimill.errors import BadRecord
from omnimill.pipelines.decoders.ffmpeg import DEMUXERS

_MAX_PACKETS = 20_000_000


@dataclass(frozen=True)
class MediaLimits:
    """What is refused before anything is decoded. pixels: width x height of a frame."""

    pixels: int = 8192 * 4320
    seconds: float = 4 * 3600.0
    streams: int = 64
    channels: int = 64


@dataclass(frozen=True)
class VideoTrack:
    """index: stream number. width, height: in square pixels, before any rotation.

    frame_rate: frames per second on average. time_base: seconds per tick of `times`.

    start, seconds: when the first frame is shown and the last one ends, counted from the start of the file.
    times: presentation times of the frames in ticks, ascending.
    """

    index: int
    width: int
    height: int
    frame_rate: float
    start: float
    seconds: float
    time_base: Fraction
    times: tuple[int, ...]


@dataclass(frozen=True)
class AudioTrack:
    """index: stream number. seconds: when it ends, counted from the start of the file."""

    index: int
    sample_rate: int
    channels: int
    seconds: float


@dataclass(frozen=True)
class MediaInfo:
    """demuxer: the one that recognised the content."""

    demuxer: str
    video: VideoTrack | None
    audio: AudioTrack | None


def probe(path: str, kind: str, limits: MediaLimits) -> MediaInfo:
    """Look into a local media file. Call it through :func:`~omnimill.pipelines.isolation.isolated`.

    The container is recognised by content among those in `DEMUXERS`. All packets are walked through (not decoded), so
    that times are those of the frames that are there, whatever the header says. Of several video streams the one with
    most pixels is taken, the first of equals; of audio the one that belongs to it. Cover art is no video.

    Raises:
        BadRecord: ``<kind>_unreadable``, ``<kind>_too_many_streams``, ``<kind>_too_large``, ``<kind>_too_long``,
            ``<kind>_truncated`` (the packets end well before the header says).
    """
    try:
        with av.open(
            path,
            options={"protocol_whitelist": "file", "format_whitelist": DEMUXERS},
            metadata_errors="ignore",
        ) as container:
            return _look(container, kind, limits)
    except (av.error.FFmpegError, ValueError) as error:
        if isinstance(error, MemoryError):
            raise
        text = getattr(error, "strerror", None) or str(error)
        raise BadRecord(f"{kind}_unreadable", f"no container that is read, or a damaged one: {text}") from None


def _look(container: Any, kind: str, limits: MediaLimits) -> MediaInfo:
    if len(container.streams) > limits.streams:
        message = f"{len(container.streams)} streams, {limits.streams} allowed"
        raise BadRecord(f"{kind}_too_many_streams", message)
    claimed = container.duration / av.time_base if container.duration else 0.0
    if claimed > limits.seconds:
        raise BadRecord(f"{kind}_too_long", f"{claimed:.1f} s, {limits.seconds:g} s allowed")
    video = _best_video(container, kind, limits)
    audio = container.streams.best("audio", related=video) if container.streams.audio else None
    if audio is not None and audio.codec_context is None:
        audio = None
    if audio is not None and audio.codec_context.channels > limits.channels:
        raise BadRecord(f"{kind}_too_large", f"{audio.codec_context.channels} channels, {limits.channels} allowed")
    start = container.start_time / av.time_base if container.start_time else 0.0
    times, ends = _walk(container, video, kind, limits, start)
    end = max(ends.values(), default=0.0)
    if end < claimed - max(1.0, 0.05 * claimed):
        raise BadRecord(f"{kind}_truncated", f"the header says {claimed:.2f} s, the packets end at {end:.2f} s")
    return MediaInfo(
        demuxer=container.format.name.split(",")[0],
        video=_video_track(video, times, ends.get(video.index, 0.0), start) if video is not None else None,
        audio=None
        if audio is None
        else AudioTrack(
            audio.index, audio.codec_context.sample_rate, audio.codec_context.channels, ends.get(audio.index, 0.0)
        ),
    )


def _best_video(container: Any, kind: str, limits: MediaLimits) -> Any:
    best = None
    for stream in container.streams.video:
        if stream.codec_context is None or stream.disposition & Disposition.attached_pic:
            continue
        pixels = stream.codec_context.width * stream.codec_context.height
        if pixels > limits.pixels:
            size = f"{stream.codec_context.width} x {stream.codec_context.height}"
            raise BadRecord(f"{kind}_too_large", f"{size} pixels, {limits.pixels} allowed")
        if best is None or pixels > best.codec_context.width * best.codec_context.height:
            best = stream
    return best


def _walk(
    container: Any, video: Any, kind: str, limits: MediaLimits, start: float
) -> tuple[list[int], dict[int, float]]:
    """Presentation times of the video's frames in ticks, and the end of each stream in seconds from `start`."""
    times: list[int] = []
    ends: dict[int, float] = {}
    for count, packet in enumerate(container.demux()):
        if packet.pts is None:
            continue
        stream = packet.stream
        end = float((packet.pts + (packet.duration or 0)) * stream.time_base) - start
        ends[stream.index] = max(end, ends.get(stream.index, 0.0))
        if end > limits.seconds or count > _MAX_PACKETS:
            raise BadRecord(f"{kind}_too_long", f"packets go on past {limits.seconds:g} s")
        if video is not None and stream.index == video.index and not packet.is_discard:
            times.append(packet.pts)
    return sorted(times), ends


def _video_track(stream: Any, times: list[int], seconds: float, start: float) -> VideoTrack:
    first = float(times[0] * stream.time_base) - start if times else 0.0
    length = seconds - first
    aspect = stream.codec_context.sample_aspect_ratio or 1
    return VideoTrack(
        index=stream.index,
        width=round(stream.codec_context.width * aspect),
        height=stream.codec_context.height,
        frame_rate=len(times) / length if length > 0 else 0.0,
        start=first,
        seconds=seconds,
        time_base=stream.time_base,
        times=tuple(times),
    )
