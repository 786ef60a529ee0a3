"""Files made to hurt: each ends where it belongs, in little memory, in seconds, and its neighbours are kept."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from faults import hostile

# Reads a source in a process of its own: verdicts, memory above what the imports take, seconds of CPU.
READER = """
import json, resource, sys, time
from omnimill.infra.dataset import Dataset
from omnimill.pipelines.dag import Pipeline
from omnimill.pipelines.process import process_unit

source = Pipeline.model_validate(json.loads(sys.argv[1])).source
dataset = Dataset(sys.argv[2], "hostile")
before, started = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
kept, found, told = 0, {}, {}
for unit in source.units():
    commit = process_unit(source, (), unit, dataset)
    kept += commit.counts.kept
    for _, table in dataset.rejected(commit):
        for row in table.slice(0, 1000).to_pylist():
            found[row["key"]] = row["reason"]
            told[row["key"]] = row.get("message", "")
answer = {
    "kept": kept,
    "found": found,
    "told": told,
    "grown": (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) << 10,
    "children": resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss << 10,
    "seconds": time.process_time() - started,
}
print(json.dumps(answer))
"""
MIB = 1 << 20


def read(kind: str, folder: Path, root: Path, **settings: object) -> dict[str, Any]:
    source = {"name": "hostile", "type": kind, "path": str(folder), **settings}
    done = subprocess.run(
        [sys.executable, "-c", READER, json.dumps(source), str(root)],
        capture_output=True,
        text=True,
        check=False,
        timeout=280,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert done.returncode == 0, done.stderr
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def test_media_and_documents(tmp_path: Path) -> None:
    expected = hostile.write_files(tmp_path / "in")
    (tmp_path / "in" / "fine.txt").write_text("A neighbour.")
    answer = read("files", tmp_path / "in", tmp_path / "root", files_per_unit=1000)
    assert answer["found"] == expected
    assert answer["kept"] == 1
    assert answer["grown"] < 300 * MIB
    assert answer["children"] < 500 * MIB
    assert answer["seconds"] < 20
    assert not [message for message in answer["told"].values() if "root:" in message], "nothing of /etc/passwd"


def test_lines(tmp_path: Path) -> None:
    hostile.write_lines(tmp_path / "in", 256 * MIB)
    answer = read("jsonl", tmp_path / "in", tmp_path / "root")
    reasons = Counter(answer["found"].values())
    assert reasons == Counter(reason for _, reason in hostile.LINES) + Counter(line_too_long=3)
    assert answer["kept"] == 1
    assert answer["grown"] < 200 * MIB
    assert answer["seconds"] < 20


def test_archives(tmp_path: Path) -> None:
    hostile.write_tars(tmp_path / "in", 20_000)
    answer = read("webdataset", tmp_path / "in", tmp_path / "root")
    tricks = {key.removeprefix("tricks.tar/"): reason for key, reason in answer["found"].items() if "tricks" in key}
    assert tricks == {
        "../../../../tmp/owned": "unsafe_member_name",
        "/etc/owned": "unsafe_member_name",
        "a/../../owned": "unsafe_member_name",
        "link0": "link_member",
        "link1": "link_member",
        "device0": "special_member",
        "device1": "special_member",
        "device2": "special_member",
    }
    assert Counter(answer["found"].values())["archive_too_large"] == 1
    assert Counter(answer["found"].values())["no_content"] == 1000, "as many as the test looks at"
    assert answer["kept"] == 1
    assert answer["grown"] < 200 * MIB
    assert answer["seconds"] < 30
    assert not list(tmp_path.parent.rglob("owned*"))


def test_tables(tmp_path: Path) -> None:
    hostile.write_parquet(tmp_path / "in")
    answer = read("parquet_text", tmp_path / "in", tmp_path / "root", max_group_bytes=100 * MIB)
    assert Counter(answer["found"].values()) == {"parquet_unreadable": 2, "row_group_too_large": 1}
    assert answer["grown"] < 100 * MIB
    assert answer["seconds"] < 10


@pytest.mark.fault
@pytest.mark.timeout(900)
def test_a_million_members_and_lines_of_gigabytes(tmp_path: Path) -> None:
    hostile.write_tars(tmp_path / "tars", 1_000_000)
    answer = read("webdataset", tmp_path / "tars", tmp_path / "root")
    assert answer["kept"] == 1
    assert answer["grown"] < 700 * MIB
    hostile.write_lines(tmp_path / "lines", 4 << 30)
    answer = read("jsonl", tmp_path / "lines", tmp_path / "root")
    assert Counter(answer["found"].values())["line_too_long"] == 4
    assert answer["grown"] < 200 * MIB
