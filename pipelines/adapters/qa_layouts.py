"""Where datasets of questions about pictures keep what: files, lists and members of each.

Every layout turns its files into rows about a picture (its path below the folder of pictures): ``question`` rows of
number, text, answers and rationales, and ``answers`` rows of number and answers where these lie in another file.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Literal, NamedTuple

from omnimill.errors import BadRecord
from omnimill.pipelines.adapters.annotation_index import Row
from omnimill.pipelines.adapters.annotation_rows import json_lines, json_rows
from omnimill.pipelines.adapters.fields import keyed, objects, sequence, whole_number
from omnimill.pipelines.decoders.text import text_value

Layout = Literal[
    "vqa_v2",
    "ok_vqa",
    "a_okvqa",
    "gqa",
    "text_vqa",
    "st_vqa",
    "ocr_vqa",
    "doc_vqa",
    "vizwiz",
    "tally_qa",
    "clevr",
    "science_qa",
    "vcr",
    "visual_mrc",
]
Values = Mapping[str, Any]
Read = Callable[[str, str], Iterator[Row]]
_OCR_VQA_SPLITS = {"train": 1, "val": 2, "test": 3}
_LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


class Question(NamedTuple):
    """A question, all answers that were given to it, and explanations of the right one."""

    text: str
    answers: Sequence[str]
    rationales: Sequence[str]


class QaLayout(NamedTuple):
    """split: the training split. questions: files. pictures: folder. read: rows of a file, of a split."""

    split: str
    questions: tuple[str, ...]
    pictures: str
    read: Read


def choices(question: str, options: Sequence[str]) -> str:
    """A question with the answers to choose from."""
    listed = " ".join(f"({letter}) {option}" for letter, option in zip(_LETTERS, options, strict=False))
    return f"{question} Choose one: {listed}"


def _rows(values: Iterator[Any], make: Callable[[Values], Iterator[Row]]) -> Iterator[Row]:
    """What `make` makes of each value, or why it cannot."""
    for value in values:
        try:
            if isinstance(value, BadRecord):
                raise value
            if not isinstance(value, dict):
                raise BadRecord("wrong_type", f"a question that is {type(value).__name__}, not an object")
            yield from list(make(value))
        except BadRecord as fault:
            yield Row(None, "question", BadRecord(fault.reason, fault.message))


def _items(uri: str, *paths: str) -> Iterator[Any]:
    return (value for _, _, value in json_rows(uri, *paths))


def _members(uri: str) -> Iterator[Any]:
    """Members of an object, each with its name as ``number``."""
    for _, name, value in json_rows(uri, ""):
        yield value | {"number": name} if isinstance(value, dict) else value


def _lines(uri: str) -> Iterator[Any]:
    return (value for _, value in json_lines(uri))


def _question(key: Any, number: Any, text: Any, answers: Sequence[Any] = (), rationales: Sequence[Any] = ()) -> Row:
    given = [text_value(answer, "answer") for answer in answers]
    why = [text_value(one, "rationale") for one in rationales]
    row = keyed({"picture": key}, "picture", "question")
    if isinstance(row.value, BadRecord):
        raise row.value
    return row._replace(value=[str(number), text_value(text, "question"), given, why])


def _coco(split: str, value: Values) -> str:
    return f"COCO_{split}_{whole_number(value.get('image_id'), 'image_id'):012d}.jpg"


def _vqa(uri: str, split: str) -> Iterator[Row]:
    """Questions in one file and the answers of ten people in another, told apart by what they hold."""

    def asked(value: Values) -> Iterator[Row]:
        yield _question(_coco(split, value), value.get("question_id"), value.get("question"))

    def answered(value: Values) -> Iterator[Row]:
        given = [text_value(one.get("answer"), "answer") for one in objects(value.get("answers"), "answers")]
        yield Row(_coco(split, value), "answers", [str(value.get("question_id")), given])

    if "questions" in uri.rsplit("/", 1)[-1]:
        yield from _rows(_items(uri, "questions"), asked)
    else:
        yield from _rows(_items(uri, "annotations"), answered)


def _a_okvqa(uri: str, split: str) -> Iterator[Row]:  # noqa: ARG001
    def make(value: Values) -> Iterator[Row]:
        number, text = value.get("question_id"), text_value(value.get("question"), "question")
        picture = f"{whole_number(value.get('image_id'), 'image_id'):012d}.jpg"
        if value.get("direct_answers") and not value.get("difficult_direct_answer"):
            yield _question(picture, number, text, sequence(value["direct_answers"], "direct_answers"))
        options = sequence(value.get("choices", []), "choices")
        if options and value.get("correct_choice_idx") is not None:
            right = _chosen(options, value["correct_choice_idx"])
            why = sequence(value.get("rationales", []), "rationales")
            yield _question(picture, f"{number} choices", choices(text, options), [right], why)

    yield from _rows(_items(uri, ""), make)


def _gqa(uri: str, split: str) -> Iterator[Row]:  # noqa: ARG001
    def make(value: Values) -> Iterator[Row]:
        answers = [value["answer"]] if "answer" in value else []
        yield _question(f"{value.get('imageId')}.jpg", value["number"], value.get("question"), answers)

    yield from _rows(_members(uri), make)


def _answers_in_row(path: str, picture: str, number: str, ending: str = "", answers: str = "answers") -> Read:
    """A list of rows with a question, the picture's name in `picture`, and `answers`: texts, or objects with one."""

    def read(uri: str, split: str) -> Iterator[Row]:  # noqa: ARG001
        def make(value: Values) -> Iterator[Row]:
            given = value.get(answers)
            told = [] if given is None else given if isinstance(given, list) else [given]
            texts = [one.get("answer") if isinstance(one, dict) else one for one in told]
            plain = [str(one) if type(one) is int else one for one in texts]
            name = text_value(value.get(picture), picture) + ending
            yield _question(name, value.get(number, name), value.get("question"), plain)

        yield from _rows(_items(uri, path), make)

    return read


