"""Units that kill their workers: the records at fault are lost, all others come out as they would have otherwise."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from omnimill.errors import OmnimillError
from omnimill.infra import memory
from omnimill.infra.blocks import probes, units_per_block
from omnimill.infra.dataset import Commit, Dataset, Unit
from omnimill.pipelines import careful
from omnimill.pipelines.dag import Pipeline
from omnimill.pipelines.process import process_unit
from omnimill.pipelines.run import ingest
from omnimill.pipelines.work import UnitWork

Write = Callable[[dict[str, str]], str]
MIB = 1 << 20


def carefully(source: Any, root: Path, *operators: Any, memory_bytes: int = 8 << 30) -> tuple[Dataset, Commit]:
    pipeline = Pipeline.model_construct(source=source, operators=operators)
    (unit,) = source.units()
    return Dataset(str(root), "made"), UnitWork(pipeline, str(root), "made", 2, memory_bytes, 4).carefully(unit)


def rejected(dataset: Dataset, commit: Commit) -> dict[str, tuple[str, str, str, int]]:
    assert commit.quarantine is not None
    rows = dataset.read(commit.quarantine, "quarantine").to_pylist()
    return {row["key"]: (row["operator"], row["reason"], row["message"], row["tries"]) for row in rows}


@pytest.mark.fault
def test_only_the_records_that_kill_are_given_up(write: Write, script: Any, operators: Any, tmp_path: Path) -> None:
    good = "".join(f"g{i} good {'x' * 200} {i}\n" for i in range(300))
    deadly = f"{good}a kill SIGSEGV\nb bad torn\nc good fatal\nd grow 4096\ne good last\nf drop sidecar\n"
    harmless = deadly.replace("kill SIGSEGV", "bad x").replace("good fatal", "bad x").replace("grow 4096", "bad x")
    (folder := tmp_path / "in").mkdir()
    (folder / "one.txt").write_text(deadly)
    source, rules = script(path=str(folder)), (operators[0](), operators[1]())
    dataset, commit = carefully(source, tmp_path / "careful", *rules, memory_bytes=400 * MIB)
    assert rejected(dataset, commit) == {
        "a": ("decode", "worker_crashed", "its process died (SIGSEGV)", 6),
        "b": ("decode", "torn", "b is bad", 1),
        "c": ("shortest", "worker_crashed", "its process died (SIGSEGV)", 6),
        "d": ("decode", "worker_memory", "its process took more than 400 MiB", 6),
    }
    (folder / "one.txt").write_text(harmless)
    (unit,) = source.units()
    clean = process_unit(source, rules, unit, Dataset(str(tmp_path / "clean"), "made"))
    assert commit.shards == clean.shards
    assert (commit.drops, commit.counts.kept) == (clean.drops, clean.counts.kept)
    assert carefully(source, tmp_path / "again", *rules)[1] == clean, "a unit that does not kill comes out as ever"


def test_what_a_reader_that_dies_has_not_read_is_one_record(write: Write, script: Any, tmp_path: Path) -> None:
    source = script(path=write({"one": "a good x\nb lethal\nc good y\n"}))
    dataset, commit = carefully(source, tmp_path)
    (unit,) = source.units()
    assert commit.counts.kept == 1
    key = f"{unit.id}#unread-after-1"
    assert rejected(dataset, commit) == {key: ("read", "worker_crashed", "its process died (SIGABRT)", 6)}


def test_a_unit_without_a_culprit_or_with_too_many_is_given_up(
    write: Write, script: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Worse(script):  # type: ignore[misc]
        def inputs(self, unit: Unit) -> Any:
            os._exit(3)

    monkeypatch.setattr(careful, "MAX_CULPRITS", 1)
    folder = write({"one": "a kill\nb kill\nc good x\n"})
    for i, source in enumerate((Worse(path=folder), script(path=folder))):
        _, commit = carefully(source, tmp_path / f"root{i}")
        assert commit.counts.quarantined == {"worker_crashed": 1}
        assert (commit.inputs, commit.shards) == ((), ())


def test_a_fault_of_the_machine_is_no_verdict(write: Write, script: Any, tmp_path: Path) -> None:
    with pytest.raises(OmnimillError, match="MemoryError"):
        carefully(script(path=write({"one": "a raise memory\n"})), tmp_path)


def test_resident_memory_leaves_out_mapped_files() -> None:
    before = memory.resident_bytes()
    held = bytearray(64 * MIB)
    held[::4096] = b"x" * len(held[::4096])
    assert 48 * MIB < memory.resident_bytes() - before < 128 * MIB
    assert memory.resident_bytes(os.getpid()) == pytest.approx(memory.resident_bytes(), abs=16 * MIB)
    assert memory.resident_bytes(2**22 + 1) == 0


def test_small_units_share_a_block_as_long_as_cores_get_their_share() -> None:
    assert units_per_block(100_000, 0.01, cores=2) == 64
    assert units_per_block(100_000, 0.01, cores=640) == 4
    assert units_per_block(100_000, 2.0, cores=2) == 5
    assert units_per_block(100_000, 300.0, cores=2) == 1
    assert (probes(60, cores=2), probes(1000, cores=2)) == (60, 16)


def test_a_worker_that_takes_too_much_memory_ends() -> None:
    code = "import time; from omnimill.infra.memory import MemoryLimit; MemoryLimit.set(200 << 20); "
    code += "held = []\nfor _ in range(3000): held.append(b'x' * (1 << 20)); time.sleep(0.001)"
    done = subprocess.run([sys.executable, "-c", code], check=False, timeout=120)
    assert done.returncode == -signal.SIGKILL


@pytest.mark.ray
def test_a_record_that_kills_its_worker_costs_itself_only(
    write: Write, script: Any, make_dag: Any, root: str, ray_local: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also when the unit shares a block with others."""
    monkeypatch.setattr("omnimill.pipelines.graph.probes", lambda *_: 1)
    monkeypatch.setattr("omnimill.pipelines.graph.units_per_block", lambda *_: 2)
    folder = write({f"{i}": f"a{i} good x\n" for i in range(4)} | {"1": "a1 good x\nb1 kill\nc1 good y\n"})
    dag = make_dag(script(path=folder))
    result = ingest(dag, root)
    assert result.manifest.counts.kept == 5
    assert result.manifest.counts.quarantined == {"worker_crashed": 1}
    again = ingest(dag, root)
    assert (again.digest, again.committed) == (result.digest, 0)
