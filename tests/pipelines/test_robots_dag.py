"""The DAG of robot episodes runs on small datasets in the layouts of LeRobot v2.1 and v3.0, RLDS and ALFRED."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import av
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from layouts.scenes import picture, write
from tfrecords import example, tfrecord

from omnimill.config import load_config
from omnimill.pipelines.dag import Dag
from omnimill.pipelines.run import ingest

DAG = Path(__file__).parents[2] / "pipelines" / "dags" / "robots.yaml"
CAMERA = "observation.images.top"
FPS = 10
STEPS = 10


def film(path: Path, frames: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=FPS)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for number in range(frames):
            pixels = np.full((48, 64, 3), 20 + 5 * number, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode())


def steps(episode: int, **columns: Any) -> dict[str, list[Any]]:
    numbers = range(STEPS)
    return {
        "observation.state": [[0.1 * step, float(episode)] for step in numbers],
        "action": [[0.1 * step] for step in numbers],
        "timestamp": [step / FPS for step in numbers],
        "episode_index": [episode] * STEPS,
        "task_index": [0] * STEPS,
        **columns,
    }


def features(kind: str) -> dict[str, Any]:
    return {
        "observation.state": {"dtype": "float32", "shape": [2], "names": ["x", "y"]},
        "action": {"dtype": "float32", "shape": [1], "names": ["dx"]},
        CAMERA: {"dtype": kind, "shape": [48, 64, 3], "names": ["height", "width", "channel"]},
    }


def lerobot_v21(root: Path) -> None:
    """Two episodes that keep their pictures in Parquet; a third is listed but not there."""
    info = {
        "codebase_version": "v2.1",
        "fps": FPS,
        "chunks_size": 1000,
        "data_path": "data/chunk-{episode_chunk:03d}/episode_{episode_index:06d}.parquet",
        "video_path": None,
        "features": features("image"),
    }
    write(root / "meta" / "info.json", json.dumps(info))
    lines = [{"episode_index": number, "tasks": ["wave"], "length": STEPS} for number in range(3)]
    write(root / "meta" / "episodes.jsonl", "\n".join(map(json.dumps, lines)))
    write(root / "meta" / "tasks.jsonl", json.dumps({"task_index": 0, "task": "wave"}))
    (root / "data" / "chunk-000").mkdir(parents=True)
    for number in range(2):
        pictures = [{"bytes": picture("v21", number, step), "path": None} for step in range(STEPS)]
        table = pa.table(steps(number, **{CAMERA: pictures}))
        pq.write_table(table, root / "data" / "chunk-000" / f"episode_{number:06d}.parquet")


def lerobot_v30(root: Path) -> None:
    """Two episodes in one data file and one video."""
    info = {
        "codebase_version": "v3.0",
        "fps": FPS,
        "chunks_size": 1000,
        "data_path": "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet",
        "video_path": "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4",
        "features": features("video"),
    }
    write(root / "meta" / "info.json", json.dumps(info))
    for folder in ("meta/episodes/chunk-000", "data/chunk-000"):
        (root / folder).mkdir(parents=True)
    pq.write_table(pa.table({"task_index": [0], "task": ["wave"]}), root / "meta" / "tasks.parquet")
    episodes = {
        "episode_index": [0, 1],
        "tasks": [["wave"], ["wave"]],
        "length": [STEPS, STEPS],
        "data/chunk_index": [0, 0],
        "data/file_index": [0, 0],
        "dataset_from_index": [0, STEPS],
        "dataset_to_index": [STEPS, 2 * STEPS],
        f"videos/{CAMERA}/chunk_index": [0, 0],
        f"videos/{CAMERA}/file_index": [0, 0],
        f"videos/{CAMERA}/from_timestamp": [0.0, STEPS / FPS],
        f"videos/{CAMERA}/to_timestamp": [STEPS / FPS, 2 * STEPS / FPS],
    }
    pq.write_table(pa.table(episodes), root / "meta" / "episodes" / "chunk-000" / "file-000.parquet")
    both = pa.concat_tables([pa.table(steps(0)), pa.table(steps(1))])
    pq.write_table(both, root / "data" / "chunk-000" / "file-000.parquet")
    film(root / "videos" / CAMERA / "chunk-000" / "file-000.mp4", 2 * STEPS)


def bridge(root: Path) -> None:
    """A training split, and a validation split that repeats an episode of it before a damaged one."""

    def episode(number: int) -> bytes:
        return example(
            {
                "steps/observation/image_0": [picture("bridge", number, step) for step in range(STEPS)],
                "steps/observation/state": [0.1 * number * step for step in range(STEPS) for _ in range(7)],
                "steps/action": [0.1] * 7 * STEPS,
                "steps/language_instruction": [b"put the pot on the stove"] * STEPS,
                "steps/is_first": [int(step == 0) for step in range(STEPS)],
                "steps/is_last": [int(step == STEPS - 1) for step in range(STEPS)],
                "episode_metadata/has_image_0": [1],
            }
        )

    write(root / "1.0.0" / "bridge_dataset-train.tfrecord-00000-of-00001", tfrecord(map(episode, (1, 2))))
    damaged = bytearray(tfrecord(map(episode, (2, 3))))
    damaged[-100] ^= 1
    write(root / "1.0.0" / "bridge_dataset-val.tfrecord-00000-of-00001", bytes(damaged))
    write(root / "1.0.0" / "dataset_info.json", json.dumps({"name": "bridge_dataset", "fileFormat": "tfrecord"}))


def alfred(root: Path) -> None:
    folder = root / "train" / "look_at_obj_in_light-AlarmClock-None-DeskLamp-323" / "trial_T20190909_044715_250790"
    action = {"api_action": {"action": "MoveAhead"}, "discrete_action": {"action": "MoveAhead_25"}, "high_idx": 0}
    trial = {
        "images": [{"high_idx": 0, "low_idx": step, "image_name": f"{step:09d}.png"} for step in range(7)],
        "plan": {"high_pddl": [], "low_actions": [action] * 7},
        "scene": {"floor_plan": "FloorPlan323"},
        "task_id": folder.name,
        "task_type": "look_at_obj_in_light",
        "turk_annotations": {"anns": [{"task_desc": "Look at the clock.", "high_descs": ["Walk on."]}]},
    }
    write(folder / "traj_data.json", json.dumps(trial))
    for step in range(7):
        write(folder / "raw_images" / f"{step:09d}.jpg", picture("alfred", step))


@pytest.mark.ray
def test_robots(tmp_path: Path, ray_local: None, monkeypatch: pytest.MonkeyPatch) -> None:
    data = tmp_path / "data" / "robots"
    lerobot_v21(data / "lerobot_v21")
    lerobot_v30(data / "lerobot_v30")
    bridge(data / "bridge_dataset")
    alfred(data / "alfred")
    monkeypatch.setenv("DATA", str(tmp_path / "data"))
    result = ingest(load_config(DAG, Dag), str(tmp_path / "root"))
    found = {source.pipeline.name: source.counts for source in result.sources}
    assert {name: (counts.records_in, counts.quarantined) for name, counts in found.items()} == {
        "lerobot_v21": (3, {"episode_absent": 1}),
        "lerobot_v30": (2, {}),
        "bridge": (4, {"tfrecord_damaged": 1}),
        "alfred": (1, {}),
    }
    assert {name: counts.examples_written for name, counts in found.items()} == {
        "lerobot_v21": 4,
        "lerobot_v30": 4,
        "bridge": 6,
        "alfred": 2,
    }
    rows = [row for c in result.manifest.commits for s in c.shards for row in result.dataset.read(s).to_pylist()]
    assert all(row["images"] and row["trajectory"]["step_images"][-1] is not None for row in rows)
    splits: dict[str, set[str]] = {}
    for row in rows:
        if row["source"] == "bridge":
            splits.setdefault(dict(row["meta"]["tags"])["split"], set()).add(row["provenance"]["digest"])
    assert splits["val"] < splits["train"]
