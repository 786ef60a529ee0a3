"""What sources of recordings (video, audio) share: the texts that lie beside them, and how they are cut up."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any, Literal

from pydantic import Field

from omnimill.config import Config
from omnimill.errors import RecordDropped
from omnimill.infra.dataset import InputRef, Unit
from omnimill.pipelines import files
from omnimill.pipelines.decoders.cues import Cue
from omnimill.pipelines.decoders.probe import MediaLimits
from omnimill.pipelines.decoders.text import utf8
from omnimill.pipelines.decoders.transcripts import MAX_BYTES, align, parse_transcript, transcript_form
from omnimill.pipelines.sources.sidecars import SidecarSource
from omnimill.pipelines.sources.table_notes import Note, TableSettings, usable
from omnimill.pipelines.sources.tables import Table, open_table, table_files
from omnimill.schema import Example, Meta, Provenance, Text
from omnimill.segments import segment_count

SEGMENT_SECONDS = 4.08
MAX_CAPTION_BYTES = 64 << 10

Segment = tuple[float, float]


class SegmentSettings(Config):
    """How a recording is cut up, and what is refused before it is decoded.

    segment_seconds: length of a segment; 4.08 s of sound is one spectrogram of 256 frames.
    segments_per_example: consecutive segments in one example, the last run of a recording may be shorter; of the
        default 5, four are history and the fifth is current (uio2-facts: at most four history elements).
    current: which segment of an example comes last in its lists, and so is the one that a task looks at: the ``last``
        in time, or the ``middle`` one (Unified-IO 2 for questions about films, section D.7, and for actions).
    audio_stream: which stream of sound is read, counted from 0; the best one when None.
    max_seconds, max_streams, max_channels: of the file, by its header and by what comes.
    timeout_seconds: what decoding may take beyond the length of the recording itself.
    """

    segment_seconds: float = Field(SEGMENT_SECONDS, ge=0.5, le=60)
    segments_per_example: int = Field(5, ge=1, le=64)
    current: Literal["last", "middle"] = "last"
    audio_stream: int | None = Field(None, ge=0)
    max_seconds: float = Field(4 * 3600.0, gt=0)
    max_streams: int = Field(64, ge=1)
    max_channels: int = Field(64, ge=1)
    timeout_seconds: float = Field(120.0, gt=0)

    def shown(self, count: int) -> list[int]:
        """The order in which an example of so many segments lists them."""
        order = list(range(count))
        if self.current == "middle":
            order.append(order.pop(count // 2))
        return order

    def limits(self) -> MediaLimits:
        return MediaLimits(seconds=self.max_seconds, streams=self.max_streams, channels=self.max_channels)


@dataclass(frozen=True)
class Words:
    """The texts that belong to one recording: timed cues, a caption of the whole, and what a table says.

    cut: whether only the spans of the notes are kept.
    """

    cues: tuple[Cue, ...] = ()
    caption: str | None = None
    notes: tuple[Note, ...] = ()
    cut: bool = False


NO_WORDS = Words()


class MediaSource(SidecarSource):
    """Recordings in a folder, with the texts beside them.

    transcripts: where the transcript of a recording may lie, see `SidecarSource`: WebVTT, SubRip, SubViewer (``sbv``),
        TTML, JSON of timed words or CTM, by the ending of its name.
    captions: likewise, plain text about the whole recording.
    table: captions, spans and labels of many recordings in one place.
    """

    transcripts: tuple[str, ...] = (
        "{stem}.vtt",
        "{stem}.srt",
        "{stem}.en.vtt",
        "{stem}.en.srt",
        "{stem}.ttml",
        "{stem}.sbv",
        "{stem}.ctm",
    )
    captions: tuple[str, ...] = ("{stem}.txt",)
    table: TableSettings | None = None

    def templates(self) -> tuple[tuple[str, ...], ...]:
        return (self.transcripts, self.captions)

    def units(self) -> Iterator[Unit]:
        names = None if self.table is None else table_files(self.table, self.path)
        for unit in super().units():
            yield unit if names is None else unit.model_copy(update={"options": {**unit.options, "table": names}})

    def inputs(self, unit: Unit) -> list[InputRef]:
        refs, table = super().inputs(unit), self._table(unit)
        if table is None:
            return refs
        recordings = unit.files[: int(unit.options["files"])]
        return refs + table.inputs([files.relative(url, self.path) for url in recordings])

    def _table(self, unit: Unit) -> Table | None:
        return None if self.table is None else open_table(self.table, self.path, unit.options["table"])

    def read_sidecar(self, url: str) -> dict[str, Any]:
        form = transcript_form(url)
        if form is not None:
            return {"cues": tuple(parse_transcript(files.read_file(url, MAX_BYTES), form))}
        return {"caption": utf8(files.read_file(url, MAX_CAPTION_BYTES)).strip() or None}

    def decode(
        self, unit: Unit, url: str, key: str, provenance: Provenance, sidecars: dict[str, Any]
    ) -> Sequence[Example]:
        words, table = Words(**sidecars), self._table(unit)
        if self.table is not None and table is not None:
            rows = table.about(files.relative(url, self.path))
            if not rows and self.table.required:
                raise RecordDropped("not_in_table")
            words = replace(words, notes=tuple(usable([note for _, note in rows])), cut=self.table.cut)
        with files.local_copy(url) as path:
            return self.examples(str(path.absolute()), unit, key, provenance, words)

    def examples(self, path: str, unit: Unit, key: str, provenance: Provenance, words: Words) -> list[Example]:
        """The examples of one recording, at a local path."""
        raise NotImplementedError


def segments_between(start: float, end: float, length: float) -> list[Segment]:
    """Segments of `length` seconds that follow each other from `start`, as many as `segment_count` says.

    The last may be shorter; what is left behind it is less than half a segment.
    """
    count = segment_count(end - start, length)
    return [(start + number * length, min(start + (number + 1) * length, end)) for number in range(count)]


def equal_segments(start: float, end: float, count: int) -> list[Segment]:
    """A stretch in `count` equal segments."""
    edges = [start + (end - start) * number / count for number in range(count + 1)]
    return list(pairwise(edges))


def heard(segment: Segment, seconds: float) -> Segment:
    """The part of a segment whose sound is kept: the middle `seconds` of a longer one."""
    over = max(segment[1] - segment[0] - seconds, 0.0) / 2
    return segment[0] + over, segment[1] - over


def texts_of(
    words: Words, note: Note | None, segments: Sequence[Segment], places: Sequence[dict[str, int]]
) -> list[Text]:
    """The text of a run of segments: what a table says of the whole and of its span, then what is said and noted.

    Args:
        note: the row of the table that this run was cut by. places: per segment the indices of its first image and of
            its clip.
    """
    whole = [own for own in words.notes if own.start is None]
    about = (*whole, *([note] if note else []))
    captions = [*([words.caption] if words.caption else []), *(caption for own in about for caption in own.captions)]
    texts = [Text(role="caption", text=caption) for caption in captions]
    texts += [Text(role="label", text=label) for label in dict.fromkeys(label for own in about for label in own.labels)]
    texts += _asked(about)
    for passage, place in zip(align(words.cues, segments), places, strict=True):
        if passage is not None:
            texts.append(Text(role="transcript", text=passage.text, start=passage.start, end=passage.end, **place))
    if not words.cut:
        texts += _noted(words.notes, segments, places)
    return texts


def _asked(notes: Sequence[Note]) -> Iterator[Text]:
    """Questions with their answers, an item each."""
    asked = [pair for note in notes for pair in note.questions]
    for item, (question, answers) in enumerate(asked):
        yield Text(role="question", text=question, item=item)
        for answer in answers:
            yield Text(role="answer", text=answer, item=item)


def _noted(notes: Sequence[Note], segments: Sequence[Segment], places: Sequence[dict[str, int]]) -> Iterator[Text]:
    """What a table says about times: captions and labels in the segment that holds the time or the span's middle."""
    timed = [(note.start, note) for note in notes if note.start is not None]
    for start, note in sorted(timed, key=lambda item: item[0]):
        moment = start if note.end is None else (start + note.end) / 2
        for (begin, end), place in zip(segments, places, strict=True):
            if begin <= moment < end:
                said = [("caption", caption) for caption in note.captions]
                for role, text in (*said, *(("label", label) for label in note.labels)):
                    yield Text(role=role, text=text, start=start, end=note.end, **place)


def meta_of(words: Words, note: Note | None, segments: Sequence[Segment], others: Sequence[str] = ()) -> Meta:
    """Where a run lies in its recording, and the tags of its rows.

    Args:
        others: streams of the file that were not read.
    """
    whole = [own for own in words.notes if own.start is None]
    tags: dict[str, str] = {}
    url = None
    for own in (*whole, *([note] if note else [])):
        tags.update(own.tags)
        url = own.url or url
    if not words.cut:
        url = url or next((own.url for own in words.notes if own.url), None)
    if others:
        tags["other_streams"] = "; ".join(others)
    return Meta(url=url, scores={"start_seconds": segments[0][0], "end_seconds": segments[-1][1]}, tags=tags)
