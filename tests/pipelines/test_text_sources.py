"""JSON lines, Parquet rows and source trees: every record read once, every fault named."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import os
import resource
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from omnimill.errors import ConfigError
from omnimill.infra.dataset import Unit
from omnimill.pipelines import files
from omnimill.pipelines.base import Source
from omnimill.pipelines.sources.jsonl import JsonlSource
from omnimill.pipelines.sources.parquet_text import ParquetTextSource
from omnimill.pipelines.sources.source_tree import SourceTreeSource
from omnimill.pipelines.verdicts import Outcome, decode_in_order, read_records
from omnimill.schema import Example, to_table


def outcomes(source: Source) -> list[Outcome]:
    return [found for unit in source.units() for found in decode_in_order(read_records(source.read, unit), 2)]


def examples(found: list[Outcome]) -> list[Example]:
    return [example for outcome in found for example in outcome.examples]


def reasons(found: list[Outcome]) -> Counter[str]:
    return Counter("kept" if one.rejection is None else one.rejection.reason for one in found)


def jsonl(path: Path, **options: Any) -> JsonlSource:
    return JsonlSource(type="jsonl", name="docs", path=str(path), **options)


def digests(source: Source) -> dict[str, str]:
    return {unit.id: source.inputs(unit)[0].digest for unit in source.units()}


@settings(max_examples=200)
@given(
    st.lists(st.binary(max_size=30).map(lambda data: data.replace(b"\n", b"-")), max_size=12),
    st.sampled_from([b"\n", b"\r\n"]),
    st.booleans(),
    st.integers(1, 60),
    st.integers(1, 40),
)
def test_ranges_give_every_line_once(lines: list[bytes], end: bytes, ended: bool, step: int, limit: int) -> None:
    data = end.join(lines) + (end if ended else b"")
    whole = list(files.read_lines(io.BufferedReader(io.BytesIO(data)), limit))
    parts: list[files.Line] = []
    for start in range(0, len(data), step):
        parts += files.read_lines(io.BufferedReader(io.BytesIO(data)), limit, start, start + step)
    assert parts == whole
    for line in whole:
        assert line.data is None or data[line.offset : line.offset + line.length] == line.data
    texts = [line.removesuffix(b"\r") for line in data.split(b"\n")]
    wanted = [text for text in texts if text.strip()]
    assert len(whole) == sum(1 for text in texts if text.strip() or len(text) > limit)
    assert [line.data for line in whole if line.data] == [text for text in wanted if len(text) <= limit]


@pytest.mark.parametrize("size", [1, 50, 333, 1 << 20])
def test_units_of_any_size_read_the_same_records(tmp_path: Path, size: int) -> None:
    rows = [{"id": i, "text": f"text {i} " + "x" * (i % 17), "lang": "en"} for i in range(60)]
    (tmp_path / "a.jsonl").write_text("\n".join(map(json.dumps, rows)) + "\n")
    source = jsonl(tmp_path, id_field="id", language_field="lang", bytes_per_unit=size, licence="CC0-1.0")
    found = outcomes(source)
    assert reasons(found) == {"kept": 60}
    assert [example.text[0].text for example in examples(found)] == [row["text"] for row in rows]
    assert [example.key for example in examples(found)] == [f"a.jsonl:{i}" for i in range(60)]
    assert {(example.meta.language, example.meta.licence) for example in examples(found)} == {("en", "CC0-1.0")}
    assert len({example.id for example in examples(found)}) == 60
    data = (tmp_path / "a.jsonl").read_bytes()
    where = examples(found)[7].provenance
    assert json.loads(data[where.offset : where.offset + where.length]) == rows[7]  # type: ignore[operator]


def test_what_is_appended_changes_only_the_last_range(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text("".join(json.dumps({"text": f"line {i}"}) + "\n" for i in range(100)))
    source = jsonl(tmp_path, bytes_per_unit=300)
    before = digests(source)
    with path.open("a") as stream:
        stream.write(json.dumps({"text": "one more"}) + "\n")
    after = digests(source)
    assert set(before) <= set(after)
    assert sum(before[unit] != after[unit] for unit in before) <= 1


@pytest.mark.parametrize("ending", [".gz", ".bz2", ".zst"])
def test_compressed_files_are_read_and_damage_is_named(tmp_path: Path, ending: str) -> None:
    pack = {".gz": gzip.compress, ".bz2": bz2.compress, ".zst": lambda d: pa.compress(d, codec="zstd", asbytes=True)}
    data = pack[ending](os.urandom(90_000).hex().encode().join([b'{"text": "', b'"}\n']) * 3)
    (tmp_path / f"a.jsonl{ending}").write_bytes(data)
    source = jsonl(tmp_path, include=("**",), bytes_per_unit=10)
    assert len(list(source.units())) == 1
    assert reasons(outcomes(source)) == {"kept": 3}
    (tmp_path / f"a.jsonl{ending}").write_bytes(data[: len(data) - 40])
    found = reasons(outcomes(source))
    assert found.pop("compression_damaged") == 1
    assert found["kept"] < 3
    assert set(found) <= {"kept"}


def test_faulty_lines_are_quarantined_with_their_bytes(tmp_path: Path) -> None:
    lines = [
        b'{"text": "fine"}',
        b'{"text": "cut',
        b'{"text": "\xff"}',
        b'{"words": 3}',
        b'{"text": 3}',
        b'"only a string"',
        b'{"text": "half \\ud800 pair"}',
        b'{"text": "' + b"x" * 200 + b'"}',
        b"",
        b'{"text": "fine too"}',
    ]
    (tmp_path / "a.jsonl").write_bytes(b"\r\n".join(lines))
    found = outcomes(jsonl(tmp_path, max_line_bytes=100))
    assert reasons(found) == {
        "kept": 2,
        "invalid_json": 1,
        "invalid_utf8": 2,
        "missing_field": 1,
        "wrong_type": 2,
        "line_too_long": 1,
    }
    assert [one.record.data for one in found] == [line if len(line) <= 100 else None for line in lines if line]
    assert to_table(examples(found)).num_rows == 2


def test_a_byte_order_mark_is_no_fault(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes('\ufeff{"text": "a"}\n{"text": "b"}'.encode())
    assert [example.text[0].text for example in examples(outcomes(jsonl(tmp_path)))] == ["a", "b"]


def test_a_line_of_half_a_gigabyte_costs_no_memory(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl.gz"
    with gzip.open(path, "wb", compresslevel=1) as stream:
        stream.write(b'{"text": "')
        for _ in range(512):
            stream.write(bytes(1 << 20))
        stream.write(b'"}\n{"text": "after"}\n')
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    found = outcomes(jsonl(tmp_path, max_line_bytes=1 << 20))
    assert reasons(found) == {"line_too_long": 1, "kept": 1}
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000  # kB


def parquet(path: Path, **options: Any) -> ParquetTextSource:
    return ParquetTextSource(type="parquet_text", name="table", path=str(path), **options)


def test_parquet_row_groups_are_units(tmp_path: Path) -> None:
    rows = [{"id": f"r{i}", "text": f"row {i}", "licence": "MIT" if i else None} for i in range(25)]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "a.parquet", row_group_size=10)
    source = parquet(tmp_path, id_field="id", licence_field="licence", licence="CC0-1.0")
    assert [unit.options for unit in source.units()] == [{"row_group": i} for i in range(3)]
    found = examples(outcomes(source))
    assert [example.text[0].text for example in found] == [row["text"] for row in rows]
    assert found[11].key == "a.parquet:1:r11"
    assert found[0].meta.licence == "CC0-1.0"
    assert found[1].meta.licence == "MIT"
    assert len({example.provenance.digest for example in found}) == 25


def test_a_changed_row_group_changes_its_own_digest(tmp_path: Path) -> None:
    def write(word: str) -> dict[str, str]:
        rows = [{"text": f"row {i}"} for i in range(20)] + [{"text": word}] * 10
        pq.write_table(pa.Table.from_pylist(rows), tmp_path / "a.parquet", row_group_size=10)
        return digests(parquet(tmp_path))

    first, second = write("old"), write("new")
    assert set(first) == set(second)
    assert [first[unit] == second[unit] for unit in first] == [True, True, False]


def test_parquet_faults_are_named_row_by_row(tmp_path: Path) -> None:
    broken = pa.array([b"good", b"\x80\x80", None, b"x" * 100]).cast(pa.binary()).view(pa.string())
    pq.write_table(pa.table({"text": broken, "id": ["a", "b", "c", "d"]}), tmp_path / "a.parquet")
    found = outcomes(parquet(tmp_path, id_field="id", max_text_bytes=50))
    assert reasons(found) == {"kept": 1, "invalid_utf8": 1, "missing_field": 1, "text_too_large": 1}
    assert reasons(outcomes(parquet(tmp_path, text_field="body"))) == {"missing_field": 1}
    assert reasons(outcomes(parquet(tmp_path, max_group_bytes=50))) == {"row_group_too_large": 1}


def test_a_parquet_file_that_is_none_is_one_quarantined_record(tmp_path: Path) -> None:
    (tmp_path / "a.parquet").write_bytes(b"version https://git-lfs.github.com/spec/v1\n")
    (tmp_path / "b.parquet").write_bytes(b"")
    good = io.BytesIO()
    pq.write_table(pa.table({"text": ["x" * 1000] * 50}), good)
    damaged = bytearray(good.getvalue())
    damaged[4:60] = bytes(56)
    (tmp_path / "c.parquet").write_bytes(damaged)
    assert reasons(outcomes(parquet(tmp_path))) == {"parquet_unreadable": 3}


def test_one_long_value_in_many_rows_is_held_once(tmp_path: Path) -> None:
    texts = pa.DictionaryArray.from_arrays(pa.array([0] * 3000, pa.int32()), ["x" * (1 << 20)])
    pq.write_table(pa.table({"text": texts}), tmp_path / "a.parquet", dictionary_pagesize_limit=1 << 22)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert reasons(outcomes(parquet(tmp_path, max_text_bytes=1 << 10))) == {"text_too_large": 3000}
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000  # kB; written out it is 3 GB


def tree(path: Path, **options: Any) -> SourceTreeSource:
    return SourceTreeSource(type="source_tree", name="code", path=str(path), **options)


def test_source_trees_give_code_and_prose(tmp_path: Path) -> None:
    (tmp_path / "pkg").mkdir()
    for name, data in {
        "a.py": b"print(1)\n",
        "pkg/b.PY": b"x = 1\n",
        "pkg/__init__.py": b"",
        "pkg/blank.py": b"\n\n",
        "README.md": b"# Title\n",
        "data.bin": b"\0\1",
        "pkg/nul.py": b"a\0b",
        "pkg/latin.py": "ß".encode("latin-1"),
        "pkg/long.py": b"#" * 200,
    }.items():
        (tmp_path / name).write_bytes(data)
    found = outcomes(tree(tmp_path, max_file_bytes=100, files_per_unit=3))
    assert reasons(found) == {"kept": 3, "empty_file": 2, "binary_file": 1, "invalid_utf8": 1, "file_too_large": 1}
    roles = {example.key: example.text[0].role for example in examples(found)}
    assert roles == {"README.md": "body", "a.py": "code", "pkg/b.PY": "code"}
    dropped = [one for one in found if one.rejection is not None and one.rejection.verdict == "dropped"]
    assert {one.record.key for one in dropped} == {"pkg/__init__.py", "pkg/blank.py"}


def test_links_lead_nowhere_outside_the_folder(tmp_path: Path) -> None:
    inside, outside = tmp_path / "in", tmp_path / "out"
    for folder in (inside / "sub", outside):
        folder.mkdir(parents=True)
    (inside / "a.txt").write_text("a")
    (outside / "secret.txt").write_text("secret")
    (inside / "secret.txt").symlink_to(outside / "secret.txt")
    (inside / "folder").symlink_to(outside)
    (inside / "loop").symlink_to(inside)
    (inside / "dangling.txt").symlink_to(inside / "nowhere.txt")
    (inside / "sub" / "again.txt").symlink_to(inside / "a.txt")
    os.mkfifo(inside / "pipe.txt")
    assert [files.relative(url, str(inside)) for url in files.find(str(inside))] == ["a.txt", "sub/again.txt"]


def test_globs_choose_files(tmp_path: Path) -> None:
    for name in ("a.JPG", "b/c.jpg", "b/d.png", "b/e/f.jpg", "b/e/skip/g.jpg"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("x")
    found = files.find(str(tmp_path), ["**/*.jpg"], ["**/skip/**"])
    assert [files.relative(url, str(tmp_path)) for url in found] == ["a.JPG", "b/c.jpg", "b/e/f.jpg"]
    assert files.find(str(tmp_path / "a.JPG")) == [str(tmp_path / "a.JPG")]
    with pytest.raises(ConfigError, match="no such file or folder"):
        files.find(str(tmp_path / "nowhere"))
    os.close(os.open(os.fsencode(str(tmp_path)) + b"/\xff.jpg", os.O_CREAT | os.O_WRONLY))
    with pytest.raises(ConfigError, match="not UTF-8"):
        files.find(str(tmp_path))


def test_remote_files_are_read_like_local_ones(tmp_path: Path) -> None:
    import fsspec

    rows = b"".join(json.dumps({"text": f"line {i}"}).encode() + b"\n" for i in range(50))
    memory = fsspec.filesystem("memory")
    memory.pipe_file("/remote/a.jsonl", rows)
    memory.pipe_file("/remote/b.jsonl.gz", gzip.compress(rows))
    source = JsonlSource(type="jsonl", name="far", path="memory://remote", bytes_per_unit=200)
    found = outcomes(source)
    assert reasons(found) == {"kept": 100}
    assert examples(found)[0].provenance.uri == "memory://remote/a.jsonl"
    with files.local_copy("memory://remote/a.jsonl") as path:
        assert path.read_bytes() == rows
    assert not path.exists()


def test_units_are_the_same_when_listed_again(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"text": "a"}\n' * 100)
    (tmp_path / "b.py").write_text("pass")
    for source in (jsonl(tmp_path, bytes_per_unit=100), tree(tmp_path, include=("**",))):
        listed: list[Unit] = list(source.units())
        assert listed == list(source.units())
        assert len({unit.id for unit in listed}) == len(listed)


def test_real_text_is_read_whole(realdata: Path) -> None:
    if (realdata / "text").exists():
        found = outcomes(jsonl(realdata / "text", id_field="id", bytes_per_unit=100_000))
        lines = sum(path.read_bytes().count(b"\n") for path in (realdata / "text").glob("*.jsonl"))
        assert reasons(found) == {"kept": lines}
