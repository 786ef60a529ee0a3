"""Films with tables of boxes at times: AVA's actions and YouTube-BB's objects."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any, ClassVar, Literal, Self

from pydantic import Field, model_validator

from omnimill.errors import BadRecord, ConfigError
from omnimill.infra import storage
from omnimill.infra.dataset import InputRef, Unit
from omnimill.pipelines import files
from omnimill.pipelines.adapters.film_boxes import Box, track_boxes, track_texts
from omnimill.pipelines.decoders.audio import MIN_SECONDS, flac_clip
from omnimill.pipelines.decoders.film import Film, FilmWish, read_film
from omnimill.pipelines.decoders.probe import MediaInfo, MediaLimits, probe
from omnimill.pipelines.decoders.sound import SAMPLE_RATE
from omnimill.pipelines.decoders.text import utf8
from omnimill.pipelines.isolation import isolated
from omnimill.pipelines.sources.examples import make_example
from omnimill.pipelines.sources.media import MediaSource, Words
from omnimill.pipelines.sources.video import VIDEO_FILES
from omnimill.schema import Annotation, Audio, Example, Meta, Provenance, Text

_PROBE_SECONDS = 120.0
_MAX_NAMES_BYTES = 1 << 20
_NAME = re.compile(r'name:\s*"([^"]*)"')
_NUMBER = re.compile(r"(?:\b|_)id:\s*(\d+)")

# The published tables have no header; the names of columns are ours.
_COLUMNS = {
    "ava": ("video_id", "time", "x1", "y1", "x2", "y2", "label", "object"),
    "youtube_bb": ("video_id", "time", "class_id", "label", "object", "presence", "x1", "x2", "y1", "y2"),
}


@dataclass
class _Plan:
    """An example to be: times of its frames in the order of its list, the current one last."""

    name: str
    times: list[float]
    texts: list[Text] = field(default_factory=list)
    annotations: list[Annotation] = field(default_factory=list)


@dataclass(frozen=True)
class _Row:
    """time: seconds. box: None where the object is not in sight."""

    time: float
    label: str
    object: str
    box: Box | None


class VideoBoxesSource(MediaSource):
    """Films by globs with CSV files of boxes at times; a unit is a film, named as in the table.

    Of ``ava`` (ava_train_v2.2.csv: film, second, box in shares, action, person) an example is a second of a film: the
    frame then is the current picture, last in the list, and those before and after it are its history; each action seen
    is an item with its ``label`` and the ``boxes`` of the people who do it. Of ``youtube_bb``
    (yt_bb_detection_train.csv: film, milliseconds, class, object, presence, box in shares) it is a run of an object's
    boxes, of which the last is ``boxes`` and the earlier ones are its ``track``; rows ``absent`` and ``uncertain``
    break a run.

    tables: globs of the CSV files below `path`. names: AVA's list of actions (``.pbtxt``), below `path`.
    frames_per_example: of a film; of ``ava`` an odd number. apart_seconds: from one to the next.
    sound: whether an example has the sound around its frames, of `apart_seconds` each.
    max_side: longer side of frames in pixels. max_seconds, max_pixels: of a film.
    """

    type: Literal["video_boxes"]
    layout: Literal["ava", "youtube_bb"]
    tables: tuple[str, ...] = ("**/*.csv",)
    names: str | None = None
    include: tuple[str, ...] = VIDEO_FILES
    transcripts: tuple[str, ...] = ()
    captions: tuple[str, ...] = ()
    frames_per_example: int = Field(5, ge=2, le=64)
    apart_seconds: float = Field(1.0, gt=0, le=60)
    sound: bool = True
    max_side: int = Field(512, ge=16, le=4096)
    max_seconds: float = Field(4 * 3600.0, gt=0)
    max_pixels: int = Field(8192 * 4320, gt=0)
    timeout_seconds: float = Field(120.0, gt=0)
    version: ClassVar[int] = 1

    @model_validator(mode="before")
    @classmethod
    def _with_table(cls, data: Any) -> Any:
        """The table is the layout's own."""
        if not isinstance(data, dict) or data.get("layout") not in _COLUMNS:
            return data
        columns = _COLUMNS[data["layout"]]
        table = {"files": data.get("tables", ("**/*.csv",)), "file": "{video_id}", "columns": columns}
        return data | {"table": table | {"tags": {name: name for name in columns if name != "video_id"}}}

    @model_validator(mode="after")
    def _laid_out(self) -> Self:
        if self.layout == "ava" and (self.names is None or self.frames_per_example % 2 == 0):
            raise ValueError("layout ava needs names, and an odd number of frames_per_example")
        return self

    def inputs(self, unit: Unit) -> list[InputRef]:
        refs = super().inputs(unit)
        if self.names is not None:
            url = storage.join(self.path, self.names)
            refs.append(InputRef(uri=url, digest=storage.digest_file(url), bytes=int(storage.stat(url)["bytes"])))
        return refs

    def examples(self, path: str, unit: Unit, key: str, provenance: Provenance, words: Words) -> list[Example]:
        limits = MediaLimits(self.max_pixels, self.max_seconds)
        info = isolated("video", _PROBE_SECONDS, probe, path, "video", limits)
        if info.video is None:
            raise BadRecord("video_no_stream", "the file has no pictures that can be decoded")
        rows = sorted((_row(dict(note.tags), self.layout) for note in words.notes), key=lambda row: row.time)
        found = self._actions(rows) if self.layout == "ava" else self._objects(rows)
        plans = [plan for plan in found if min(plan.times) >= 0 and max(plan.times) < info.video.seconds]
        if not plans:
            raise BadRecord("span_outside", f"no example lies within the film's {info.video.seconds:.2f} s")
        film = self._read(path, info, plans, limits)
        frames = {image.time: image for image in film.frames}
        return [
            make_example(
                self,
                unit,
                f"{key}#{plan.name}",
                provenance,
                images=[frames[time] for time in plan.times],
                audio=self._clips(film, plan.times),
                text=plan.texts,
                annotations=plan.annotations,
                meta=Meta(scores={"start_seconds": min(plan.times), "end_seconds": max(plan.times)}),
            )
            for plan in plans
            if all(time in frames for time in plan.times)
        ]

    def _actions(self, rows: Sequence[_Row]) -> Iterator[_Plan]:
        """A second of a film each, with every action as an item."""
        names = self._names()
        half = self.frames_per_example // 2
        around = [step for step in range(-half, half + 1) if step]
        for time, at in groupby(rows, key=lambda row: row.time):
            plan = _Plan(f"{time:g}", [time + step * self.apart_seconds for step in (*around, 0)])
            boxes: dict[str, list[Box]] = {}
            for row in at:
                if row.label not in names:
                    raise BadRecord("label_unknown", f"action {row.label!r} is not in {self.names}")
                if row.box is not None and row.box not in boxes.setdefault(row.label, []):
                    boxes[row.label].append(row.box)
            for item, (label, found) in enumerate(sorted(boxes.items(), key=lambda entry: int(entry[0]))):
                plan.texts.append(Text(role="label", text=names[label], item=item))
                place = len(plan.times) - 1
                plan.annotations += [Annotation(kind="box", image=place, box=box, item=item) for box in found]
            if plan.annotations:
                yield plan

    def _objects(self, rows: Sequence[_Row]) -> Iterator[_Plan]:
        """Runs of one object's boxes."""
        objects: dict[tuple[str, str], list[_Row]] = {}
        for row in rows:
            objects.setdefault((row.label, row.object), []).append(row)
        for (label, number), seen in sorted(objects.items()):
            for present, run in groupby(seen, key=lambda row: row.box is not None):
                for window in files.groups(list(run) if present else [], self.frames_per_example):
                    if len(window) > 1:
                        times = [row.time for row in window]
                        boxes = track_boxes([row.box for row in window])
                        yield _Plan(f"{label}-{number}@{times[0]:g}", times, track_texts(label), boxes)

    def _names(self) -> dict[str, str]:
        """AVA's actions by number."""
        url = storage.join(self.path, str(self.names))
        names: dict[str, str] = {}
        for entry in utf8(files.read_file(url, _MAX_NAMES_BYTES)).split("}"):
            name, number = _NAME.search(entry), _NUMBER.search(entry)
            if name and number:
                names[number[1]] = name[1]
        if not names:
            raise ConfigError(f"{url}: no names of actions; wanted are items with a name and an id")
        return names

    def _read(self, path: str, info: MediaInfo, plans: Sequence[_Plan], limits: MediaLimits) -> Film:
        assert info.video is not None
        times = sorted({time for plan in plans for time in plan.times})
        stretch = (max(times[0] - self.apart_seconds, 0.0), min(times[-1] + self.apart_seconds, info.video.seconds))
        wish = FilmWish(tuple(times), (stretch,), self.sound, None, self.max_side)
        return isolated("video", self.timeout_seconds + info.video.seconds, read_film, path, info, wish, limits)

    def _clips(self, film: Film, times: Sequence[float]) -> list[Audio]:
        """The sound around each frame; none at all unless there is some around every one."""
        clips = []
        for time in times:
            start = max(round((time - self.apart_seconds / 2) * SAMPLE_RATE), 0)
            samples = film.sound[0].cut(start, start + round(self.apart_seconds * SAMPLE_RATE))
            if len(samples) < MIN_SECONDS * SAMPLE_RATE:
                return []
            clips.append(flac_clip(samples, start))
        return clips


def _row(said: Mapping[str, str], layout: str) -> _Row:
    """A row of a table; raises BadRecord."""
    try:
        time = float(said["time"]) / (1000 if layout == "youtube_bb" else 1)
        there = said.get("presence", "present") == "present"
        edges = [float(said[name]) for name in ("y1", "x1", "y2", "x2")] if there and "x1" in said else None
    except (KeyError, ValueError) as error:
        raise BadRecord("boxes_malformed", f"a row of {dict(said)}: {error}") from None
    if not math.isfinite(time) or (edges is not None and not all(map(math.isfinite, edges))):
        raise BadRecord("boxes_malformed", f"a row of {dict(said)}: not finite")
    box = None if edges is None else [min(max(edge, 0.0), 1.0) for edge in edges]
    if box is not None and not (box[2] > box[0] and box[3] > box[1]):
        box = None
    return _Row(time, said.get("label", ""), said.get("object", ""), box)
