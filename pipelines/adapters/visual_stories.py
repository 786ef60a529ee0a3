"""Visual Storytelling: a story in sentences along a sequence of pictures."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import ClassVar, Literal

from omnimill.errors import BadRecord
from omnimill.infra import storage
from omnimill.pipelines.adapters.annotated_pictures import AnnotatedPictures, Described, PictureRecord
from omnimill.pipelines.adapters.annotation_index import Row, Said
from omnimill.pipelines.adapters.annotation_rows import annotation_paths, json_rows
from omnimill.pipelines.adapters.fields import keyed, whole_number
from omnimill.pipelines.adapters.row_pictures import media_url
from omnimill.pipelines.decoders.text import text_value

_ORDER = "worker_arranged_photo_order"


class VisualStoriesSource(AnnotatedPictures):
    """VIST (Huang et al., 2016, arXiv 1604.03968): ``sis/train.story-in-sequence.json`` beside pictures by id.

    An example is a story: its pictures in order, each with its sentence as ``caption``, and an item whose ``answer`` is
    the last sentence and whose ``question`` holds those before it. A story that lacks a picture is quarantined.

    file: ``{split}`` is `split`. pictures: by default ``{path}/images/{split}``; ``{photo id}.jpg`` or ``.png``.
    """

    bytes_per_medium: ClassVar[int] = 2500

    type: Literal["visual_stories"]
    split: str = "train"
    file: str = "sis/{split}.story-in-sequence.json"

    def annotation_files(self) -> Sequence[tuple[str, str]]:
        return [("stories", url) for url in annotation_paths(self.path, [self.file], split=self.split)]

    def rows(self, kind: str, uri: str) -> Iterator[Row]:  # noqa: ARG002
        for _, _, value in json_rows(uri, "annotations"):
            # Each sentence is a list of one object.
            yield keyed(value[0] if isinstance(value, list) and value else value, "story_id", "sentence")

    def media(self, key: str, said: Said, common: Said) -> Sequence[str]:  # noqa: ARG002
        folder = self.folder("images", self.split)
        return [_picture(folder, text_value(told.get("photo_flickr_id"), "photo_flickr_id")) for told in _ordered(said)]

    def described(self, record: PictureRecord) -> Described:
        found = Described()
        sentences = [text_value(told.get("text"), "text").strip() for told in _ordered(record.said)]
        for place, sentence in enumerate(sentences):
            found.say("caption", sentence, image=place)
        if len(sentences) > 1:
            item = found.item()
            found.say("question", f"How does this story end? {' '.join(sentences[:-1])}", item, image=None)
            found.say("answer", sentences[-1], item, image=None)
        return found


def _ordered(said: Said) -> list[dict[str, object]]:
    return sorted(said["sentence"], key=lambda told: whole_number(told.get(_ORDER), _ORDER))


def _picture(folder: str, name: str) -> str:
    urls = [media_url(folder, f"{name}.{ending}") for ending in ("jpg", "png", "gif")]
    found = next((url for url in urls if storage.exists(url)), None)
    if found is None:
        raise BadRecord("missing_file", f"no picture {urls[0]}, nor .png or .gif")
    return found
