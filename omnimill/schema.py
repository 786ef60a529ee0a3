"""The Example: one row of ingested data of any mixture of modalities, as dataclasses and as an Arrow schema.

An example keeps order: `text` is a list of typed segments, and a segment may name the image or audio clip that it
belongs to by its index. Media stay encoded. Absent is None (null in Arrow), never a magic value.

What belongs together in an example that holds several questions, objects or regions has the same ``item``: a question
and its answers, an expression and the box that it refers to, a class and its mask. What has no item belongs to all of
them. A task reads one item of an example at a time.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from itertools import accumulate
from typing import Any

import pyarrow as pa
from blake3 import blake3

from omnimill.errors import IntegrityError

SCHEMA_VERSION = 3
VERSION_KEY = b"omnimill.example_schema"

# In a text: here stands the next picture (U+FFFC, the object replacement character).
PICTURE_MARK = "\ufffc"


@dataclass(kw_only=True)
class Text:
    """A piece of text.

    role: what it is to the example: body, caption, alt_text, transcript, instruction, subgoal (what is to be done now),
        step (what an agent does next, in words), code, label, question, answer, expression, phrase (what a region
        shows), predicate, classes, count, control (what kind of picture steers another).
    text: `PICTURE_MARK` in it stands for the example's next picture, the first for the first.
    image, audio: index of the medium in the same example that it describes or follows. In an interleaved document
        (roles body and code) the segments stand in reading order: those without an image come before all pictures,
        those of image i between it and image i + 1.
    start, end: seconds on the media's own clock.
    item: which of the example's questions, objects or regions it belongs to.
    """

    role: str
    text: str
    image: int | None = None
    audio: int | None = None
    start: float | None = None
    end: float | None = None
    item: int | None = None


@dataclass(kw_only=True)
class Image:
    """An encoded still picture; `digest` is blake3 of the bytes read from the source, before any re-encoding.

    format: jpeg, png or webp. width, height: pixels as displayed (EXIF orientation applied).
    time: seconds from the start of the video it was taken from.
    uri: where the source bytes lie.
    """

    data: bytes
    format: str
    width: int
    height: int
    digest: str
    uri: str | None = None
    time: float | None = None


@dataclass(kw_only=True)
class Audio:
    """An encoded clip of sound. samples: per channel. start: seconds from the start of its recording."""

    data: bytes
    format: str
    sample_rate: int
    channels: int
    samples: int
    digest: str
    uri: str | None = None
    start: float | None = None


@dataclass(kw_only=True)
class Video:
    """Where an example's frames and clips were cut from; the frames are in `images`, the clips in `audio`."""

    uri: str
    digest: str
    width: int
    height: int
    seconds: float
    frame_rate: float
    segment_seconds: float
    first_segment: int
    segments: int


@dataclass(kw_only=True)
class Trajectory:
    """A run of robot or agent steps; row i of `states` and `actions` belongs to step `first_step + i`.

    steps_per_second: None when steps take no certain time.
    states, actions: no rows when they are not known; actions in words are texts of role ``step``.
    step_images: index into `images` for every step, None where a step has no picture.
    """

    episode: str
    first_step: int
    steps_per_second: float | None
    state_names: list[str]
    action_names: list[str]
    states: list[list[float]]
    actions: list[list[float]]
    step_images: list[int | None]


@dataclass(kw_only=True)
class View:
    """Camera pose of one image: spherical coordinates around the object, the camera looking at its centre.

    theta: polar angle in radians, 0 straight above, pi below. phi: azimuth in radians, -pi..pi; 0 is in front.
    radius: in object radii. sin_phi, cos_phi: of phi.
    bins: theta, sin phi, cos phi and radius relative to the example's first view, as bins 0..999 of the ranges
        `omnimill.locations.CAMERA`.
    """

    image: int
    theta: float
    phi: float
    radius: float
    sin_phi: float
    cos_phi: float
    bins: list[int]


@dataclass(kw_only=True)
class Annotation:
    """A label on an image. box: y1, x1, y2, x2 and points: y, x, … as shares of the image's height and width.

    kind: what it marks: box, points, region (a mask, whose box, points and label are what asks for it), keypoints (of
        a person), cuboid (a box in space), values (numbers), table_steps (what is done on a table).
    role: of the text that it becomes (boxes, region, subject, object, track, keypoints, cuboids, action, …); None: the
        one that goes with its kind: boxes, points, region, keypoints, cuboids, values, action.
    item: which of the example's questions, objects or regions it belongs to; a region without one is one of its own.
    form: how a box is written: one of `omnimill.tokenizers.box_variants`; None: as its four edges.
    mask: a PNG of one bit per pixel that covers the whole image, at the size that the image was annotated at; white
        inside. score: how good its maker thinks it is, 0..1.
    values: keypoints: y, x (shares), COCO visibility of each of the 17 parts. cuboid: centre x, y, z and size w, h, l
        in metres, rotation (9, row by row, object to camera), focal length, principal point x, y (pixels of the
        image). values: any numbers, each within `low` … `high`. table_steps: of every step x, y (metres) and turn
        (degrees) of where it begins and ends; the label is what is done: pick or push.
    """

    kind: str
    image: int | None = None
    label: str | None = None
    box: list[float] | None = None
    points: list[float] | None = None
    mask: bytes | None = None
    score: float | None = None
    role: str | None = None
    item: int | None = None
    form: str | None = None
    values: list[float] | None = None
    low: float | None = None
    high: float | None = None


