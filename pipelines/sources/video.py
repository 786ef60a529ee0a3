"""Video files: segments of 4.08 s with frames, sound and what is said, five consecutive segments to an example."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import ClassVar, Literal

from pydantic import Field

from omnimill.errors import BadRecord
from omnimill.infra.dataset import Unit
from omnimill.pipelines.base import Source
from omnimill.pipelines.decoders.audio import MIN_SECONDS, flac_clip
from omnimill.pipelines.decoders.film import Film, FilmWish, read_film
from omnimill.pipelines.decoders.probe import MediaInfo, MediaLimits, TrackChoice, VideoTrack, probe
from omnimill.pipelines.decoders.shots import ShotSettings
from omnimill.pipelines.decoders.sound import SAMPLE_RATE, Sound
from omnimill.pipelines.isolation import isolated
from omnimill.pipelines.sources.examples import make_example
from omnimill.pipelines.sources.media import (
    NO_WORDS,
    MediaSource,
    Segment,
    SegmentSettings,
    Words,
    equal_segments,
    heard,
    meta_of,
    segments_between,
    texts_of,
)
from omnimill.pipelines.sources.table_notes import Note
from omnimill.schema import Audio, Example, Image, Provenance, Video

VIDEO_FILES = tuple(
    f"**/*.{ending}"
    for ending in ("mp4", "m4v", "mov", "mkv", "webm", "avi", "mpg", "mpeg", "ts", "mts", "flv", "wmv", "3gp", "ogv")
)
_PROBE_SECONDS = 120.0
# Spans that are nearer to each other are read in one go.
_APART_SECONDS = 10.0


class VideoSettings(SegmentSettings):
    """How films are cut up.

    segments: on a ``grid`` of `segment_seconds` from the start (of the film, or of each span of a table), or anew at
        every cut between ``shots``; a shot shorter than a segment is a segment, and the score ``shots`` is the number
        of shots in a run; or ``equal``: the film, or each span, in `segments_per_example` equal ones, of whose sound
        the middle `segment_seconds` are kept. shots: what a cut is.
    frames_per_segment: at the middles of as many equal parts of each segment. frames_per_second: instead, at the
        middles of periods of that length from the start.
    max_side: longer side of stored frames in pixels. max_pixels: of the video's own frames.
    video_stream: which stream of pictures is read, counted from 0; the one with most pixels when None.
    """

    segments: Literal["grid", "shots", "equal"] = "grid"
    shots: ShotSettings = ShotSettings()
    frames_per_segment: int = Field(1, ge=1, le=64)
    frames_per_second: float | None = Field(None, gt=0, le=60)
    max_side: int = Field(512, ge=16, le=4096)
    max_pixels: int = Field(8192 * 4320, gt=0)
    video_stream: int | None = Field(None, ge=0)

    def limits(self) -> MediaLimits:
        return MediaLimits(self.max_pixels, self.max_seconds, self.max_streams, self.max_channels)


class VideoSource(VideoSettings, MediaSource):
    """Videos by globs, with the transcripts and captions beside them; a unit is a video."""

    version: ClassVar[int] = 3

    type: Literal["video"]
    include: tuple[str, ...] = VIDEO_FILES

    def examples(self, path: str, unit: Unit, key: str, provenance: Provenance, words: Words) -> list[Example]:
        return video_examples(path, self, unit, key, provenance, self, words)


@dataclass
class _Piece:
    """A stretch of film that is cut into segments of its own.

    note: the row of a table that it comes from. shots: per segment the number of its shot. times: per segment of its
        frames.
    """

    start: float
    end: float
    note: Note | None = None
    segments: list[Segment] = field(default_factory=list)
    shots: list[int] = field(default_factory=list)
    times: list[list[float]] = field(default_factory=list)


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

    An example has the frames and the clip of sound of each of its segments; a video without sound has no clips, and
    sound beyond the last picture is left out. Transcripts are texts of role ``transcript`` per segment, captions are
    of role ``caption``, labels of role ``label``. A run ends with the span of a table that it belongs to.

    Raises:
        BadRecord: ``video_*`` and ``audio_*``, see :mod:`omnimill.pipelines.decoders`; ``span_outside`` when the spans
            of a table lie beyond the film's end.
    """
    choice = TrackChoice(settings.video_stream, settings.audio_stream)
    info = isolated("video", _PROBE_SECONDS, probe, path, "video", settings.limits(), choice)
    if info.video is None:
        raise BadRecord("video_no_stream", "the file has no pictures that can be decoded")
    pieces = _pieces(info.video, words)
    film, sounds = _read(path, info, pieces, settings)
    frames = {image.time: image for image in film.frames}
    due = len(_all_times(pieces))
    if len(frames) < due - max(settings.frames_per_segment, due // 10):
        raise BadRecord("video_undecodable", f"{len(frames)} frames could be decoded where there should be {due}")
    examples: list[Example] = []
    number = 0
    for piece, sound in zip(pieces, sounds, strict=True):
        for run in _runs(piece, settings.segments_per_example):
            images, audio, places = _media(piece, run, frames, sound, settings)
            own = piece.segments[run.start : run.stop]
            example = make_example(
                source,
                unit,
                f"{key}#{number}",
                provenance,
                text=texts_of(words, piece.note, own, places),
                images=images,
                audio=audio,
                video=_video(provenance, info.video, film, own[0], settings, number, len(run)),
                meta=meta_of(words, piece.note, own, info.others),
            )
            if settings.segments == "shots":
                example.meta.scores["shots"] = float(len(set(piece.shots[run.start : run.stop])))
            if info.audio is not None:
                example.meta.scores["source_sample_rate"] = float(info.audio.sample_rate)
            examples.append(example)
            number += len(run)
    return examples


def _pieces(track: VideoTrack, words: Words) -> list[_Piece]:
    """What to keep of a film: all of it, or the spans of a table as far as they lie in it."""
    end = max(track.seconds, 0.0)
    if not words.cut:
        return [_Piece(0.0, end)]
    spans = [(note.start, note.end, note) for note in words.notes if note.start is not None and note.end is not None]
    pieces = [
        _Piece(start, min(until, end), note)
        for start, until, note in sorted(spans, key=lambda span: span[:2])
        if start < end - MIN_SECONDS
    ]
    if not pieces:
        raise BadRecord("span_outside", f"all {len(spans)} spans begin after the film's end at {end:.2f} s")
    return pieces


def _read(path: str, info: MediaInfo, pieces: list[_Piece], settings: VideoSettings) -> tuple[Film, list[Sound]]:
    """The film as far as it is wanted; fills in the segments of the pieces and the times of their frames."""
    assert info.video is not None
    shots = settings.shots if settings.segments == "shots" else None
    stretches = _stretches(pieces)
    limits, timeout = settings.limits(), settings.timeout_seconds + info.video.seconds

    def read(times: set[float], shots: ShotSettings | None, sound: bool = True) -> Film:
        wish = FilmWish(tuple(sorted(times)), stretches, sound, shots, settings.max_side)
        return isolated("video", timeout, read_film, path, info, wish, limits)

    if shots is None:
        _cut(pieces, (), settings)
        film = read(_all_times(pieces), None)
    elif settings.frames_per_second is not None:
        film = read({time for piece in pieces for time in _steady(piece, settings.frames_per_second)}, shots)
        _cut(pieces, film.cuts, settings)
    else:
        # Where the middles of segments lie is known only once the cuts are.
        found = read(set(), shots)
        _cut(pieces, found.cuts, settings)
        pictures = read(_all_times(pieces), None, sound=False)
        film = Film(pictures.frames, found.cuts, found.sound, pictures.width, pictures.height)
    belongs = [next(sound for sound, (start, end) in zip(film.sound, stretches, strict=True) if piece.start < end)
               for piece in pieces]  # fmt: skip
    return film, belongs


def _stretches(pieces: Sequence[_Piece]) -> tuple[tuple[float, float], ...]:
    """The time that pieces cover, those near to each other together."""
    stretches: list[tuple[float, float]] = []
    for piece in pieces:
        if stretches and piece.start <= stretches[-1][1] + _APART_SECONDS:
            stretches[-1] = (stretches[-1][0], max(stretches[-1][1], piece.end))
        else:
            stretches.append((piece.start, piece.end))
    return tuple(stretches)


def _cut(pieces: Sequence[_Piece], cuts: Sequence[float], settings: VideoSettings) -> None:
    """Give pieces their segments, anew at every cut, and the times of their frames."""
    for piece in pieces:
        if settings.segments == "equal":
            piece.segments = equal_segments(piece.start, piece.end, settings.segments_per_example)
            piece.shots = [0] * len(piece.segments)
            piece.times = [list(_middles(own, own[1] - own[0], settings.frames_per_segment)) for own in piece.segments]
            continue
        marks = [piece.start, *(cut for cut in cuts if piece.start < cut < piece.end), piece.end]
        steady = None if settings.frames_per_second is None else _steady(piece, settings.frames_per_second)
        for shot, (start, end) in enumerate(pairwise(marks)):
            for segment in segments_between(start, end, settings.segment_seconds):
                piece.segments.append(segment)
                piece.shots.append(shot)
                if steady is not None:
                    piece.times.append([time for time in steady if segment[0] <= time < segment[1]])
                else:
                    whole = min(settings.segment_seconds, end - start)
                    piece.times.append(list(_middles(segment, whole, settings.frames_per_segment)))


def _middles(segment: Segment, seconds: float, count: int) -> Iterator[float]:
    """The middles of `count` equal parts of a segment that is `seconds` long, as far as it goes; at least one."""
    start, end = segment
    for number in range(count):
        time = start + (number + 0.5) * seconds / count
        if time < end or number == 0:
            yield time


def _steady(piece: _Piece, rate: float) -> list[float]:
    """The middles of periods of a rate from the start of a piece."""
    count = max(1, round((piece.end - piece.start) * rate))
    return [time for number in range(count) if (time := piece.start + (number + 0.5) / rate) < piece.end] or [
        piece.start
    ]


def _all_times(pieces: Sequence[_Piece]) -> set[float]:
    return {time for piece in pieces for times in piece.times for time in times}


def _runs(piece: _Piece, size: int) -> Iterator[range]:
    for first in range(0, len(piece.segments), size):
        yield range(first, min(first + size, len(piece.segments)))


def _media(
    piece: _Piece, run: range, frames: dict[float | None, Image], sound: Sound, settings: VideoSettings
) -> tuple[list[Image], list[Audio], list[dict[str, int]]]:
    """The frames and clips of a run, and per segment the indices of its first frame and of its clip."""
    images: list[Image] = []
    audio: list[Audio] = []
    places: list[dict[str, int]] = [{} for _ in run]
    for place in settings.shown(len(run)):
        own = [frames[time] for time in piece.times[run[place]] if time in frames]
        if own:
            places[place]["image"] = len(images)
        images.extend(own)
        kept = piece.segments[run[place]]
        if settings.segments == "equal":
            kept = heard(kept, settings.segment_seconds)
        start, end = (round(time * SAMPLE_RATE) for time in kept)
        samples = sound.cut(start, end)
        if len(samples) >= MIN_SECONDS * SAMPLE_RATE:
            places[place]["audio"] = len(audio)
            audio.append(flac_clip(samples, start))
    return images, audio, places


def _video(
    provenance: Provenance,
    track: VideoTrack,
    film: Film,
    segment: Segment,
    settings: VideoSettings,
    first: int,
    count: int,
) -> Video:
    """Facts of the film, its size the way it is shown."""
    seconds = segment[1] - segment[0] if settings.segments == "equal" else settings.segment_seconds
    return Video(
        uri=provenance.uri,
        digest=provenance.digest,
        width=film.width,
        height=film.height,
        seconds=track.seconds,
        frame_rate=track.frame_rate,
        segment_seconds=seconds,
        first_segment=first,
        segments=count,
    )