def _ocr_vqa(uri: str, split: str) -> Iterator[Row]:
    def make(value: Values) -> Iterator[Row]:
        if value.get("split") != _OCR_VQA_SPLITS.get(split):
            return
        ending = text_value(value.get("imageURL"), "imageURL").rsplit(".", 1)[-1]
        asked, answered = (sequence(value.get(name), name) for name in ("questions", "answers"))
        for place, (question, answer) in enumerate(zip(asked, answered, strict=False)):
            yield _question(f"{value['number']}.{ending}", f"{value['number']}-{place}", question, [answer])

    yield from _rows(_members(uri), make)


def _science_qa(uri: str, split: str) -> Iterator[Row]:
    def make(value: Values) -> Iterator[Row]:
        if value.get("split") != split or not value.get("image"):
            return
        options = sequence(value.get("choices"), "choices")
        text = f"{text_value(value.get('hint') or '', 'hint')} {text_value(value.get('question'), 'question')}".strip()
        right, why = _chosen(options, value.get("answer")), [value["solution"]] if value.get("solution") else []
        picture = f"{value['number']}/{text_value(value['image'], 'image')}"
        yield _question(picture, value["number"], choices(text, options), [right], why)

    yield from _rows(_members(uri), make)


def _vcr(uri: str, split: str) -> Iterator[Row]:  # noqa: ARG001
    def make(value: Values) -> Iterator[Row]:
        things = sequence(value.get("objects"), "objects")
        text = _spoken(value.get("question"), things)
        options = [_spoken(option, things) for option in sequence(value.get("answer_choices"), "answer_choices")]
        reasons = [_spoken(one, things) for one in sequence(value.get("rationale_choices", []), "rationale_choices")]
        if value.get("answer_label") is None:
            return
        right = _chosen(options, value["answer_label"])
        why = [_chosen(reasons, value["rationale_label"])] if value.get("rationale_label") is not None else []
        yield _question(value.get("img_fn"), value.get("annot_id", text), choices(text, options), [right], why)

    yield from _rows(_lines(uri), make)


