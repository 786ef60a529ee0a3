"""LeRobot v2.1: what its metadata files say, and the steps of an episode out of its Parquet file."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from omnimill.errors import BadRecord
from omnimill.pipelines.decoders.text import parse_json

VERSION = "v2.1"

_PLACE = re.compile(r"\{(episode_chunk|episode_index|video_key)(?::0?(\d{1,2})d)?\}")
_PICTURE_TYPES = ("video", "image")


@dataclass(frozen=True)
class Layout:
    """What ``meta/info.json`` says. features: by column, as written there. fps: steps per second."""

    version: str
    fps: float
    chunk_size: int
    data_path: str
    video_path: str | None
    features: Mapping[str, Mapping[str, Any]]

    def data_file(self, episode: int) -> str:
        """Path of an episode's Parquet file below the dataset's folder."""
        return self._path(self.data_path, episode)

    def video_file(self, episode: int, camera: str) -> str | None:
        """Path of the video of a camera in an episode; None when the dataset keeps its pictures in Parquet."""
        if self.video_path is None or self.features[camera]["dtype"] != "video":
            return None
        return self._path(self.video_path, episode, camera)

    def _path(self, template: str, episode: int, camera: str = "") -> str:
        values = {"episode_chunk": episode // self.chunk_size, "episode_index": episode, "video_key": camera}

        def fill(place: re.Match[str]) -> str:
            value = str(values[place[1]])
            return value.zfill(int(place[2])) if place[2] else value

        return _PLACE.sub(fill, template)

    def cameras(self) -> list[str]:
        """Names of the columns that are pictures."""
        return sorted(name for name, feature in self.features.items() if feature.get("dtype") in _PICTURE_TYPES)

    def names(self, column: str, count: int) -> list[str]:
        """Names of the numbers in a vector column; its own name and an index where the metadata name none."""
        found = _flat(self.features.get(column, {}).get("names"))
        return found if len(found) == count else [f"{column}.{index}" for index in range(count)]


@dataclass(frozen=True)
class EpisodeEntry:
    """A line of ``meta/episodes.jsonl``: its number, its steps, the instructions given in it."""

    index: int
    length: int
    tasks: tuple[str, ...]


@dataclass(frozen=True)
class Steps:
    """An episode, row per step. times: seconds from its start. states, actions: [steps, numbers].

    tasks: number of the instruction in force at each step; None when the file has none.
    pictures: encoded, where they are kept in the Parquet file.
    """

    times: npt.NDArray[np.float64]
    states: npt.NDArray[np.float64]
    actions: npt.NDArray[np.float64]
    tasks: npt.NDArray[np.int64] | None
    pictures: list[bytes] | None


def parse_layout(data: bytes) -> Layout:
    """``meta/info.json``.

    Raises:
        BadRecord: ``lerobot_meta_malformed``.
    """
    try:
        info = parse_json(data)
        layout = Layout(
            version=str(info["codebase_version"]),
            fps=float(info["fps"]),
            chunk_size=int(info["chunks_size"]),
            data_path=str(info["data_path"]),
            video_path=None if info.get("video_path") is None else str(info["video_path"]),
            features={name: dict(feature) for name, feature in info["features"].items()},
        )
    except (BadRecord, KeyError, TypeError, ValueError, AttributeError) as error:
        raise BadRecord("lerobot_meta_malformed", f"meta/info.json: {_said(error)}") from None
    if not (np.isfinite(layout.fps) and layout.fps > 0 and layout.chunk_size > 0):
        raise BadRecord("lerobot_meta_malformed", f"meta/info.json: fps {layout.fps}, chunks_size {layout.chunk_size}")
    return layout


def parse_episodes(data: bytes) -> list[EpisodeEntry]:
    """``meta/episodes.jsonl``; raises BadRecord ``lerobot_meta_malformed``."""
    entries = []
    for number, line in enumerate(data.splitlines(), start=1):
        try:
            entry = parse_json(line)
            tasks = tuple(str(task) for task in entry["tasks"])
            entries.append(EpisodeEntry(int(entry["episode_index"]), int(entry["length"]), tasks))
        except (BadRecord, KeyError, TypeError, ValueError) as error:
            raise BadRecord("lerobot_meta_malformed", f"meta/episodes.jsonl:{number}: {_said(error)}") from None
    if not entries:
        raise BadRecord("lerobot_meta_malformed", "meta/episodes.jsonl: no episodes")
    return entries


def parse_tasks(data: bytes) -> dict[int, str]:
    """``meta/tasks.jsonl``: instructions by number; raises BadRecord ``lerobot_meta_malformed``."""
    tasks = {}
    for number, line in enumerate(data.splitlines(), start=1):
        try:
            entry = parse_json(line)
            tasks[int(entry["task_index"])] = str(entry["task"])
        except (BadRecord, KeyError, TypeError, ValueError) as error:
            raise BadRecord("lerobot_meta_malformed", f"meta/tasks.jsonl:{number}: {_said(error)}") from None
    return tasks


def read_steps(stream: BinaryIO, state: str, action: str, pictures: str | None, max_bytes: int) -> Steps:
    """The steps of an episode's Parquet file.

    Args:
        state, action: columns of vectors. pictures: column of encoded pictures.
        max_bytes: of the columns in use, uncompressed.

    Raises:
        BadRecord: ``lerobot_data_unreadable``, ``lerobot_columns_missing``, ``lerobot_episode_too_large``,
            ``lerobot_vectors_uneven``, ``lerobot_picture_missing``, ``trajectory_not_finite``.
    """
    try:
        file = pq.ParquetFile(stream)
        present = set(file.schema_arrow.names)
        needed = ["timestamp", state, action] + ([pictures] if pictures else [])
        if missing := sorted(set(needed) - present):
            message = f"no column {', '.join(missing)}; there are {', '.join(sorted(present))}"
            raise BadRecord("lerobot_columns_missing", message)
        columns = needed + (["task_index"] if "task_index" in present else [])
        size = _uncompressed(file.metadata, set(columns))
        if size > max_bytes:
            raise BadRecord("lerobot_episode_too_large", f"{size} bytes uncompressed, {max_bytes} allowed")
        table = file.read(columns=columns)
        steps = Steps(
            times=_matrix(table, "timestamp")[:, 0],
            states=_matrix(table, state),
            actions=_matrix(table, action),
            tasks=_matrix(table, "task_index")[:, 0].astype(np.int64) if "task_index" in columns else None,
            pictures=_pictures(table, pictures) if pictures else None,
        )
    except (pa.ArrowException, OSError) as error:
        if getattr(error, "errno", None) is not None:
            raise
        raise BadRecord("lerobot_data_unreadable", str(error)) from None
    return steps


def _uncompressed(metadata: pq.FileMetaData, columns: set[str]) -> int:
    chunks = (
        metadata.row_group(group).column(index)
        for group in range(metadata.num_row_groups)
        for index in range(metadata.num_columns)
    )
    return sum(int(c.total_uncompressed_size) for c in chunks if c.path_in_schema.split(".")[0] in columns)


def _matrix(table: pa.Table, name: str) -> npt.NDArray[np.float64]:
    """A column of numbers or of vectors as [rows, numbers]."""
    column = table.column(name).combine_chunks()
    if isinstance(column, pa.ListArray | pa.LargeListArray | pa.FixedSizeListArray):
        lengths = set(column.value_lengths().to_pylist()) if len(column) else {1}
        if len(lengths) != 1 or None in lengths:
            raise BadRecord("lerobot_vectors_uneven", f"{name}: vectors of {sorted(map(str, lengths))} numbers")
        values, width = column.flatten(), int(lengths.pop())
    else:
        values, width = column, 1
    if not (pa.types.is_floating(values.type) or pa.types.is_integer(values.type) or pa.types.is_boolean(values.type)):
        raise BadRecord("lerobot_data_unreadable", f"{name}: numbers expected, found {values.type}")
    # Nulls become NaN.
    numbers = values.cast(pa.float64()).to_numpy(zero_copy_only=False).reshape(len(column), width)
    if not np.isfinite(numbers).all():
        row = int(np.argmin(np.isfinite(numbers).all(axis=1)))
        raise BadRecord("trajectory_not_finite", f"{name}: step {row} holds a value that is not a finite number")
    return np.asarray(numbers, dtype=np.float64)


def _pictures(table: pa.Table, name: str) -> list[bytes]:
    """A picture column: structs with encoded `bytes`, or plain binary."""
    found = []
    for row, value in enumerate(table.column(name).to_pylist()):
        data = value.get("bytes") if isinstance(value, dict) else value
        if not isinstance(data, bytes):
            raise BadRecord("lerobot_picture_missing", f"{name}: step {row} has no bytes")
        found.append(data)
    return found


def _flat(names: Any) -> list[str]:
    """Names as the metadata nest them: lists in lists, lists by group."""
    if isinstance(names, Mapping):
        names = list(names.values())
    if isinstance(names, Sequence) and not isinstance(names, str):
        return [name for part in names for name in _flat(part)]
    return [] if names is None else [str(names)]


def _said(error: Exception) -> str:
    return f"no key {error}" if isinstance(error, KeyError) else str(error)
