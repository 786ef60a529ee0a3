"""Whole ingestions: what is done again and what is not, budgets, lost workers, lineage."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from omnimill.errors import ConfigError, OmnimillError
from omnimill.infra import lineage
from omnimill.infra.dataset import Dataset, Unit
from omnimill.infra.rejections import REASONS, SAMPLE
from omnimill.pipelines.process import process_unit
from omnimill.pipelines.replay import replay
from omnimill.pipelines.run import ingest
from omnimill.pipelines.summary import SOURCE

Write = Callable[[dict[str, str]], str]

FILES = {f"part{i}": f"a{i} good hello {i}\nb{i} bad image_truncated\nc{i} drop sidecar\n" for i in range(4)}

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("ray_local")]


def done(result: Any) -> tuple[int, int]:
    return result.committed, len(result.manifest.commits)


def test_ingest_answers_with_accounts_and_lineage(write: Write, script: Any, make_dag: Any, root: str) -> None:
    dag = make_dag(script(path=write(FILES), licence="CC0"))
    result = ingest(dag, root)
    answer = result.as_json()
    assert answer["units"] == 4
    records = {"in": 12, "kept": 4, "dropped": {"sidecar": 4}, "quarantined": {"image_truncated": 4}}
    assert answer["records"] == records
    assert answer["examples"] == {"written": 4, "dropped": {}}
    assert answer["manifest"] == Dataset(root, "made").manifest()[0]
    (run,) = lineage.runs(root, "ingest")
    assert run.info.status == "FINISHED"
    (output,), (read,) = lineage.references(run, "output"), lineage.references(run, "input")
    assert (output.name, output.digest, output.url) == ("made", answer["manifest"], f"{root}/made")
    assert (read.name, read.url) == ("script", dag.sources[0].source.path)
    assert run.data.metrics["records_in"] == 12
    assert run.data.tags["omnimill.licence.script"] == "CC0"
    (source,) = lineage.runs(root, SOURCE)
    assert source.data.tags["mlflow.parentRunId"] == run.info.run_id
    assert (source.info.status, source.data.metrics["records_quarantined"]) == ("FINISHED", 4)
    assert [one.digest for one in lineage.references(source, "input")] == [read.digest]
    tables = {name: table(root, run.info.run_id, name) for name in (REASONS, SAMPLE)}
    assert tables[REASONS] == [
        {"source": "script", "what": "record", "verdict": "dropped", "reason": "sidecar", "count": 4},
        {"source": "script", "what": "record", "verdict": "quarantined", "reason": "image_truncated", "count": 4},
    ]
    assert len(tables[SAMPLE]) == 3, "as many as of one reason are shown"
    assert all(row["message"] == f"{row['key']} is bad" for row in tables[SAMPLE])


def table(root: str, run: str, name: str) -> list[dict[str, Any]]:
    found = json.loads(Path(lineage.client(root).download_artifacts(run, name)).read_text())
    return [dict(zip(found["columns"], row, strict=True)) for row in found["data"]]


def test_a_second_run_does_only_what_changed(
    write: Write, script: Any, operators: Any, make_dag: Any, root: str, capfd: pytest.CaptureFixture[str]
) -> None:
    folder = write(FILES)
    dag = make_dag(script(path=folder))
    first = ingest(dag, root)
    assert done(first) == (4, 4)

    again = ingest(dag, root)
    assert done(again) == (0, 4)
    assert again.digest == first.digest
    assert "4 of 4 units already committed, nothing to do" in capfd.readouterr().err.replace("\n", " ")

    os.utime(f"{folder}/part0.txt", (1, 1))
    touched = ingest(dag, root)
    assert touched.digest == first.digest
    assert done(ingest(dag, root)) == (0, 4), "the new time is remembered"

    write({"part1": "a1 good changed\n"})
    Path(folder, "part2.txt").unlink()
    write({"part9": "a9 good new\n"})
    changed = ingest(dag, root)
    assert done(changed) == (2, 4)
    keys = {row["key"] for commit in changed.manifest.commits for row in rows(root, commit)}
    assert keys == {"a0", "a1", "a3", "a9"}

    selected = ingest(make_dag(script(path=folder, only="9")), root)
    assert done(selected) == (0, 1)
    assert done(ingest(make_dag(script(path=folder), operators=[operators[1]()]), root)) == (4, 4)
    assert done(ingest(dag, root)) == (0, 4), "what an older DAG made is still there"


def rows(root: str, commit: Any) -> list[dict[str, Any]]:
    return [row for ref in commit.shards for row in Dataset(root, "made").read(ref).to_pylist()]


def test_a_share_above_the_budget_fails_and_keeps_the_commits(
    write: Write, script: Any, make_dag: Any, root: str
) -> None:
    folder = write(FILES)
    with pytest.raises(OmnimillError) as caught:
        ingest(make_dag(script(path=folder), max_quarantined_share=0.3), root)
    message = str(caught.value)
    assert "source 'script': 4 of 12 records are quarantined (33.3%), max_quarantined_share is 30.0%" in message
    assert "omnimill quarantine show made" in message
    dataset = Dataset(root, "made")
    with pytest.raises(OmnimillError, match="no dataset"):
        dataset.manifest()
    _, left = dataset.manifest(message.rsplit(" ", 1)[1])
    assert left.counts.records_in == 12
    assert lineage.runs(root, "ingest")[0].info.status == "FAILED"
    assert done(ingest(make_dag(script(path=folder), max_quarantined_share=0.4), root)) == (0, 4)


def test_too_many_in_a_row_stop_the_source(write: Write, script: Any, make_dag: Any, root: str) -> None:
    folder = write({f"part{i:02d}": f"a{i} bad forbidden\n" for i in range(30)})
    with pytest.raises(OmnimillError, match="3 records in a row were quarantined"):
        ingest(make_dag(script(path=folder), max_consecutive_quarantined=3), root)


def test_a_unit_that_fails_on_this_machine_lets_the_others_finish(
    write: Write, script: Any, make_dag: Any, root: str
) -> None:
    folder = write({**FILES, "part1": "a raise memory\n"})
    with pytest.raises(OmnimillError, match=r"(?s)part1\.txt.*failed.*MemoryError") as caught:
        ingest(make_dag(script(path=folder)), root)
    assert "source 'script'" in str(caught.value)
    assert len(Dataset(root, "made").commits()) == 3
    (source,) = lineage.runs(root, SOURCE)
    assert source.info.status == "FAILED"
    assert "MemoryError" in source.data.tags["omnimill.error"]


def test_empty_sources_are_errors(write: Write, script: Any, make_dag: Any, root: str) -> None:
    with pytest.raises(OmnimillError, match=r"'script' \(type: script, path: /nowhere\) lists no units"):
        ingest(make_dag(script(path="/nowhere")), root)
    with pytest.raises(OmnimillError, match=r"'script'.*holds no record at all in 2 units"):
        ingest(make_dag(script(path=write({"one": "", "two": ""}))), root)


def test_replay_does_again_what_was_quarantined_and_keeps_the_commits(
    write: Write, script: Any, make_dag: Any, root: str, tmp_path: Path
) -> None:
    site = tmp_path / "site"
    folder = write({**FILES, "part9": f"a9 good x\nb9 needs {site}\n"})
    dag = make_dag(script(path=folder))
    first = ingest(dag, root)
    assert first.manifest.counts.quarantined == {"image_truncated": 4, "site_away": 1}
    before = {path: path.read_bytes() for path in Path(root, "made", "commits").glob("*.json")}
    assert replay(dag, root, "http_503") is None

    site.touch()
    assert ingest(dag, root).digest == first.digest, "nothing tells that a record can be read now"
    os.utime(f"{folder}/part9.txt", (2, 2))
    again = replay(dag, root, "site_away")
    assert again is not None
    assert done(again) == (1, 5)
    assert again.manifest.counts.quarantined == {"image_truncated": 4}
    assert [commit.attempt for commit in again.manifest.commits if commit.attempt] == [1]
    assert before.items() <= {path: path.read_bytes() for path in Path(root, "made", "commits").glob("*.json")}.items()
    assert Dataset(root, "made").manifest(first.digest)[1] == first.manifest

    assert ingest(dag, root).digest == again.digest, "what came of it stays"
    os.utime(f"{folder}/part9.txt", (1, 1))
    assert ingest(dag, root).digest == again.digest, "also when the file was touched"
    assert replay(dag, root, "site_away") is None
    twice = replay(dag, root, source="script")
    assert twice is not None
    assert done(twice) == (4, 5)
    assert sorted(commit.attempt for commit in twice.manifest.commits) == [1, 1, 1, 1, 1]
    assert twice.manifest.counts == again.manifest.counts
    with pytest.raises(ConfigError, match="no source 'other'; it has script"):
        replay(dag, root, source="other")


def test_a_replay_that_was_stopped_goes_on(write: Write, script: Any, make_dag: Any, root: str, tmp_path: Path) -> None:
    site = tmp_path / "site"
    dag = make_dag(script(path=write({f"part{i}": f"a{i} good x\nb{i} needs {site}\n" for i in range(3)})))
    ingest(dag, root)
    site.touch()
    source = dag.sources[0].source
    process_unit(source, (), next(source.units()), Dataset(root, "made"), attempts=(1,))
    result = replay(dag, root)
    assert result is not None
    assert done(result) == (2, 3)
    assert result.manifest.counts.kept == 6


def test_a_replay_that_comes_to_nothing_leaves_the_unit_as_it_was(
    write: Write, script: Any, make_dag: Any, root: str, tmp_path: Path
) -> None:
    gone = tmp_path / "gone"

    class Flaky(script):  # type: ignore[misc]
        def inputs(self, unit: Unit) -> Any:
            if gone.exists():
                raise OSError("the disk is gone")
            return super().inputs(unit)

    dag = make_dag(Flaky(path=write({"one": f"a good x\nb needs {tmp_path / 'site'}\n"})))
    first = ingest(dag, root)
    gone.touch()
    again = replay(dag, root)
    assert again is not None
    assert again.digest == first.digest


def test_content_that_changed_behind_its_name_size_and_time(
    write: Write, script: Any, make_dag: Any, root: str
) -> None:
    folder = write(FILES)
    dag = make_dag(script(path=folder))
    first = ingest(dag, root)
    assert done(ingest(dag, root, verify_inputs=True)) == (4, 4)
    assert Dataset(root, "made").manifest()[0] == first.digest

    file = Path(folder, "part1.txt")
    times = (file.stat().st_atime_ns, file.stat().st_mtime_ns)
    file.write_text(FILES["part1"].replace("hello", "other"))
    os.utime(file, ns=times)
    assert done(changed := ingest(dag, root)) == (1, 4), "the file's record says so"
    assert changed.digest != first.digest
