"""What was erased does not come back: ingested again it is dropped, and datasets made of datasets do not read it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from blake3 import blake3

from omnimill.cli.main import main
from omnimill.infra.dataset import Commit, Dataset
from omnimill.infra.erasures import Erasure, publish
from omnimill.infra.settling import settled
from omnimill.pipelines.process import process_unit
from omnimill.pipelines.sources.committed import CommittedExamplesSource
from omnimill.schema import example_id

LINES = ("a keep first", "b keep second", "c many left,right", "d drop")


def erase(root: str, **rules: tuple[str, ...]) -> None:
    publish(root, Erasure(queries=("q",), by="me", at="2026-01-01", reason="asked", rules=dict(rules)))  # type: ignore[arg-type]


def digest_of(line: str) -> str:
    return blake3(line.encode()).hexdigest()


def keys(dataset: Dataset, commit: Commit) -> list[str]:
    return [key for ref in commit.shards for key in dataset.read(ref).column("key").to_pylist()]


def dropped(dataset: Dataset, commit: Commit) -> list[tuple[str, str, str]]:
    if commit.drops is None:
        return []
    rows = dataset.read(commit.drops, "drops").select(["key", "level", "reason"]).to_pylist()
    return [tuple(row.values()) for row in rows]


@pytest.fixture
def source(script: Any, tmp_path: Path) -> Any:
    folder = tmp_path / "in"
    folder.mkdir()
    (folder / "one.txt").write_text("\n".join(LINES))
    return script(path=str(folder))


@pytest.mark.parametrize(
    ("rules", "kept"),
    [
        ({"digest": (digest_of(LINES[0]),)}, ["b", "c/0", "c/1"]),
        ({"key": ("script\x1fb",)}, ["a", "c/0", "c/1"]),
        ({"key": ("script\x1fc/1",)}, ["a", "b", "c/0"]),
        ({"id": (example_id("script", "a", digest_of(LINES[0])),)}, ["b", "c/0", "c/1"]),
        ({"source": ("script",)}, []),
        ({"input": ("one.txt",)}, []),
        ({"source": ("scripts",), "domain": ("a.org",), "licence": ("CC0-1.0",)}, ["a", "b", "c/0", "c/1"]),
    ],
)
def test_a_record_that_comes_in_again_is_dropped(
    source: Any, tmp_path: Path, rules: dict[str, tuple[str, ...]], kept: list[str]
) -> None:
    (unit,) = source.units()
    rules = {
        kind: tuple(unit.files[0] if one == "one.txt" else one for one in values) for kind, values in rules.items()
    }
    erase(str(tmp_path), **rules)
    dataset = Dataset(str(tmp_path), "texts")
    commit = process_unit(source, (), unit, dataset)
    assert keys(dataset, commit) == kept
    gone = [key for key, _, reason in dropped(dataset, commit) if reason == "erased"]
    whole = len(kept) == 0
    assert {key.split("/")[0] for key in gone} == (
        {"a", "b", "c", "d"} if whole else {"a", "b", "c"} - {one[0] for one in kept} | {one[0] for one in gone}
    )
    assert commit.counts.records_in == 4
    again = process_unit(source, (), unit, Dataset(str(tmp_path), "again"), threads=1)
    assert (again.shards, again.counts) == (commit.shards, commit.counts)


def test_bytes_of_an_erased_record_are_not_kept_in_quarantine(source: Any, tmp_path: Path) -> None:
    (unit,) = source.units()
    Path(unit.files[0]).write_text("x bad spoiled\ny bad spoiled")
    erase(str(tmp_path), digest=(digest_of("x bad spoiled"),))
    dataset = Dataset(str(tmp_path), "texts")
    commit = process_unit(source, (), unit, dataset)
    assert commit.quarantine is not None
    assert dataset.read(commit.quarantine, "quarantine").column("key").to_pylist() == ["y"]
    assert dropped(dataset, commit) == [("x", "record", "erased")]


def test_what_was_quarantined_before_is_not_shown(
    source: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (unit,) = source.units()
    Path(unit.files[0]).write_text("x bad spoiled\ny bad spoiled")
    dataset = Dataset(str(tmp_path), "texts")
    dataset.publish_manifest("examples", [process_unit(source, (), unit, dataset)])
    erase(str(tmp_path), key=("script\x1fx",))
    assert main(["quarantine", "show", "texts", "--root", str(tmp_path), "--json"]) == 0
    assert [record["key"] for record in json.loads(capsys.readouterr().out)["records"]] == ["y"]


def test_what_stands_is_left_out_where_a_dataset_is_made_of_it(source: Any, tmp_path: Path) -> None:
    root = str(tmp_path)
    texts, copy = Dataset(root, "texts"), Dataset(root, "copy")
    (unit,) = source.units()
    commit = process_unit(source, (), unit, texts)
    texts.publish_manifest("examples", [commit])
    reader = CommittedExamplesSource(type="examples", name="copied", path=texts.url).pinned()
    (before,) = reader.units()
    made = process_unit(reader, (), before, copy)
    assert keys(copy, made) == ["a", "b", "c/0", "c/1"]
    version, manifest = copy.publish_manifest("examples", [made], {"texts": texts.manifest()[0]})

    erase(root, id=(example_id("script", "b", digest_of(LINES[1])),))
    (after,) = reader.units()
    assert after == before
    other = Dataset(root, "other")
    assert keys(other, process_unit(reader, (), after, other)) == ["a", "c/0", "c/1"]
    # The same unit, committed before, stays as it is; its readers leave the row out.
    assert process_unit(reader, (), after, copy) == made
    assert settled(copy, version, manifest).rows(made.shards[0].digest).tolist() == [1]
