"""A driver killed at any moment loses nothing and doubles nothing: the next run ends where an undisturbed one does."""

from __future__ import annotations

import json
import signal
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
from faults.commands import Run, answer_of

from omnimill import rng
from omnimill.config import load_config
from omnimill.infra.dataset import Dataset
from omnimill.pipelines.dag import Dag
from omnimill.pipelines.run import ingest

DAG = """\
dataset: killed
sources:
  - name: pictures
    type: image_folder
    path: {folder}/pictures
    images_per_unit: 4
  - name: texts
    type: jsonl
    path: {folder}/texts
    id_field: id
"""
UNITS = 40


@pytest.fixture(scope="module")
def dag_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """24 units of pictures that take work to check, 16 of text."""
    folder = tmp_path_factory.mktemp("raw")
    for name in ("pictures", "texts"):
        (folder / name).mkdir()
    noise = rng.generator("kill", "pictures").integers(0, 256, (4, 200, 200, 3), dtype=np.uint8)
    pictures = [
        cv2.imencode(".png", cv2.resize(one, (1000, 1000), interpolation=cv2.INTER_NEAREST))[1] for one in noise
    ]
    for i in range(96):
        (folder / "pictures" / f"{i:03d}.png").write_bytes(pictures[i % 4].tobytes())
    (folder / "pictures" / "037.png").write_bytes(b"\x89PNG\r\n\x1a\n" + b"\0" * 64)
    for i in range(16):
        lines = [json.dumps({"id": f"{i}-{j}", "text": f"sentence {j} of text {i}. " * 20}) for j in range(300)]
        (folder / "texts" / f"{i:03d}.jsonl").write_text("\n".join(lines))
    path = folder / "dag.yaml"
    path.write_text(DAG.format(folder=folder))
    return path


@pytest.fixture(scope="module")
def undisturbed(dag_file: Path, tmp_path_factory: pytest.TempPathFactory, ray_local: None) -> str:
    """Digest of the manifest that a run without any kill publishes."""
    return ingest(load_config(dag_file, Dag), str(tmp_path_factory.mktemp("calm"))).digest


def commits(root: Path) -> int:
    return len(list((root / "killed" / "commits").glob("*.json")))


def kill_after(dag_file: Path, root: Path, units: int) -> None:
    """Run until `units` more are committed, then kill the driver and all of its session without warning."""
    goal = commits(root) + units
    run = Run("ingest", dag_file, "--root", root)
    try:
        while commits(root) < goal and run.process.poll() is None:
            time.sleep(0.005)
    finally:
        run.kill()
    assert run.process.returncode == -signal.SIGKILL, "the run ended before it was killed"
    assert run.wait_until_gone() == []


def finish(dag_file: Path, root: Path) -> dict[str, object]:
    run = Run("ingest", dag_file, "--root", root)
    out, err = run.process.communicate(timeout=240)
    assert run.process.returncode == 0, err
    assert run.wait_until_gone() == []
    return json.loads(out)


def check(root: Path, answer: dict[str, object], undisturbed: str) -> None:
    digest, manifest = Dataset(str(root), "killed").manifest()
    assert answer["manifest"] == digest == undisturbed
    assert len(manifest.commits) == UNITS
    rows = [row for commit in manifest.commits for shard in commit.shards for row in _keys(root, shard)]
    assert len(rows) == len(set(rows)) == 95 + 16 * 300
    assert manifest.counts.records_in == 96 + 16 * 300
    named = {shard.digest for commit in manifest.commits for shard in commit.shards}
    stored = {path.stem for path in (root / "killed" / "shards").glob("*.arrow")}
    assert named <= stored
    assert all("partial" not in name for name in named)


def _keys(root: Path, shard: object) -> list[tuple[str, str]]:
    table = Dataset(str(root), "killed").read(shard)  # type: ignore[arg-type]
    return list(zip(table.column("source").to_pylist(), table.column("key").to_pylist(), strict=True))


@pytest.mark.ray
def test_a_kill_and_a_restart_give_the_undisturbed_manifest(dag_file: Path, undisturbed: str, tmp_path: Path) -> None:
    kill_after(dag_file, tmp_path, 7)
    before = commits(tmp_path)
    answer = finish(dag_file, tmp_path)
    assert before >= 7
    assert answer["committed"] <= UNITS - before  # type: ignore[operator]
    check(tmp_path, answer, undisturbed)


def two_nodes(dag_file: Path, root: Path, victim: str, *moments: int) -> dict[str, object]:
    """Ingest on a cluster of two nodes that loses a victim each time there are so many commits."""
    return answer_of("two_nodes", dag_file, root, victim, *moments, timeout=240)


@pytest.mark.fault
@pytest.mark.ray
def test_a_node_that_is_lost_costs_nothing(dag_file: Path, undisturbed: str, tmp_path: Path) -> None:
    answer = two_nodes(dag_file, tmp_path, "node", 8)
    assert answer["killed"] == ["node"]
    check(tmp_path, answer, undisturbed)


@pytest.mark.ray
@pytest.mark.fault
@pytest.mark.timeout(900)
@pytest.mark.parametrize(("victim", "moments"), [("worker", (2, 5, 9, 14, 20)), ("node", (1,)), ("node", (20,))])
def test_workers_and_nodes_that_are_lost(
    dag_file: Path, undisturbed: str, tmp_path: Path, victim: str, moments: tuple[int, ...]
) -> None:
    answer = two_nodes(dag_file, tmp_path, victim, *moments)
    assert len(answer["killed"]) == len(moments)  # type: ignore[arg-type]
    check(tmp_path, answer, undisturbed)


@pytest.mark.ray
@pytest.mark.fault
@pytest.mark.timeout(900)
@pytest.mark.parametrize("seed", range(3))
def test_kills_at_many_moments(dag_file: Path, undisturbed: str, tmp_path: Path, seed: int) -> None:
    for kill in range(6):
        if commits(tmp_path) < UNITS - 6:
            kill_after(dag_file, tmp_path, rng.digest64("kill", "long", seed, kill) % 7)
    check(tmp_path, finish(dag_file, tmp_path), undisturbed)
