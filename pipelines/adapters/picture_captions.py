"""Captions of pictures in JSON files: TextCaps, NoCaps, VizWiz, SciCap, image paragraphs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, ClassVar, Literal, NamedTuple

from pydantic import Field

from omnimill.errors import RecordDropped
from omnimill.pipelines.adapters.annotated_pictures import AnnotatedPictures, Described, PictureRecord
from omnimill.pipelines.adapters.annotation_index import Row, Said
from omnimill.pipelines.adapters.annotation_rows import annotation_paths, json_rows
from omnimill.pipelines.adapters.fields import first, keyed
from omnimill.pipelines.adapters.picture_objects import drawn
from omnimill.pipelines.adapters.row_pictures import media_url
from omnimill.pipelines.decoders.text import text_value

Layout = Literal["coco", "text_caps", "no_caps", "vizwiz", "sci_cap", "paragraphs"]


class _Format(NamedTuple):
    """split: the training split. captions: file. pictures: folder. rows: of the file.

    picture: the path of a record's picture. caption: the member of a row that has one; of several, the first there is.
    """

    split: str
    captions: str
    pictures: str
    rows: Callable[[str], Iterator[Row]]
    picture: Callable[[Said], str]
    caption: tuple[str, ...]


class PictureCaptionsSource(AnnotatedPictures):
    """Captions, as many of a picture as there are, each a text of role ``caption``.

    Captions that their makers rejected or took from a list of excuses (VizWiz: ``is_rejected``, ``is_precanned``) are
    left out.

    layout: which dataset's files these are; ``coco`` is any JSON of ``images`` and ``annotations``. SciCap's is that of
        its challenge of 2023.
    split: as the dataset's files spell it; None: the layout's training split.
    captions: file name or glob below `path`, with ``{split}``; None: that of the layout.
    pictures: None: the layout's folder below `path`.
    max_captions: of a picture.
    """

    bytes_per_medium: ClassVar[int] = 1000

    type: Literal["picture_captions"]
    layout: Layout
    split: str | None = None
    captions: str | None = None
    max_captions: int = Field(16, ge=1)

    def annotation_files(self) -> Sequence[tuple[str, str]]:
        layout = _FORMATS[self.layout]
        names = [self.captions or layout.captions]
        return [("captions", url) for url in annotation_paths(self.path, names, split=self.split or layout.split)]

    def rows(self, kind: str, uri: str) -> Iterator[Row]:  # noqa: ARG002
        return _FORMATS[self.layout].rows(uri)

    def media(self, key: str, said: Said, common: Said) -> Sequence[str]:  # noqa: ARG002
        layout = _FORMATS[self.layout]
        if not any(map(_usable, said.get("caption", ()))):
            raise RecordDropped("no_caption")
        folder = self.folder(layout.pictures.format(split=self.split or layout.split))
        return [media_url(folder, layout.picture(said))]

    def described(self, record: PictureRecord) -> Described:
        found = Described()
        names = _FORMATS[self.layout].caption
        usable = [told for told in record.said["caption"] if _usable(told)]
        for told in drawn(usable, self.max_captions, "captions", record.key):
            name = next((name for name in names if told.get(name) is not None), names[-1])
            found.say("caption", text_value(told.get(name), name))
        return found


def _usable(told: dict[str, Any]) -> bool:
    return not told.get("is_rejected") and not told.get("is_precanned")


def _coco_rows(uri: str) -> Iterator[Row]:
    for name, _, value in json_rows(uri, "images", "annotations"):
        yield keyed(value, "id", "image") if name == "images" else keyed(value, "image_id", "caption")


def _list_rows(path: str) -> Callable[[str], Iterator[Row]]:
    def rows(uri: str) -> Iterator[Row]:
        return (keyed(value, "image_id", "caption") for _, _, value in json_rows(uri, path))

    return rows


def _file_name(said: Said) -> str:
    return text_value(first(said, "image").get("file_name"), "file_name")


def _text_caps(said: Said) -> str:
    told = first(said, "caption")
    return text_value(told.get("image_path") or f"{told.get('image_id')}.jpg", "image_path").rsplit("/", 1)[-1]


def _visual_genome(said: Said) -> str:
    return "/".join(text_value(first(said, "caption").get("url"), "url").rsplit("/", 2)[-2:])


_FORMATS: dict[Layout, _Format] = {
    "coco": _Format("train2017", "annotations/captions_{split}.json", "{split}", _coco_rows, _file_name, ("caption",)),
    "text_caps": _Format(
        "train", "TextCaps_0.1_{split}.json", "{split}_images", _list_rows("data"), _text_caps, ("caption_str",)
    ),
    "no_caps": _Format("val", "nocaps_{split}_4500_captions.json", "images", _coco_rows, _file_name, ("caption",)),
    "vizwiz": _Format("train", "annotations/{split}.json", "{split}", _coco_rows, _file_name, ("caption",)),
    "sci_cap": _Format("train", "{split}.json", "{split}", _coco_rows, _file_name, ("caption_no_index", "caption")),
    "paragraphs": _Format("", "paragraphs_v1.json", "", _list_rows(""), _visual_genome, ("paragraph",)),
}
