"""Films as folders of frames with the place of one object in each: GOT-10k and LaSOT."""

from __future__ import annotations

import configparser
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import ClassVar, Literal

from blake3 import blake3
from pydantic import Field

from omnimill.errors import BadRecord, RecordDropped
from omnimill.infra import storage
from omnimill.infra.dataset import Unit
from omnimill.pipelines import files
from omnimill.pipelines.adapters.film_boxes import PixelBox, shares, spread_windows, track_boxes, track_texts
from omnimill.pipelines.base import Record, Source
from omnimill.pipelines.decoders.images import ImageSettings, decode_image
from omnimill.pipelines.decoders.text import utf8
from omnimill.pipelines.sources.examples import make_example, refusal
from omnimill.schema import Example, Provenance

_MAX_TEXT_BYTES = 16 << 20
_TRUTH = "groundtruth.txt"
_PICTURES = (".jpg", ".jpeg", ".png")


@dataclass(frozen=True)
class _Layout:
    """frames: folder of the frames beside ``groundtruth.txt``. absent: files of a flag per frame, 1 if not in sight.

    about: file that says what the object is.
    """

    frames: str
    absent: tuple[str, ...]
    about: str


_LAYOUTS = {
    "got10k": _Layout("", ("absence.label",), "meta_info.ini"),
    "lasot": _Layout("img/", ("full_occlusion.txt", "out_of_view.txt"), "nlp.txt"),
}


@dataclass(frozen=True)
class _Film:
    """boxes: by frame, None where the object is not in sight."""

    boxes: list[PixelBox | None]
    label: str | None
    expression: str | None


