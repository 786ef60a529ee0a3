"""What the metadata of a LeRobot dataset say: v2.1 has a file per episode, in v3.0 episodes share files."""

from __future__ import annotations

import io
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from omnimill.errors import BadRecord
from omnimill.pipelines.decoders.text import parse_json

V21, V30 = "v2.1", "v3.0"
VERSIONS = (V21, V30)
MAX_META_BYTES = 1 << 30

_PLACE = re.compile(r"\{(episode_chunk|episode_index|video_key|chunk_index|file_index)(?::0?(\d{1,2})d)?\}")
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

    def cameras(self) -> list[str]:
        """Names of the columns that are pictures."""
        return sorted(name for name, feature in self.features.items() if feature.get("dtype") in _PICTURE_TYPES)

    def is_filmed(self, camera: str) -> bool:
        """Whether a camera's pictures are in video files, not in the Parquet files."""
        return self.video_path is not None and self.features[camera]["dtype"] == "video"

    def names(self, column: str, count: int) -> list[str]:
        """Names of the numbers in a vector column; its own name and an index where the metadata name none."""
        found = _flat(self.features.get(column, {}).get("names"))
        return found if len(found) == count else [f"{column}.{index}" for index in range(count)]


@dataclass(frozen=True)
class EpisodeEntry:
    """Where an episode is. data, video: paths below the dataset's folder, the latter None without a film.

    start: seconds of its first step on the clock of its video.
    tasks: the instructions given in it.
    """

    index: int
    length: int
    tasks: tuple[str, ...]
    data: str
    video: str | None
    start: float


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
        raise _malformed("meta/info.json", error) from None
    if not (np.isfinite(layout.fps) and layout.fps > 0 and layout.chunk_size > 0):
        raise BadRecord("lerobot_meta_malformed", f"meta/info.json: fps {layout.fps}, chunks_size {layout.chunk_size}")
    return layout


