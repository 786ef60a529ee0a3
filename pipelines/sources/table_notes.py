"""What a row of a table says about a recording: captions, labels, questions with answers, spans, tags."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

from pydantic import Field, model_validator

from omnimill.config import Config
from omnimill.errors import BadRecord, ConfigError

_FIELD = re.compile(r"\{([^{}:]+)(?::(0?\d*(?:\.\d+)?[fd]))?\}")
_STAMP = re.compile(r"(?:(\d{1,4}):)?(\d{1,2}):(\d{1,2}(?:\.\d{1,9})?)")
_SAID = {True: "yes", False: "no"}
_BETWEEN_WORDS = re.compile(r"_+|(?<=[a-z0-9])(?=[A-Z])")


class Separated(Config):
    """How separated text is read, where it is not CSV or TSV with a header.

    columns: of a file without header. delimiter: between columns; of ``.csv`` a comma, of ``.tsv`` a tab, of other
        endings a blank. quoted: whether quotation marks enclose columns. comment: lines that begin with it are passed
        over.
    """

    columns: tuple[str, ...] | None = None
    delimiter: str | None = Field(None, min_length=1, max_length=1)
    quoted: bool = True
    comment: str | None = Field(None, min_length=1)


class LabelNames(Separated):
    """A table that gives labels names. key, name: its columns."""

    file: str
    key: str
    name: str


class QuestionColumns(Config):
    """Columns of a question and what answers it.

    question: a column. asked: instead, one question about every row.
    answer: may be a list: any of them is right. True and false in JSON are answered yes and no.
    choices: a list of texts, or of objects whose text is `choice_text`; they become part of the question, in brackets.
    """

    question: str | None = None
    asked: str | None = Field(None, min_length=1)
    answer: str
    choices: str | None = None
    choice_text: str = "choice"

    @model_validator(mode="after")
    def _one_question(self) -> Self:
        if (self.question is None) == (self.asked is None):
            raise ValueError("either question, a column, or asked, a text, is needed")
        return self


class TableSettings(Separated):
    """Where a table lies, how its rows are read and what they say.

    files: globs below the source's path; rows come in the order of the sorted files.
    file: which recording a row is about, with the row's columns in braces: ``{page_dir}/{videoid}``. A row belongs to
        the recordings whose path ends with it, with or without ending. ``{start:.0f}`` formats a number.
    rows: where the rows lie inside each JSON object, as a path: a name, ``*`` for all items, ``{column}`` for all
        items of an object with their keys as a column. What stands around them belongs to each row.
    parallel: columns that are lists of equal length: a row becomes one for every place in them.
    start, end: columns of times, in seconds or as ``HH:MM:SS.fff``. A row with neither is about the whole recording,
        one with a start alone about a moment. A dotted name leads into lists and objects: ``span.0``.
    before: (length, gap): instead of the span itself the `length` seconds that end `gap` seconds before it.
    caption: columns; one that is a list gives several captions. url: a column.
    labels: a column, a list, or text with `label_separator`. label_strip: characters that are taken out of labels.
        split_labels: ``ApplyEyeMakeup`` and ``apply_eye_makeup`` are read as ``apply eye makeup``.
    questions: about the recording.
    tags: columns by the name of the tag that they become.
    cut: only the spans from start to end are kept of a recording.
    required: a recording without rows is dropped as ``not_in_table``.
    """

    files: tuple[str, ...] = Field(min_length=1)
    file: str
    rows: str | None = None
    parallel: tuple[str, ...] = ()
    start: str | None = None
    end: str | None = None
    before: tuple[float, float] | None = None
    caption: str | tuple[str, ...] = ()
    labels: str | None = None
    label_separator: str = Field(",", min_length=1)
    label_strip: str = ""
    split_labels: bool = False
    label_names: LabelNames | None = None
    questions: QuestionColumns | None = None
    url: str | None = None
    tags: dict[str, str] = Field(default_factory=dict)
    cut: bool = False
    required: bool = True

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if not _FIELD.search(self.file):
            raise ValueError("file names no column in braces")
        if self.cut and (self.start is None or self.end is None):
            raise ValueError("cut needs the columns start and end")
        if self.end is not None and self.start is None:
            raise ValueError("end is given without start")
        if self.before is not None and not (self.cut and self.before[0] > 0 and self.before[1] >= 0):
            raise ValueError("before is (length above 0, gap of at least 0) in seconds, and needs cut")
        return self

    @property
    def captions(self) -> tuple[str, ...]:
        """The columns of captions."""
        return (self.caption,) if isinstance(self.caption, str) else self.caption


@dataclass(frozen=True)
class Note:
    """What one row says about a recording. start, end: seconds; neither for the whole, no end for a moment.

    questions: each with the answers to it. fault: why the row cannot be used; empty when it can.
    """

    start: float | None = None
    end: float | None = None
    captions: tuple[str, ...] = ()
    labels: tuple[str, ...] = ()
    questions: tuple[tuple[str, tuple[str, ...]], ...] = ()
    url: str | None = None
    tags: tuple[tuple[str, str], ...] = ()
    fault: str = ""


def note_from(said: Mapping[str, Any]) -> Note:
    """A note that went through JSON."""
    values = dict(said)
    values["captions"], values["labels"] = tuple(values["captions"]), tuple(values["labels"])
    values["questions"] = tuple((question, tuple(answers)) for question, answers in values["questions"])
    values["tags"] = tuple((tag, text) for tag, text in values["tags"])
    return Note(**values)


def key_of(template: str, row: Mapping[str, Any], uri: str) -> str:
    """Which recording a row is about.

    Raises:
        ConfigError: the row has no such column.
    """

    def fill(match: re.Match[str]) -> str:
        value = _value(row, match[1])
        if value is None:
            raise ConfigError(f"{uri}: no column {match[1]!r}; there are {', '.join(map(str, row))[:200]}")
        if match[2] is None:
            return str(value)
        try:
            number = float(value)
            return format(int(number) if match[2].endswith("d") else number, match[2])
        except (TypeError, ValueError, OverflowError):
            return str(value)  # the name of no recording

    return _FIELD.sub(fill, template)


def note_of(settings: TableSettings, row: Mapping[str, Any], names: Mapping[str, str]) -> Note:
    """What a row says; names: of labels."""
    try:
        start, end = _span(settings, row)
    except ValueError as error:
        return Note(fault=str(error)[:200])
    return Note(
        start,
        end,
        tuple(text for column in settings.captions for text in _texts(_value(row, column))),
        tuple(_labels(settings, row, names)),
        tuple(_questions(settings.questions, row)),
        _text(_value(row, settings.url)) if settings.url else None,
        tuple((tag, text) for tag, column in sorted(settings.tags.items()) if (text := _text(_value(row, column)))),
    )


def usable(notes: Sequence[Note]) -> list[Note]:
    """The rows that can be used.

    Raises:
        BadRecord: ``span_malformed`` when there are rows and none can be.
    """
    good = [note for note in notes if not note.fault]
    if notes and not good:
        raise BadRecord("span_malformed", notes[0].fault)
    return good


def _span(settings: TableSettings, row: Mapping[str, Any]) -> tuple[float | None, float | None]:
    """Start and end in seconds; raises ValueError."""
    start = _seconds(_value(row, settings.start)) if settings.start else None
    end = _seconds(_value(row, settings.end)) if settings.end else None
    if settings.cut and (start is None or end is None):
        raise ValueError("no span")
    if start is not None and end is not None and end <= start:
        raise ValueError(f"a span from {start:g} to {end:g} s")
    if settings.before is not None and start is not None:
        length, gap = settings.before
        start, end = max(start - gap - length, 0.0), start - gap
        if end <= start:
            raise ValueError("nothing comes before the span")
    return start, end


def _labels(settings: TableSettings, row: Mapping[str, Any], names: Mapping[str, str]) -> list[str]:
    value = _value(row, settings.labels) if settings.labels else None
    parts = value.split(settings.label_separator) if isinstance(value, str) else _items(value)
    # Blanks at the ends stand behind what is taken out: "['low', 'slow']".
    found = [part for part in (_text(_without(item, settings.label_strip)) for item in parts) if part]
    found = [names.get(label, label) for label in found]
    return [_BETWEEN_WORDS.sub(" ", label).lower() for label in found] if settings.split_labels else found


def _without(value: Any, characters: str) -> Any:
    return value.translate({ord(c): None for c in characters}) if isinstance(value, str) else value


def _questions(columns: QuestionColumns | None, row: Mapping[str, Any]) -> list[tuple[str, tuple[str, ...]]]:
    if columns is None:
        return []
    told = _items(_value(row, columns.answer))
    question = columns.asked if columns.question is None else _text(_value(row, columns.question))
    answers = _texts([_SAID.get(item, item) if isinstance(item, bool) else item for item in told])
    if question is None or not answers:
        return []
    choices = _items(_value(row, columns.choices)) if columns.choices else []
    said = [choice.get(columns.choice_text) if isinstance(choice, dict) else choice for choice in choices]
    texts = [text for choice in said if (text := _text(choice))]
    return [(f"{question} ({'; '.join(texts)})" if texts else question, tuple(dict.fromkeys(answers)))]


def _value(row: Mapping[str, Any], column: str) -> Any:
    """A column, or what a dotted name leads to."""
    if column in row:
        return row[column]
    value: Any = row
    for part in column.split("."):
        if isinstance(value, list) and part.isdigit() and int(part) < len(value):
            value = value[int(part)]
        elif isinstance(value, dict) and part in value:
            value = value[part]
        else:
            return None
    return value


def _items(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [] if value is None else [value]


def _texts(value: Any) -> list[str]:
    return [text for item in _items(value) if (text := _text(item))]


def _text(value: Any) -> str | None:
    if value is None or isinstance(value, dict | list):
        return None
    return str(value).strip() or None


def _seconds(value: Any) -> float | None:
    if value is None or value == "":
        return None
    text = str(value).strip()
    if match := _STAMP.fullmatch(text):
        return int(match[1] or 0) * 3600 + int(match[2]) * 60 + float(match[3])
    number = float(text)
    if not math.isfinite(number) or number < 0:
        raise ValueError(f"no valid time: {text[:80]!r}")
    return number
