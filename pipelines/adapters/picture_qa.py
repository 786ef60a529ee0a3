"""Questions about pictures, as the many datasets of visual question answering publish them."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from omnimill.pipelines.adapters.annotated_pictures import AnnotatedPictures

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


class PictureQaSource(AnnotatedPictures):
    """Questions with answers, an item each; an example is a picture with all that is asked about it.

    Several people's answers are kept as often as they were given, most frequent first. Choices are part of the
    question's text. Questions without a published answer are dropped as ``no_answer`` when a picture has no others.

    layout: which dataset's files these are; it decides the names of files and fields.
    split: as the dataset's files spell it; None: the layout's training split.
    questions: file names or globs below `path`, with ``{split}``; None: those of the layout.
    pictures: None: the layout's folder below `path`.
    max_questions: of a picture; of more so many are drawn, the same ones every time.
    min_agreement: of answers that several people gave, those given less often are left out unless none is left.
    rationales: whether explanations (A-OKVQA, ScienceQA, VCR) become items of their own.
    """

    type: Literal["picture_qa"]
    layout: Layout
    split: str | None = None
    questions: tuple[str, ...] | None = None
    max_questions: int = Field(16, ge=1)
    min_agreement: int = Field(1, ge=1)
    rationales: bool = False
