"""The exactly-once contract: what is committed exists once, whole, and hashes to its name."""

from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from omnimill.errors import IntegrityError, OmnimillError
from omnimill.infra.dataset import Commit, Counts, Dataset, InputRef, Unit, total


def table(rows: int, offset: int = 0) -> pa.Table:
    return pa.table({"id": [f"{i + offset}" for i in range(rows)], "x": pa.array(range(rows), pa.int32())})


def commit(dataset: Dataset, unit: str, rows: int = 3, content: str = "c") -> Commit:
    ref = dataset.publish_shard(table(rows))
    return Commit(
        unit=unit,
        source="s",
        recipe="r",
        inputs=(InputRef(uri=unit, digest=content, bytes=1),),
        shards=(ref,),
        counts=Counts(records_in=rows, kept=rows, examples_written=rows),
    )


def test_same_rows_give_the_same_bytes_however_they_were_put_together(tmp_path: Path) -> None:
    dataset = Dataset(str(tmp_path), "d")
    whole = table(700)
    pieces = pa.concat_tables([whole.slice(0, 13), whole.slice(13, 500), whole.slice(513)])
    refs = {dataset.publish_shard(part) for part in (whole, pieces, pa.concat_tables([table(1), whole]).slice(1))}
    assert len(refs) == 1
    assert dataset.read(refs.pop()).equals(whole)


def test_commits_and_manifest_round_trip(tmp_path: Path) -> None:
    dataset = Dataset(str(tmp_path), "d")
    made = [commit(dataset, unit) for unit in ("b", "a")]
    for one in made:
        dataset.commit(one, {"seconds": 1.0})
    assert {one.unit for one, _ in dataset.commits()} == {"a", "b"}
    assert dataset.commits()[0][1] == {"seconds": 1.0}
    digest, manifest = dataset.publish_manifest("examples", [one for one, _ in dataset.commits()])
    assert [one.unit for one in manifest.commits] == ["a", "b"]
    assert manifest.rows == 6
    assert Dataset(str(tmp_path), "d").manifest() == (digest, manifest)
    assert dataset.manifest(digest)[1] == manifest


def test_observations_do_not_change_the_digest(tmp_path: Path) -> None:
    digests = set()
    for name, seconds in (("one", 1.0), ("two", 2.0)):
        dataset = Dataset(str(tmp_path / name), "d")
        dataset.commit(commit(dataset, "a"), {"seconds": seconds, "host": name})
        digests.add(dataset.publish_manifest("examples", [one for one, _ in dataset.commits()])[0])
    assert len(digests) == 1


def test_changed_input_is_a_second_commit_beside_the_first(tmp_path: Path) -> None:
    dataset = Dataset(str(tmp_path), "d")
    dataset.commit(commit(dataset, "a", content="old"))
    dataset.commit(commit(dataset, "a", content="old"))
    assert len(dataset.commits()) == 1
    dataset.commit(commit(dataset, "a", content="new"))
    assert len(dataset.commits()) == 2


def test_older_versions_stay_readable(tmp_path: Path) -> None:
    dataset = Dataset(str(tmp_path), "d")
    old, _ = dataset.publish_manifest("examples", [commit(dataset, "a")])
    new, _ = dataset.publish_manifest("examples", [commit(dataset, "a"), commit(dataset, "b")])
    assert old != new
    assert dataset.manifest()[0] == new
    assert len(dataset.manifest(old)[1].commits) == 1


def test_a_tampered_manifest_and_a_missing_dataset_are_named(tmp_path: Path) -> None:
    dataset = Dataset(str(tmp_path), "d")
    with pytest.raises(OmnimillError, match="no dataset 'd'"):
        dataset.manifest()
    digest, _ = dataset.publish_manifest("examples", [commit(dataset, "a")])
    path = tmp_path / "d" / "manifests" / f"{digest}.json"
    path.write_bytes(path.read_bytes().replace(b'"kept":3', b'"kept":4'))
    with pytest.raises(IntegrityError, match="hashes to"):
        dataset.manifest(digest)


def test_an_account_that_does_not_balance_is_refused(tmp_path: Path) -> None:
    dataset = Dataset(str(tmp_path), "d")
    one = commit(dataset, "a").model_copy(update={"counts": Counts(records_in=4, kept=3)})
    with pytest.raises(IntegrityError, match="4 records went in but 3"):
        dataset.commit(one)
    assert dataset.commits() == []


def test_unit_ids_depend_on_files_and_options_only() -> None:
    first = Unit(source="s", files=("a", "b"), options={"x": 1, "y": 2})
    assert first.id == Unit(source="s", files=("a", "b"), options={"y": 2, "x": 1}).id
    assert len({first.id, Unit(source="s", files=("ab",)).id, Unit(source="t", files=("a", "b")).id}) == 3


REASONS = st.dictionaries(st.sampled_from(["a", "b", "c"]), st.integers(0, 50))
COUNTS = st.builds(
    Counts,
    records_in=st.integers(0, 99),
    kept=st.integers(0, 99),
    records_dropped=REASONS,
    quarantined=REASONS,
    examples_written=st.integers(0, 99),
    examples_dropped=REASONS,
)


@settings(max_examples=30)
@given(st.lists(COUNTS, max_size=5))
def test_totals_add_up_in_any_grouping(counts: list[Counts]) -> None:
    middle = len(counts) // 2
    assert total(counts) == total([total(counts[:middle]), total(counts[middle:])])
    assert total(counts).records_in == sum(one.records_in for one in counts)
    for reason in ("a", "b", "c"):
        expected = sum(one.quarantined.get(reason, 0) for one in counts)
        assert total(counts).quarantined.get(reason, 0) == expected


def test_a_copy_of_a_unit_with_other_values_has_an_id_of_its_own() -> None:
    unit = Unit(source="s", files=("a",))
    other = Unit(source="s", files=("a",), options={"table": "t"})
    assert unit.id != other.id
    assert unit.model_copy(update={"options": {"table": "t"}}).id == other.id