def parse_episode_lines(data: bytes, layout: Layout, camera: str | None) -> list[EpisodeEntry]:
    """``meta/episodes.jsonl`` of v2.1; raises BadRecord ``lerobot_meta_malformed``."""
    entries = []
    for number, line in enumerate(data.splitlines(), start=1):
        try:
            entry = parse_json(line)
            index = int(entry["episode_index"])
            places = {"episode_chunk": index // layout.chunk_size, "episode_index": index, "video_key": camera}
            entries.append(
                EpisodeEntry(
                    index=index,
                    length=int(entry["length"]),
                    tasks=tuple(str(task) for task in entry["tasks"]),
                    data=_path(layout.data_path, places),
                    video=_video(layout, camera, places),
                    start=0.0,
                )
            )
        except (BadRecord, KeyError, TypeError, ValueError) as error:
            raise _malformed(f"meta/episodes.jsonl:{number}", error) from None
    return entries


def parse_task_lines(data: bytes) -> dict[int, str]:
    """``meta/tasks.jsonl`` of v2.1: instructions by number; raises BadRecord ``lerobot_meta_malformed``."""
    tasks = {}
    for number, line in enumerate(data.splitlines(), start=1):
        try:
            entry = parse_json(line)
            tasks[int(entry["task_index"])] = str(entry["task"])
        except (BadRecord, KeyError, TypeError, ValueError) as error:
            raise _malformed(f"meta/tasks.jsonl:{number}", error) from None
    return tasks


def parse_episode_table(data: bytes, name: str, layout: Layout, camera: str | None) -> list[EpisodeEntry]:
    """A file below ``meta/episodes/`` of v3.0; raises BadRecord ``lerobot_meta_malformed``.

    Of its columns those are read that say where an episode is; statistics are left alone.
    """
    place = f"videos/{camera}/"
    columns = ["episode_index", "length", "tasks", "data/chunk_index", "data/file_index"]
    if camera is not None and layout.is_filmed(camera):
        columns += [place + part for part in ("chunk_index", "file_index", "from_timestamp")]
    entries = []
    for row in _table(data, name, columns):
        try:
            of_data = {"chunk_index": int(row["data/chunk_index"]), "file_index": int(row["data/file_index"])}
            of_video = {"video_key": camera, **{part: row.get(place + part) for part in of_data}}
            start = float(row.get(place + "from_timestamp") or 0.0)
            if not np.isfinite(start):
                raise ValueError(f"from_timestamp {start}")
            entries.append(
                EpisodeEntry(
                    index=int(row["episode_index"]),
                    length=int(row["length"]),
                    tasks=tuple(str(task) for task in row["tasks"]),
                    data=_path(layout.data_path, of_data),
                    video=_video(layout, camera, of_video),
                    start=start,
                )
            )
        except (TypeError, ValueError) as error:
            raise _malformed(name, error) from None
    return entries


def parse_task_table(data: bytes) -> dict[int, str]:
    """``meta/tasks.parquet`` of v3.0: instructions by number; raises BadRecord ``lerobot_meta_malformed``.

    The instruction is the index of the pandas table that was written, so its column may be called anything.
    """
    name = "meta/tasks.parquet"
    tasks = {}
    for row in _table(data, name):
        words = [value for value in row.values() if isinstance(value, str)]
        try:
            tasks[int(row["task_index"])] = words[0]
        except (KeyError, IndexError, TypeError, ValueError) as error:
            raise _malformed(name, error) from None
    return tasks


def _table(data: bytes, name: str, columns: Sequence[str] | None = None) -> Iterable[dict[str, Any]]:
    try:
        file = pq.ParquetFile(io.BytesIO(data))
        wanted = file.schema_arrow.names if columns is None else columns
        if missing := sorted(set(wanted) - set(file.schema_arrow.names)):
            raise BadRecord("lerobot_meta_malformed", f"{name}: no column {', '.join(missing)}")
        size = uncompressed_bytes(file.metadata, set(wanted), range(file.metadata.num_row_groups))
        if size > MAX_META_BYTES:
            raise BadRecord("lerobot_meta_malformed", f"{name}: {size} bytes; at most {MAX_META_BYTES}")
        rows: list[dict[str, Any]] = file.read(columns=list(wanted)).to_pylist()
    except (pa.ArrowException, OSError) as error:
        raise _malformed(name, error) from None
    return rows


def uncompressed_bytes(metadata: pq.FileMetaData, columns: set[str], groups: Iterable[int]) -> int:
    """What the chunks of top-level columns take in memory, in some row groups of a Parquet file."""
    chunks = (metadata.row_group(group).column(index) for group in groups for index in range(metadata.num_columns))
    used = (
        c
        for c in chunks
        if any(c.path_in_schema == name or c.path_in_schema.startswith(f"{name}.") for name in columns)
    )
    return sum(int(chunk.total_uncompressed_size) for chunk in used)


def _path(template: str, places: Mapping[str, Any]) -> str:
    def fill(place: re.Match[str]) -> str:
        if places.get(place[1]) is None:
            raise ValueError(f"nothing to put for {place[0]} in {template!r}")
        value = str(places[place[1]])
        return value.zfill(int(place[2])) if place[2] else value

    return _PLACE.sub(fill, template)


def _video(layout: Layout, camera: str | None, places: Mapping[str, Any]) -> str | None:
    if camera is None or layout.video_path is None or not layout.is_filmed(camera):
        return None
    return _path(layout.video_path, places)


def _flat(names: Any) -> list[str]:
    """Names as the metadata nest them: lists in lists, lists by group."""
    if isinstance(names, Mapping):
        names = list(names.values())
    if isinstance(names, Sequence) and not isinstance(names, str):
        return [name for part in names for name in _flat(part)]
    return [] if names is None else [str(names)]


def _malformed(where: str, error: Exception) -> BadRecord:
    said = f"no key {error}" if isinstance(error, KeyError) else str(error)
    return BadRecord("lerobot_meta_malformed", f"{where}: {said}")
