"""Rows of datasets that are not there yet, as their catalog entries describe them: sizes and distributions of lengths.

How long row i of a source is, is a pure function of i, so that nothing is stored and a plan over billions of rows takes
no more memory than one over a few.

Where the catalog says nothing, these stand in. Pictures cover three quarters of the canvas (3 to 4), clips last a
segment. A row has one text of each role. A dataset without `lengths` has the ones of `STANDARD`, by its kind.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property

import numpy as np

from omnimill.errors import ConfigError
from omnimill.mixtures.catalog_entries import Distribution, Entry, Lengths, catalog
from omnimill.mixtures.config import SPARSE_ROLES, Task
from omnimill.rng import Floats, Int64s, UInt64s, digest64, subkey_many, unit_many
from omnimill.tokens import TokenLayout
from omnimill.training.planning.draws import role_number
from omnimill.training.planning.row_batch import NO_ITEM, NO_MEDIUM, Lists, RowBatch, role_code
from omnimill.training.rendering.forms import AnyLengths

COVERED = 0.75
# Tokens of a text, and of a sparse structure, in datasets of which nothing is known.
_TEXT: Distribution = {0: 2, 50: 16, 90: 60, 100: 200}
_SPARSE: Distribution = {0: 4, 50: 8, 90: 40, 100: 120}
_FRAMES: Distribution = {0: 5, 100: 5}
_ONE: Distribution = {0: 1, 100: 1}
STANDARD: Mapping[str, Lengths] = {
    kind: Lengths(images=images, clips=clips, figure="estimate for datasets of which nothing is known")
    for kind, images, clips in (
        ("text", 0, 0),
        ("pictures", _ONE, 0),
        ("documents", {0: 1, 100: 3}, 0),
        ("video", _FRAMES, _FRAMES),
        ("sound", 0, _FRAMES),
        ("views", {0: 2, 100: 2}, 0),
        ("trajectories", _FRAMES, 0),
    )
}
# Rows of a task whose size nobody states.
UNKNOWN_SIZE = 1_000_000
_IMAGES, _CLIPS, _SOUND, _ID = range(4)


def entries_by_source() -> dict[str, Entry]:
    """The catalog's entries by the names of their sources."""
    return {source: entry for entry in catalog().values() for source in entry.source_names}


