"""Runs record what went in and out, and files are found again by name, content and id."""

from pathlib import Path

import pyarrow as pa
import pytest
from blake3 import blake3

from omnimill.errors import ConfigError
from omnimill.infra import lineage
from omnimill.infra.dataset import QUARANTINE_SCHEMA, Commit, Counts, Dataset, InputRef
from omnimill.infra.queries import parse_query
from omnimill.infra.trace import Catalog, count_rows, find_examples, find_ids, find_rejections, find_rows
from omnimill.schema import Example, Image, Provenance, Text, example_id, to_table


def picture_example(path: Path) -> Example:
    data = path.read_bytes()
    digest = blake3(data).hexdigest()
    return Example(
        id=example_id("photos", path.name, digest),
        source="photos",
        unit="u",
        key=path.name,
        provenance=Provenance(uri=str(path), digest=digest),
        text=[Text(role="caption", text=path.stem)],
        images=[Image(data=data, format="jpeg", width=1, height=1, digest=digest, uri=str(path))],
    )


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A root with an examples version of three pictures, one quarantined file, and a token version made from it."""
    folder = tmp_path_factory.mktemp("root")
    files = [folder / "in" / f"{name}.jpg" for name in ("a", "b", "c")]
    files[0].parent.mkdir()
    for file in files:
        file.write_bytes(f"picture {file.stem}".encode())
    captions = folder / "in" / "captions.jsonl"
    captions.write_text("{}")
    examples = Dataset(str(folder), "pictures")
    bad = {"source": "photos", "unit": "u", "key": "d.jpg", "uri": str(folder / "in" / "d.jpg"), "tries": 1}
    bad |= {"operator": "decode", "reason": "image_truncated", "message": "ends early"}
    one = Commit(
        unit="u",
        source="photos",
        recipe="r",
        inputs=tuple(
            InputRef(uri=str(f), digest=blake3(f.read_bytes()).hexdigest(), bytes=1) for f in [*files, captions]
        ),
        shards=(examples.publish_shard(to_table(picture_example(f) for f in files)),),
        quarantine=examples.publish_rejected(pa.Table.from_pylist([bad], QUARANTINE_SCHEMA), "quarantine"),
        counts=Counts(records_in=4, kept=3, quarantined={"image_truncated": 1}, examples_written=3),
    )
    with lineage.command_run(str(folder), "ingest", {"dag": "x"}) as run:
        digest, _ = examples.publish_manifest("examples", [one])
        run.output("pictures", digest, examples.url)
    tokens = Dataset(str(folder), "picture-tokens")
    ids = [picture_example(f).id for f in files[:2]]
    rows = Commit(
        unit="t",
        source="photos",
        recipe="r",
        inputs=(),
        shards=(tokens.publish_shard(pa.table({"id": ids})),),
        counts=Counts(records_in=2, kept=2, examples_written=2),
    )
    with lineage.command_run(str(folder), "tokenize", {}) as run:
        made, _ = tokens.publish_manifest("tokens", [rows], parents={"pictures": digest})
        run.input("pictures", digest, examples.url)
        run.output("picture-tokens", made, tokens.url)
    return folder


def test_runs_name_their_datasets(root: Path) -> None:
    (run,) = lineage.runs(str(root), "tokenize")
    assert run.info.status == "FINISHED"
    (read,), (wrote,) = (lineage.references(run, context) for context in ("input", "output"))
    assert (read.name, wrote.name) == ("pictures", "picture-tokens")
    assert len(read.digest) == 64
    assert [one.digest for one in Catalog(str(root)).made_from(read.digest)] == [wrote.digest]


def test_a_failed_command_is_recorded_with_its_error(root: Path) -> None:
    with pytest.raises(ZeroDivisionError), lineage.command_run(str(root), "report", {}):
        _ = 1 / 0
    (run,) = lineage.runs(str(root), "report")
    assert run.info.status == "FAILED"
    assert "ZeroDivisionError" in run.data.tags["omnimill.error"]


def test_a_file_is_found_by_path_relative_path_content_and_id(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    catalog = Catalog(str(root))
    file = root / "in" / "b.jpg"
    expected = picture_example(file).id
    copy = root / "elsewhere.jpg"
    copy.write_bytes(file.read_bytes())
    monkeypatch.chdir(root / "in")
    for query in (str(file), "b.jpg", "./b.jpg", str(copy), blake3(file.read_bytes()).hexdigest(), expected):
        assert [place.id for place in find_examples(catalog, query)] == [expected], query
    assert find_examples(catalog, "nothing.jpg") == []


def test_a_file_that_only_the_unit_names_answers_for_all_its_examples(root: Path) -> None:
    assert len(find_examples(Catalog(str(root)), str(root / "in" / "captions.jsonl"))) == 3


def test_a_quarantined_file_is_found_with_its_reason(root: Path) -> None:
    assert find_examples(Catalog(str(root)), str(root / "in" / "d.jpg")) == []
    (found,) = find_rejections(Catalog(str(root)), parse_query(str(root / "in" / "d.jpg")))
    assert (found.verdict, found.reason, found.operator) == ("quarantined", "image_truncated", "decode")
    assert set(QUARANTINE_SCHEMA.names) >= {"reason", "uri", "tries"}


def test_a_domain_licence_or_source_is_counted_and_found_row_by_row(tmp_path: Path) -> None:
    examples = Dataset(str(tmp_path), "pictures")
    file = tmp_path / "a.jpg"
    file.write_bytes(b"picture")
    made = [picture_example(file) for _ in range(4)]
    urls = ["https://example.org/1", "https://cdn.example.org/2", "https://other.net/example.org", None]
    for one, url, licence in zip(made, urls, ["CC0-1.0", None, "CC0-1.0", None], strict=True):
        one.id, one.meta.url, one.meta.licence = example_id("photos", str(url), ""), url, licence
    shards = tuple(examples.publish_shard(to_table(part)) for part in (made[:2], made[2:]))
    counts = Counts(records_in=4, kept=4, examples_written=4)
    with lineage.command_run(str(tmp_path), "ingest", {}) as run:
        commit = Commit(unit="u", source="photos", recipe="r", inputs=(), shards=shards, counts=counts)
        run.output("pictures", examples.publish_manifest("examples", [commit])[0], examples.url)
    catalog = Catalog(str(tmp_path))
    for text, rows in {
        "domain:example.org": [0, 1],
        "domain:cdn.Example.org.": [1],
        "licence:CC0-1.0": [0, 2],
        "licence:": [1, 3],
        "source:photos": [0, 1, 2, 3],
        "source:films": [],
    }.items():
        query = parse_query(text)
        ids = [id_ for found in find_rows(catalog, query) for id_ in found.ids]
        assert ids == [made[row].id for row in rows], text
        assert sum(count for *_, count in count_rows(catalog, query)) == len(rows), text
    with pytest.raises(ConfigError, match="query: found 'domain:', allowed: domain:NAME"):
        parse_query("domain:")


def test_rows_of_examples_in_a_token_version(root: Path) -> None:
    catalog = Catalog(str(root))
    tokens = next(version for version in catalog.versions if version.manifest.kind == "tokens")
    ids = [picture_example(root / "in" / f"{name}.jpg").id for name in ("c", "b")]
    (found,) = find_ids(catalog, tokens, ids)
    assert (found.numbers.tolist(), found.ids) == ([1], [ids[1]])
