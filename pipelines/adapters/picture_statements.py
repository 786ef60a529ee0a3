"""Statements about pictures that are true or false: VSR, and NLVR2 with two pictures."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, ClassVar, Literal

from pydantic import Field

from omnimill.errors import BadRecord
from omnimill.pipelines.adapters.annotated_pictures import AnnotatedPictures, Described, PictureRecord
from omnimill.pipelines.adapters.annotation_index import Row, Said
from omnimill.pipelines.adapters.annotation_rows import annotation_paths, json_lines
from omnimill.pipelines.adapters.fields import first, keyed
from omnimill.pipelines.adapters.picture_objects import drawn
from omnimill.pipelines.adapters.row_pictures import media_url
from omnimill.pipelines.decoders.text import text_value

_TRUTH = {1: "true", 0: "false", "1": "true", "0": "false", "True": "true", "False": "false"}


class Statements(AnnotatedPictures):
    """Base of sources of statements in JSON Lines: an item is a statement (``question``) and its truth (``answer``).

    split, file: the file, in whose name ``{split}`` is `split`.
    max_statements: of a picture or pair.
    """

    bytes_per_medium: ClassVar[int] = 400

    split: str = "train"
    file: str = "{split}.jsonl"
    max_statements: int = Field(16, ge=1)

    def annotation_files(self) -> Sequence[tuple[str, str]]:
        return [("statements", url) for url in annotation_paths(self.path, [self.file], split=self.split)]

    def state(self, record: PictureRecord, field: str, image: int | None) -> Described:
        """The statements in `field`, about picture `image`, None for all."""
        found = Described()
        for told in drawn(record.said["statement"], self.max_statements, "statements", record.key):
            truth = told.get("label")
            if isinstance(truth, bool) or not isinstance(truth, int | str) or truth not in _TRUTH:
                raise BadRecord("wrong_type", f"'label' is {truth!r}, neither true nor false"[:200])
            item = found.item()
            found.say("question", text_value(told.get(field), field), item, image)
            found.say("answer", _TRUTH[truth], item, image)
        return found


class VsrSource(Statements):
    """Visual Spatial Reasoning (Liu et al., 2022, arXiv 2205.00363): ``train.jsonl``, pictures of COCO 2017.

    pictures: by default ``{path}/images``.
    """

    type: Literal["vsr"]

    def rows(self, kind: str, uri: str) -> Iterator[Row]:  # noqa: ARG002
        for _, value in json_lines(uri):
            yield keyed(value, "image", "statement")

    def media(self, key: str, said: Said, common: Said) -> Sequence[str]:  # noqa: ARG002
        return [media_url(self.folder("images"), key)]

    def described(self, record: PictureRecord) -> Described:
        return self.state(record, "caption", 0)


class Nlvr2Source(Statements):
    """NLVR2 (Suhr et al., 2018, arXiv 1811.00491): statements about two pictures, ``data/train.json``.

    An example is a pair of pictures, the left one first.

    file: JSON Lines. pictures: by default ``{path}/images/{split}``, for training in folders by ``directory``.
    """

    type: Literal["nlvr2"]
    file: str = "data/{split}.json"

    def rows(self, kind: str, uri: str) -> Iterator[Row]:  # noqa: ARG002
        for _, value in json_lines(uri):
            row = keyed(value, "identifier", "statement")
            # The last number counts the statements about a pair.
            yield row if row.key is None else row._replace(key=row.key.rpartition("-")[0])

    def media(self, key: str, said: Said, common: Said) -> Sequence[str]:  # noqa: ARG002
        told: Any = first(said, "statement")
        folder = f"{told['directory']}/" if "directory" in told else ""
        pictures = self.folder("images", self.split)
        return [media_url(pictures, f"{folder}{key}-img{side}.png") for side in (0, 1)]

    def described(self, record: PictureRecord) -> Described:
        return self.state(record, "sentence", None)
