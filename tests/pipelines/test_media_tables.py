"""Tables about recordings: any form gives the same rows, each recording finds its own, changes stay local."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy import zeros
from pydantic import ValidationError

from omnimill.errors import BadRecord, ConfigError
from omnimill.pipelines.sources.audio_files import AudioFilesSource
from omnimill.pipelines.sources.table_notes import Note, TableSettings, usable
from omnimill.pipelines.sources.tables import open_table, table_files
from omnimill.schema import Example

ROWS = [
    {"id": "a", "at": "1.5", "until": "00:00:03.500", "text": "one, two", "tag": "x"},
    {"id": "b", "at": "0", "until": "2", "text": "three", "tag": ""},
    {"id": "a", "at": "4", "until": "5", "text": "four", "tag": "y"},
]


@pytest.fixture(autouse=True)
def _own_copies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))


def _settings(name: str, **more: object) -> TableSettings:
    fixed = {"files": [name], "file": "films/{id}", "start": "at", "end": "until", "caption": "text"}
    return TableSettings.model_validate({**fixed, "tags": {"mark": "tag"}, **more})


def _about(table: TableSettings, root: Path, path: str) -> list[Note]:
    return [note for _, note in open_table(table, str(root), table_files(table, str(root))).about(path)]


def _csv(delimiter: str) -> str:
    rows = [list(ROWS[0]), *([f'"{value}"' for value in row.values()] for row in ROWS)]
    return "# made up\n" + "".join(f"{delimiter} ".join(row) + "\n" for row in rows)


@pytest.mark.parametrize("form", ["csv", "tsv", "jsonl", "json", "parquet", "headless.csv"])
def test_every_form_says_the_same(form: str, tmp_path: Path) -> None:
    path = tmp_path / f"table.{form}"
    more: dict[str, object] = {}
    if form == "parquet":
        pq.write_table(pa.Table.from_pylist(ROWS), path)
    elif form == "jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    elif form == "json":
        path.write_text(json.dumps(ROWS))
    else:
        more["comment"] = "#"
        text = _csv("\t" if form == "tsv" else ",")
        if form == "headless.csv":
            more["columns"] = list(ROWS[0])
            text = "".join(text.splitlines(keepends=True)[2:])
        path.write_text(text)
    table = _settings(path.name, **more)
    assert _about(table, tmp_path, "deep/films/a.mp4") == [
        Note(1.5, 3.5, ("one, two",), tags=(("mark", "x"),)),
        Note(4.0, 5.0, ("four",), tags=(("mark", "y"),)),
    ]
    assert _about(table, tmp_path, "films/b.x.mp4") == []
    assert _about(table, tmp_path, "films/b") == [Note(0.0, 2.0, ("three",))]
    assert _about(table, tmp_path, "a.mp4") == []


def test_rows_inside_objects(tmp_path: Path) -> None:
    clips = {
        "video_id": "v",
        "url": "u",
        "clip": [{"clip_id": "v.0", "span": [1, 2]}, {"clip_id": "v.1", "span": [3, 4]}],
    }
    (tmp_path / "t.jsonl").write_text(json.dumps(clips) + "\n")
    fixed = {"files": ["t.jsonl"], "file": "{video_id}", "rows": "clip.*", "start": "span.0", "end": "span.1"}
    table = TableSettings.model_validate({**fixed, "url": "url", "tags": {"clip": "clip_id"}, "cut": True})
    assert _about(table, tmp_path, "x/v.mp4") == [
        Note(1.0, 2.0, url="u", tags=(("clip", "v.0"),)),
        Note(3.0, 4.0, url="u", tags=(("clip", "v.1"),)),
    ]
    told = {"f": {"pass_1": {"told": [{"sec": 7, "text": "opens"}]}, "pass_2": {"told": []}, "status": "done"}}
    (tmp_path / "t.json").write_text(json.dumps({"videos": told, "date": "today"}))
    fixed = {"files": ["t.json"], "file": "{film}", "rows": "videos.{film}.{pass}.told.*", "start": "sec"}
    table = TableSettings.model_validate({**fixed, "caption": "text", "tags": {"pass": "pass"}})
    assert _about(table, tmp_path, "f.mp4") == [Note(7.0, None, ("opens",), tags=(("pass", "pass_1"),))]


def test_numbers_are_formatted_and_labels_named(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text('id,at,labels\nv,30.0,"/m/1,/m/2"\n')
    (tmp_path / "names.csv").write_text("index,mid,display_name\n0,/m/1,Dog\n")
    names = {"file": "names.csv", "key": "mid", "name": "display_name"}
    fixed = {"files": ["t.csv"], "file": "{id}_{at:06d}", "labels": "labels", "label_names": names}
    table = TableSettings.model_validate(fixed)
    assert _about(table, tmp_path, "v_000030.mp4") == [Note(labels=("Dog", "/m/2"))]


def test_one_question_about_every_row_is_answered_yes_or_no(tmp_path: Path) -> None:
    (tmp_path / "t.json").write_text('[{"f": "a", "at_me": true}, {"f": "b", "at_me": false}, {"f": "c"}]')
    questions = {"asked": "Is somebody looking at you?", "answer": "at_me"}
    table = TableSettings.model_validate({"files": ["t.json"], "file": "{f}", "questions": questions})
    said = [note.questions for name in "abc" for note in _about(table, tmp_path, f"{name}.mp4")]
    asked = questions["asked"]
    assert said == [((asked, ("yes",)),), ((asked, ("no",)),), ()]


def test_a_row_that_cannot_be_used_says_why(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("id,at,until,text,tag\na,3,2,x,\na,soon,2,x,\na,-1,2,x,\na,0,1,x,\n")
    notes = _about(_settings("t.csv"), tmp_path, "films/a.mp4")
    assert [bool(note.fault) for note in notes] == [True, True, True, False]
    assert usable(notes) == notes[3:]
    with pytest.raises(BadRecord, match="span from 3 to 2"):
        usable(notes[:3])


@pytest.mark.parametrize(
    ("name", "text", "match"),
    [
        ("t.jsonl", '{"id": ', "no JSON at byte 0"),
        ("t.json", "[[[", "no JSON"),
        ("t.parquet", "PAR1", "no Parquet"),
        ("t.csv", "name\nx\n", "no column 'id'; there are name"),
        ("t.xml", "x", "a table is"),
        ("other.csv", "", "no table t.csv"),
    ],
)
def test_a_table_that_is_not_as_said_stops_the_run(name: str, text: str, match: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(text)
    wanted = "t.csv" if name == "other.csv" else name
    with pytest.raises(ConfigError, match=match):
        _about(_settings(wanted), tmp_path, "films/a.mp4")


def test_settings_that_contradict_each_other_are_refused() -> None:
    for wrong in ({"file": "films"}, {"cut": True, "end": None}, {"start": None}):
        with pytest.raises(ValidationError):
            _settings("t.csv", **wrong)


KEYS = st.lists(st.text(st.characters(categories=("L", "N")), min_size=1, max_size=3), min_size=1, max_size=60)


@settings(max_examples=25)
@given(keys=KEYS, asked=KEYS)
def test_a_recording_finds_its_rows_and_no_others(keys: list[str], asked: list[str]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        lines = (json.dumps({"id": key, "n": str(number)}) + "\n" for number, key in enumerate(keys))
        (Path(folder) / "t.jsonl").write_text("".join(lines))
        table = TableSettings.model_validate({"files": ["t.jsonl"], "file": "{id}", "caption": "n"})
        for key in {*keys, *asked}:
            found = [note.captions for note in _about(table, Path(folder), f"x/{key}.mp4")]
            assert found == [(str(number),) for number, other in enumerate(keys) if other == key]


def test_a_changed_row_changes_the_inputs_of_its_recording_only(
    tmp_path: Path, read_source: Callable[[AudioFilesSource], tuple[list[Example], dict[str, str]]]
) -> None:
    for name in ("a", "b", "unlisted"):
        soundfile.write(tmp_path / f"{name}.wav", zeros(16_000), 16_000)
    path = tmp_path / "t.csv"
    path.write_text("id,text\na,one\nb,two\n")
    table = {"files": ["t.csv"], "file": "{id}", "caption": "text"}
    source = AudioFilesSource.model_validate(
        {"type": "audio_files", "name": "s", "path": str(tmp_path), "table": table, "files_per_unit": 1}
    )
    examples, verdicts = read_source(source)
    assert verdicts == {"a.wav": "kept", "b.wav": "kept", "unlisted.wav": "not_in_table"}
    assert [[(text.role, text.text) for text in example.text] for example in examples] == [
        [("caption", "one")],
        [("caption", "two")],
    ]
    before = [source.inputs(unit) for unit in source.units()]
    path.write_text("id,text\na,one\nb,another\n")
    after = [source.inputs(unit) for unit in source.units()]
    assert [old == new for old, new in zip(before, after, strict=True)] == [True, False, True]
    assert [ref.uri for ref in before[0]] == [str(tmp_path / "a.wav"), str(path)]
    assert [example.text[0].text for example in read_source(source)[0]] == ["one", "another"]
    assert len(list((tmp_path / "tmp").rglob("rows.jsonl"))) == 1  # the copy of the old state is gone