@dataclass(kw_only=True)
class Target:
    """A picture that the example asks for, beside those that it shows.

    kind: picture (as it is), depth, normals or flow (maps that become colours when they are tokenized).
    role: what a task calls it (``image:<role>``): edited, picture, …; None: its kind.
    image: the picture that a map belongs to. item: as of texts.
    data, format: png, jpeg or webp; of maps also npy (float32: depth [H, W] in metres, normals [H, W, 3], flow
        [H, W, 2] in pixels to the right and downwards).
    scale: of a depth PNG, metres per level; of flow, pixels of full saturation (None: its own largest).
    """

    kind: str
    data: bytes
    format: str
    role: str | None = None
    image: int | None = None
    item: int | None = None
    scale: float | None = None


@dataclass(kw_only=True)
class Meta:
    """Facts about the example.

    scores: what operators measured, by name. tags: other facts that are no number, by name (split, repository, …).
    """

    licence: str | None = None
    url: str | None = None
    language: str | None = None
    scores: dict[str, float] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)


@dataclass(kw_only=True)
class Provenance:
    """The original record: file or archive member, byte range where one is meaningful, blake3 of its bytes."""

    uri: str
    digest: str
    offset: int | None = None
    length: int | None = None


@dataclass(kw_only=True)
class Example:
    """One training example before tokenization. `id` comes from :func:`example_id`."""

    id: str
    source: str
    unit: str
    key: str
    provenance: Provenance
    text: list[Text] = field(default_factory=list)
    images: list[Image] = field(default_factory=list)
    audio: list[Audio] = field(default_factory=list)
    video: Video | None = None
    trajectory: Trajectory | None = None
    views: list[View] = field(default_factory=list)
    annotations: list[Annotation] = field(default_factory=list)
    targets: list[Target] = field(default_factory=list)
    meta: Meta = field(default_factory=Meta)


def example_id(source: str, key: str, content_digest: str) -> str:
    """Stable id of an example: 32 hex digits from its source's name, its key and its content."""
    return blake3("\x1f".join((source, key, content_digest)).encode()).hexdigest(length=16)


_TEXT = pa.struct(
    [
        pa.field("role", pa.string(), nullable=False),
        pa.field("text", pa.string(), nullable=False),
        ("image", pa.int32()),
        ("audio", pa.int32()),
        ("start", pa.float64()),
        ("end", pa.float64()),
        ("item", pa.int32()),
    ]
)
_IMAGE = pa.struct(
    [
        pa.field("data", pa.large_binary(), nullable=False),
        pa.field("format", pa.string(), nullable=False),
        pa.field("width", pa.int32(), nullable=False),
        pa.field("height", pa.int32(), nullable=False),
        pa.field("digest", pa.string(), nullable=False),
        ("uri", pa.string()),
        ("time", pa.float64()),
    ]
)
_AUDIO = pa.struct(
    [
        pa.field("data", pa.large_binary(), nullable=False),
        pa.field("format", pa.string(), nullable=False),
        pa.field("sample_rate", pa.int32(), nullable=False),
        pa.field("channels", pa.int32(), nullable=False),
        pa.field("samples", pa.int64(), nullable=False),
        pa.field("digest", pa.string(), nullable=False),
        ("uri", pa.string()),
        ("start", pa.float64()),
    ]
)
_VIDEO = pa.struct(
    [
        ("uri", pa.string()),
        ("digest", pa.string()),
        ("width", pa.int32()),
        ("height", pa.int32()),
        ("seconds", pa.float64()),
        ("frame_rate", pa.float64()),
        ("segment_seconds", pa.float64()),
        ("first_segment", pa.int32()),
        ("segments", pa.int32()),
    ]
)
_TRAJECTORY = pa.struct(
    [
        ("episode", pa.string()),
        ("first_step", pa.int64()),
        ("steps_per_second", pa.float64()),
        ("state_names", pa.list_(pa.string())),
        ("action_names", pa.list_(pa.string())),
        ("states", pa.list_(pa.list_(pa.float64()))),
        ("actions", pa.list_(pa.list_(pa.float64()))),
        ("step_images", pa.list_(pa.int32())),
    ]
)
_VIEW = pa.struct(
    [
        ("image", pa.int32()),
        ("theta", pa.float64()),
        ("phi", pa.float64()),
        ("radius", pa.float64()),
        ("sin_phi", pa.float64()),
        ("cos_phi", pa.float64()),
        ("bins", pa.list_(pa.int32())),
    ]
)
_ANNOTATION = pa.struct(
    [
        pa.field("kind", pa.string(), nullable=False),
        ("image", pa.int32()),
        ("label", pa.string()),
        ("box", pa.list_(pa.float64())),
        ("points", pa.list_(pa.float64())),
        ("mask", pa.large_binary()),
        ("score", pa.float64()),
        ("role", pa.string()),
        ("item", pa.int32()),
        ("form", pa.string()),
        ("values", pa.list_(pa.float64())),
        ("low", pa.float64()),
        ("high", pa.float64()),
    ]
)
_TARGET = pa.struct(
    [
        pa.field("kind", pa.string(), nullable=False),
        pa.field("data", pa.large_binary(), nullable=False),
        pa.field("format", pa.string(), nullable=False),
        ("role", pa.string()),
        ("image", pa.int32()),
        ("item", pa.int32()),
        ("scale", pa.float64()),
    ]
)
_META = pa.struct(
    [
        ("licence", pa.string()),
        ("url", pa.string()),
        ("language", pa.string()),
        ("scores", pa.map_(pa.string(), pa.float64())),
        ("tags", pa.map_(pa.string(), pa.string())),
    ]
)
_PROVENANCE = pa.struct(
    [
        pa.field("uri", pa.string(), nullable=False),
        pa.field("digest", pa.string(), nullable=False),
        ("offset", pa.int64()),
        ("length", pa.int64()),
    ]
)

