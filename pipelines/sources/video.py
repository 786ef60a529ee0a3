"""Video files: segments of 4.08 s with frames, sound and what is said, five consecutive segments to an example."""

from __future__ import annotations

import math
from dataclasses import replace
from fractions import Fraction
from typing import Literal

from pydantic import Field

from omnimill.errors import BadRecord
from omnimill.infra.dataset import Unit
from omnimill.pipelines.base import Source
from omnimill.pipelines.decoders.audio import MIN_SECONDS, SAMPLE_RATE, segment_count, track_clips
from omnimill.pipelines.decoders.probe import MediaInfo, MediaLimits, VideoTrack, probe
from omnimill.pipelines.decoders.transcripts import align
from omnimill.pipelines.decoders.video import frames_on_grid
from omnimill.pipelines.isolation import isolated
from omnimill.pipelines.sources.examples import make_example
from omnimill.pipelines.sources.media import NO_WORDS, MediaSource, SegmentSettings, Words, texts_of
from omnimill.schema import Audio, Example, Image, Provenance, Video

VIDEO_FILES = tuple(
    f"**/*.{ending}"
    for ending in ("mp4", "m4v", "mov", "mkv", "webm", "avi", "mpg", "mpeg", "ts", "mts", "flv", "wmv", "3gp", "ogv")
)
_PROBE_SECONDS = 120.0


class VideoSettings(SegmentSettings):
    """frames_per_segment: at the middles of as many equal parts of each segment.

    max_side: longer side of stored frames in pixels. max_pixels: of the video's own frames.
    """

    frames_per_segment: int = Field(1, ge=1, le=64)
    max_side: int = Field(512, ge=16, le=4096)
    max_pixels: int = Field(8192 * 4320, gt=0)

    def limits(self) -> MediaLimits:
        return MediaLimits(self.max_pixels, self.max_seconds, self.max_streams, self.max_channels)


class VideoSource(VideoSettings, MediaSource):
    """Videos by globs, with the transcripts and captions beside them; a unit is a video."""

    type: Literal["video"]
    include: tuple[str, ...] = VIDEO_FILES

    def examples(self, path: str, unit: Unit, key: str, provenance: Provenance, words: Words) -> list[Example]:
        return video_examples(path, self, unit, key, provenance, self, words)


def video_examples(
    path: str,
    source: Source,
    unit: Unit,
    key: str,
    provenance: Provenance,
    settings: VideoSettings,
    words: Words = NO_WORDS,
) -> list[Example]:
    """The examples of a video file: runs of consecutive segments, in order, without overlap.

    An example has the frames and the clip of sound of each of its segments; a video without sound has no clips.
    Transcripts are texts of role ``transcript`` per segment, a caption is one of role ``caption``.

    Raises:
        BadRecord: ``video_*`` and ``audio_*``, see :mod:`omnimill.pipelines.decoders`.
    """
    info = isolated("video", _PROBE_SECONDS, probe, path, "video", settings.limits())
    track = info.video
    if track is None:
        raise BadRecord("video_no_stream", "the file has no pictures that can be decoded")
    length = settings.segment_seconds
    count = segment_count(track.seconds, length)
    timeout = settings.timeout_seconds + track.seconds
    frames = _frames(path, info, track, count, settings, timeout)
    clips = _clips(path, info, count, length, timeout)
    passages = align(words.cues, length, count)
    whole = _whole(provenance, track, frames[0], length)
    examples = []
    for first in range(0, count, settings.segments_per_example):
        run = range(first, min(first + settings.segments_per_example, count))
        images: list[Image] = []
        audio: list[Audio] = []
        places: list[dict[str, int]] = []
        for segment in run:
            begin = segment * settings.frames_per_segment
            own = frames[begin : begin + settings.frames_per_segment]
            places.append({"image": len(images)} if own else {})
            images.extend(own)
            if segment in clips:
                places[-1]["audio"] = len(audio)
                audio.append(clips[segment])
        example = make_example(
            source,
            unit,
            f"{key}#{first}",
            provenance,
            text=texts_of(words, passages[run.start : run.stop], places),
            images=images,
            audio=audio,
            video=replace(whole, first_segment=first, segments=len(run)),
        )
        examples.append(example)
    return examples


def _frames(
    path: str, info: MediaInfo, track: VideoTrack, count: int, settings: VideoSettings, timeout: float
) -> list[Image]:
    """Frames at the middles of equal parts of all segments; a video shorter than a segment is its own segment."""
    seconds = Fraction(track.seconds).limit_denominator(1_000_000)
    length = Fraction(str(settings.segment_seconds))
    period = (length if seconds <= 0 else min(length, seconds)) / settings.frames_per_segment
    first = period / 2
    wanted = count * settings.frames_per_segment
    frames = frames_on_grid(path, info.demuxer, track, first, period, wanted, settings.max_side, timeout)
    due = min(wanted, max(1, math.ceil((seconds - first) / period)))
    if len(frames) < due - max(settings.frames_per_segment, due // 10) or not frames:
        raise BadRecord("video_undecodable", f"{len(frames)} frames could be decoded where there should be {due}")
    return frames


def _clips(path: str, info: MediaInfo, count: int, length: float, timeout: float) -> dict[int, Audio]:
    """The sound of every segment that has at least 0.1 s of it."""
    if info.audio is None:
        return {}
    clips = track_clips(path, info.demuxer, info.audio, length, count, timeout)
    return {segment: clip for segment, clip in enumerate(clips) if clip.samples >= MIN_SECONDS * SAMPLE_RATE}


def _whole(provenance: Provenance, track: VideoTrack, frame: Image, length: float) -> Video:
    """Facts of the video, its size the way it is shown: turned as the frames are."""
    turned = (frame.width > frame.height) != (track.width > track.height)
    width, height = (track.height, track.width) if turned else (track.width, track.height)
    return Video(
        uri=provenance.uri,
        digest=provenance.digest,
        width=width,
        height=height,
        seconds=track.seconds,
        frame_rate=track.frame_rate,
        segment_seconds=length,
        first_segment=0,
        segments=0,
    )
