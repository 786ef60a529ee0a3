"""What sources of recordings (video, audio) share: files, the texts that lie beside them, and their segments."""

from __future__ import annotations

import posixpath
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from typing import Any, ClassVar, Literal

from pydantic import Field

from omnimill.config import Config
from omnimill.errors import BadRecord, RecordDropped
from omnimill.infra import storage
from omnimill.infra.dataset import Unit
from omnimill.pipelines import files
from omnimill.pipelines.base import Record, Source
from omnimill.pipelines.decoders.probe import MediaLimits
from omnimill.pipelines.decoders.text import utf8
from omnimill.pipelines.decoders.transcripts import MAX_BYTES, Cue, Passage, parse_transcript
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


class MediaSource(Source):
    """Recordings in a folder, each a record; the texts beside them are records of their own.

    A side-car that can be read goes into the examples of its recording and is dropped as ``sidecar``; one that cannot
    is quarantined alone, and the recording is kept without it.

    path: folder or single file. include, exclude: globs below it.
    transcripts: where the WebVTT or SubRip file of a recording may lie, relative to the recording's folder; ``{stem}``
        is its name without ending. The first that is there is used.
    captions: likewise, plain text about the whole recording.
    max_file_bytes: a larger recording is quarantined unread.
    """

    selection: ClassVar[tuple[str, ...]] = ("include", "exclude", "files_per_unit")

    path: str
    include: tuple[str, ...]
    exclude: tuple[str, ...] = ()
    transcripts: tuple[str, ...] = ("{stem}.vtt", "{stem}.srt")
    captions: tuple[str, ...] = ("{stem}.txt",)
    files_per_unit: int = Field(1, ge=1)
    max_file_bytes: int = Field(64 << 30, gt=0)

    def units(self) -> Iterator[Unit]:
        listed = files.find(self.path)
        belongs = files.matcher(self.include, self.exclude)
        recordings = [url for url in listed if belongs(files.relative(url, self.path)) or url == self.path]
        present, seen = set(listed), set[str]()

        def is_there(url: str) -> bool:
            below = url.startswith(self.path.rstrip("/") + "/")
            return url in present or (not below and storage.exists(url))

        for group in files.groups(recordings, self.files_per_unit):
            beside = {text for url in group for text in self._beside(url, is_there)}
            # A text that two recordings share is accounted for with the first.
            own, shared = sorted(beside - seen), sorted(beside & seen)
            seen.update(own)
            yield Unit(
                source=self.name,
                files=(*group, *own, *shared),
                options={"recordings": len(group), "sidecars": len(own)},
            )

    def read(self, unit: Unit) -> Iterator[Record]:
        count = int(unit.options["recordings"])
        texts = unit.files[count:]
        for url in unit.files[:count]:
            provenance = Provenance(uri=url, digest=storage.digest_file(url), length=int(storage.stat(url)["bytes"]))
            key = files.relative(url, self.path)
            beside = self._beside(url, texts.__contains__)
            yield Record(key, provenance, partial(self._decode, unit, url, key, provenance, beside))
        for url in texts[: int(unit.options["sidecars"])]:
            size = int(storage.stat(url)["bytes"])
            small = storage.read_bytes(url) if size <= files.SMALL_BYTES else None
            provenance = Provenance(uri=url, digest=storage.digest_file(url), length=size)
            yield Record(files.relative(url, self.path), provenance, partial(_sidecar, url), small)

    def examples(self, path: str, unit: Unit, key: str, provenance: Provenance, words: Words) -> list[Example]:
        """The examples of one recording, at a local path."""
        raise NotImplementedError

    def _decode(
        self, unit: Unit, url: str, key: str, provenance: Provenance, beside: Sequence[str]
    ) -> Sequence[Example]:
        if (provenance.length or 0) > self.max_file_bytes:
            raise BadRecord("file_too_large", f"{provenance.length} bytes, {self.max_file_bytes} allowed")
        with files.local_copy(url) as path:
            return self.examples(str(path.absolute()), unit, key, provenance, read_words(beside))

    def _beside(self, url: str, is_there: Callable[[str], bool]) -> list[str]:
        """The transcript and the caption of a recording, where there are any."""
        folder, name = url.rsplit("/", 1) if "/" in url else (".", url)
        stem = name.rsplit(".", 1)[0]
        found: list[str] = []
        for patterns in (self.transcripts, self.captions):
            candidates = (_join(folder, pattern.replace("{stem}", stem)) for pattern in patterns)
            found.extend(islice(filter(is_there, candidates), 1))
        return found


def read_words(urls: Sequence[str]) -> Words:
    """The texts of side-car files; one that cannot be read is left out here: its own record says what is wrong."""
    words = Words()
    for url in urls:
        with suppress(BadRecord):
            words = replace(words, **_read_sidecar(url))
    return words


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


def _sidecar(url: str) -> Sequence[Example]:
    _read_sidecar(url)
    raise RecordDropped("sidecar")


def _read_sidecar(url: str) -> dict[str, Any]:
    ending = url.rsplit(".", 1)[-1].lower()
    if ending in ("vtt", "srt"):
        form: Literal["vtt", "srt"] = "vtt" if ending == "vtt" else "srt"
        return {"cues": tuple(parse_transcript(files.read_file(url, MAX_BYTES), form))}
    return {"caption": utf8(files.read_file(url, MAX_CAPTION_BYTES)).strip() or None}


def _join(folder: str, name: str) -> str:
    """`name` as seen from `folder`, a URL or a path."""
    scheme, mark, path = folder.rpartition("://")
    return scheme + mark + posixpath.normpath(posixpath.join(path, name))
