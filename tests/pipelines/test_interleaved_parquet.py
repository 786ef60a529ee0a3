"""Documents of pictures and texts in Parquet, and their pictures as img2dataset left them."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from layouts.pages import DOCUMENTS, document, jpeg, write_fetched

from omnimill.errors import ConfigError
from omnimill.pipelines.sources.documents import DocumentPictures
from omnimill.pipelines.sources.interleaved_parquet import InterleavedParquetSource

SITE = "https://example.org"
ONE, TWO, GONE = (f"{SITE}/{name}.jpg" for name in ("1", "2", "gone"))
TEXT = "Some words between pictures."


def source(path: Path, **options: Any) -> InterleavedParquetSource:
    settings = {"include": ("*.parquet",), "fetched": "pictures", **options}
    return InterleavedParquetSource(type="interleaved_parquet", name="documents", path=str(path), **settings)


def write(path: Path, *rows: dict[str, Any], schema: pa.Schema = DOCUMENTS, rows_per_group: int = 2) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(list(rows), schema=schema), path, row_group_size=rows_per_group)


def test_documents_keep_their_order_and_count_what_is_missing(tmp_path: Path, read_source: Any) -> None:
    write(
        tmp_path / "a.parquet",
        document(
            f"{SITE}/a", (None, "Before."), (ONE, None), (None, "After one."), (GONE, None), (None, "After none.")
        ),
        document(f"{SITE}/b", (TWO, None), (ONE, None), (None, "After both.")),
        document(f"{SITE}/c", (None, TEXT)),
    )
    write_fetched(tmp_path / "pictures", "00000", {ONE: jpeg("1"), GONE: None})
    write_fetched(tmp_path / "pictures", "00001", {TWO: jpeg("2"), ONE: jpeg("another")})
    examples, verdicts = read_source(source(tmp_path))
    assert list(verdicts) == ["a.parquet:0:0", "a.parquet:0:1", "a.parquet:1:0"]
    assert [
        [(text.role, text.image, text.text) for text in example.text if text.role == "body"] for example in examples
    ] == [
        [("body", None, "Before."), ("body", 0, "After one."), ("body", 0, "After none.")],
        [("body", 1, "After both.")],
        [("body", None, TEXT)],
    ]
    assert [text.text for text in examples[1].text if text.role == "alt_text"] == [
        "what 2.jpg shows",
        "what 1.jpg shows",
    ]
    assert examples[0].meta.scores == {"pictures": 2.0, "pictures_missing": 1.0, "pictures_refused": 0.0}
    assert [example.meta.url for example in examples] == [f"{SITE}/{name}" for name in "abc"]
    # A URL that was fetched twice is taken from the first shard.
    assert examples[0].images[0].digest == examples[1].images[1].digest
    assert examples[0].images[0].uri == f"{tmp_path}/pictures/00000.tar#000000000.jpg"


def _as_files(folder: Path, shard: str) -> None:
    (folder / shard).mkdir()
    with tarfile.open(folder / f"{shard}.tar") as archive:
        archive.extractall(folder / shard, filter="data")
    (folder / f"{shard}.tar").unlink()


def _as_column(folder: Path, shard: str) -> None:
    table = pq.read_table(folder / f"{shard}.parquet")
    with tarfile.open(folder / f"{shard}.tar") as archive:
        names = set(archive.getnames())
        data = [
            archive.extractfile(f"{key}.jpg").read() if f"{key}.jpg" in names else None  # type: ignore[union-attr]
            for key in table["key"].to_pylist()
        ]
    pq.write_table(table.append_column("jpg", pa.array(data, pa.binary())), folder / f"{shard}.parquet")
    (folder / f"{shard}.tar").unlink()


@pytest.mark.parametrize("convert", [None, _as_files, _as_column])
def test_every_format_of_img2dataset_is_read(tmp_path: Path, read_source: Any, convert: Any) -> None:
    write(tmp_path / "a.parquet", document(SITE, (ONE, None), (GONE, None), (None, TEXT)))
    write_fetched(tmp_path / "pictures", "00000", {ONE: jpeg("1"), GONE: None, TWO: jpeg("2")})
    if convert is not None:
        convert(tmp_path / "pictures", "00000")
    documents = source(tmp_path)
    (example,), _ = read_source(documents)
    assert [image.data for image in example.images] == [jpeg("1")]
    (unit,) = documents.units()
    used = {Path(ref.uri).name for ref in documents.inputs(unit)}
    assert (
        used - {"a.parquet", "00000.parquet"}
        == {None: {"00000.tar"}, _as_files: {"000000000.jpg"}, _as_column: set()}[convert]
    )


def test_each_parquet_file_can_have_its_own_pictures(tmp_path: Path, read_source: Any) -> None:
    for name in ("a", "b"):
        write(tmp_path / f"{name}.parquet", document(SITE, (ONE, None), (None, TEXT)))
    write_fetched(tmp_path / "pictures" / "a", "00000", {ONE: jpeg("1")})
    documents = source(tmp_path, fetched="pictures/{stem}")
    examples, _ = read_source(documents)
    assert [len(example.images) for example in examples] == [1, 0]
    before = {unit.files[0]: unit.id for unit in documents.units()}
    write_fetched(tmp_path / "pictures" / "b", "00000", {ONE: jpeg("1")})
    after = {unit.files[0]: unit.id for unit in documents.units()}
    assert [before[file] == after[file] for file in sorted(before)] == [True, False]
    assert [len(example.images) for example in read_source(documents)[0]] == [1, 1]


def test_row_groups_of_a_unit_share_the_work_on_pictures(tmp_path: Path, read_source: Any) -> None:
    rows = [document(f"{SITE}/{i}", (url, None), (None, TEXT)) for i, url in enumerate((ONE, TWO, ONE, GONE, TWO))]
    write(tmp_path / "a.parquet", *rows, rows_per_group=1)
    write_fetched(tmp_path / "pictures", "00000", {ONE: jpeg("1"), TWO: jpeg("2")})
    each, _ = read_source(source(tmp_path))
    runs = source(tmp_path, row_groups_per_unit=2)
    assert [unit.options.get("row_groups", 1) for unit in runs.units()] == [2, 2, 1]
    assert [(example.key, example.id) for example in read_source(runs)[0]] == [(one.key, one.id) for one in each]
    digests = {ref.digest for unit in runs.units() for ref in runs.inputs(unit) if ref.uri.endswith("a.parquet")}
    assert len(digests) == 3


def test_pictures_that_change_change_the_inputs_of_the_units_that_show_them(tmp_path: Path) -> None:
    rows = [document(SITE, (url, None), (None, TEXT)) for url in (ONE, TWO)]
    write(tmp_path / "a.parquet", *rows, rows_per_group=1)
    write_fetched(tmp_path / "pictures", "00000", {ONE: jpeg("1")})
    write_fetched(tmp_path / "pictures", "00001", {TWO: jpeg("2")})
    documents = source(tmp_path)

    def inputs() -> list[set[tuple[str, str]]]:
        return [{(Path(ref.uri).name, ref.digest) for ref in documents.inputs(unit)} for unit in documents.units()]

    before = inputs()
    assert [{name for name, _ in unit if name.endswith(".tar")} for unit in before] == [{"00000.tar"}, {"00001.tar"}]
    write_fetched(tmp_path / "pictures", "00001", {TWO: jpeg("other")})
    assert [a == b for a, b in zip(before, inputs(), strict=True)] == [True, False]


def test_damaged_pictures_are_named_and_cost_no_document(tmp_path: Path, read_source: Any) -> None:
    write(tmp_path / "a.parquet", document(SITE, (ONE, None), (TWO, None), (None, TEXT)))
    pictures = tmp_path / "pictures"
    write_fetched(pictures, "00000", {GONE: jpeg("0"), ONE: jpeg("1")})
    tar = pictures / "00000.tar"
    tar.write_bytes(tar.read_bytes()[: 5 * 1024])
    write_fetched(pictures, "00001", {TWO: jpeg("2")})
    (pictures / "00001.tar").unlink()
    (pictures / "00002.parquet").write_bytes(b"PAR1 not really")
    pq.write_table(pa.table({"path": ["x"]}), pictures / "00003.parquet")
    examples, verdicts = read_source(source(tmp_path))
    assert verdicts == {
        "a.parquet:fetched/00002.parquet": "parquet_unreadable",
        "a.parquet:fetched/00003.parquet": "missing_field",
        "a.parquet:fetched/00000.tar": "archive_truncated",
        "a.parquet:fetched/00001.tar": "missing_file",
        "a.parquet:0:0": "kept",
    }
    assert examples[0].meta.scores["pictures_missing"] == 2.0


def test_a_member_that_leads_astray_is_no_picture(tmp_path: Path, read_source: Any) -> None:
    write(tmp_path / "a.parquet", document(SITE, (ONE, None), (TWO, None), (None, TEXT)))
    write_fetched(tmp_path / "pictures", "00000", {ONE: jpeg("1"), TWO: jpeg("2")})
    with tarfile.open(tmp_path / "pictures" / "00000.tar", "w") as archive:
        link = tarfile.TarInfo("000000000.jpg")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(link)
        outside = tarfile.TarInfo("../000000001.jpg")
        outside.size = len(jpeg("2"))
        archive.addfile(outside, io.BytesIO(jpeg("2")))
    (example,), _ = read_source(source(tmp_path))
    assert example.images == []
    assert example.meta.scores == {"pictures": 2.0, "pictures_missing": 0.0, "pictures_refused": 2.0}


def test_embedded_pictures_are_read(tmp_path: Path, read_source: Any) -> None:
    picture = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    schema = pa.schema([("images", pa.list_(picture)), ("texts", pa.list_(pa.string())), ("lang", pa.string())])
    row = {
        "images": [{"bytes": jpeg("1"), "path": None}, None, {"bytes": None}],
        "texts": [None, TEXT, None],
        "lang": "en",
    }
    write(tmp_path / "a.parquet", row, schema=schema)
    options = {"fetched": None, "details_field": None, "url_field": None, "language_field": "lang"}
    (example,), _ = read_source(source(tmp_path, **options, tag_fields={"split": "lang"}))
    assert [image.data for image in example.images] == [jpeg("1")]
    assert example.meta.scores["pictures_refused"] == 1.0
    assert (example.meta.language, example.meta.tags) == ("en", {"split": "en"})


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"texts": [TEXT]}, "lists_uneven"),
        ({"images": None}, "missing_field"),
        ({"metadata": "[{]"}, "invalid_json"),
        ({"metadata": json.dumps([None])}, "lists_uneven"),
        ({"general_metadata": "{"}, "invalid_json"),
        ({"texts": [None, None]}, "no_text"),
    ],
)
def test_faults_of_documents_are_named(tmp_path: Path, read_source: Any, change: dict[str, Any], reason: str) -> None:
    write(tmp_path / "a.parquet", {**document(SITE, (ONE, None), (None, TEXT)), **change})
    write_fetched(tmp_path / "pictures", "00000", {ONE: jpeg("1")})
    assert list(read_source(source(tmp_path))[1].values()) == [reason]


def test_a_folder_of_pictures_that_is_not_there_is_an_error_of_the_dag(tmp_path: Path) -> None:
    write(tmp_path / "a.parquet", document(SITE, (ONE, None), (None, TEXT)))
    with pytest.raises(ConfigError, match="no fetched pictures"):
        list(source(tmp_path).units())
    assert len(list(source(tmp_path, fetched="pictures/{stem}").units())) == 1


def test_documents_without_enough_pictures_are_dropped(tmp_path: Path, read_source: Any) -> None:
    write(tmp_path / "a.parquet", document(SITE, (ONE, None), (GONE, None), (None, TEXT)))
    write_fetched(tmp_path / "pictures", "00000", {ONE: jpeg("1")})
    for settings, verdict in (
        ({"min_pictures": 1}, "kept"),
        ({"min_pictures": 2}, "few_pictures"),
        ({"missing": "drop"}, "picture_missing"),
    ):
        _, verdicts = read_source(source(tmp_path, pictures=DocumentPictures(**settings)))  # type: ignore[arg-type]
        assert list(verdicts.values()) == [verdict]
