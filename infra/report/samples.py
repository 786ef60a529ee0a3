"""A few examples of every source, small enough to live inside the page."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from omnimill import rng
from omnimill.infra import arrow_files
from omnimill.infra.dataset import Dataset, FileRef
from omnimill.infra.report import media
from omnimill.infra.report.media import Box
from omnimill.infra.report.sampled import Piece
from omnimill.schema import Annotation, Example, Image, from_row

TEXT_CHARACTERS = 420
# Of a source, and of all together; every source has one at least.
_MOST_OF_SOURCE, _MOST = 4, 120
_PICTURES = 5
_FILM_PICTURES = 60
_BOXES = 24


@dataclass(frozen=True)
class Picture:
    """url: a ``data:`` URL. alt: what it shows, in words, as far as the example says. aspect: width by height."""

    url: str
    alt: str
    caption: str
    boxes: tuple[Box, ...] = ()
    aspect: float = 1.0


@dataclass(frozen=True)
class Film:
    """A WebM of an example's pictures and sound. captions: a WebVTT URL of what is said; empty: nothing is known."""

    url: str
    poster: str
    alt: str
    caption: str
    captions: str = ""


@dataclass(frozen=True)
class Sample:
    """One example as the page shows it. audio: URLs with a caption each. has: kinds of content, to choose by."""

    id: str
    key: str
    source: str = ""
    films: list[Film] = field(default_factory=list)
    images: list[Picture] = field(default_factory=list)
    audio: list[tuple[str, str]] = field(default_factory=list)
    text: list[tuple[str, str]] = field(default_factory=list)
    facts: list[str] = field(default_factory=list)

    @property
    def has(self) -> list[str]:
        kinds = {"film": self.films, "picture": self.images, "sound": self.audio, "text": self.text}
        return [kind for kind, found in kinds.items() if found]