EXAMPLE_SCHEMA = pa.schema(
    [
        pa.field("id", pa.string(), nullable=False),
        pa.field("source", pa.string(), nullable=False),
        pa.field("unit", pa.string(), nullable=False),
        pa.field("key", pa.string(), nullable=False),
        pa.field("provenance", _PROVENANCE, nullable=False),
        pa.field("text", pa.list_(_TEXT), nullable=False),
        pa.field("images", pa.list_(_IMAGE), nullable=False),
        pa.field("audio", pa.list_(_AUDIO), nullable=False),
        ("video", _VIDEO),
        ("trajectory", _TRAJECTORY),
        pa.field("views", pa.list_(_VIEW), nullable=False),
        pa.field("annotations", pa.list_(_ANNOTATION), nullable=False),
        pa.field("targets", pa.list_(_TARGET), nullable=False),
        pa.field("meta", _META, nullable=False),
    ],
    metadata={VERSION_KEY: str(SCHEMA_VERSION).encode()},
)


def to_table(examples: Iterable[Example]) -> pa.Table:
    """Examples as an Arrow table in :data:`EXAMPLE_SCHEMA`, in the given order."""
    rows = list(examples)
    columns = [_array([getattr(row, name.name) for row in rows], name.type) for name in EXAMPLE_SCHEMA]
    return pa.Table.from_arrays(columns, schema=EXAMPLE_SCHEMA)


def _array(values: list[Any], kind: pa.DataType) -> pa.Array:
    """Objects of this module, and plain values in them, as an Arrow array; None is null."""
    if pa.types.is_struct(kind):
        parts = [kind.field(i) for i in range(kind.num_fields)]
        absent = [value is None for value in values]
        if any(absent):
            children = [_array([value and getattr(value, part.name) for value in values], part.type) for part in parts]
            return pa.StructArray.from_arrays(children, fields=parts, mask=pa.array(absent))
        children = [_array([getattr(value, part.name) for value in values], part.type) for part in parts]
        return pa.StructArray.from_arrays(children, fields=parts)
    if pa.types.is_list(kind) and pa.types.is_struct(kind.value_type):
        offsets = pa.array(accumulate(map(len, values), initial=0), pa.int32())
        flat = _array([item for value in values for item in value], kind.value_type)
        return pa.ListArray.from_arrays(offsets, flat, type=kind)
    if pa.types.is_map(kind):
        return pa.array([None if value is None else sorted(value.items()) for value in values], kind)
    return pa.array(values, kind)


def from_row(row: Mapping[str, Any]) -> Example:
    """One row of an example table (as from ``table.to_pylist()``) back as an :class:`Example`."""
    values = dict(row)
    values["provenance"] = Provenance(**values["provenance"])
    meta = values["meta"]
    values["meta"] = Meta(**{**meta, "scores": dict(meta["scores"] or []), "tags": dict(meta["tags"] or [])})
    lists = {"text": Text, "images": Image, "audio": Audio, "views": View, "annotations": Annotation, "targets": Target}
    for name, kind in lists.items():
        values[name] = [kind(**item) for item in values[name]]
    if values["video"] is not None:
        values["video"] = Video(**values["video"])
    if values["trajectory"] is not None:
        values["trajectory"] = Trajectory(**values["trajectory"])
    return Example(**{f.name: values[f.name] for f in fields(Example)})


def check_example_schema(schema: pa.Schema, where: str) -> None:
    """Refuse a table of another schema version.

    Raises:
        IntegrityError: names `where`, the version found and the version this program reads.
    """
    found = (schema.metadata or {}).get(VERSION_KEY, b"none").decode()
    if found != str(SCHEMA_VERSION):
        raise IntegrityError(
            f"{where}: example schema version {found}, but this omnimill reads version {SCHEMA_VERSION}; "
            "read it with the omnimill release that wrote it, or ingest it again"
        )
