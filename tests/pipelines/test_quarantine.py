"""``omnimill quarantine show`` and the answers of ``omnimill ingest --json``."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from omnimill.cli.main import main
from omnimill.infra.dataset import Dataset
from omnimill.pipelines.process import process_unit
from omnimill.pipelines.sources.jsonl import JsonlSource

Write = Callable[[dict[str, str]], str]


@pytest.fixture
def filled(write: Write, script: Any, tmp_path: Path) -> str:
    """A root with a dataset of two sources, six quarantined records."""
    folder, root = (
        write({"one": "a bad torn\nb bad torn\nc bad empty_file\nd good x\ne drop sidecar\n"}),
        str(tmp_path / "root"),
    )
    dataset = Dataset(root, "made")
    sources = [script(path=folder, name=name) for name in ("first", "second")]
    commits = [process_unit(source, (), unit, dataset) for source in sources for unit in source.units()]
    dataset.publish_manifest("examples", commits)
    return root


def show(capsys: pytest.CaptureFixture[str], root: str, *options: str) -> dict[str, Any]:
    assert main(["quarantine", "show", "made", "--root", root, "--json", *options]) == 0
    answer: dict[str, Any] = json.loads(capsys.readouterr().out)
    return answer


def test_show_counts_all_and_lists_up_to_the_limit(filled: str, capsys: pytest.CaptureFixture[str]) -> None:
    answer = show(capsys, filled, "--limit", "2")
    assert answer["manifest"] == Dataset(filled, "made").manifest()[0]
    assert (answer["total"], answer["reasons"]) == (6, {"empty_file": 2, "torn": 4})
    assert len(answer["records"]) == 2
    first = answer["records"][0]
    assert (first["source"], first["key"], first["operator"], first["reason"]) == ("first", "a", "decode", "torn")
    assert first["uri"].endswith("one.txt")
    assert first["data_bytes"] == len("a bad torn")
    assert (first["message"], first["tries"], first["offset"], first["length"]) == ("a is bad", 1, None, None)


def test_show_filters_by_reason_and_source(filled: str, capsys: pytest.CaptureFixture[str]) -> None:
    answer = show(capsys, filled, "--reason", "torn", "--source", "second")
    assert [(row["source"], row["key"]) for row in answer["records"]] == [("second", "a"), ("second", "b")]
    assert show(capsys, filled, "--reason", "nothing_like_it")["total"] == 0


def test_show_for_people(filled: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["quarantine", "show", "made", "--root", filled]) == 0
    out = capsys.readouterr().out
    assert "6 quarantined records" in out
    assert "torn" in out


def test_a_dataset_that_is_not_there_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["quarantine", "show", "absent", "--root", str(tmp_path)]) == 1
    assert "no dataset 'absent'" in capsys.readouterr().err.replace("\n", " ")


def test_show_tells_the_range_of_bytes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "in.jsonl").write_text('{"text": "fine"}\n{broken\n')
    source = JsonlSource(name="lines", type="jsonl", path=str(tmp_path / "in.jsonl"))
    dataset = Dataset(str(tmp_path / "root"), "made")
    (unit,) = source.units()
    dataset.publish_manifest("examples", [process_unit(source, (), unit, dataset)])
    (row,) = show(capsys, str(tmp_path / "root"))["records"]
    where = row["offset"], row["offset"] + row["length"]
    assert Path(row["uri"]).read_bytes()[slice(*where)] == b"{broken"
    assert main(["quarantine", "show", "made", "--root", str(tmp_path / "root")]) == 0
    assert f"[{where[0]}:{where[1]}]" in "".join(capsys.readouterr().out.split())


def test_show_lists_drops(filled: str, capsys: pytest.CaptureFixture[str]) -> None:
    answer = show(capsys, filled, "--drops")
    assert (answer["total"], answer["reasons"]) == (2, {"sidecar": 2})
    assert [(row["source"], row["key"], row["level"]) for row in answer["records"]] == [
        ("first", "e", "record"),
        ("second", "e", "record"),
    ]
    assert main(["quarantine", "show", "made", "--root", filled, "--drops"]) == 0
    assert "2 dropped records and examples" in capsys.readouterr().out


def test_replay_asks_for_the_dataset_that_the_dag_makes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    dag = tmp_path / "dag.yaml"
    dag.write_text(f"dataset: texts\nsources: [{{name: a, type: jsonl, path: {tmp_path}}}]\n")
    assert main(["quarantine", "replay", "made", str(dag), "--root", str(tmp_path)]) == 2
    assert "makes dataset 'texts', not 'made'" in capsys.readouterr().err.replace("\n", " ")
