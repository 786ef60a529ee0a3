"""A small simulated pick-and-place robot, recorded in the LeRobot v2.1 layout (Parquet, H.264, JSON lines)."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import ffmpeg
import imageio_ffmpeg
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from omnimill import rng

STEPS_PER_SECOND = 5
SIDE = 96
EPISODES = 24
CAMERA = "observation.images.top"
COLOURS = {"red": (200, 40, 40), "green": (40, 160, 60), "blue": (50, 70, 200), "yellow": (220, 190, 40)}
STATE_NAMES = ["x", "y", "gripper"]
ACTION_NAMES = ["dx", "dy", "grip"]
_STRIDE = 0.06  # how far the hand moves in one step, as a share of the table


def write_robot(folder: Path, seed: int) -> None:
    """Episodes in which a hand puts a block of one colour on a plate of another."""
    names = list(COLOURS)
    tasks = [f"Put the {a} block on the {b} plate." for a in names for b in names if a != b]
    episodes = []
    for number in range(EPISODES):
        draw = rng.generator(seed, "episode", number)
        task = int(draw.integers(len(tasks)))
        block, plate = tasks[task].split()[2], tasks[task].split()[6]
        frames, states, actions = _episode(draw, COLOURS[block], COLOURS[plate])
        _write_episode(folder, number, task, frames, states, actions)
        episodes.append({"episode_index": number, "tasks": [tasks[task]], "length": len(frames)})
    _write_meta(folder / "meta", tasks, episodes)


def _episode(draw: np.random.Generator, block: tuple[int, ...], plate: tuple[int, ...]) -> tuple[np.ndarray, ...]:
    """Frames uint8 [n, SIDE, SIDE, 3], states float32 [n, 3] and actions float32 [n, 3] of one episode."""
    hand, block_at, plate_at = (draw.uniform(0.15, 0.85, size=2) for _ in range(3))
    gripper, held, pause = 1.0, False, 0
    frames, states, actions = [], [], []
    while pause < 3:
        goal = plate_at if held else block_at
        step = np.clip(goal - hand, -_STRIDE, _STRIDE) if pause == 0 else np.zeros(2)
        arrived = bool(np.abs(goal - hand).max() < 0.01)
        grip = 0.0 if (held or arrived) and not (held and arrived) and pause == 0 else 1.0
        frames.append(_picture(hand, gripper, block_at, block, plate_at, plate))
        states.append([*hand, gripper])
        actions.append([*step, grip])
        if arrived and held:
            held, gripper, pause = False, 1.0, 1
        elif pause:
            pause += 1
        elif arrived:
            held, gripper = True, 0.0
        hand = hand + step
        if held:
            block_at = hand.copy()
    return np.stack(frames), np.array(states, np.float32), np.array(actions, np.float32)


def _picture(
    hand: np.ndarray,
    gripper: float,
    block_at: np.ndarray,
    block: tuple[int, ...],
    plate_at: np.ndarray,
    plate: tuple[int, ...],
) -> np.ndarray:
    picture = np.full((SIDE, SIDE, 3), (205, 195, 180), np.uint8)

    def at(place: np.ndarray, dx: float = 0.0, dy: float = 0.0) -> tuple[int, int]:
        return round((place[0] + dx) * SIDE), round((place[1] + dy) * SIDE)

    cv2.circle(picture, at(plate_at), 12, plate, -1, cv2.LINE_AA)
    cv2.circle(picture, at(plate_at), 12, (90, 90, 90), 1, cv2.LINE_AA)
    cv2.rectangle(picture, at(block_at, -0.05, -0.05), at(block_at, 0.05, 0.05), block, -1)
    opening = 0.05 + 0.04 * gripper
    for side in (-opening, opening):
        cv2.line(picture, at(hand, side, -0.08), at(hand, side, 0.06), (30, 30, 30), 2, cv2.LINE_AA)
    cv2.line(picture, at(hand, -opening, -0.08), at(hand, opening, -0.08), (30, 30, 30), 3, cv2.LINE_AA)
    return picture


def _write_episode(
    folder: Path, number: int, task: int, frames: np.ndarray, states: np.ndarray, actions: np.ndarray
) -> None:
    count = len(frames)
    columns = {
        "observation.state": pa.array(states.tolist(), pa.list_(pa.float32())),
        "action": pa.array(actions.tolist(), pa.list_(pa.float32())),
        "timestamp": pa.array(np.arange(count, dtype=np.float32) / STEPS_PER_SECOND),
        "frame_index": pa.array(np.arange(count)),
        "episode_index": pa.array(np.full(count, number)),
        "index": pa.array(np.arange(count)),
        "task_index": pa.array(np.full(count, task)),
    }
    parquet = folder / "data" / "chunk-000" / f"episode_{number:06d}.parquet"
    parquet.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns), parquet)
    video = folder / "videos" / "chunk-000" / CAMERA / f"episode_{number:06d}.mp4"
    video.parent.mkdir(parents=True, exist_ok=True)
    raw = ffmpeg.input("pipe:", format="rawvideo", pix_fmt="rgb24", s=f"{SIDE}x{SIDE}", framerate=STEPS_PER_SECOND)
    options = {"vcodec": "libx264", "pix_fmt": "yuv420p", "crf": 18, "threads": 1, "fflags": "+bitexact"}
    output = ffmpeg.output(raw, str(video), **options)
    output.run(cmd=imageio_ffmpeg.get_ffmpeg_exe(), input=frames.tobytes(), quiet=True, overwrite_output=True)


def _write_meta(folder: Path, tasks: list[str], episodes: list[dict[str, object]]) -> None:
    folder.mkdir(parents=True)
    vector = {"dtype": "float32", "shape": [3]}
    info = {
        "codebase_version": "v2.1",
        "robot_type": "simulated_hand",
        "total_episodes": len(episodes),
        "total_frames": sum(int(str(episode["length"])) for episode in episodes),
        "total_tasks": len(tasks),
        "total_videos": len(episodes),
        "total_chunks": 1,
        "chunks_size": 1000,
        "fps": STEPS_PER_SECOND,
        "splits": {"train": f"0:{len(episodes)}"},
        "data_path": "data/chunk-{episode_chunk:03d}/episode_{episode_index:06d}.parquet",
        "video_path": "videos/chunk-{episode_chunk:03d}/{video_key}/episode_{episode_index:06d}.mp4",
        "features": {
            "observation.state": {**vector, "names": STATE_NAMES},
            "action": {**vector, "names": ACTION_NAMES},
            CAMERA: {"dtype": "video", "shape": [SIDE, SIDE, 3], "names": ["height", "width", "channel"]},
        },
    }
    (folder / "info.json").write_text(json.dumps(info, indent=2) + "\n")
    lines = {
        "tasks.jsonl": [{"task_index": i, "task": task} for i, task in enumerate(tasks)],
        "episodes.jsonl": episodes,
    }
    for name, entries in lines.items():
        (folder / name).write_text("".join(json.dumps(entry) + "\n" for entry in entries))
