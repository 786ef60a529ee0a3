"""Instructions in text and their answers, a pair a row: FLAN's sub-mixtures, P3, Alpaca, Dolly, MBPP and the like."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from functools import lru_cache
from typing import Any, Literal

from pydantic import Field

from omnimill.errors import RecordDropped
from omnimill.infra import storage
from omnimill.infra.dataset import InputRef, Unit
from omnimill.pipelines import files
from omnimill.pipelines.adapters.paragraphs import paragraph_fields, paragraphs_text
from omnimill.pipelines.adapters.row_files import RowFiles
from omnimill.pipelines.decoders.fields import fact, fact_values, number
from omnimill.pipelines.decoders.text import utf8
from omnimill.pipelines.sources.examples import make_example
from omnimill.schema import Example, Meta, Provenance, Text

_MAX_LIST_BYTES = 16 << 20
# Dropped by name for Unified-IO 2: translation.
_TRANSLATION: dict[str, tuple[str, ...]] = {"task_name": ("wmt*", "para_crawl_enes*")}


class TextInstructionsSource(RowFiles):
    """Rows with what is asked and what is to be answered: roles ``question`` and ``answer``, item 0.

    Defaults are those of the FLAN v2 sub-mixtures, without the tasks that Unified-IO 2 drops by name (arXiv
    2312.17172). For others, as `question` / `answer`:
    P3 and T0-SF ``{inputs_pretokenized}`` / ``{targets_pretokenized}``; Alpaca and Code Alpaca ``{instruction}``,
    ``{input}`` / ``{output}``; Dolly ``{context}``, ``{instruction}`` / ``{response}``; MBPP ``{text}``, ``The code has
    to pass these tests:\\n{test_list}`` / ``{code}``.

    question: paragraphs; a name in braces is a field of the row, and a list is put on lines of its own. A paragraph
        whose fields are all empty or missing is left out, and so the same settings do for rows with and without input.
    answer: as a paragraph of the question. Rows without question or answer are dropped as ``no_question`` and
        ``no_answer``.
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
    language_field: str | None = None
    tag_fields: dict[str, str] = Field(
        default_factory=lambda: {"task": "task_name", "task_source": "task_source", "template": "template_type"}
    )
    where: dict[str, tuple[str, ...]] = Field(default_factory=dict)
    where_not: dict[str, tuple[str, ...]] = Field(default_factory=lambda: dict(_TRANSLATION))
    between: dict[str, tuple[float, float]] = Field(default_factory=dict)
    excluded: str | None = None
    excluded_field: str = "task_name"
    max_characters: int | None = Field(None, ge=1)

    def fields(self) -> Sequence[str]:
        conditions = (*self.where, *self.where_not, *self.between, *([self.excluded_field] if self.excluded else []))
        facts = (*self.tag_fields.values(), *([self.language_field] if self.language_field else []))
        return list(dict.fromkeys([*paragraph_fields((*self.question, self.answer)), *conditions, *facts]))

    def inputs(self, unit: Unit) -> list[InputRef]:
        refs = super().inputs(unit)
        if self.excluded is not None:
            url = storage.join(self.path, self.excluded)
            size = int(storage.stat(url)["bytes"])
            refs.append(InputRef(uri=url, digest=storage.digest_file(url), bytes=size))
        return refs

    def example(self, unit: Unit, key: str, provenance: Provenance, row: Mapping[str, Any]) -> Sequence[Example]:
        self._check(row)
        question = paragraphs_text(row, self.question)
        answer = paragraphs_text(row, (self.answer,))
        if not question:
            raise RecordDropped("no_question")
        if not answer:
            raise RecordDropped("no_answer")
        if self.max_characters is not None and max(len(question), len(answer)) > self.max_characters:
            raise RecordDropped("too_long")
        texts = [Text(role="question", text=question, item=0), Text(role="answer", text=answer, item=0)]
        meta = Meta(language=fact(row, self.language_field), tags=self.tags(row))
        return [make_example(self, unit, key, provenance, text=texts, meta=meta)]

    def _check(self, row: Mapping[str, Any]) -> None:
        for field, patterns in self.where.items():
            values = fact_values(row, field)
            if not values or not all(_fits(value, patterns) for value in values):
                raise RecordDropped("field_value")
        for field, patterns in self.where_not.items():
            if any(_fits(value, patterns) for value in fact_values(row, field)):
                raise RecordDropped("field_value")
        for field, (low, high) in self.between.items():
            value = number(row, field)
            if value is None or not low <= value <= high:
                raise RecordDropped("field_value")
        if self.excluded is not None:
            names = name_list(storage.join(self.path, self.excluded))
            if not names.isdisjoint(fact_values(row, self.excluded_field)):
                raise RecordDropped("excluded")


@lru_cache(maxsize=16)
def _names(url: str, _mark: tuple[Any, ...]) -> frozenset[str]:
    lines = utf8(files.read_file(url, _MAX_LIST_BYTES)).splitlines()
    return frozenset(line.strip() for line in lines if line.strip())


def name_list(url: str) -> frozenset[str]:
    """The names in a file, one on each line; raises BadRecord when it cannot be read."""
    stat = storage.stat(url)
    return _names(url, tuple(str(stat[name]) for name in sorted(stat)))


def _fits(value: str, patterns: Sequence[str]) -> bool:
    return any(fnmatchcase(value, pattern) for pattern in patterns)
