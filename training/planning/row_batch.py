"""Length columns of many rows as flat arrays: what planning computes on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from omnimill.rng import Int64s, UInt64s
from omnimill.tokens import LENGTH_COLUMNS
from omnimill.training.planning.draws import id_words

Int32s = npt.NDArray[np.int32]

# Stands for null: no item, no picture or clip (whose numbers are compared to that of the last one, -1 for none).
NO_ITEM, NO_MEDIUM = -1, -2
_NULLS = {"items": NO_ITEM, "images": NO_MEDIUM, "audio": NO_MEDIUM}
_GROUPS = {
    "texts": {name: f"text_{name}" for name in ("roles", "images", "audio", "items", "lengths")},
    "pictures": {"input": "image_patches", "history": "history_patches", "codes": "image_codes_lengths"},
    "clips": {"input": "audio_patches", "codes": "audio_codes_lengths"},
    "targets": {
        "roles": "target_roles",
        "images": "target_images",
        "items": "target_items",
        "codes": "target_codes_lengths",
    },
}
COLUMNS = ("id", *LENGTH_COLUMNS)
_codes: dict[str, int] = {}


def role_code(role: str) -> int:
    """A small number for a role, the same within one process only."""
    return _codes.setdefault(role, len(_codes))


@dataclass(frozen=True)
class Lists:
    """A list per row: entries of row i are ``offsets[i] … offsets[i + 1] - 1`` of every column.

    offsets: int64 [n + 1]. columns: int32 by name, as long as there are entries.
    """

    offsets: Int64s
    columns: Mapping[str, Int32s]

    @property
    def counts(self) -> Int64s:
        """Entries of every row: int64 [n]."""
        return np.diff(self.offsets)

    @property
    def rows(self) -> Int64s:
        """The row of every entry."""
        counts = self.counts
        return np.repeat(np.arange(len(counts)), counts)

    def last(self, column: str, back: int = 0) -> Int64s:
        """The entry of every row that is `back` before its last, 0 where there is none: int64 [n]."""
        result = np.zeros(len(self.offsets) - 1, np.int64)
        has = self.counts > back
        result[has] = self.columns[column][self.offsets[1:][has] - 1 - back]
        return result

    def take(self, rows: Int64s) -> Lists:
        """The lists of some rows."""
        counts = self.counts[rows]
        offsets = np.concatenate([[0], np.cumsum(counts)])
        entries = np.repeat(self.offsets[:-1][rows] - offsets[:-1], counts) + np.arange(offsets[-1])
        return Lists(offsets, {name: values[entries] for name, values in self.columns.items()})

    @classmethod
    def concatenate(cls, parts: Sequence[Lists]) -> Lists:
        """The lists of several, one after the other."""
        ends = np.cumsum([0, *(part.offsets[-1] for part in parts)])
        offsets = [part.offsets[1:] + end for part, end in zip(parts, ends, strict=False)]
        names = parts[0].columns
        columns = {name: np.concatenate([part.columns[name] for part in parts]) for name in names}
        return cls(np.concatenate([[0], *offsets]), columns)


@dataclass(frozen=True)
class RowBatch:
    """n rows; columns as of `omnimill.tokens`, roles as :func:`role_code`, nulls as `NO_ITEM` and `NO_MEDIUM`.

    ids: uint64 [n, 2]; the examples' ids. texts, pictures, clips, targets: what the rows hold of each.
    """

    ids: UInt64s
    texts: Lists
    pictures: Lists
    clips: Lists
    targets: Lists

    def __len__(self) -> int:
        return len(self.ids)

    @classmethod
    def of(cls, table: pa.Table) -> RowBatch:
        """From a table with `COLUMNS`.

        Raises:
            IntegrityError: an id is not one.
        """
        table = table.combine_chunks()
        groups = {group: _lists(table, columns) for group, columns in _GROUPS.items()}
        return cls(id_words(_one(table.column("id"))), **groups)

    def take(self, rows: Int64s) -> RowBatch:
        """Some of the rows."""
        return RowBatch(self.ids[rows], *(getattr(self, group).take(rows) for group in _GROUPS))

    @classmethod
    def concatenate(cls, parts: Sequence[RowBatch]) -> RowBatch:
        """Several batches, one after the other."""
        lists = (Lists.concatenate([getattr(part, group) for part in parts]) for group in _GROUPS)
        return cls(np.concatenate([part.ids for part in parts]), *lists)


def _lists(table: pa.Table, columns: Mapping[str, str]) -> Lists:
    lists = {name: _one(table.column(column)) for name, column in columns.items()}
    offsets = next(iter(lists.values())).offsets.to_numpy().astype(np.int64)
    return Lists(offsets - offsets[0], {name: _values(name, column.flatten()) for name, column in lists.items()})


def _values(name: str, values: pa.Array) -> Int32s:
    if name == "roles":
        encoded = values.dictionary_encode()
        codes = np.array([role_code(role) for role in encoded.dictionary.to_pylist()], np.int32)
        found: Int32s = codes[encoded.indices.to_numpy()] if len(values) else np.empty(0, np.int32)
        return found
    return np.asarray(values.fill_null(_NULLS[name]) if name in _NULLS else values, np.int32)


def _one(column: pa.ChunkedArray) -> pa.Array:
    """A column of one chunk or of none as an array."""
    return column.chunk(0) if column.num_chunks else pa.array([], column.type)
