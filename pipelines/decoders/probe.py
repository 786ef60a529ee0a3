"""What a media file holds, from its headers and packet times; no frame is decoded."""

from __future__ import annotations

import re
from array import array
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
from av.stream import Disposition

from omnimill.errors import BadRecord
from omnimill.pipelines.decoders.ffmpeg import DEMUXERS

_MAX_PACKETS = 20_000_000
_HEAD_BYTES = 4096
# Bytes that no text has, in any encoding that playlists are written in.
_BINARY = re.compile(rb"[\x00-\x08\x0e-\x1a\x1c-\x1f]")


@dataclass(frozen=True)
class MediaLimits:
    """What is refused before anything is decoded. pixels: width x height of a frame. frames: in the whole file."""

    pixels: int = 8192 * 4320
    seconds: float = 4 * 3600.0
    streams: int = 64
    channels: int = 64
    frames: int = 4_000_000


@dataclass(frozen=True)
class TrackChoice:
    """Which streams of a file are read, counted among those of their kind from 0; None is the best one."""

    video: int | None = None
    audio: int | None = None


@dataclass(frozen=True)
class VideoTrack:
    """index: stream number. width, height: in square pixels, before any rotation.

    aspect: width of a coded pixel, in heights of it.

    frame_rate: frames per second on average. time_base: seconds per tick of `times`.

    start, seconds: when the first frame is shown and the last one ends, counted from the start of the file.
    times: presentation times of the frames in ticks, ascending.
    """

    index: int
    width: int
    height: int
    aspect: float
    frame_rate: float
    start: float
    seconds: float
    time_base: Fraction
    times: array[int]


@dataclass(frozen=True)
class AudioTrack:
    """index: stream number. seconds: when it ends, counted from the start of the file."""

    index: int
    sample_rate: int
    channels: int
    seconds: float


@dataclass(frozen=True)
class MediaInfo:
    """demuxer: the one that recognised the content. others: streams that could be read and are not, in words."""

    demuxer: str
    video: VideoTrack | None
    audio: AudioTrack | None
    others: tuple[str, ...] = ()


BEST_TRACKS = TrackChoice()


def probe(path: str, kind: str, limits: MediaLimits, choice: TrackChoice = BEST_TRACKS) -> MediaInfo:
    """Look into a local media file. Call it through :func:`~omnimill.pipelines.isolation.isolated`.

    The container is recognised by content among those in `DEMUXERS`; text is not even offered to them, so that no
    playlist, manifest or list of files, whatever it is called, makes ffmpeg open anything else. All packets
    are walked through (not decoded), so that times are those of the frames that are there, whatever the header says.
    The best of several video streams has most pixels, the first of equals; the best audio is the one that belongs to
    it. Cover art is no video.

    Raises:
        BadRecord: ``<kind>_unreadable``, ``<kind>_too_many_streams``, ``<kind>_too_large``, ``<kind>_too_long``,
            ``<kind>_truncated`` (the packets end well before the header says), ``<kind>_no_stream`` (the one chosen is
            not there).
    """
    _refuse_text(path, kind)
    try:
        with av.open(
            path,
            options={"protocol_whitelist": "file", "format_whitelist": DEMUXERS},
            metadata_errors="ignore",
        ) as container:
            return _look(container, kind, limits, choice)
    except (av.error.FFmpegError, ValueError) as error:
        if isinstance(error, MemoryError):
            raise
        text = getattr(error, "strerror", None) or str(error)
        raise BadRecord(f"{kind}_unreadable", f"no container that is read, or a damaged one: {text}") from None


def _refuse_text(path: str, kind: str) -> None:
    """Turn down what is plain text; two containers have headers of text, which their demuxers check."""
    with Path(path).open("rb") as file:
        head = file.read(_HEAD_BYTES)
    if head and not head.startswith((b"YUV4MPEG2 ", b"NIST_1A")) and not _BINARY.search(head):
        raise BadRecord(f"{kind}_unreadable", "it is text, not a container; playlists are not followed")


