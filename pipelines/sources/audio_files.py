"""Audio files: windows of 4.08 s of 16 kHz mono, with what is said in them, five consecutive windows to an example."""

from __future__ import annotations

from typing import Literal

from omnimill.infra.dataset import Unit
from omnimill.pipelines.base import Source
from omnimill.pipelines.decoders.audio import audio_windows
from omnimill.pipelines.decoders.transcripts import align
from omnimill.pipelines.isolation import isolated
from omnimill.pipelines.sources.examples import make_example
from omnimill.pipelines.sources.media import NO_WORDS, MediaSource, SegmentSettings, Words, texts_of
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

    type: Literal["audio_files"]
    include: tuple[str, ...] = AUDIO_FILES
    files_per_unit: int = 16

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
    _, clips = isolated("audio", timeout, audio_windows, path, settings.segment_seconds, settings.limits(), timeout)
    passages = align(words.cues, settings.segment_seconds, len(clips))
    examples = []
    for first in range(0, len(clips), settings.segments_per_example):
        run = clips[first : first + settings.segments_per_example]
        places = [{"audio": index} for index in range(len(run))]
        text = texts_of(words, passages[first : first + len(run)], places)
        examples.append(make_example(source, unit, f"{key}#{first}", provenance, text=text, audio=run))
    return examples
