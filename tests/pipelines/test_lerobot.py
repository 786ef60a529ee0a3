"""Robot episodes: runs of steps with the pictures that belong to them, and an account of what is missing."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image as Pillow

from omnimill.errors import ConfigError
from omnimill.pipelines.decoders.pixels import load_rgb
from omnimill.pipelines.sources.lerobot import LeRobotSource
from omnimill.schema import Example, Image

Read = Callable[[LeRobotSource], tuple[list[Example], dict[str, str]]]

CAMERA = "observation.images.top"
FPS = 10
TASKS = ["lift the cup", "put it down"]
# Twenty grey levels per step in the left half for the ones, in the right half for the tens.
LEVEL = "20+20*if(lt(X,W/2),mod(N,10),floor(N/10))"


def _table(steps: int, **columns: Any) -> pa.Table:
    values: dict[str, Any] = {
        "observation.state": [[float(step), -float(step)] for step in range(steps)],
        "action": [[step / 10] for step in range(steps)],
        "timestamp": pa.array([step / FPS for step in range(steps)], pa.float32()),
        "frame_index": list(range(steps)),
        "task_index": [int(step >= steps // 2) for step in range(steps)],
        **columns,
    }
    return pa.table({name: value for name, value in values.items() if value is not None})


def _grey(level: int) -> bytes:
    stream = io.BytesIO()
    Pillow.new("RGB", (32, 24), (level, level, level)).save(stream, "PNG")
    return stream.getvalue()


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory, ffmpeg: Callable[..., None]) -> bytes:
    path = tmp_path_factory.mktemp("clip") / "clip.mp4"
    clock = f"nullsrc=size=64x48:rate={FPS}:duration=2.4,format=gray,geq=lum='{LEVEL}',format=yuv420p"
    ffmpeg("-f", "lavfi", "-i", clock, "-c:v", "libx264", "-qp", "0", "-preset", "ultrafast", path)
    return path.read_bytes()


@pytest.fixture
def dataset(tmp_path: Path, clip: bytes) -> Callable[..., str]:
    """Writes a dataset of episodes of 24 steps; `episodes` maps numbers to tables, None for one that is not there."""

    def write(
        episodes: dict[int, pa.Table | None] | None = None, videos: bool = True, kind: str = "video", **info: Any
    ) -> str:
        root = tmp_path / "robot"
        episodes = {0: _table(24)} if episodes is None else episodes
        features = {
            "observation.state": {"dtype": "float32", "shape": [2], "names": {"motors": ["x", "y"]}},
            "action": {"dtype": "float32", "shape": [1], "names": None},
            CAMERA: {"dtype": kind, "shape": [48, 64, 3], "names": ["height", "width", "channel"]},
        }
        meta = {
            "codebase_version": "v2.1",
            "fps": FPS,
            "chunks_size": 1000,
            "data_path": "data/chunk-{episode_chunk:03d}/episode_{episode_index:06d}.parquet",
            "video_path": "videos/chunk-{episode_chunk:03d}/{video_key}/episode_{episode_index:06d}.mp4",
            "features": features,
            **info,
        }
        (root / "meta").mkdir(parents=True)
        (root / "meta/info.json").write_text(json.dumps(meta))
        lines = [{"episode_index": number, "tasks": TASKS, "length": 24} for number in episodes]
        (root / "meta/episodes.jsonl").write_text("\n".join(map(json.dumps, lines)))
        tasks = [{"task_index": number, "task": task} for number, task in enumerate(TASKS)]
        (root / "meta/tasks.jsonl").write_text("\n".join(map(json.dumps, tasks)))
        for number, table in episodes.items():
            if table is None:
                continue
            (root / "data/chunk-000").mkdir(parents=True, exist_ok=True)
            pq.write_table(table, root / f"data/chunk-000/episode_{number:06d}.parquet")
            if videos:
                folder = root / f"videos/chunk-000/{CAMERA}"
                folder.mkdir(parents=True, exist_ok=True)
                (folder / f"episode_{number:06d}.mp4").write_bytes(clip)
        return str(root)

    return write


def _source(path: str, **settings: Any) -> LeRobotSource:
    return LeRobotSource(type="lerobot", name="robot", path=path, **settings)


def _number(image: Image) -> int:
    ones, tens = (round((float(part.mean()) - 20) / 20) for part in np.split(load_rgb(image), 2, axis=1))
    return ones + 10 * tens


def test_runs_hold_states_actions_pictures_and_the_instruction(dataset: Callable[..., str], read_source: Read) -> None:
    examples, verdicts = read_source(_source(dataset(), stride=2))
    assert verdicts == {"episode_000000": "kept"}
    assert [example.key for example in examples] == ["episode_000000#0", "episode_000000#5", "episode_000000#10"]
    middle = examples[1]
    run = middle.trajectory
    assert run is not None
    assert (run.first_step, run.steps_per_second, run.state_names, run.action_names) == (
        5,
        5.0,
        ["x", "y"],
        ["action.0"],
    )
    assert run.states == [[step, -step] for step in (10.0, 12.0, 14.0, 16.0, 18.0)]
    assert run.actions == [[1.0], [1.2], [1.4], [1.6], [1.8]]
    assert run.step_images == [0, 1, 2, 3, 4]
    assert [_number(image) for image in middle.images] == [10, 12, 14, 16, 18]
    assert [len(example.trajectory.states) for example in examples if example.trajectory] == [5, 5, 2]
    assert [text.text for example in examples for text in example.text] == [TASKS[0], TASKS[1], TASKS[1]]


def test_few_pictures_are_spread_over_a_long_run_up_to_its_last_step(
    dataset: Callable[..., str], read_source: Read
) -> None:
    examples, _ = read_source(_source(dataset(), steps_per_example=12, frames_per_example=3))
    run = examples[1].trajectory
    assert run is not None
    assert run.step_images == [None, None, None, 0, None, None, None, 1, None, None, None, 2]
    assert [_number(image) for image in examples[1].images] == [15, 19, 23]


def test_pictures_may_be_kept_in_parquet(dataset: Callable[..., str], read_source: Read) -> None:
    pictures = [{"bytes": _grey(step), "path": None} for step in range(24)]
    path = dataset({0: _table(24, **{CAMERA: pictures})}, videos=False, kind="image", video_path=None)
    examples, verdicts = read_source(_source(path))
    assert verdicts == {"episode_000000": "kept"}
    assert [int(load_rgb(image).mean()) for image in examples[1].images] == [5, 6, 7, 8, 9]


def test_a_missing_video_is_a_verdict_or_accepted(dataset: Callable[..., str], read_source: Read) -> None:
    path = dataset(videos=False)
    assert read_source(_source(path)) == ([], {"episode_000000": "lerobot_video_missing"})
    examples, verdicts = read_source(_source(path, require_video=False))
    assert verdicts == {"episode_000000": "kept"}
    assert [len(example.images) for example in examples] == [0] * 5
    assert examples[0].trajectory is not None
    assert examples[0].trajectory.step_images == [None] * 5


def test_episodes_that_are_listed_but_absent_are_accounted_for(dataset: Callable[..., str], read_source: Read) -> None:
    path = dataset({0: None, 1: _table(24), 2: None})
    _, verdicts = read_source(_source(path))
    assert verdicts == {
        "episode_000000": "episode_absent",
        "episode_000001": "kept",
        "episode_000002": "episode_absent",
    }
    units = list(_source(path).units())
    assert [unit.id for unit in units] == [unit.id for unit in _source(path).units()]
    assert len(units) == 2


def test_a_growing_dataset_keeps_its_units(dataset: Callable[..., str]) -> None:
    path = dataset({0: _table(24), 1: None})
    before = {unit.id for unit in _source(path).units() if "episodes" in unit.options}
    info = Path(path) / "meta/info.json"
    info.write_text(json.dumps({**json.loads(info.read_text()), "total_episodes": 99}))
    with (Path(path) / "meta/episodes.jsonl").open("a") as stream:
        stream.write("\n" + json.dumps({"episode_index": 7, "tasks": TASKS, "length": 24}))
    assert before == {unit.id for unit in _source(path).units() if "episodes" in unit.options}


@pytest.mark.parametrize(
    ("table", "reason"),
    [
        (_table(24, action=None), "lerobot_columns_missing"),
        (_table(23), "lerobot_length_mismatch"),
        (_table(24, action=[[float("nan")]] * 24), "trajectory_not_finite"),
        (_table(24, action=[[1.0], None] * 12), "lerobot_vectors_uneven"),
        (_table(24, action=[[1.0], [1.0, 2.0]] * 12), "lerobot_vectors_uneven"),
        (_table(24, action=["left"] * 24), "lerobot_data_unreadable"),
        (_table(24, task_index=[5] * 24), "lerobot_task_unknown"),
        (_table(24, timestamp=pa.array([step / 5 for step in range(24)], pa.float32())), "video_timestamp_missing"),
    ],
    ids=["no-action", "short", "nan", "null", "uneven", "words", "task", "clock"],
)
def test_faulty_episodes_get_a_reason(
    table: pa.Table, reason: str, dataset: Callable[..., str], read_source: Read
) -> None:
    _, verdicts = read_source(_source(dataset({0: table, 1: _table(24)})))
    assert verdicts == {"episode_000000": reason, "episode_000001": "kept"}


def test_damaged_parquet_and_video_get_a_reason(dataset: Callable[..., str], read_source: Read) -> None:
    path = Path(dataset({0: _table(24), 1: _table(24)}))
    data = path / "data/chunk-000/episode_000000.parquet"
    data.write_bytes(data.read_bytes()[:200])
    (path / f"videos/chunk-000/{CAMERA}/episode_000001.mp4").write_bytes(b"no video")
    _, verdicts = read_source(_source(str(path)))
    assert verdicts == {"episode_000000": "lerobot_data_unreadable", "episode_000001": "video_unreadable"}


@pytest.mark.parametrize("name", ["info.json", "episodes.jsonl"])
@pytest.mark.parametrize("text", ["", "{", "[1]"])
def test_metadata_that_cannot_be_read_are_quarantined(
    name: str, text: str, dataset: Callable[..., str], read_source: Read
) -> None:
    path = dataset()
    (Path(path) / "meta" / name).write_text(text)
    assert read_source(_source(path)) == ([], {"meta/info.json": "lerobot_meta_malformed"})


def test_another_version_is_refused_with_the_way_out(dataset: Callable[..., str]) -> None:
    with pytest.raises(ConfigError, match=r"v2\.0 dataset; v2\.1 and v3\.0 are read"):
        list(_source(dataset(codebase_version="v2.0")).units())


def test_a_folder_without_metadata_is_an_error_of_use(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no LeRobot dataset"):
        list(_source(str(tmp_path)).units())


def test_an_unknown_camera_is_an_error_of_use(dataset: Callable[..., str]) -> None:
    with pytest.raises(ConfigError, match=f"allowed: {CAMERA}"):
        list(_source(dataset(), camera="wrist").units())


def test_paths_in_the_metadata_cannot_leave_the_dataset(dataset: Callable[..., str], read_source: Read) -> None:
    path = dataset(data_path="../../outside/{episode_index:06d}.parquet")
    outside = Path(path).parent.parent / "outside"
    outside.mkdir(exist_ok=True)
    pq.write_table(_table(24), outside / "000000.parquet")
    assert read_source(_source(path))[1] == {"episode_000000": "episode_absent"}


@pytest.fixture
def shared(tmp_path: Path, clip: bytes) -> Callable[..., Path]:
    """Writes a v3.0 dataset: three episodes of 8 steps in one data file and one video."""

    def write(**columns: Any) -> Path:
        root = tmp_path / "robot3"
        for folder in ("meta/episodes/chunk-000", "data/chunk-000", f"videos/{CAMERA}/chunk-000"):
            (root / folder).mkdir(parents=True)
        info = {
            "codebase_version": "v3.0",
            "fps": FPS,
            "chunks_size": 1000,
            "data_path": "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet",
            "video_path": "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4",
            "features": {
                "observation.state": {"dtype": "float32", "shape": [2], "names": ["x", "y"]},
                "action": {"dtype": "float32", "shape": [1], "names": None},
                CAMERA: {"dtype": "video", "shape": [48, 64, 3], "names": ["height", "width", "channel"]},
            },
        }
        (root / "meta/info.json").write_text(json.dumps(info))
        pq.write_table(pa.table({"task_index": [0, 1], "__index_level_0__": TASKS}), root / "meta/tasks.parquet")
        entries = {
            "episode_index": [0, 1, 2],
            "tasks": [[TASKS[0]], [TASKS[1]], TASKS],
            "length": [8, 8, 8],
            "data/chunk_index": [0, 0, 0],
            "data/file_index": [0, 0, 0],
            "dataset_from_index": [0, 8, 16],
            "dataset_to_index": [8, 16, 24],
            f"videos/{CAMERA}/chunk_index": [0, 0, 0],
            f"videos/{CAMERA}/file_index": [0, 0, 0],
            f"videos/{CAMERA}/from_timestamp": [0.0, 0.8, 1.6],
            f"videos/{CAMERA}/to_timestamp": [0.8, 1.6, 2.4],
            "stats/action/mean": [[0.0], [0.0], [0.0]],
            **columns,
        }
        pq.write_table(pa.table(entries), root / "meta/episodes/chunk-000/file-000.parquet")
        steps = _table(
            24,
            timestamp=pa.array([step % 8 / FPS for step in range(24)], pa.float32()),
            episode_index=[step // 8 for step in range(24)],
            task_index=[[0, 1, step % 2][step // 8] for step in range(24)],
        )
        pq.write_table(steps, root / "data/chunk-000/file-000.parquet", row_group_size=5)
        (root / f"videos/{CAMERA}/chunk-000/file-000.mp4").write_bytes(clip)
        return root

    return write


def test_episodes_that_share_files_are_told_apart(shared: Callable[..., Path], read_source: Read) -> None:
    source = _source(str(shared()), steps_per_example=8, frames_per_example=2)
    (unit,) = source.units()
    assert [Path(file).name for file in unit.files] == ["file-000.parquet", "file-000.mp4"]
    examples, verdicts = read_source(source)
    assert verdicts == dict.fromkeys(("episode_000000", "episode_000001", "episode_000002"), "kept")
    assert [[_number(image) for image in example.images] for example in examples] == [[3, 7], [11, 15], [19, 23]]
    assert [example.text[0].text for example in examples] == [TASKS[0], TASKS[1], TASKS[1]]
    assert [example.trajectory.states[0] for example in examples if example.trajectory] == [[0, 0], [8, -8], [16, -16]]
    assert len({example.provenance.digest for example in examples}) == 3


def test_an_episode_may_be_longer_than_its_data_or_off_its_video(
    shared: Callable[..., Path], read_source: Read
) -> None:
    path = shared(**{"length": [8, 9, 8], f"videos/{CAMERA}/from_timestamp": [0.0, 0.8, 2.1]})
    assert read_source(_source(str(path)))[1] == {
        "episode_000000": "kept",
        "episode_000001": "lerobot_length_mismatch",
        "episode_000002": "video_timestamp_missing",
    }


@pytest.mark.parametrize(
    "columns", [{"length": ["a", "b", "c"]}, {"data/file_index": [0, None, 0]}, {"tasks": [1, 2, 3]}]
)
def test_tables_of_episodes_that_make_no_sense(
    columns: dict[str, Any], shared: Callable[..., Path], read_source: Read
) -> None:
    assert read_source(_source(str(shared(**columns)))) == ([], {"meta/info.json": "lerobot_meta_malformed"})


@pytest.mark.parametrize("name", ["meta/tasks.parquet", "meta/episodes/chunk-000/file-000.parquet"])
def test_damaged_tables_of_metadata(name: str, shared: Callable[..., Path], read_source: Read) -> None:
    path = shared()
    (path / name).write_bytes(b"PAR1 but not really PAR1")
    assert read_source(_source(str(path))) == ([], {"meta/info.json": "lerobot_meta_malformed"})
