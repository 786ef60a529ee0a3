"""Visual Dialog: ten questions and answers about a picture, each after those before it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import ClassVar, Literal

from pydantic import Field

from omnimill.errors import BadRecord
from omnimill.infra import storage
from omnimill.pipelines.adapters.annotated_pictures import AnnotatedPictures, Described, PictureRecord
from omnimill.pipelines.adapters.annotation_index import Row, Said
from omnimill.pipelines.adapters.annotation_rows import annotation_paths, json_rows
from omnimill.pipelines.adapters.fields import first, keyed, objects, whole_number
from omnimill.pipelines.adapters.picture_objects import drawn
from omnimill.pipelines.decoders.text import text_value

# Where a picture of a number may lie.
_PLACES = (
    "train2014/COCO_train2014_{:012d}.jpg",
    "val2014/COCO_val2014_{:012d}.jpg",
    "VisualDialog_{split}2018/VisualDialog_{split}2018_{:012d}.jpg",
)


class VisualDialogSource(AnnotatedPictures):
    """Visual Dialog v1.0 (Das et al., 2016, arXiv 1611.08669): ``visdial_1.0_train.json``, pictures of COCO 2014.

    An item is a turn: its question, with the caption and the turns before it in front, and its answer.

    file: ``{split}`` is `split`. pictures: by default `path`; there the picture's number is looked for in
        ``train2014``, ``val2014`` and ``VisualDialog_{split}2018``.
    max_turns: of a picture.
    """

    bytes_per_medium: ClassVar[int] = 4000

    type: Literal["visual_dialog"]
    split: str = "train"
    file: str = "visdial_1.0_{split}.json"
    max_turns: int = Field(10, ge=1)

    def annotation_files(self) -> Sequence[tuple[str, str]]:
        return [("dialogs", url) for url in annotation_paths(self.path, [self.file], split=self.split)]

    def rows(self, kind: str, uri: str) -> Iterator[Row]:  # noqa: ARG002
        texts: dict[str, list[str]] = {"data.questions": [], "data.answers": []}
        for name, _, value in json_rows(uri, *texts):
            texts[name].append(text_value(value, name))
        questions, answers = texts["data.questions"], texts["data.answers"]
        for _, _, value in json_rows(uri, "data.dialogs"):
            row = keyed(value, "image_id", "dialog")
            try:
                if row.key is not None:
                    turns = [_turn(turn, questions, answers) for turn in objects(value.get("dialog"), "dialog")]
                    row = row._replace(value={"caption": value.get("caption"), "turns": turns})
            except BadRecord as fault:
                row = row._replace(value=BadRecord(fault.reason, fault.message))
            yield row

    def media(self, key: str, said: Said, common: Said) -> Sequence[str]:  # noqa: ARG002
        number = whole_number(key, "image_id")
        urls = [storage.join(self.folder(), place.format(number, split=self.split)) for place in _PLACES]
        found = next((url for url in urls if storage.exists(url)), None)
        if found is None:
            raise BadRecord(
                "missing_file", f"no picture {number} in train2014, val2014 or VisualDialog_{self.split}2018"
            )
        return [found]

    def described(self, record: PictureRecord) -> Described:
        found = Described()
        dialog = first(record.said, "dialog")
        before = [text_value(dialog.get("caption"), "caption").strip().rstrip(".") + "."]
        turns: list[tuple[str, str]] = []
        for question, answer in dialog["turns"]:
            asked = question.strip().rstrip("?") + "?"
            if answer is not None:
                turns.append((" ".join([*before, asked]), answer))
                before.append(f"{asked} {answer.strip().rstrip('.')}.")
        for asked, answer in drawn(turns, self.max_turns, "turns", record.key):
            item = found.item()
            found.say("question", asked, item)
            found.say("answer", answer, item)
        return found


def _turn(turn: dict[str, object], questions: Sequence[str], answers: Sequence[str]) -> list[str | None]:
    """Question and answer of a turn, whose members are their numbers; the last turn of a test has no answer."""
    asked = _text(questions, turn.get("question"), "question")
    return [asked, None if turn.get("answer") is None else _text(answers, turn["answer"], "answer")]


def _text(texts: Sequence[str], place: object, field: str) -> str:
    number = whole_number(place, field)
    if not 0 <= number < len(texts):
        raise BadRecord("missing_field", f"{field} {number} of {len(texts)}")
    return texts[number]
