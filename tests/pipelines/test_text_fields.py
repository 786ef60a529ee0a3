"""What rows say besides their text, and long texts in parts."""

from __future__ import annotations

import json
import re
from itertools import pairwise
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from omnimill.pipelines.decoders.cutting import CutSettings, cut
from omnimill.pipelines.sources.jsonl import JsonlSource
from omnimill.pipelines.sources.parquet_text import ParquetTextSource
from omnimill.schema import Example


def read_lines(path: Path, rows: list[dict[str, Any]], read_source: Any, **options: Any) -> tuple[list[Example], Any]:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return read_source(JsonlSource(type="jsonl", name="rows", path=str(path), **options))  # type: ignore[no-any-return]


def test_facts_come_from_nested_fields_even_where_these_are_json_in_a_text(tmp_path: Path, read_source: Any) -> None:
    meta = {"language": "en", "source": {"dump": "2019-30", "line": 7}, "prob": 0.5, "flag": True}
    rows = [{"text": "a", "meta": meta}, {"text": "b", "meta": json.dumps(meta)}, {"text": "c"}]
    found, verdicts = read_lines(
        tmp_path / "a.jsonl",
        rows,
        read_source,
        language_field="meta.language",
        tag_fields={"dump": "meta.source.dump", "line": "meta.source.line", "flag": "meta.flag"},
        score_fields={"prob": "meta.prob"},
    )
    assert list(verdicts.values()) == ["kept"] * 3
    assert [example.meta.language for example in found] == ["en", "en", None]
    assert [example.meta.tags for example in found] == [{"dump": "2019-30", "line": "7", "flag": "true"}] * 2 + [{}]
    assert [example.meta.scores for example in found] == [{"prob": 0.5}] * 2 + [{}]


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"text": "a", "meta": 3}, "wrong_type"),
        ({"text": "a", "meta": "not json"}, "invalid_json"),
        ({"text": "a", "meta": {"prob": "high"}}, "wrong_type"),
        ({"text": "a", "meta": {"prob": True}}, "wrong_type"),
        ({"text": "a", "meta": {"tag": {"an": "object"}}}, "wrong_type"),
        ({"text": "a", "meta": {"tag": ["\ud800"]}}, "invalid_utf8"),
        ({"text": "a", "meta": {"id": 1}}, "kept"),
    ],
)
def test_facts_that_are_none_are_named(tmp_path: Path, read_source: Any, row: dict[str, Any], reason: str) -> None:
    options = {"score_fields": {"prob": "meta.prob"}, "tag_fields": {"tag": "meta.tag"}, "id_field": "meta.id"}
    _, verdicts = read_lines(tmp_path / "a.jsonl", [row], read_source, **options)
    assert list(verdicts.values()) == [reason]


def test_a_title_comes_before_the_text(tmp_path: Path, read_source: Any) -> None:
    rows = [{"text": "It grinds.", "title": " Mill "}, {"text": "Nothing.", "title": ""}, {"text": "Nothing."}]
    found, _ = read_lines(tmp_path / "a.jsonl", rows, read_source, title_field="title")
    assert [example.text[0].text for example in found] == ["Mill\n\nIt grinds.", "Nothing.", "Nothing."]


def test_several_licences_are_all_named_and_all_must_be_allowed(tmp_path: Path, read_source: Any) -> None:
    rows = [{"text": "a", "l": ["MIT", "GPL-3.0"]}, {"text": "b", "l": ["MIT"]}, {"text": "c", "l": []}, {"text": "d"}]
    found, _ = read_lines(tmp_path / "a.jsonl", rows, read_source, licence_field="l", licence="unknown")
    assert [example.meta.licence for example in found] == ["MIT, GPL-3.0", "MIT", "unknown", "unknown"]
    allowed = {"where": {"l": ("MIT", "Apache-2.0")}}
    _, verdicts = read_lines(tmp_path / "a.jsonl", rows, read_source, **allowed)
    assert list(verdicts.values()) == ["field_value", "kept", "field_value", "field_value"]
    refused = {"where_not": {"l": ("GPL-3.0",)}}
    _, verdicts = read_lines(tmp_path / "a.jsonl", rows, read_source, **refused)
    assert list(verdicts.values()) == ["field_value", "kept", "kept", "kept"]