def _look(container: Any, kind: str, limits: MediaLimits, choice: TrackChoice) -> MediaInfo:
    if len(container.streams) > limits.streams:
        message = f"{len(container.streams)} streams, {limits.streams} allowed"
        raise BadRecord(f"{kind}_too_many_streams", message)
    claimed = container.duration / av.time_base if container.duration else 0.0
    if claimed > limits.seconds:
        raise BadRecord(f"{kind}_too_long", f"{claimed:.1f} s, {limits.seconds:g} s allowed")
    pictures, sounds = _streams(container, kind, limits)
    video = _chosen(pictures, choice.video, kind) or max(pictures, key=_pixels, default=None)
    audio = _chosen(sounds, choice.audio, kind)
    if audio is None and sounds:
        best = container.streams.best("audio", related=video)
        audio = best if best in sounds else sounds[0]
    start = container.start_time / av.time_base if container.start_time else 0.0
    times, ends = _walk(container, video, kind, limits, start)
    end = max(ends.values(), default=0.0)
    if end < claimed - max(1.0, 0.05 * claimed):
        raise BadRecord(f"{kind}_truncated", f"the header says {claimed:.2f} s, the packets end at {end:.2f} s")
    others = (stream for stream in (*pictures, *sounds) if stream is not video and stream is not audio)
    return MediaInfo(
        demuxer=container.format.name.split(",")[0],
        video=_video_track(video, times, ends.get(video.index, 0.0), start) if video is not None else None,
        audio=None
        if audio is None
        else AudioTrack(
            audio.index, audio.codec_context.sample_rate, audio.codec_context.channels, ends.get(audio.index, 0.0)
        ),
        others=tuple(_in_words(stream) for stream in others),
    )


def _streams(container: Any, kind: str, limits: MediaLimits) -> tuple[list[Any], list[Any]]:
    """The streams of pictures and of sound that can be decoded; all must keep the limits."""
    pictures = [
        stream
        for stream in container.streams.video
        if stream.codec_context is not None and not stream.disposition & Disposition.attached_pic
    ]
    sounds = [stream for stream in container.streams.audio if stream.codec_context is not None]
    for stream in pictures:
        if _pixels(stream) > limits.pixels:
            size = f"{stream.codec_context.width} x {stream.codec_context.height}"
            raise BadRecord(f"{kind}_too_large", f"{size} pixels, {limits.pixels} allowed")
    for stream in sounds:
        channels = stream.codec_context.channels
        if channels > limits.channels:
            raise BadRecord(f"{kind}_too_large", f"{channels} channels, {limits.channels} allowed")
    return pictures, sounds


def _chosen(streams: list[Any], number: int | None, kind: str) -> Any:
    if number is None:
        return None
    if number >= len(streams):
        raise BadRecord(f"{kind}_no_stream", f"stream {number} of {len(streams)} was asked for")
    return streams[number]


def _pixels(stream: Any) -> int:
    return int(stream.codec_context.width * stream.codec_context.height)


def _in_words(stream: Any) -> str:
    context = stream.codec_context
    form = (
        f"{context.width} x {context.height}" if stream.type == "video" else f"{context.channels} x {context.rate} Hz"
    )
    return f"{stream.index}: {stream.type} {context.name} {form} {stream.language or ''}".strip()


def _walk(
    container: Any, video: Any, kind: str, limits: MediaLimits, start: float
) -> tuple[array[int], dict[int, float]]:
    """Presentation times of the video's frames in ticks, and the end of each stream in seconds from `start`."""
    times = array("q")
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
            if len(times) > limits.frames:
                raise BadRecord(f"{kind}_too_long", f"more than {limits.frames} frames")
    return array("q", sorted(times)), ends


def _video_track(stream: Any, times: array[int], seconds: float, start: float) -> VideoTrack:
    first = float(times[0] * stream.time_base) - start if times else 0.0
    length = seconds - first
    aspect = float(stream.codec_context.sample_aspect_ratio or 1)
    return VideoTrack(
        index=stream.index,
        width=round(stream.codec_context.width * aspect),
        height=stream.codec_context.height,
        aspect=aspect,
        frame_rate=len(times) / length if length > 0 else 0.0,
        start=first,
        seconds=seconds,
        time_base=stream.time_base,
        times=times,
    )
