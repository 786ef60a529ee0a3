"""The steps of LeRobot episodes out of Parquet files."""

from __future__ import annotations

from dataclasses import dataclass
from typing import BinaryIO

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from omnimill.errors import BadRecord
from omnimill.pipelines.decoders.lerobot_meta import uncompressed_bytes


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


def read_steps(
    stream: BinaryIO, state: str, action: str, pictures: str | None, max_bytes: int, episode: int | None = None
) -> Steps:
    """The steps of an episode out of a Parquet file.

    Args:
        state, action: columns of vectors. pictures: column of encoded pictures.
        max_bytes: of the columns in use, uncompressed, in the row groups that hold the episode.
        episode: its number, for files that hold several; None takes all rows.

    Raises:
        BadRecord: ``lerobot_data_unreadable``, ``lerobot_columns_missing``, ``lerobot_episode_too_large``,
            ``lerobot_vectors_uneven``, ``lerobot_picture_missing``, ``trajectory_not_finite``.
    """
    try:
        file = pq.ParquetFile(stream)
        present = set(file.schema_arrow.names)
        needed = ["timestamp", state, action, *([pictures] if pictures else [])]
        needed += [] if episode is None else ["episode_index"]
        if missing := sorted(set(needed) - present):
            message = f"no column {', '.join(missing)}; there are {', '.join(sorted(present))}"
            raise BadRecord("lerobot_columns_missing", message)
        columns = needed + (["task_index"] if "task_index" in present else [])
        groups = list(range(file.num_row_groups)) if episode is None else _row_groups(file.metadata, episode)
        size = uncompressed_bytes(file.metadata, set(columns), groups)
        if size > max_bytes:
            raise BadRecord("lerobot_episode_too_large", f"{size} bytes uncompressed, {max_bytes} allowed")
        table = file.read_row_groups(groups, columns=columns)
        if episode is not None:
            table = table.filter(pc.equal(table.column("episode_index"), episode))
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


def _row_groups(metadata: pq.FileMetaData, episode: int) -> list[int]:
    """The row groups that may hold steps of an episode, by their statistics."""
    found = []
    for group in range(metadata.num_row_groups):
        chunks = (metadata.row_group(group).column(index) for index in range(metadata.num_columns))
        statistics = next((c.statistics for c in chunks if c.path_in_schema == "episode_index"), None)
        if statistics is None or not statistics.has_min_max or statistics.min <= episode <= statistics.max:
            found.append(group)
    return found


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