def test_names_of_files_say_language_and_tags(tmp_path: Path, read_source: Any) -> None:
    for name in ("x/c4-de.tfrecord-0.jsonl", "x/c4-pt-Latn.tfrecord-0.jsonl", "x/other.jsonl"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text('{"text": "a"}\n{"text": "b", "lang": "fr"}\n')
    source = JsonlSource(
        type="jsonl",
        name="rows",
        path=str(tmp_path),
        language_field="lang",
        language_from_name=r"c4-([a-z]{2,3}(?:-[A-Z][a-z]+)?)\.",
        tags_from_name={"folder": r"^(\w+)/"},
    )
    found, _ = read_source(source)
    assert [example.meta.language for example in found] == ["de", "fr", "pt-Latn", "fr", None, "fr"]
    assert {example.meta.tags["folder"] for example in found} == {"x"}


@pytest.mark.parametrize("pattern", ["c4-[a-z]+", "(a)(b)", "("])
def test_a_pattern_needs_one_group(pattern: str) -> None:
    with pytest.raises(ValidationError, match=r"group|regular expression"):
        JsonlSource(type="jsonl", name="rows", path="x", language_from_name=pattern)


def test_structs_and_lists_of_parquet_are_fields(tmp_path: Path, read_source: Any) -> None:
    rows = [
        {"doc": {"text": "a", "lang": "en"}, "licences": ["MIT", "BSD"], "stars": 3, "unused": "x" * 100},
        {"doc": {"text": "b", "lang": None}, "licences": None, "stars": None, "unused": "y"},
    ]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "a.parquet")
    source = ParquetTextSource(
        type="parquet_text",
        name="rows",
        path=str(tmp_path),
        text_field="doc.text",
        language_field="doc.lang",
        licence_field="licences",
        score_fields={"stars": "stars"},
    )
    found, _ = read_source(source)
    assert [example.text[0].text for example in found] == ["a", "b"]
    assert [example.meta.language for example in found] == ["en", None]
    assert [example.meta.licence for example in found] == ["MIT, BSD", None]
    assert found[0].meta.scores == {"stars": 3.0}
    (unit,) = source.units()
    before = source.inputs(unit)[0].digest
    pq.write_table(pa.Table.from_pylist([{**row, "unused": "z"} for row in rows]), tmp_path / "a.parquet")
    assert source.inputs(unit)[0].digest == before
    changed = [{**row, "licences": ["GPL"]} for row in rows]
    pq.write_table(pa.Table.from_pylist(changed), tmp_path / "a.parquet")
    assert source.inputs(unit)[0].digest != before


def test_half_a_character_in_a_list_is_a_fault_of_its_row(tmp_path: Path, read_source: Any) -> None:
    values = pa.array([b"MIT", b"\xff\xfe"]).cast(pa.binary()).view(pa.string())
    table = pa.table({"text": ["a", "b"], "licences": pa.ListArray.from_arrays([0, 1, 2], values)})
    pq.write_table(table, tmp_path / "a.parquet")
    source = ParquetTextSource(type="parquet_text", name="rows", path=str(tmp_path), licence_field="licences")
    assert list(read_source(source)[1].values()) == ["kept", "invalid_utf8"]


_PARAGRAPH = re.compile(r"(?:\r?\n[^\S\r\n]*){2,}")
_TEXTS = st.lists(
    st.sampled_from(
        ["The end. ", "one two ", "\n\n", "\n", "\r\n\r\n", " \n \n", "long" * 9, "日本語。", "é", "🚣", "“Yes!” "]
    )
).map("".join)


@settings(max_examples=300)
@given(_TEXTS | st.text(max_size=200), st.integers(4, 80))
def test_parts_are_the_text_and_within_the_budget(text: str, budget: int) -> None:
    parts = cut(text, budget)
    assert "".join(parts) == text
    assert all(0 < len(part.encode()) <= budget for part in parts)
    # A paragraph that fits is in one part.
    ends = [0, *(match.end() for match in _PARAGRAPH.finditer(text)), len(text)]
    cuts = {sum(map(len, parts[:i])) for i in range(1, len(parts))}
    for begin, end in pairwise(ends):
        if len(text[begin:end].encode()) <= budget:
            assert not any(begin < place < end for place in cuts)


def test_long_paragraphs_are_cut_at_sentences_then_at_words() -> None:
    assert cut("One is short. Two is longer. Three!", 16) == ["One is short. ", "Two is longer. ", "Three!"]
    assert cut("words without any end", 14) == ["words without ", "any end"]
    assert cut("x" * 10, 4) == ["xxxx", "xxxx", "xx"]
    assert cut("二つの文。次の文。", 18) == ["二つの文。", "次の文。"]
    assert cut("Verse one.\nVerse two.\nVerse three.", 25) == ["Verse one.\nVerse two.\n", "Verse three."]


def test_a_megabyte_of_anything_is_cut_in_no_time() -> None:
    for text in ("x" * 2**20, " " * 2**20, "\n" * 2**20, "\n " * 2**19, ". " * 2**19, '."' * 2**19):
        assert "".join(cut(text, 8192)) == text


def test_books_become_numbered_parts(tmp_path: Path, read_source: Any) -> None:
    paragraphs = [f"Paragraph {i} says what there is to say about {i}." for i in range(40)]
    row = {"text": "\n\n".join(paragraphs), "meta": {"title": "Things"}}
    found, verdicts = read_lines(
        tmp_path / "a.jsonl",
        [row, {"text": " \n \n"}],
        read_source,
        title_field="meta.title",
        tag_fields={"title": "meta.title"},
        cut=CutSettings(max_tokens=100, bytes_per_token=4),
    )
    assert list(verdicts.values()) == ["kept", "kept"]
    assert [example.key for example in found] == [f"a.jsonl:0/{i}" for i in range(len(found))]
    assert [example.meta.tags for example in found] == [
        {"title": "Things", "part": str(i), "parts": str(len(found))} for i in range(len(found))
    ]
    assert "\n\n".join(example.text[0].text for example in found) == "\n\n".join(["Things", *paragraphs])
    assert all(len(example.text[0].text.encode()) <= 400 for example in found)
    assert len({example.id for example in found}) == len(found) > 4