class VirtualRows:
    """The rows of a task. sizes: of its sources, in order; rows are numbered through.

    Raises:
        ConfigError: a source is not in the catalog.
    """

    def __init__(self, task: Task, entries: Mapping[str, Entry], layout: TokenLayout) -> None:
        self.task = task
        for source in task.sources:
            if source not in entries:
                raise ConfigError(
                    f"task {task.name!r}: source {source!r} is in no token dataset under the root, nor in the catalog"
                )
        size = max(task.size or UNKNOWN_SIZE, len(task.sources))
        cuts = [size * i // len(task.sources) for i in range(len(task.sources) + 1)]
        self.sizes = {source: cuts[i + 1] - cuts[i] for i, source in enumerate(task.sources)}
        self.estimated = [source for source in task.sources if entries[source].lengths is None]
        self._sources = [_Source(source, entries[source], task, layout) for source in task.sources]
        self._ends = np.array(cuts[1:])

    def __len__(self) -> int:
        return int(self._ends[-1])

    def batch(self, rows: Int64s) -> RowBatch:
        """Some of the rows."""
        if len(self._sources) == 1:
            return self._sources[0].batch(rows)
        which = np.searchsorted(self._ends, rows, side="right")
        order = np.argsort(which, kind="stable")
        parts = [self._sources[int(which[own[0]])].batch(rows[own]) for own in _runs(which, order)]
        return RowBatch.concatenate(parts).take(np.argsort(order))


class VirtualMeasure:
    """Measures virtual rows; see `omnimill.training.planning.block_planner.Measure`."""

    def __init__(self, rows: Sequence[VirtualRows], lengths: AnyLengths) -> None:
        self._rows = rows
        self._lengths = lengths

    def __call__(self, task: int, rows: Int64s, epochs: Int64s) -> tuple[UInt64s, Int64s]:
        """Ids (uint64 [n, 2]) and lengths (int64 [fields, n]) of rows of a task at these epochs."""
        batch = self._rows[task].batch(rows)
        return batch.ids, self._lengths.of(task, batch, epochs)


class _Source:
    """One source of a task: rows that the task can use."""

    def __init__(self, name: str, entry: Entry, task: Task, layout: TokenLayout) -> None:
        self._key = digest64("virtual rows", name)
        self._task = task
        self._layout = layout
        self._lengths = entry.lengths or STANDARD[entry.kind]
        self._least_text = 2 if task.denoises_text else 1
        self._roles = sorted(task.roles)

    @cached_property
    def _distributions(self) -> list[tuple[int, int, Distribution]]:
        """Of every role: its number in keys, its code and its tokens."""
        known = self._lengths.text
        return [
            (role_number(role), role_code(role), known.get(role, _SPARSE if role in SPARSE_ROLES else _TEXT))
            for role in self._roles
        ]

    def batch(self, rows: Int64s) -> RowBatch:
        keys = subkey_many(self._key, rows.astype(np.uint64))
        texts = [
            _drawn(tokens, unit_many(subkey_many(keys, number)), self._least_text)
            for number, _, tokens in self._distributions
        ]
        task, image, audio = self._task, self._layout.image, self._layout.audio
        pictures = _drawn(self._lengths.images, unit_many(subkey_many(keys, _IMAGES)), self._least("image"))
        clips = _drawn(self._lengths.clips, unit_many(subkey_many(keys, _CLIPS)), self._least("audio"))
        if not self._least("audio"):
            clips = np.where(unit_many(subkey_many(keys, _SOUND)) < self._lengths.sound, clips, 0)
        patches = audio.input_grid[0] * audio.input_grid[1]
        return RowBatch(
            ids=np.stack([keys, subkey_many(keys, _ID)], axis=1),
            texts=_texts(len(rows), [code for _, code, _ in self._distributions], texts),
            pictures=_same(
                pictures,
                input=round(COVERED * image.input_grid**2),
                history=round(COVERED * image.history_grid**2),
                codes=image.target_grid**2,
            ),
            clips=_same(clips, input=patches, codes=audio.target_grid[0] * audio.target_grid[1]),
            targets=_same(
                np.full(len(rows), 1 if task.target_picture else 0),
                roles=role_code(task.target_picture or ""),
                images=NO_MEDIUM,
                items=NO_ITEM,
                codes=image.target_grid**2,
            ),
        )

    def _least(self, modality: str) -> int:
        """Pictures or clips that a row must have for the task."""
        task = self._task
        if f"{modality}_history" in task.inputs:
            return 2
        return int(modality in task.inputs or task.target == modality)


def _drawn(distribution: Distribution, points: Floats, least: int) -> Int64s:
    """Values of a distribution (by percent) at some points of [0, 1), rounded, and at least `least`."""
    percent, values = np.array(list(distribution), float), np.array(list(distribution.values()), float)
    drawn: Int64s = np.maximum(np.rint(np.interp(100 * points, percent, values)).astype(np.int64), least)
    return drawn


def _texts(rows: int, codes: Sequence[int], lengths: Sequence[Int64s]) -> Lists:
    """One text per role and row, of no picture and no item."""
    entries = rows * len(codes)
    columns = {
        "roles": np.tile(np.array(codes, np.int32), rows),
        "images": np.full(entries, NO_MEDIUM, np.int32),
        "audio": np.full(entries, NO_MEDIUM, np.int32),
        "items": np.full(entries, NO_ITEM, np.int32),
        "lengths": np.stack(lengths, axis=1).reshape(-1).astype(np.int32) if codes else np.empty(0, np.int32),
    }
    return Lists(np.arange(rows + 1) * len(codes), columns)


def _same(counts: Int64s, **values: int) -> Lists:
    """So many entries in every row, all alike."""
    offsets = np.concatenate([[0], np.cumsum(counts)])
    return Lists(offsets, {name: np.full(int(offsets[-1]), value, np.int32) for name, value in values.items()})


def _runs(which: Int64s, order: Int64s) -> list[Int64s]:
    return np.split(order, np.flatnonzero(np.diff(which[order])) + 1)
