"""Folders of pictures with captions in a JSON Lines file beside them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from itertools import pairwise
from posixpath import normpath
from typing import Any, ClassVar, Literal

from blake3 import blake3
from pydantic import Field

from omnimill.errors import BadRecord, ConfigError, RecordDropped
from omnimill.infra import storage
from omnimill.infra.dataset import Unit
from omnimill.pipelines import files
from omnimill.pipelines.base import Record, Source
from omnimill.pipelines.decoders.images import ImageSettings, decode_image
from omnimill.pipelines.decoders.text import parse_json, text_value
from omnimill.pipelines.sources.examples import make_example, name_tags, refusal
from omnimill.schema import Example, Meta, Provenance, Text

_MAX_LINE_BYTES = 4 << 20
_NAMES = tuple(
    f"**/*.{ending}"
    for ending in (
        "jpg",
        "jpeg",
        "png",
        "webp",
        "gif",
        "tif",
        "tiff",
        "bmp",
        "ppm",
        "jp2",
        "avif",
        "heic",
        "heif",
        "mpo",
    )
)


class ImageFolderSource(Source):
    """Pictures below a folder, each an example; captions come from a JSON Lines file by the picture's relative path.

    A record is a picture, or a captions line that cannot be read or names a picture that is not there
    (``missing_file``). Several lines about one picture add up. Lines about files that `include` and `exclude` leave
    out are no part of the source.

    captions: file below `path`, or None.
    image_field: the picture's path below `path`. text_fields: from field to role; a field holds a text or a list.
    require_caption: drop a picture without any text as ``no_caption``.
    A picture that is not what its name says is read as what it is, with the tag ``mislabelled``.
    """

    selection: ClassVar[tuple[str, ...]] = ("images_per_unit",)

    type: Literal["image_folder"]
    path: str
    include: tuple[str, ...] = _NAMES
    exclude: tuple[str, ...] = ()
    captions: str | None = None
    image_field: str = "image"
    text_fields: dict[str, str] = Field(
        default_factory=lambda: {"caption": "caption", "alternatives": "caption", "label": "label"}
    )
    url_field: str | None = "url"
    licence_field: str | None = "licence"
    require_caption: bool = False
    images_per_unit: int = Field(256, gt=0)
    images: ImageSettings = ImageSettings()

    def units(self) -> Iterator[Unit]:
        """Runs of pictures in the order of their names.

        Each unit also answers for the captions of all names from its first one up to the next unit's first one: a
        missing picture falls to exactly one unit.
        """
        captions = () if self.captions is None else (storage.join(self.path, self.captions),)
        if captions and not storage.exists(captions[0]):
            raise ConfigError(f"source {self.name}: no captions file {captions[0]}")
        groups = list(files.groups(files.find(self.path, self.include, self.exclude), self.images_per_unit))
        if not groups and captions:
            groups = [()]
        starts = ["", *(files.relative(group[0], self.path) for group in groups[1:]), None]
        for group, (start, stop) in zip(groups, pairwise(starts), strict=True):
            yield Unit(source=self.name, files=(*captions, *group), options={"from": start, "until": stop})

    def read(self, unit: Unit) -> Iterator[Record]:
        pictures = unit.files if self.captions is None else unit.files[1:]
        lines: dict[str, list[Mapping[str, Any]]] = {files.relative(uri, self.path): [] for uri in pictures}
        if self.captions is not None:
            yield from self._sort_captions(unit, lines)
        for uri, data in zip(pictures, files.read_files(pictures, self.images.max_bytes), strict=True):
            name = files.relative(uri, self.path)
            if isinstance(data, BadRecord):
                yield Record(name, Provenance(uri=uri, digest=storage.digest_file(uri)), refusal(data))
                continue
            provenance = Provenance(uri=uri, digest=blake3(data).hexdigest())
            small = data if len(data) <= files.SMALL_BYTES else None
            yield Record(name, provenance, partial(self._decode, unit, name, provenance, data, lines[name]), small)

    def _sort_captions(self, unit: Unit, lines: dict[str, list[Mapping[str, Any]]]) -> Iterator[Record]:
        """Put the unit's lines to their pictures; those that have none are records of their own."""
        uri = unit.files[0]
        start, stop = unit.options["from"], unit.options["until"]
        belongs = files.matcher(self.include, self.exclude)
        with files.open_expanded(uri) as stream:
            for line in files.read_lines(stream, _MAX_LINE_BYTES):
                try:
                    row = self._row(line)
                except BadRecord as fault:
                    if start == "":  # a line without a name falls to the first unit
                        yield self._refused(uri, line, fault)
                    continue
                name = normpath(row[self.image_field])
                if name in lines:
                    lines[name].append(row)
                elif belongs(name) and start <= name and (stop is None or name < stop):
                    yield self._refused(uri, line, BadRecord("missing_file", f"no picture {name!r}"))

    def _row(self, line: files.Line) -> Mapping[str, Any]:
        if line.data is None:
            raise BadRecord("line_too_long", f"{line.length} bytes; at most {_MAX_LINE_BYTES}")
        row = parse_json(line.data)
        if not isinstance(row, dict):
            raise BadRecord("wrong_type", f"the line is {type(row).__name__}, not an object")
        text_value(row.get(self.image_field), self.image_field)
        return row

    def _refused(self, uri: str, line: files.Line, fault: BadRecord) -> Record:
        provenance = Provenance(uri=uri, digest=line.digest, offset=line.offset, length=line.length)
        small = line.data if line.length <= files.SMALL_BYTES else None
        return Record(f"{self.captions}:{line.offset}", provenance, refusal(fault), small)

    def _decode(
        self, unit: Unit, name: str, provenance: Provenance, data: bytes, rows: Sequence[Mapping[str, Any]]
    ) -> list[Example]:
        texts = [Text(role=role, text=text, image=0) for role, text in self._texts(rows)]
        if self.require_caption and not texts:
            raise RecordDropped("no_caption")
        image = decode_image(data, self.images, provenance.uri, provenance.digest)
        meta = Meta(
            url=self._fact(rows, self.url_field),
            licence=self._fact(rows, self.licence_field),
            tags=name_tags(name, data),
        )
        return [make_example(self, unit, name, provenance, text=texts, images=[image], meta=meta)]

    def _texts(self, rows: Sequence[Mapping[str, Any]]) -> list[tuple[str, str]]:
        """Roles and texts in the order of the lines and of `text_fields`, each once, empty ones left out."""
        found: dict[tuple[str, str], None] = {}
        for row in rows:
            for field, role in self.text_fields.items():
                value = row.get(field)
                values = value if isinstance(value, list) else [] if value is None else [value]
                found |= dict.fromkeys((role, text_value(item, field).strip()) for item in values)
        return [(role, text) for role, text in found if text]

    @staticmethod
    def _fact(rows: Sequence[Mapping[str, Any]], field: str | None) -> str | None:
        values = [row[field] for row in rows if field is not None and row.get(field) is not None]
        return text_value(values[0], str(field)) if values else None