class Chosen:
    """Chooses examples while pieces of a version go by: those whose ids come first in a keyed order.

    The same for the same version, whatever the order of its pieces.
    """

    def __init__(self, sources: int) -> None:
        self._each = min(_MOST_OF_SOURCE, max(1, _MOST // max(1, sources)))
        self._first: dict[str, list[tuple[int, FileRef, int, int]]] = {}

    def look(self, piece: Piece) -> None:
        """Take in a piece."""
        ids = piece.rows.column("id").to_pylist()
        hashed = sorted((rng.digest64("sample", id_), row) for row, id_ in enumerate(ids))[: self._each]
        found = self._first.setdefault(piece.source, [])
        found += [(key, piece.shard, piece.batch, int(piece.places[row])) for key, row in hashed]
        self._first[piece.source] = sorted(found, key=lambda one: one[0])[: self._each]

    def samples(self, dataset: Dataset) -> dict[str, list[Sample]]:
        """The chosen ones, by source."""
        return {
            source: [sample(read_example(dataset, ref, batch, row)) for _, ref, batch, row in places]
            for source, places in sorted(self._first.items())
        }


def read_example(dataset: Dataset, ref: FileRef, batch: int, row: int) -> Example:
    """One row of a shard, of which nothing else is read."""
    with arrow_files.open_batches(dataset.shard_url(ref)) as reader:
        return from_row(reader.get_batch(batch).slice(row, 1).to_pylist()[0])


def sample(example: Example) -> Sample:
    """An example as the page shows it."""
    film = _film(example)
    return Sample(
        id=example.id,
        key=example.key,
        source=example.source,
        films=[film] if film else [],
        images=[] if film else [_picture(example, i) for i in range(min(len(example.images), _PICTURES))],
        audio=[]
        if film
        else [
            (
                media.sound(clip.data, f"audio/{clip.format}", clip.samples / clip.sample_rate),
                media.shown_seconds(clip.samples / clip.sample_rate),
            )
            for clip in example.audio[:_PICTURES]
        ],
        text=[(part.role, shorten(part.text)) for part in example.text[:6]],
        facts=list(_facts(example)),
    )


def _picture(example: Example, number: int) -> Picture:
    image = example.images[number]
    boxes = (media.box(place, label) for mark in example.annotations for place, label in _places(mark, number))
    caption = f"{image.width} x {image.height}"
    if len(example.images) > _PICTURES and number == _PICTURES - 1:
        caption += f", {len(example.images) - _PICTURES} more"
    return Picture(
        media.thumbnail(image.data), _alt(example, number), caption, tuple(boxes)[:_BOXES], image.width / image.height
    )


def _places(mark: Annotation, image: int) -> Iterator[tuple[Sequence[float], str]]:
    if (mark.image or 0) != image:
        return
    if mark.box:
        yield mark.box, mark.label or ""
    for y, x in zip(*[iter(mark.points or ())] * 2, strict=False):
        yield (y, x), ""


def _alt(example: Example, number: int) -> str:
    """What is said of a picture: its own text first, then any."""
    told = [part for part in example.text if part.role in ("caption", "alt_text", "label")]
    own = [part for part in told if part.image == number] or told
    return shorten(own[0].text, 120) if own else f"picture {number + 1} of {example.key}"


def _film(example: Example) -> Film | None:
    """Frames of a film with its sound, or the pictures of a run of steps; None: the example is neither."""
    clock = _clock(example)
    if clock is None:
        return None
    start, pictures, end = clock
    if len(pictures) > _FILM_PICTURES:
        end = pictures[_FILM_PICTURES][0]
    # What is shown first stands for the time before it, too.
    pictures = [
        (max(0.0, time - start) if number else 0.0, image)
        for number, (time, image) in enumerate(pictures[:_FILM_PICTURES])
    ]
    end -= start
    clips = [(max(0.0, (clip.start or 0.0) - start), clip.data) for clip in example.audio]
    cues = [
        (part.start - start, part.end - start, part.text)
        for part in example.text
        if part.start is not None and part.end is not None
    ]
    url = media.film([(time, image.data) for time, image in pictures], clips, end)
    with_sound = " with sound" if clips else ""
    return Film(
        url=url,
        poster=media.thumbnail(pictures[0][1].data),
        alt=f"film of {example.key}",
        caption=f"{len(pictures)} pictures{with_sound}, {end:.2f} s",
        captions=media.captions(cues) if cues else "",
    )


def _clock(example: Example) -> tuple[float, list[tuple[float, Image]], float] | None:
    """The beginning, pictures with the seconds at which they begin, and the end; None: they have no course of time."""
    run = example.trajectory
    if run is not None:
        rate = run.steps_per_second or 1.0
        shown = [(step / rate, example.images[i]) for step, i in enumerate(run.step_images) if i is not None]
        return (0.0, shown, len(run.step_images) / rate) if len(shown) > 1 else None
    video = example.video
    if video is None or not example.images or any(image.time is None for image in example.images):
        return None
    timed = sorted(((float(image.time or 0), image) for image in example.images), key=lambda one: one[0])
    begin = min(video.first_segment * video.segment_seconds, timed[0][0])
    end = (video.first_segment + video.segments) * video.segment_seconds
    return begin, timed, max(end, timed[-1][0] + 1 / max(video.frame_rate, 1.0))


def _facts(example: Example) -> Iterator[str]:
    if example.trajectory is not None:
        run = example.trajectory
        yield f"{len(run.actions)} steps of {run.episode}, actions {', '.join(run.action_names)}"
    for view in example.views:
        yield f"view {view.image}: theta {view.theta:+.2f}, phi {view.phi:+.2f}, r {view.radius:.2f}"
    if example.video is not None:
        video = example.video
        yield f"segments {video.first_segment}..{video.first_segment + video.segments - 1} of {video.uri}"
    if example.targets:
        yield f"asks for {', '.join(target.role or target.kind for target in example.targets)}"
    if example.meta.licence:
        yield f"licence {example.meta.licence}"


def shorten(text: str, most: int = TEXT_CHARACTERS) -> str:
    """The beginning of a text."""
    return text if len(text) <= most else text[:most].rstrip() + " …"
