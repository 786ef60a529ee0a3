"""What sources of recordings (video, audio) share: the texts that lie beside them, and their segments."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import Field

from omnimill.config import Config
from omnimill.infra.dataset import Unit
from omnimill.pipelines import files
from omnimill.pipelines.decoders.probe import MediaLimits
from omnimill.pipelines.decoders.text import utf8
from omnimill.pipelines.decoders.transcripts import MAX_BYTES, Cue, Passage, parse_transcript
from omnimill.pipelines.sources.sidecars import SidecarSource
from omnimill.schema import Example, Provenance, Text

SEGMENT_SECONDS = 4.08
MAX_CAPTION_BYTES = 64 << 10


class SegmentSettings(Config):
    """How a recording is cut up, and what is refused before it is decoded.

    segment_seconds: length of a segment; 4.08 s of sound is one spectrogram of 256 frames.
    segments_per_example: consecutive segments in one example, the last run of a recording may be shorter; of the
        default 5, four are history and the fifth is current (uio2-facts: at most four history elements).
    max_seconds, max_streams, max_channels: of the file, by its header and by what comes.
    timeout_seconds: what decoding may take beyond the length of the recording itself.
    """

    segment_seconds: float = Field(SEGMENT_SECONDS, ge=0.5, le=60)
    segments_per_example: int = Field(5, ge=1, le=64)
    max_seconds: float = Field(4 * 3600.0, gt=0)
    max_streams: int = Field(64, ge=1)
    max_channels: int = Field(64, ge=1)
    timeout_seconds: float = Field(120.0, gt=0)

    def limits(self) -> MediaLimits:
        return MediaLimits(seconds=self.max_seconds, streams=self.max_streams, channels=self.max_channels)


@dataclass(frozen=True)
class Words:
    """The texts that belong to one recording: timed cues, and a caption of the whole."""

    cues: tuple[Cue, ...] = ()
    caption: str | None = None


NO_WORDS = Words()


class MediaSource(SidecarSource):
    """Recordings in a folder, with the texts beside them.

    transcripts: where the WebVTT or SubRip file of a recording may lie, see `SidecarSource`.
    captions: likewise, plain text about the whole recording.
    """

    transcripts: tuple[str, ...] = ("{stem}.vtt", "{stem}.srt")
    captions: tuple[str, ...] = ("{stem}.txt",)

    def templates(self) -> tuple[tuple[str, ...], ...]:
        return (self.transcripts, self.captions)

    def read_sidecar(self, url: str) -> dict[str, Any]:
        ending = url.rsplit(".", 1)[-1].lower()
        if ending in ("vtt", "srt"):
            form: Literal["vtt", "srt"] = "vtt" if ending == "vtt" else "srt"
            return {"cues": tuple(parse_transcript(files.read_file(url, MAX_BYTES), form))}
        return {"caption": utf8(files.read_file(url, MAX_CAPTION_BYTES)).strip() or None}

    def decode(
        self, unit: Unit, url: str, key: str, provenance: Provenance, sidecars: dict[str, Any]
    ) -> Sequence[Example]:
        with files.local_copy(url) as path:
            return self.examples(str(path.absolute()), unit, key, provenance, Words(**sidecars))

    def examples(self, path: str, unit: Unit, key: str, provenance: Provenance, words: Words) -> list[Example]:
        """The examples of one recording, at a local path."""
        raise NotImplementedError


def texts_of(words: Words, passages: Sequence[Passage | None], places: Sequence[dict[str, int]]) -> list[Text]:
    """The text of an example: the caption of the whole, then what is said in each of its segments.

    Args:
        passages: one per segment. places: per segment the indices of its first image and of its clip.
    """
    caption = [] if words.caption is None else [Text(role="caption", text=words.caption)]
    spoken = [
        Text(role="transcript", text=passage.text, start=passage.start, end=passage.end, **place)
        for passage, place in zip(passages, places, strict=True)
        if passage is not None
    ]
    return caption + spoken
