"""What a step sees of a shard: the rows that are left, with who they are, facts, features and scores."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from omnimill.config import Config
from omnimill.infra.dataset import Dataset, FileRef
from omnimill.infra.selections import LeftOut, left_out
from omnimill.pipelines.dedup import features
from omnimill.pipelines.dedup.base import NODE, RowStep, Step, score_step
from omnimill.pipelines.dedup.facts import halves, own_score, tag
from omnimill.pipelines.dedup.prefer import Prefer, preference


class Shard(Config):
    """A shard of the version that is judged. index: in the order of the manifest. left: what steps have left out."""

    index: int
    source: str
    file: FileRef
    left: LeftOut | None = None


@dataclass(frozen=True)
class View:
    """How rows are looked at, the same for all shards. earlier: the steps before `step`."""

    root: str
    dataset: str
    prefer: Prefer
    step: Step
    earlier: tuple[Step, ...]

    def rows(self, shard: Shard) -> pa.Table:
        """`NODE`, facts, features of the step and the scores it wants, of the rows that are left."""
        dataset = Dataset(self.root, self.dataset)
        facts = features.load(dataset, shard.file, features.FACTS)
        columns = {field.name: column for field, column in zip(NODE, self._node(dataset, shard, facts), strict=True)}
        columns["meta"] = facts.column("meta")
        if self.step.reads():
            measured = features.load(dataset, shard.file, features.measure_of(self.step))
            columns |= {name: measured.column(name) for name in measured.column_names}
        if isinstance(self.step, RowStep):
            for name in self.step.wanted_scores():
                columns[f"score:{name}"] = self._score(dataset, shard, facts, name)
        table = pa.table(columns)
        return table if shard.left is None else table.filter(pa.array(_kept(dataset, shard)))

    def _node(self, dataset: Dataset, shard: Shard, facts: pa.Table) -> Sequence[NDArray[np.generic]]:
        scores = tags = None
        if self.prefer.score is not None:
            scores = self._score(dataset, shard, facts, self.prefer.score)
        if self.prefer.tag is not None:
            tags = tag(facts.column("meta"), self.prefer.tag.name)
        rows = shard.file.rows
        index, row = np.full(rows, shard.index, np.uint32), np.arange(rows, dtype=np.uint32)
        prefer = preference(self.prefer, shard.source, rows, tags, scores)
        return (index, row, prefer, *halves(facts.column("id")))

    def _score(self, dataset: Dataset, shard: Shard, facts: pa.Table, name: str) -> pa.Array:
        step = score_step(name, self.earlier)
        if step is None:
            return own_score(facts, name)
        if step.sources is not None and shard.source not in step.sources:
            return pa.nulls(shard.file.rows, pa.float64())
        column = features.load(dataset, shard.file, features.measure_of(step)).column(name)
        return pc.cast(column.combine_chunks(), pa.float64())


def _kept(dataset: Dataset, shard: Shard) -> NDArray[np.bool_]:
    assert shard.left is not None
    kept = np.ones(shard.file.rows, np.bool_)
    kept[left_out(dataset, shard.left.file).column("row").to_numpy()] = False
    return kept
