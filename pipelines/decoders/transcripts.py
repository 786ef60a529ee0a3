"""Transcripts in any of the forms that are read, and their alignment to segments."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from omnimill.errors import BadRecord
from omnimill.pipelines.decoders.captions import parse_captions, parse_sbv
from omnimill.pipelines.decoders.cues import Cue, Word
from omnimill.pipelines.decoders.spoken_words import parse_ctm, parse_words
from omnimill.pipelines.decoders.ttml import parse_ttml

MAX_BYTES = 16 << 20

TranscriptForm = Literal["vtt", "srt", "sbv", "ttml", "json", "ctm"]
_FORMS: dict[str, TranscriptForm] = {form: form for form in get_args(TranscriptForm)}
_FORM_OF_ENDING: dict[str, TranscriptForm] = _FORMS | {"dfxp": "ttml", "xml": "ttml", "json3": "json"}


@dataclass(frozen=True)
class Passage:
    """What is said in one segment. start, end: of its first and last word, seconds."""

    text: str
    start: float
    end: float


def transcript_form(name: str) -> TranscriptForm | None:
    """The form of a transcript by its file's name; None when it is none."""
    return _FORM_OF_ENDING.get(name.rsplit(".", 1)[-1].lower())


def parse_transcript(data: bytes, form: TranscriptForm) -> list[Cue]:
    """The cues with text of a transcript file, by start time.

    Raises:
        BadRecord: ``transcript_malformed``, ``transcript_too_large``.
    """
    if len(data) > MAX_BYTES:
        raise BadRecord("transcript_too_large", f"{len(data)} bytes, {MAX_BYTES} allowed")
    if form in ("vtt", "srt"):
        return parse_captions(data, form)
    return {"sbv": parse_sbv, "ttml": parse_ttml, "json": parse_words, "ctm": parse_ctm}[form](data)


def align(cues: Iterable[Cue], segments: Sequence[tuple[float, float]]) -> list[Passage | None]:
    """For each segment what is said in it; a word counts where its middle lies.

    Args:
        segments: start and end in seconds; ascending by start, and a word lies in the last one that begins before it.
    """
    starts = [start for start, _ in segments]
    spoken: list[list[Word]] = [[] for _ in segments]
    for cue in cues:
        for word in cue.words:
            middle = (word.start + word.end) / 2
            index = bisect_right(starts, middle) - 1
            if index >= 0 and middle < segments[index][1]:
                spoken[index].append(word)
    return [
        Passage(" ".join(word.text for word in words), words[0].start, max(word.end for word in words))
        if words
        else None
        for words in spoken
    ]