def _visual_mrc(uri: str, split: str) -> Iterator[Row]:  # noqa: ARG001
    def make(value: Values) -> Iterator[Row]:
        for place, pair in enumerate(objects(value.get("qa_data"), "qa_data")):
            asked, answered = (pair.get(name) for name in ("question", "answer"))
            texts = [one.get("text") if isinstance(one, dict) else one for one in (asked, answered)]
            yield _question(value.get("image_filename"), f"{value.get('id')}-{place}", texts[0], [texts[1]])

    yield from _rows(_lines(uri), make)


def _chosen(options: Sequence[Any], place: Any) -> str:
    number = whole_number(place, "the right choice")
    if not 0 <= number < len(options):
        raise BadRecord("choice_unknown", f"choice {number} of {len(options)}")
    return text_value(options[number], "choices")


def _spoken(tokens: Any, things: Sequence[Any]) -> str:
    """A text of words, in which a list of numbers stands for objects of the picture: ``person 1 and person 2``."""
    words: list[str] = []
    for token in sequence(tokens, "a text of words"):
        if isinstance(token, list):
            numbers = [whole_number(number, "an object's number") for number in token]
            if not all(0 <= number < len(things) for number in numbers):
                raise BadRecord("object_unknown", f"objects {numbers} of {len(things)}")
            words.append(" and ".join(f"{things[number]} {number + 1}" for number in numbers))
        elif words and text_value(token, "a word")[:1] in (".", ",", "?", "!", ";", ":", "'"):
            words[-1] += token
        else:
            words.append(text_value(token, "a word"))
    return " ".join(words)


LAYOUTS: dict[Layout, QaLayout] = {
    "vqa_v2": QaLayout(
        "train2014",
        ("v2_OpenEnded_mscoco_{split}_questions.json", "v2_mscoco_{split}_annotations.json"),
        "{split}",
        _vqa,
    ),
    "ok_vqa": QaLayout(
        "train2014",
        ("OpenEnded_mscoco_{split}_questions.json", "mscoco_{split}_annotations.json"),
        "{split}",
        _vqa,
    ),
    "a_okvqa": QaLayout("train", ("aokvqa_v1p0_{split}.json",), "{split}2017", _a_okvqa),
    "gqa": QaLayout("train", ("{split}_balanced_questions.json",), "images", _gqa),
    "text_vqa": QaLayout(
        "train",
        ("TextVQA_0.5.1_{split}.json",),
        "{split}_images",
        _answers_in_row("data", "image_id", "question_id", ending=".jpg"),
    ),
    "st_vqa": QaLayout("train", ("{split}_task_3.json",), "", _answers_in_row("data", "file_path", "question_id")),
    "ocr_vqa": QaLayout("train", ("dataset.json",), "images", _ocr_vqa),
    "doc_vqa": QaLayout("train", ("{split}_v1.0*.json",), "", _answers_in_row("data", "image", "questionId")),
    "vizwiz": QaLayout("train", ("Annotations/{split}.json",), "{split}", _answers_in_row("", "image", "image")),
    "tally_qa": QaLayout("train", ("{split}.json",), "", _answers_in_row("", "image", "question_id", answers="answer")),
    "clevr": QaLayout(
        "train",
        ("questions/CLEVR_{split}_questions.json",),
        "images/{split}",
        _answers_in_row("questions", "image_filename", "question_index", answers="answer"),
    ),
    "science_qa": QaLayout("train", ("problems.json",), "{split}", _science_qa),
    "vcr": QaLayout("train", ("{split}.jsonl",), "vcr1images", _vcr),
    "visual_mrc": QaLayout("train", ("{split}.jsonl",), "", _visual_mrc),
}
