"""Audio files: windows of 4.08 s of 16 kHz mono, with what is said in them, five consecutive windows to an example."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import model_validator

from omnimill.infra.dataset import Unit
from omnimill.pipelines.base import Source
from omnimill.pipelines.decoders.audio import audio_windows
from omnimill.pipelines.decoders.probe import TrackChoice
from omnimill.pipelines.isolation import isolated
from omnimill.pipelines.sources.examples import make_example
from omnimill.pipelines.sources.media import NO_WORDS, MediaSource, SegmentSettings, Words, meta_of, texts_of
from omnimill.schema import Example, Provenance

AUDIO_FILES = tuple(
    f"**/*.{ending}"
    for ending in (
        "wav", "flac", "mp3", "ogg", "oga", "opus", "m4a", "aac", "aif", "aiff", "au", "caf", "amr", "sph", "w64",
        "wma", "mka", "weba",
    )
)  # fmt: skip


class AudioFilesSource(SegmentSettings, MediaSource):
    """Audio files by globs, with the transcripts and captions beside them; a unit is `files_per_unit` files."""

    version: ClassVar[int] = 2

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
    settings: SegmentSettings,
    words: Words = NO_WORDS,
) -> list[Example]:
    """The examples of an audio file: runs of consecutive windows, in order, without overlap.

    Raises:
        BadRecord: ``audio_*``, see :func:`~omnimill.pipelines.decoders.audio.audio_windows`.
    """
    # Sound decodes hundreds of times faster than it plays; the longest recording allowed bounds the time.
    timeout = settings.timeout_seconds + settings.max_seconds / 20
    length, choice = settings.segment_seconds, TrackChoice(audio=settings.audio_stream)
    facts, clips = isolated("audio", timeout, audio_windows, path, length, settings.limits(), timeout, choice)
    end = min(facts.seconds, len(clips) * length) if facts.seconds else len(clips) * length
    segments = [(number * length, min((number + 1) * length, end)) for number in range(len(clips))]
    examples = []
    for first in range(0, len(clips), settings.segments_per_example):
        run = clips[first : first + settings.segments_per_example]
        own = segments[first : first + len(run)]
        text = texts_of(words, None, own, [{"audio": index} for index in range(len(run))])
        meta = meta_of(words, None, own)
        meta.scores["source_sample_rate"] = float(facts.sample_rate)
        examples.append(make_example(source, unit, f"{key}#{first}", provenance, text=text, audio=run, meta=meta))
    return examples
