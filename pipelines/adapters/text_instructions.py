"""Instructions in text and their answers, a pair a row: FLAN's sub-mixtures, P3, Alpaca, Dolly, MBPP and the like."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from omnimill.pipelines.adapters.row_files import RowFiles


class TextInstructionsSource(RowFiles):
    """Rows with what is asked and what is to be answered: roles ``question`` and ``answer``, item 0.

    Defaults are those of the FLAN v2 sub-mixtures. For others, as `question` / `answer`:
    P3 and T0-SF ``{inputs_pretokenized}`` / ``{targets_pretokenized}``; Alpaca and Code Alpaca ``{instruction}``,
    ``{input}`` / ``{output}``; Dolly ``{context}``, ``{instruction}`` / ``{response}``; MBPP ``{text}``, ``Your code
    should pass these tests:\\n{test_list}`` / ``{code}``.

    question: paragraphs; a name in braces is a field of the row, and a list is put on lines of its own. A paragraph
        whose fields are all empty or missing is left out, and so the same settings do for rows with and without input.
    answer: as a paragraph of the question.
    id_field: unique in its file; without it a row is named by its place.
    tag_fields: from tag to field, for what is known of a row. score_fields: from score to field.
    where: field -> patterns; a row stays if the field fits one of them (``*`` stands for any characters). where_not:
        it stays if the field fits none. Others are dropped as ``field_value``.
    between: field -> lowest and highest number that stays; others are dropped as ``field_value``.
    excluded: a file below `path` with a name on each line; rows whose `excluded_field` is among them are dropped as
        ``excluded``.
    max_characters: of the question and of the answer; longer ones are dropped as ``too_long``.
    """

    type: Literal["text_instructions"]
    question: tuple[str, ...] = ("{inputs}",)
    answer: str = "{targets}"
    id_field: str | None = None
    language_field: str | None = None
    tag_fields: dict[str, str] = Field(
        default_factory=lambda: {"task": "task_name", "task_source": "task_source", "template": "template_type"}
    )
    score_fields: dict[str, str] = Field(default_factory=dict)
    where: dict[str, tuple[str, ...]] = Field(default_factory=dict)
    where_not: dict[str, tuple[str, ...]] = Field(default_factory=lambda: {"task_name": ("wmt*", "para_crawl_enes*")})
    between: dict[str, tuple[float, float]] = Field(default_factory=dict)
    excluded: str | None = None
    excluded_field: str = "task_name"
    max_characters: int | None = Field(None, ge=1)
