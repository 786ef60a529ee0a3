"""Questions about pictures, as the many datasets of visual question answering publish them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import ClassVar, Literal

from pydantic import Field

from omnimill.errors import RecordDropped
from omnimill.pipelines.adapters.annotated_pictures import AnnotatedPictures, Described, PictureRecord
from omnimill.pipelines.adapters.annotation_index import Row, Said
from omnimill.pipelines.adapters.annotation_rows import annotation_paths
from omnimill.pipelines.adapters.picture_objects import drawn
from omnimill.pipelines.adapters.qa_layouts import LAYOUTS, Layout, Question
from omnimill.pipelines.adapters.row_pictures import media_url


class PictureQaSource(AnnotatedPictures):
    """Questions with answers, an item each; an example is a picture with all that is asked about it.

    Several people's answers are kept as often as they were given, most frequent first. Choices are part of the
    question's text. Pictures without a question that has a published answer are dropped as ``no_answer``.

    layout: which dataset's files these are; it decides the names of files and fields.
    split: as the dataset's files spell it; None: the layout's training split.
    questions: file names or globs below `path`, with ``{split}``; None: those of the layout.
    pictures: None: the layout's folder below `path`.
    max_questions: of a picture; of more so many are drawn, the same ones every time.
    min_agreement: of answers that several people gave, those given less often are left out unless none is left.
    rationales: whether explanations (A-OKVQA, ScienceQA, VCR) become items of their own.
    """

    bytes_per_medium: ClassVar[int] = 2000

    type: Literal["picture_qa"]
    layout: Layout
    split: str | None = None
    questions: tuple[str, ...] | None = None
    max_questions: int = Field(16, ge=1)
    min_agreement: int = Field(1, ge=1)
    rationales: bool = False

    def annotation_files(self) -> Sequence[tuple[str, str]]:
        layout = LAYOUTS[self.layout]
        names = layout.questions if self.questions is None else self.questions
        return [("questions", url) for url in annotation_paths(self.path, names, split=self.split or layout.split)]

    def rows(self, kind: str, uri: str) -> Iterator[Row]:  # noqa: ARG002
        layout = LAYOUTS[self.layout]
        return layout.read(uri, self.split or layout.split)

    def media(self, key: str, said: Said, common: Said) -> Sequence[str]:  # noqa: ARG002
        layout = LAYOUTS[self.layout]
        if not any(question.answers for question in _questions(said)):
            raise RecordDropped("no_answer")
        return [media_url(self.folder(layout.pictures.format(split=self.split or layout.split)), key)]

    def described(self, record: PictureRecord) -> Described:
        found = Described()
        asked = [question for question in _questions(record.said) if question.answers]
        for question in drawn(asked, self.max_questions, "questions", record.key):
            item = found.item()
            found.say("question", question.text, item)
            for answer in _frequent(question.answers, self.min_agreement):
                found.say("answer", answer, item)
            for why in question.rationales if self.rationales else ():
                item = found.item()
                found.say("question", f"{question.text} Answer: {question.answers[0]}. Why is that so?", item)
                found.say("answer", why, item)
        return found


def _questions(said: Said) -> list[Question]:
    """The questions, each with the answers that its own row or a row of another file gives."""
    answers: dict[str, list[str]] = {}
    for number, given in said.get("answers", ()):
        answers.setdefault(number, []).extend(given)
    return [
        Question(text, [*own, *answers.get(number, ())], rationales)
        for number, text, own, rationales in said.get("question", ())
    ]


def _frequent(answers: Sequence[str], at_least: int) -> list[str]:
    """Answers, the most frequent first, each as often as it was given."""
    counts = Counter(answer.strip() for answer in answers if answer.strip())
    kept = [answer for answer, count in counts.items() if count >= at_least] or list(counts)
    return [answer for answer in sorted(kept, key=lambda one: -counts[one]) for _ in range(counts[answer])]