class TracksSource(Source):
    """Folders of frames with ``groundtruth.txt``: x, y, width, height in pixels, a line per frame.

    A record, and an example, is a window of frames of one film. The object's box in the last frame has role ``boxes``,
    those in the earlier ones role ``track``; its class is a ``label``, its description an ``expression``, all of item
    0. Windows in whose last frame the object is not in sight are dropped as ``object_absent``.

    layout: ``got10k`` (frames beside the text, ``absence.label``, ``meta_info.ini``) or ``lasot`` (frames in ``img/``,
        ``full_occlusion.txt``, ``out_of_view.txt``, ``nlp.txt``; the folder's name is the class and a number).
    frames_per_example: of a window. step: frames from one to the next.
    windows_per_film: at most, evenly spread over it.
    films_per_unit: folders.
    """

    selection: ClassVar[tuple[str, ...]] = ("include", "exclude", "films_per_unit")

    type: Literal["tracks"]
    path: str
    layout: Literal["got10k", "lasot"]
    include: tuple[str, ...] = (f"**/{_TRUTH}",)
    exclude: tuple[str, ...] = ()
    frames_per_example: int = Field(5, ge=2, le=64)
    step: int = Field(10, ge=1)
    windows_per_film: int = Field(8, ge=1)
    films_per_unit: int = Field(8, ge=1)
    images: ImageSettings = ImageSettings()

    def units(self) -> Iterator[Unit]:
        listed = files.find(self.path)
        belongs = files.matcher(self.include, self.exclude)
        truths = [url for url in listed if belongs(files.relative(url, self.path))]
        folders: dict[str, list[str]] = {}
        for url in listed:
            folders.setdefault(url.rsplit("/", 1)[0] + "/", []).append(url)
        for group in files.groups(truths, self.films_per_unit):
            needed = [url for truth in group for url in self._needed(truth, folders)]
            yield Unit(source=self.name, files=(*group, *needed), options={"films": len(group)})

    def _needed(self, truth: str, folders: Mapping[str, list[str]]) -> Iterator[str]:
        """The files of a film beside its text: what says more of the object, and the frames of its windows."""
        home = truth.removesuffix(_TRUTH)
        layout = _LAYOUTS[self.layout]
        beside = {home + name for name in (*layout.absent, layout.about)}
        yield from (url for url in folders.get(home, []) if url in beside)
        frames = [url for url in folders.get(home + layout.frames, []) if url.lower().endswith(_PICTURES)]
        places = {place for window in self._windows(len(frames)) for place in window}
        # A frame's place among all is not told by the chosen ones, so its name has to.
        yield from (url for place, url in enumerate(frames) if place in places)

    def _windows(self, count: int) -> list[range]:
        return spread_windows(count, self.frames_per_example, self.step, self.windows_per_film)

    def read(self, unit: Unit) -> Iterator[Record]:
        layout = _LAYOUTS[self.layout]
        truths = unit.files[: int(unit.options["films"])]
        for truth in truths:
            home = truth.removesuffix(_TRUTH)
            name = files.relative(home.rstrip("/"), self.path)
            frames = {
                number: url
                for url in unit.files
                if url.startswith(home + layout.frames) and url.lower().endswith(_PICTURES)
                if (number := _number(url)) is not None
            }
            try:
                film = self._film(truth, unit.files)
            except BadRecord as fault:
                provenance = Provenance(uri=truth, digest=storage.digest_file(truth))
                yield Record(name, provenance, refusal(fault))
                continue
            for window in self._windows(len(film.boxes)):
                key = f"{name}#{window[0]}"
                digest = blake3("\n".join(storage.digest_file(frames[i]) for i in window if i in frames).encode())
                provenance = Provenance(uri=truth, digest=digest.hexdigest())
                shown = [frames.get(place) for place in window]
                yield Record(key, provenance, partial(self._decode, unit, key, provenance, film, window, shown))

    def _film(self, truth: str, beside: Sequence[str]) -> _Film:
        layout = _LAYOUTS[self.layout]
        home = truth.removesuffix(_TRUTH)
        boxes = _boxes(files.read_file(truth, _MAX_TEXT_BYTES))
        hidden = [False] * len(boxes)
        for name in layout.absent:
            if home + name in beside:
                flags = utf8(files.read_file(home + name, _MAX_TEXT_BYTES)).replace(",", " ").split()
                if len(flags) != len(boxes):
                    raise BadRecord("track_malformed", f"{name} has {len(flags)} flags for {len(boxes)} frames")
                hidden = [before or flag == "1" for before, flag in zip(hidden, flags, strict=True)]
        about = utf8(files.read_file(home + layout.about, _MAX_TEXT_BYTES)) if home + layout.about in beside else ""
        label, expression = _named(self.layout, about, home)
        return _Film([None if gone else box for box, gone in zip(boxes, hidden, strict=True)], label, expression)

    def _decode(
        self, unit: Unit, key: str, provenance: Provenance, film: _Film, window: range, shown: Sequence[str | None]
    ) -> Sequence[Example]:
        boxes = [film.boxes[place] for place in window]
        if boxes[-1] is None:
            raise RecordDropped("object_absent")
        pictures = []
        for place, url in zip(window, shown, strict=True):
            if url is None:
                raise BadRecord("frame_missing", f"frame {place + 1} is not there")
            pictures.append(decode_image(files.read_file(url, self.images.max_bytes), self.images, url))
        track = [
            None if box is None else shares(box, picture.width, picture.height)
            for box, picture in zip(boxes, pictures, strict=True)
        ]
        if track[-1] is None:
            raise RecordDropped("object_absent")
        texts = track_texts(film.label, film.expression)
        return [make_example(self, unit, key, provenance, images=pictures, text=texts, annotations=track_boxes(track))]


def _boxes(data: bytes) -> list[PixelBox | None]:
    """x, y, width, height of every frame; None for a box without extent."""
    boxes: list[PixelBox | None] = []
    for number, line in enumerate(utf8(data).split("\n"), 1):
        if not line.strip():
            continue
        try:
            x, y, width, height = (float(part) for part in line.replace(",", " ").split())
        except ValueError:
            raise BadRecord("track_malformed", f"line {number} is not x, y, width, height: {line[:80]!r}") from None
        right = all(map(math.isfinite, (x, y, width, height))) and width > 0 and height > 0
        boxes.append(PixelBox(x, y, x + width, y + height) if right else None)
    return boxes


def _named(layout: str, about: str, home: str) -> tuple[str | None, str | None]:
    """What the object is, and a description of it."""
    if layout == "lasot":
        folder = home.rstrip("/").rsplit("/", 1)[-1]
        return folder.rsplit("-", 1)[0].strip() or None, about.strip() or None
    parser = configparser.ConfigParser(interpolation=None, strict=False)
    try:
        parser.read_string(about)
    except configparser.Error as error:
        raise BadRecord("track_malformed", f"{_LAYOUTS[layout].about}: {str(error)[:200]}") from None
    names = [parser[section].get("object_class") for section in parser.sections()]
    return next((name.strip() for name in names if name), None), None


def _number(url: str) -> int | None:
    """The place of a frame, from 0: both layouts name them by their number, from 1."""
    stem = url.rsplit("/", 1)[-1].rsplit(".", 1)[0]
    return int(stem) - 1 if stem.isdecimal() else None
