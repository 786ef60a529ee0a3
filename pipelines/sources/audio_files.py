"""Audio files: windows of 4.08 s of 16 kHz mono, with what is said in them, five consecutive windows to an example."""

from __future__ import annotations

from typing import ClassVar, Literal

import numpy as np
from pydantic import model_validator

from omnimill.infra.dataset import Unit
from omnimill.pipelines.base import Source
from omnimill.pipelines.decoders.audio import AudioFacts, audio_windows, decode_clip, flac_clip
from omnimill.pipelines.decoders.probe import TrackChoice
from omnimill.pipelines.decoders.sound import SAMPLE_RATE, to_int16
from omnimill.pipelines.isolation import isolated
from omnimill.pipelines.sources.examples import make_example
from omnimill.pipelines.sources.media import NO_WORDS, MediaSource, Segment, SegmentSettings, Words, meta_of, texts_of
from omnimill.schema import Audio, Example, Provenance

AUDIO_FILES = tuple(
    f"**/*.{ending}"
    for ending in (
        "wav", "flac", "mp3", "ogg", "oga", "opus", "m4a", "aac", "aif", "aiff", "au", "caf", "amr", "sph", "w64",
        "wma", "mka", "weba",
    )
)  # fmt: skip


class AudioSettings(SegmentSettings):
    """How recordings are cut up.

    segments: windows of `segment_seconds` on a ``grid``, one after another, or ``equal``: `segments_per_example`
        windows, evenly spaced over the whole recording (Unified-IO 2, section D.9); a short recording is one.
    """

    segments: Literal["grid", "equal"] = "grid"


class AudioFilesSource(AudioSettings, MediaSource):
    """Audio files by globs, with the transcripts and captions beside them; a unit is `files_per_unit` files."""

    version: ClassVar[int] = 3

    type: Literal["audio_files"]
    include: tuple[str, ...] = AUDIO_FILES
    files_per_unit: int = 16

    @model_validator(mode="after")
    def _whole(self) -> AudioFilesSource:
        if self.table is not None and self.table.cut:
            raise ValueError("table.cut is for films; recordings of sound are kept whole")
        return self

    def examples(self, path: str, unit: Unit, key: str, provenance: Provenance, words: Words) -> list[Example]:
        return audio_examples(path, self, unit, key, provenance, self, words)


def audio_examples(
    path: str,
    source: Source,
    unit: Unit,
    key: str,
    provenance: Provenance,
    settings: AudioSettings,
    words: Words = NO_WORDS,
) -> list[Example]:
    """The examples of an audio file: runs of consecutive windows without overlap, or windows spaced evenly over it.

    Raises:
        BadRecord: ``audio_*``, see :func:`~omnimill.pipelines.decoders.audio.audio_windows`.
    """
    facts, clips, segments = recording_windows(path, settings)
    examples = []
    for first in range(0, len(clips), settings.segments_per_example):
        run = clips[first : first + settings.segments_per_example]
        own = segments[first : first + len(run)]
        shown = settings.shown(len(run))
        text = texts_of(words, None, own, [{"audio": shown.index(index)} for index in range(len(run))])
        meta = meta_of(words, None, own)
        meta.scores["source_sample_rate"] = float(facts.sample_rate)
        examples.append(
            make_example(
                source, unit, f"{key}#{first}", provenance, text=text, audio=[run[i] for i in shown], meta=meta
            )
        )
    return examples


def recording_windows(path: str, settings: AudioSettings) -> tuple[AudioFacts, list[Audio], list[Segment]]:
    """The windows of a recording in the order of time, and where they lie in it.

    Raises:
        BadRecord: ``audio_*``, see :func:`~omnimill.pipelines.decoders.audio.audio_windows`.
    """
    # Sound decodes hundreds of times faster than it plays; the longest recording allowed bounds the time.
    timeout = settings.timeout_seconds + settings.max_seconds / 20
    length, choice = settings.segment_seconds, TrackChoice(audio=settings.audio_stream)
    limits, spread = settings.limits(), settings.segments == "equal"
    facts, clips = isolated("audio", timeout, audio_windows, path, length, limits, timeout, choice, spread)
    if spread:
        return facts, *_spread(clips, settings)
    end = min(facts.seconds, len(clips) * length) if facts.seconds else len(clips) * length
    segments = [(number * length, min((number + 1) * length, end)) for number in range(len(clips))]
    return facts, clips, segments


def _spread(clips: list[Audio], settings: AudioSettings) -> tuple[list[Audio], list[Segment]]:
    """Windows in the middles of equal parts of a recording, cut anew from consecutive ones."""
    sound = np.concatenate([decode_clip(clip) for clip in clips])
    size = round(settings.segment_seconds * SAMPLE_RATE)
    count = settings.segments_per_example if len(sound) > size else 1
    spread, segments = [], []
    for number in range(count):
        middle = (number + 0.5) * len(sound) / count
        start = round(min(max(middle - size / 2, 0), max(len(sound) - size, 0)))
        piece = sound[start : start + size]
        spread.append(flac_clip(to_int16(piece), start))
        segments.append((start / SAMPLE_RATE, (start + len(piece)) / SAMPLE_RATE))
    return spread, segments
