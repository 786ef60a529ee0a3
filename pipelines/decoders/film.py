"""Frames, sound and cuts of a film in one pass over the file; call it through `isolation.isolated`.

Time 0 is the start of the file. What counts is when a frame is shown, so a variable frame rate, a first timestamp
that is not 0 and gaps need no special case. Pictures come the right way up and with square pixels.

Frames that no other frame is predicted from and that nobody asked for are not decoded (the B-frames of most films):
pictures are the same to the last bit, and a cut is found at the first frame of the new shot that others are predicted
from, which is its very first wherever the encoder began the shot with a key frame.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import av
import numpy as np

from omnimill.errors import BadRecord
from omnimill.pipelines.decoders.ffmpeg import DEMUXERS
from omnimill.pipelines.decoders.pictures import Scaler
from omnimill.pipelines.decoders.probe import MediaInfo, MediaLimits, VideoTrack
from omnimill.pipelines.decoders.shots import ShotDetector, ShotSettings
from omnimill.pipelines.decoders.sound import Recorder, Sound
from omnimill.schema import Image

# A stretch of film that nobody wants is jumped over when it is longer than this many seconds.
_JUMP_SECONDS = 10.0
# Indices of some containers lead a little past the time that is looked for.
_LEAD_SECONDS = 1.0
# A frame's time may differ this much from that of its packet, in seconds or frames.
_LATE_SECONDS, _LATE_FRAMES = 0.1, 3


@dataclass(frozen=True)
class FilmWish:
    """What to take out of a film.

    times: of the frames wanted, seconds, ascending.
    stretches: start and end in seconds of what sound and cuts are wanted of, ascending and apart.
    sound: whether sound is wanted. shots: how cuts are found; not looked for when None.
    max_side: longer side of the frames in pixels at most; pictures are never scaled up.
    """

    times: tuple[float, ...]
    stretches: tuple[tuple[float, float], ...]
    sound: bool
    shots: ShotSettings | None
    max_side: int


@dataclass(frozen=True)
class Film:
    """frames: those on screen at the wanted times, JPEG, by time; those that could not be decoded are missing.

    cuts: first frames of shots, seconds. sound: one for each stretch. width, height: as shown, in pixels.
    """

    frames: list[Image]
    cuts: list[float]
    sound: list[Sound]
    width: int
    height: int


def read_film(path: str, info: MediaInfo, wish: FilmWish, limits: MediaLimits) -> Film:
    """Read what is wished for out of a local film.

    Args:
        info: what :func:`~omnimill.pipelines.decoders.probe.probe` found; it has a video track.

    Raises:
        BadRecord: ``video_undecodable``, ``video_too_large``, ``audio_not_finite``, ``audio_sample_rate``.
    """
    assert info.video is not None
    try:
        with av.open(
            path,
            format=info.demuxer,
            options={"protocol_whitelist": "file", "format_whitelist": DEMUXERS},
            metadata_errors="ignore",
        ) as container:
            return _Reader(container, info, info.video, wish, limits).read()
    except (av.error.FFmpegError, ValueError) as error:
        if isinstance(error, MemoryError):
            raise
        raise BadRecord("video_undecodable", getattr(error, "strerror", None) or str(error)) from None


@dataclass
class _Reader:
    container: Any
    info: MediaInfo
    track: VideoTrack
    wish: FilmWish
    limits: MediaLimits
    frames: list[Image] = field(default_factory=list)
    cuts: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.origin = self.container.start_time / av.time_base if self.container.start_time else 0.0
        self.video = self.container.streams[self.track.index]
        # Films are decoded side by side, one thread each: the same work in less time than with threads in each.
        self.video.codec_context.thread_count = 1
        self.video.codec_context.options = {"max_pixels": str(self.limits.pixels)}
        self.audio = None
        if self.wish.sound and self.info.audio is not None:
            self.audio = self.container.streams[self.info.audio.index]
            self.audio.codec_context.thread_count = 1
        self.scaler = Scaler(self.track, self.wish.max_side)
        self.tick = float(self.track.time_base)
        self.clock = np.asarray(self.track.times, np.int64) * self.tick - self.origin
        self.wanted = 0  # the first of the wanted times that has no frame yet
        self.before: Any = None
        self.before_time = 0.0

    def read(self) -> Film:
        sound = [self._stretch(start, end) for start, end in self.wish.stretches]
        if not self.frames and self.wish.times:
            raise BadRecord("video_undecodable", "no frame could be decoded")
        width, height = self.scaler.shown or (self.track.width, self.track.height)
        return Film(self.frames, self.cuts, sound, width, height)

    def _stretch(self, start: float, end: float) -> Sound:
        """Decode from `start` to `end`; frames and cuts are noted, the sound is returned."""
        self._go_to(start)
        recorder = Recorder(start, end, self.origin, 0.0 if self.audio is None else float(self.audio.time_base))
        detector = ShotDetector() if self.wish.shots is not None else None
        last = bisect_right(self.wish.times, end)
        needed = self._needed(self.wanted, last)
        pictures_done, sound_done = False, self.audio is None
        for packet in self._packets():
            if packet.stream is self.audio:
                for frame in _decoded(packet):
                    sound_done = not recorder.hear(frame)
            elif not pictures_done:
                if needed is not None:
                    keep = packet.pts is None or packet.pts in needed
                    self.video.codec_context.skip_frame = "DEFAULT" if keep else "NONREF"
                for frame in _decoded(packet):
                    time = self._time(frame)
                    self._show(frame, time, last)
                    if detector is not None and start <= time < end:
                        detector.see(time, self.scaler.thumbnail(frame))
                    pictures_done = time > end
            if pictures_done and sound_done:
                break
        while self.wanted < last and self.before is not None:
            self._take(self.before, self.before_time)
        self.wanted = last
        if detector is not None and self.wish.shots is not None:
            self.cuts += [time for time in detector.cuts(self.wish.shots) if start < time < end]
        return recorder.sound()

    def _packets(self) -> Iterator[Any]:
        streams = [self.video] if self.audio is None else [self.video, self.audio]
        yield from self.container.demux(streams)

    def _go_to(self, start: float) -> None:
        """Move on to the key frame before `start` if that is worth it; the decoders begin anew."""
        self.before = None
        first = self.wish.stretches[0][0] == start
        if first and start <= _JUMP_SECONDS:
            return
        with suppress(av.error.FFmpegError):  # what cannot be jumped over is read
            self.container.seek(int((start - _LEAD_SECONDS + self.origin) * av.time_base))

    def _needed(self, first: int, last: int) -> set[int] | None:
        """Timestamps of the packets whose frames are on screen at the wanted times; None when that is not known."""
        if not len(self.clock):
            return None
        times = np.asarray(self.wish.times[first:last], np.float64)
        places = np.maximum(np.searchsorted(self.clock, times, side="right") - 1, 0)
        return {self.track.times[place] for place in places}

    def _time(self, frame: Any) -> float:
        """When a frame is shown, seconds from the start of the file."""
        if frame.pts is None:
            rate = self.track.frame_rate or 25.0
            return self.before_time + 1 / rate if self.before is not None else 0.0
        return frame.pts * self.tick - self.origin  # type: ignore[no-any-return]

    def _show(self, frame: Any, time: float, last: int) -> None:
        """Note the frame before, which was on screen until `time`, for the wanted times up to then."""
        while self.wanted < last and self.wish.times[self.wanted] < time:
            if self.before is None:
                self._take(frame, time)
            else:
                self._take(self.before, self.before_time)
        self.before, self.before_time = frame, time

    def _take(self, frame: Any, time: float) -> None:
        """Keep a frame for the next wanted time, unless another one should be on screen then."""
        wanted = self.wish.times[self.wanted]
        self.wanted += 1
        if len(self.clock):
            due = self.clock[max(int(np.searchsorted(self.clock, wanted, side="right")) - 1, 0)]
            if abs(time - due) > max(_LATE_SECONDS, _LATE_FRAMES / max(self.track.frame_rate, 1.0)):
                return
        self.frames.append(self.scaler.picture(frame, wanted))


def _decoded(packet: Any) -> Sequence[Any]:
    """The frames that a packet completes; damaged ones are passed over, as players do."""
    try:
        return packet.decode()  # type: ignore[no-any-return]
    except av.error.FFmpegError as error:
        if isinstance(error, MemoryError):
            raise
        return ()
