"""Two versions of a dataset, and what is told of their difference."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from omnimill.cli.main import main
from omnimill.errors import OmnimillError
from omnimill.infra import lineage
from omnimill.infra.dataset import Commit, Counts, Dataset
from omnimill.infra.erasures import Erasure, publish
from omnimill.infra.version_diff import open_version, version_diff
from omnimill.schema import Example, Provenance, Text, example_id, to_table


def commit(dataset: Dataset, unit: str, keys: str, recipe: str = "r", source: str = "web", bad: int = 0) -> Commit:
    """A unit of an example for each letter; `bad` records were dropped."""
    rows = [
        Example(
            id=example_id(source, key, key),
            source=source,
            unit=unit,
            key=key,
            provenance=Provenance(uri=f"/{key}", digest=key),
            text=[Text(role="body", text=key)],
        )
        for key in keys
    ]
    counts = Counts(
        records_in=len(rows) + bad,
        kept=len(rows),
        examples_written=len(rows),
        records_dropped={"short": bad} if bad else {},
    )
    shard = dataset.publish_shard(to_table(rows))
    return Commit(unit=unit, source=source, recipe=recipe, inputs=(), shards=(shard,), counts=counts)


@pytest.fixture
def root(tmp_path: Path) -> str:
    """A dataset of two versions: a unit goes, one comes, one is changed by a recipe, one is done again as it was."""
    dataset = Dataset(str(tmp_path), "texts")
    stays = [commit(dataset, "same", "ab"), commit(dataset, "m0", "x", source="maps")]
    before = [commit(dataset, "again", "cd"), commit(dataset, "made", "ef"), commit(dataset, "gone", "gh")]
    dataset.publish_manifest("examples", [*stays, *before], {"raw": "1" * 64}, {"layout": {"codes": 4}})
    after = [
        commit(dataset, "again", "cd", "s"),
        commit(dataset, "made", "e", "s", bad=1),
        commit(dataset, "new", "gi"),
    ]
    dataset.publish_manifest("examples", [*stays, *after], {"raw": "2" * 64}, {"layout": {"codes": 8}, "more": 1})
    return str(tmp_path)


def first_version(root: str) -> str:
    """The digest of the version that is not the current one."""
    current = Dataset(root, "texts").manifest()[0]
    (first,) = (path.stem for path in Path(root, "texts", "manifests").glob("*.json") if path.stem != current)
    return first


def test_two_versions(root: str, capsys: pytest.CaptureFixture[str]) -> None:
    first = first_version(root)
    assert main(["lineage", "diff", first, "texts", "--rows", "--root", root, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["sources"] == {
        "web": {
            "units": {"removed": 1, "added": 1, "changed": 1, "done_again": 1},
            "rows": [8, 7],
            "recipes": [{"r": 4}, {"r": 2, "s": 2}],
            "turned_down": {"records_dropped.short": [0, 1]},
        }
    }
    assert found["shards"] == {"removed": 2, "added": 2}
    assert found["rows"] == {"removed": 2, "added": 1}
    assert found["attributes"] == {"layout.codes": [4, 8], "more": [None, 1]}
    assert found["parents"] == {"raw": ["1" * 64, "2" * 64]}
    assert [one["rows"] for one in found["versions"]] == [9, 8]
    assert main(["lineage", "diff", f"texts@{first[:12]}", "texts", "--root", root]) == 0
    assert "web.turned_down.records_dropped.short" in capsys.readouterr().out


def test_nothing_is_told_of_what_is_the_same(root: str, capsys: pytest.CaptureFixture[str]) -> None:
    rules = {"id": (example_id("web", "a", "a"),)}
    publish(root, Erasure(queries=("q",), by="me", at="2026", reason="asked", rules=rules))  # type: ignore[arg-type]
    one = open_version(root, "texts")
    assert one is not None
    found = version_diff(one, one, rows=True)
    assert found["sources"] == found["attributes"] == found["parents"] == {}
    assert found["rows"] == {"removed": 0, "added": 0}
    assert [version["erased"] for version in found["versions"]] == [1, 1]
    assert main(["lineage", "diff", "texts", "texts", "--root", root]) == 0
    assert "Nothing is different." in capsys.readouterr().out


def test_two_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = str(tmp_path)
    for name, width, data, loss in (("one", 4, "1" * 64, 2.0), ("two", 8, "2" * 64, 1.5)):
        with lineage.command_run(root, "train", {"width": width, "depth": 2, "versions": name}, name) as run:
            run.input("tokens", data, f"{root}/tokens")
            run.metrics({"loss": 9.0, "steps": 3}, 0)
            run.metrics({"loss": loss}, 1)
    assert main(["lineage", "diff", "one", "two", "--root", root, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["config"] == {"width": [4, 8]}
    assert found["inputs"] == {"tokens": ["1" * 64, "2" * 64]}
    assert found["metrics"] == {"loss": [2.0, 1.5]}
    assert found["code"] == {}
    assert [run["command"] for run in found["runs"]] == ["train", "train"]
    assert main(["lineage", "diff", found["runs"][0]["run"], "two", "--root", root]) == 0
    assert "width" in capsys.readouterr().out


def test_what_cannot_be_compared_is_said(root: str, capsys: pytest.CaptureFixture[str]) -> None:
    lineage.runs(root)
    assert main(["lineage", "diff", "texts", "nothing", "--root", root]) == 2
    assert "compare two versions or two runs" in capsys.readouterr().err
    assert main(["lineage", "diff", "none", "nothing", "--root", root]) == 1
    assert "none: neither a version" in capsys.readouterr().err
    folder = Path(root, "texts", "manifests")
    for number, path in enumerate(sorted(folder.glob("*.json"))):
        path.rename(folder / f"{'a' * 12}{number}.json")
    with pytest.raises(OmnimillError, match="several versions begin so"):
        open_version(root, "a" * 12)
