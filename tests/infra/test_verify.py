"""What is missing, altered or without a name is found, and nothing that has one is given up."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pytest

from omnimill.cli.main import main
from omnimill.errors import OmnimillError
from omnimill.infra.dataset import DROPS_SCHEMA, Commit, Counts, Dataset, InputRef
from omnimill.infra.selections import Selection, publish_left_out, publish_selection
from omnimill.infra.verify import delete, garbage, verify

DROP = {"source": "s", "unit": "u", "key": "k", "uri": "u", "level": "record", "operator": "o", "reason": "r"}


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    """Two units of two shards in all, a drops file, a selection, and a unit that is committed but in no version."""
    made = Dataset(str(tmp_path), "set")
    shards = [made.publish_shard(pa.table({"x": [number]})) for number in range(3)]
    drops = made.publish_rejected(pa.Table.from_pylist([DROP], DROPS_SCHEMA), "drops")
    commits = [
        Commit(
            unit=f"u{number}",
            source="s",
            recipe="r",
            inputs=(InputRef(uri="f", digest="d", bytes=1),),
            shards=(shard,),
            drops=drops if number == 0 else None,
            counts=Counts(records_in=1 + (number == 0), kept=1, records_dropped={"r": 1} if number == 0 else {}),
        )
        for number, shard in enumerate(shards)
    ]
    for commit in commits:
        made.commit(commit)
    digest, _ = made.publish_manifest("examples", commits[:2])
    out = publish_left_out(
        made, shards[0].digest, [{"row": 0, "id": "0" * 32, "key": "k", "reason": "r", "kept": None}]
    )
    publish_selection(made, Selection(name="some", dataset="set", manifest=digest, config={}, kept=1, shards=(out,)))
    return made


def files(dataset: Dataset, folder: str) -> list[Path]:
    return sorted((Path(dataset.url) / folder).glob("[!.]*"))


def test_a_sound_root_has_no_faults_and_no_garbage(dataset: Dataset) -> None:
    report = verify(dataset.root)
    assert (report.files, report.faults, report.orphans) == (5, [], [])
    assert garbage(dataset.root, grace=0) == []


def test_each_kind_of_damage_is_named(dataset: Dataset, capsys: pytest.CaptureFixture[str]) -> None:
    gone, changed, _ = (Path(dataset.shard_url(commit.shards[0])) for commit, _ in dataset.commits())
    gone.unlink()
    changed.write_bytes(changed.read_bytes()[:-1] + b"\0")
    orphan = changed.with_name(f"{'ab' * 32}.arrow")
    orphan.write_bytes(b"x")
    (*_, commit) = files(dataset, "commits")
    commit.write_text("{}")
    (manifest,) = files(dataset, "manifests")
    manifest.write_bytes(manifest.read_bytes().replace(b'"u0"', b'"u9"'))
    assert main(["lineage", "verify", "--root", dataset.root, "--json"]) == 1
    found = json.loads(capsys.readouterr().out)
    assert [one["url"] for one in found["missing"]] == [str(gone)]
    altered = {one["url"] for one in found["altered"]}
    assert altered == {str(changed), str(manifest), str(Path(dataset.url) / "manifest.json")}
    assert [one["url"] for one in found["unreadable"]] == [str(commit)]
    assert str(orphan) in found["orphans"]
    with pytest.raises(OmnimillError, match="nothing of 'set' can be given up"):
        garbage(dataset.root, grace=0)


def test_only_what_has_no_name_and_is_old_is_deleted(dataset: Dataset, capsys: pytest.CaptureFixture[str]) -> None:
    before = files(dataset, "shards")
    orphan = before[0].with_name(f"{'ab' * 32}.arrow")
    orphan.write_bytes(b"left over")
    half = orphan.parent / ".partial" / "half"
    half.write_bytes(b"killed while it wr")
    assert garbage(dataset.root) == []
    assert main(["lineage", "gc", "set", "--root", dataset.root, "--older-than", "0"]) == 0
    assert orphan.exists()
    assert main(["lineage", "gc", "--root", dataset.root, "--older-than", "0", "--delete"]) == 0
    assert files(dataset, "shards") == before
    assert not half.exists()
    assert verify(dataset.root).faults == []
    delete([])
    with pytest.raises(OmnimillError, match="no dataset 'other'"):
        verify(dataset.root, ["other"])
