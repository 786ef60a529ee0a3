"""Big annotation files: read item by item whatever the buffer, found by key, each part of the keys once."""

from __future__ import annotations

import io
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from omnimill.errors import BadRecord, ConfigError
from omnimill.pipelines.adapters import annotation_index
from omnimill.pipelines.adapters.annotation_index import Row, open_index
from omnimill.pipelines.adapters.annotation_rows import annotation_paths, csv_rows
from omnimill.pipelines.decoders import json_items as module
from omnimill.pipelines.decoders.json_items import json_items

SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text()
VALUES = st.recursive(SCALARS, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=8)


@pytest.fixture(autouse=True)
def own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))


@given(st.dictionaries(st.sampled_from("abcd"), st.lists(VALUES) | VALUES), st.integers(1, 40), st.sampled_from([0, 2]))
def test_items_are_those_of_the_whole_document(document: dict[str, Any], chunk: int, indent: int) -> None:
    wanted = [name for name in ("a", "b") if isinstance(document.get(name), list)]
    data = json.dumps(document, indent=indent or None, ensure_ascii=False).encode()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_CHUNK", chunk)
        found = list(json_items(io.BytesIO(data), *wanted))
        assert list(json_items(io.BytesIO(data), "")) == [("", key, value) for key, value in document.items()]
    assert found == [(n, i, v) for n, values in document.items() if n in wanted for i, v in enumerate(values)]


def test_paths_lead_into_objects() -> None:
    document = {"data": {"questions": ["a"], "dialogs": [1, 2]}, "version": 1.0}
    stream = io.BytesIO(json.dumps(document).encode())
    assert list(json_items(stream, "data.dialogs")) == [("data.dialogs", 0, 1), ("data.dialogs", 1, 2)]


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b'{"a": [1, 2', "invalid_json"),
        (b'{"a": [1 2]}', "invalid_json"),
        (b'{"a": ["\xff"]}', "invalid_utf8"),
        (b'{"a": [1]} x', "invalid_json"),
        (b'{"b": [1]}', "missing_field"),
        (b'{"a": [' + b"[" * 5000, "invalid_json"),
        (b"", "invalid_json"),
    ],
)
def test_a_damaged_document_is_refused(data: bytes, reason: str) -> None:
    with pytest.raises(BadRecord) as verdict:
        list(json_items(io.BytesIO(data), "a"))
    assert verdict.value.reason == reason


@given(st.lists(st.tuples(st.sampled_from(["x", "ä", "10", "9"]), st.integers())), st.integers(1, 6))
def test_an_index_gives_every_row_to_its_key_and_every_key_to_one_part(rows: list[tuple[str, int]], parts: int) -> None:
    def read(file: int) -> Iterator[Row]:
        yield Row(None, "names", {"file": file})
        yield from (Row(key, "number", value) for key, value in rows)
        yield Row(None, "broken", BadRecord("wrong_type", "said in vain"))

    name = f"test-{abs(hash((tuple(rows), parts)))}"
    index = annotation_index._opened(name, "now", annotation_index._Builder(2, read))
    entries = [entry for part in range(parts) for entry in index.entries(part, parts)]
    good = {entry.key: entry.said() for entry in entries if not entry.key.startswith("#")}
    assert [entry.key for entry in entries] == sorted({*good, *(f"#{file}:{len(rows) + 1}" for file in (0, 1))})
    assert good == {
        key: {"number": [value for name, value in rows if name == key] * 2} for key in {key for key, _ in rows}
    }
    assert index.common == {"names": [{"file": 0}, {"file": 1}]}
    with pytest.raises(BadRecord, match="said in vain"):
        entries[[entry.key.startswith("#") for entry in entries].index(True)].said()


def test_an_index_is_built_once_for_a_state_of_its_files(tmp_path: Path) -> None:
    built = []

    def read(file: int) -> Iterator[Row]:
        built.append(file)
        yield Row("a", "text", (tmp_path / "notes").read_text())

    def now() -> list[Any]:
        annotation_index._opened.cache_clear()
        (entry,) = open_index({"version": 1}, [str(tmp_path / "notes")], read).entries()
        return entry.said()["text"]

    (tmp_path / "notes").write_text("one")
    assert [now(), now()] == [["one"], ["one"]]
    assert built == [0]
    (tmp_path / "notes").write_text("other")
    assert now() == ["other"]
    assert built == [0, 0]
    assert len(list((tmp_path / f"omnimill-annotations-{os.getuid()}").glob("*-*"))) == 1


def test_a_killed_builder_leaves_nothing_and_a_fault_of_the_files_is_found_once(tmp_path: Path) -> None:
    tries = []

    def killed(file: int) -> Iterator[Row]:
        yield Row("a", "text", file)
        raise KeyboardInterrupt

    def damaged(file: int) -> Iterator[Row]:
        tries.append(file)
        yield Row("b", "text", file)
        raise BadRecord("invalid_json", "the rest is missing")

    (tmp_path / "notes").write_text("one")
    with pytest.raises(KeyboardInterrupt):
        open_index({"version": 1}, [str(tmp_path / "notes")], killed)
    for _ in range(2):
        with pytest.raises(BadRecord, match="the rest is missing"):
            open_index({"version": 1}, [str(tmp_path / "notes")], damaged)
    assert tries == [0]
    index = open_index({"version": 2}, [str(tmp_path / "notes")], lambda file: iter([Row("c", "text", file)]))
    assert [entry.key for entry in index.entries()] == ["c"]


def test_rows_of_a_table_and_names_of_files(tmp_path: Path) -> None:
    (tmp_path / "train-1.csv").write_text('id,name\r\n1,"a, b"\r\n2\r\n')
    (tmp_path / "train-0.csv").write_text("id\n")
    first, second = (row for _, row in csv_rows(str(tmp_path / "train-1.csv")))
    assert first == {"id": "1", "name": "a, b"}
    assert isinstance(second, BadRecord)
    found = annotation_paths(str(tmp_path), ["{split}-*.csv"], split="train")
    assert [path.rsplit("/", 1)[1] for path in found] == ["train-0.csv", "train-1.csv"]
    with pytest.raises(ConfigError, match="val-"):
        annotation_paths(str(tmp_path), ["{split}-*.csv"], split="val")
