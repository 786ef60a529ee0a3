"""The index of a dataset finds what reading every row finds, whatever was published in which order."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from blake3 import blake3
from hypothesis import given, settings
from hypothesis import strategies as st

from omnimill.hosts import domains_of
from omnimill.infra import index, index_segments
from omnimill.infra.dataset import DROPS_SCHEMA, Commit, Counts, Dataset, InputRef
from omnimill.infra.index import IndexedFile, open_index, refresh
from omnimill.infra.index_keys import FileKeys, hash_many, key_of, keys_of_table
from omnimill.infra.index_pieces import publish_shard
from omnimill.infra.verify import delete, garbage
from omnimill.schema import Example, Image, Meta, Provenance, example_id, to_table


def example(number: int, host: str = "example.org", licence: str | None = None) -> Example:
    """A picture found on a page, of which every number has another."""
    data = f"picture {number}".encode()
    digest = blake3(data).hexdigest()
    url = f"https://{host}/{number}.jpg"
    return Example(
        id=example_id("web", str(number), digest),
        source="web",
        unit="u",
        key=str(number),
        provenance=Provenance(uri="s3://bucket/pages.warc", digest=blake3(b"pages").hexdigest()),
        images=[Image(data=data, format="jpeg", width=1, height=1, digest=digest, uri=url)],
        meta=Meta(url=f"https://{host}/page", licence=licence),
    )


def commit_of(dataset: Dataset, unit: str, examples: list[Example]) -> Commit:
    shards = (dataset.publish_shard(to_table(examples)),) if examples else ()
    inputs = (InputRef(uri=f"/data/{unit}.warc", digest=blake3(unit.encode()).hexdigest(), bytes=1),)
    n = len(examples)
    counts = Counts(records_in=n, kept=n, examples_written=n)
    return Commit(unit=unit, source="web", recipe="r", inputs=inputs, shards=shards, counts=counts)


def publish(dataset: Dataset, *commits: Commit) -> str:
    return dataset.publish_manifest("examples", commits)[0]


def refreshed(dataset: Dataset, digest: str) -> None:
    refresh(dataset, *dataset.manifest(digest))


def test_every_value_of_a_row_finds_it_and_no_other(tmp_path: Path) -> None:
    dataset = Dataset(str(tmp_path), "web")
    examples = [example(number, host) for number, host in enumerate(["a.example.org", "example.org", "other.net"])]
    commit = commit_of(dataset, "u", examples)
    found = open_index(dataset, [publish(dataset, commit)])
    shard = IndexedFile("shards", commit.shards[0].digest)
    for row, one in enumerate(examples):
        for value in (one.id, one.images[0].uri, one.images[0].digest, one.meta.url):
            assert value is not None
            assert {file: rows.tolist() for file, rows in found.find([value]).items()} == {shard: [row]}
    everything = found.find(["s3://bucket/pages.warc"])
    assert {file: rows.tolist() for file, rows in everything.items()} == {shard: [0, 1, 2]}
    assert found.find(["https://example.org/7.jpg", "0" * 64]) == {}
    assert [file.folder for file in found.find(["/data/u.warc"])] == ["inputs"]
    assert {name: found.domain(name) for name in ("example.org", "a.example.org", "other.net", "org")} == {
        "example.org": {shard: 2},
        "a.example.org": {shard: 1},
        "other.net": {shard: 1},
        "org": {},
    }


def test_licences_are_counted_by_shard(tmp_path: Path) -> None:
    dataset = Dataset(str(tmp_path), "web")
    licences = ["CC-BY-4.0", None, "CC-BY-4.0", "CC0-1.0"]
    commit = commit_of(dataset, "u", [example(i, licence=licence) for i, licence in enumerate(licences)])
    found = open_index(dataset, [publish(dataset, commit)]).licences()
    assert found == {IndexedFile("shards", commit.shards[0].digest): {"": 1, "CC-BY-4.0": 2, "CC0-1.0": 1}}


def test_what_was_turned_down_is_found_by_address_and_key(tmp_path: Path) -> None:
    dataset = Dataset(str(tmp_path), "web")
    row = {"source": "web", "unit": "u", "key": "7", "uri": "file:///data/./7.jpg", "level": "record"}
    rows = pa.Table.from_pylist([row | {"operator": "size", "reason": "small"}], DROPS_SCHEMA)
    drops = dataset.publish_rejected(rows, "drops")
    assert drops is not None
    commit = commit_of(dataset, "u", []).model_copy(
        update={"drops": drops, "counts": Counts(records_in=1, records_dropped={"small": 1})}
    )
    found = open_index(dataset, [publish(dataset, commit)])
    for value in ("/data/7.jpg", "7"):
        assert list(found.find([value])) == [IndexedFile("drops", drops.digest)]


def test_versions_add_what_is_new_and_segments_stay_few(tmp_path: Path) -> None:
    dataset = Dataset(str(tmp_path), "web")
    commits: list[Commit] = []
    read: list[str] = []
    original = Dataset.read
    for unit in range(20):
        commits.append(commit_of(dataset, f"u{unit:02d}", [example(unit)]))
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Dataset, "read", lambda *args: read.append(args[1].digest) or original(*args))
            refreshed(dataset, publish(dataset, *commits))
    # Each shard was read when it was new, and not again.
    assert read == [commit.shards[0].digest for commit in commits]
    found = open_index(dataset, [])
    assert len(found.segments) <= index._SMALL_SEGMENTS + 1
    for unit, commit in enumerate(commits):
        rows = found.find([example(unit).id])
        assert {file.name: one.tolist() for file, one in rows.items()} == {commit.shards[0].digest: [0]}
    stored = {path.name.split(".")[0] for path in (tmp_path / "web" / "index").iterdir() if path.is_file()}
    # What was merged away is deleted by the update after.
    assert len(stored) <= 1 + len(found.segments) + index._SMALL_SEGMENTS + 1


def test_what_nothing_needs_of_an_index_is_given_up(tmp_path: Path) -> None:
    dataset = Dataset(str(tmp_path), "web")
    folder = tmp_path / "web" / "index"
    waiting = publish_shard(dataset, to_table([example(1)]))
    shard = publish_shard(dataset, to_table([example(0)]))
    digest = publish(dataset, Commit(unit="u", source="web", recipe="r", inputs=(), shards=(shard,)))
    refreshed(dataset, digest)
    assert [one for one in garbage(dataset.root, grace=0) if "/index/" in one.url] == []
    index.rebuild(dataset, [])
    gone = folder / "pieces" / f"{'ab' * 32}.keys"
    gone.write_bytes(b"of a shard that is no more")
    left = {one.url for one in garbage(dataset.root, grace=0) if "/index/" in one.url}
    assert left == {
        str(gone),
        *(str(path) for ending in ("rows", "domains", "files") for path in folder.glob(f"*.{ending}")),
    }
    assert len(left) == 4
    delete([one for one in garbage(dataset.root, grace=0) if "/index/" in one.url])
    # A piece is kept until its shard comes into a version.
    assert [path.stem for path in (folder / "pieces").glob("*.keys")] == [waiting.digest]
    assert open_index(dataset, [digest]).find([example(0).id])


def test_keys_that_came_with_a_shard_are_those_of_its_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table = to_table([example(number, f"{number % 3}.example.org", "CC0-1.0") for number in range(9)])
    found = []
    for name in ("alone", "pieces"):
        dataset = Dataset(str(tmp_path), name)
        ref = publish_shard(dataset, table) if name == "pieces" else dataset.publish_shard(table)
        commit = Commit(unit="u", source="web", recipe="r", inputs=(), shards=(ref,))
        digest = publish(dataset, commit)
        if name == "pieces":
            # Publishing a version reads no shard again, and keeps no piece.
            monkeypatch.setattr(Dataset, "read", lambda *args: pytest.fail("a shard was read"))
        refreshed(dataset, digest)
        index_ = open_index(dataset, [digest])
        assert list((tmp_path / name / "index" / "pieces").glob("*.keys")) == []
        found.append((index_.files, index_.licences(), index_.domain("example.org"), index_.segments[0].name))
    assert found[0] == found[1]


def test_a_shard_that_is_gone_hides_no_other_and_is_found_when_it_is_back(tmp_path: Path) -> None:
    dataset = Dataset(str(tmp_path), "web")
    commits = [commit_of(dataset, f"u{number}", [example(number)]) for number in range(2)]
    path = Path(dataset.shard_url(commits[0].shards[0]))
    digest, data = publish(dataset, *commits), path.read_bytes()
    path.unlink()
    assert open_index(dataset, [digest]).find([example(1).id])
    assert not open_index(dataset, [digest]).find([example(0).id])
    path.write_bytes(data)
    assert open_index(dataset, [digest]).find([example(0).id])


def test_an_index_that_is_damaged_or_gone_is_made_again(tmp_path: Path) -> None:
    dataset = Dataset(str(tmp_path), "web")
    digest = publish(dataset, commit_of(dataset, "u", [example(1)]))
    folder = tmp_path / "web" / "index"
    refreshed(dataset, digest)
    for damage in ("rows", "domains", "files", "json"):
        for path in folder.glob(f"*.{damage}"):
            path.write_bytes(path.read_bytes()[:-3])
        assert open_index(dataset, [digest]).find([example(1).id]), damage
        for path in folder.iterdir():
            if path.is_file() and path.suffix == f".{damage}":
                path.unlink()
        assert open_index(dataset, [digest]).find([example(1).id]), damage


def test_a_store_that_cannot_be_written_is_indexed_for_the_time_being(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    dataset = Dataset(str(tmp_path), "web")
    digest = publish(dataset, commit_of(dataset, "u", [example(1)]))
    (tmp_path / "web" / "index").write_text("a file where the folder should be")
    refreshed(dataset, digest)
    assert "not indexed" in capsys.readouterr().err
    assert open_index(dataset, [digest]).find([example(1).id])


@settings(max_examples=40)
@given(
    st.lists(st.lists(st.tuples(st.integers(0, 30), st.integers(0, 2**64 - 1)), max_size=30), min_size=1, max_size=6)
)
def test_segments_find_what_was_put_in_merged_or_not(tmp_path_factory: pytest.TempPathFactory, files: list) -> None:
    folder = str(tmp_path_factory.mktemp("segments"))
    contents, expected = [], {}
    for number, pairs in enumerate(files):
        values = [f"{key:016x}" + "0" * 16 for _, key in pairs]
        hashes, rows = np.array([key for _, key in pairs], np.uint64), np.array([row for row, _ in pairs], np.int64)
        order = np.lexsort((rows, hashes))
        file = IndexedFile("shards", str(number))
        domains = {f"{key % 3}.org": row + 1 for row, key in pairs}
        contents.append(index_segments.content_of([(file, 31, FileKeys(hashes[order], rows[order], domains))]))
        for value, (row, _) in zip(values, pairs, strict=True):
            expected.setdefault(value, set()).add((file, row))
    merged = index_segments.merge(contents)
    segment = index_segments.Segment(folder, index_segments.write(folder, merged))
    for value, places in expected.items():
        found = {(file, row) for file, rows in segment.find(value) for row in rows.tolist()}
        assert places <= found
        # Keys are cut to 38 bits: others may come along, and no more than those that share them.
        alike = {key_of(one) >> 26 for one in expected} and [
            one for one in expected if key_of(one) >> 26 == key_of(value) >> 26
        ]
        assert found == set().union(*(expected[one] for one in alike))


def test_keys_of_columns_are_those_of_their_values() -> None:
    values = [blake3(b"a").hexdigest(), None, blake3(b"b").hexdigest()]
    mixed = ["https://example.org/ü", "x", None, "0" * 32, "G" * 32]
    for column in (values, mixed, [None], [], ["A" * 64]):
        hashes, places = hash_many(pa.array(column, pa.string()))
        present = [place for place, value in enumerate(column) if value is not None]
        assert (places.tolist(), hashes.tolist()) == (present, [key_of(column[place]) for place in present])
    sliced = pa.array(["0" * 64, *values], pa.string()).slice(2)
    assert hash_many(sliced)[0].tolist() == [key_of(values[2])]


def test_a_host_lies_in_itself_and_in_the_domains_above_it() -> None:
    assert domains_of("a.b.example.org") == ["a.b.example.org", "b.example.org", "example.org"]
    assert domains_of("localhost") == ["localhost"]
    assert domains_of("192.168.0.1") == ["192.168.0.1"]
    assert keys_of_table(pa.table({"id": ["0" * 32]})).domains == {}
