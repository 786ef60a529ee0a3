"""What tokenizers learn from: samples of an example dataset's text, pictures and sound, and the ranges of its vectors.

Samples are chosen by keyed hash of example id and position, so they do not depend on how the dataset is cut into
shards, and what is not chosen is not read.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from omnimill.errors import OmnimillError
from omnimill.infra.dataset import Dataset, FileRef
from omnimill.infra.lineage import CommandRun
from omnimill.infra.selections import left_out, load_selection, selection_url
from omnimill.locations import Range
from omnimill.rng import digest64
from omnimill.schema import check_example_schema
from omnimill.tokenizers.store import VectorRanges


@dataclass(frozen=True)
class Sample:
    """An encoded picture or clip, and the example it belongs to."""

    example: str
    data: bytes


class Corpus:
    """One version of an example dataset, less what selections leave out.

    Args:
        root: fsspec URL or path.
        name: of the dataset.
        selections: names of selections of its current version.

    Raises:
        OmnimillError: there is no such dataset or selection, or the dataset does not hold examples.
        IntegrityError: a selection was made for another version.
    """

    def __init__(self, root: str, name: str, selections: Sequence[str] = ()) -> None:
        self.dataset = Dataset(root, name)
        self.digest, self.manifest = self.dataset.manifest()
        if self.manifest.kind != "examples":
            raise OmnimillError(f"dataset {name!r} under {root} holds {self.manifest.kind}, not examples")
        found = {selection: load_selection(self.dataset, selection, self.digest) for selection in selections}
        self.selections = {selection: digest for selection, (digest, _) in found.items()}
        self._left_out: dict[str, tuple[FileRef, ...]] = {}
        for _, selection in found.values():
            for part in selection.shards:
                self._left_out[part.shard] = (*self._left_out.get(part.shard, ()), part.file)

    def record(self, run: CommandRun) -> None:
        """Say in a run's lineage what was read."""
        run.input(self.dataset.name, self.digest, self.dataset.url)
        for name, digest in self.selections.items():
            run.input(f"{self.dataset.name}-{name}", digest, selection_url(self.dataset, digest))

    def left_out(self, shard: str) -> tuple[FileRef, ...]:
        """The selections' files about a shard, by the shard's digest."""
        return self._left_out.get(shard, ())

    def texts(self) -> Iterator[tuple[str, str]]:
        """Every text segment with a key of its own."""
        for table in self._tables(["id", "text"]):
            for batch in table.to_batches():
                for row in batch.to_pylist():
                    for i, segment in enumerate(row["text"]):
                        yield f"{row['id']}/{i}", segment["text"]

    def media(self, column: Literal["images", "audio"], count: int, seed: int) -> list[Sample]:
        """Up to `count` pictures or clips of the whole dataset."""
        chosen = heapq.nsmallest(count, self._keyed(column, seed))
        rows_of: dict[str, list[tuple[int, int, int]]] = {}
        for order, (_, shard, row, place) in enumerate(chosen):
            rows_of.setdefault(shard, []).append((order, row, place))
        samples: list[tuple[int, Sample]] = []
        for ref in self._shards():
            for order, row, place in rows_of.get(ref.digest, ()):
                table = self.dataset.read(ref)
                data = table.column(column)[row].values[place]["data"].as_py()
                samples.append((order, Sample(table.column("id")[row].as_py(), data)))
        return [sample for _, sample in sorted(samples, key=lambda item: item[0])]

    def _keyed(self, column: str, seed: int) -> Iterator[tuple[int, str, int, int]]:
        """(hash, shard, row, place in the row) of every item of a list column; reads no item."""
        for ref in self._shards():
            table = self.dataset.read(ref).select(["id", column])
            lengths = pc.list_value_length(table.column(column)).to_pylist()
            left_out = self._rows_left_out(ref)
            for row, (example, length) in enumerate(zip(table.column("id").to_pylist(), lengths, strict=True)):
                for place in range(0 if row in left_out else length):
                    yield digest64(f"{column}_sample", seed, example, place), ref.digest, row, place

    def ranges(self) -> dict[str, VectorRanges]:
        """Least and largest finite value of every dimension of states and actions, by source.

        Raises:
            OmnimillError: a source's vectors differ in length.
        """
        ends: dict[tuple[str, str], tuple[Any, Any]] = {}
        for table in self._tables(["source", "trajectory"]):
            for row in table.filter(pc.is_valid(table.column("trajectory"))).to_pylist():
                for name in ("state", "action"):
                    self._widen(ends, (row["source"], name), row["trajectory"][f"{name}s"])
        found: dict[str, dict[str, tuple[Range, ...]]] = {}
        for (source, name), (low, high) in sorted(ends.items()):
            pairs = zip(low.tolist(), high.tolist(), strict=True)
            found.setdefault(source, {})[name] = tuple(Range(low=a, high=b) for a, b in pairs)
        return {source: VectorRanges(**by_name) for source, by_name in found.items()}

    def _widen(
        self, ends: dict[tuple[str, str], tuple[Any, Any]], key: tuple[str, str], rows: list[list[float]]
    ) -> None:
        if not rows or not rows[0]:
            return
        lengths = {len(row) for row in rows} | ({len(ends[key][0])} if key in ends else set())
        if len(lengths) > 1:
            raise OmnimillError(
                f"source {key[0]!r}: vectors of {key[1]} have {sorted(lengths)} numbers; ingest robots of different "
                "kinds as different sources"
            )
        values = np.array(rows, np.float64)
        finite = values[np.isfinite(values).all(axis=1)]
        if len(finite):
            low, high = ends.get(key, (finite[0], finite[0]))
            ends[key] = np.minimum(low, finite.min(axis=0)), np.maximum(high, finite.max(axis=0))

    def _rows_left_out(self, ref: FileRef) -> frozenset[int]:
        files = self.left_out(ref.digest)
        return frozenset(row for file in files for row in left_out(self.dataset, file).column("row").to_pylist())

    def _shards(self) -> Iterator[FileRef]:
        return (shard for commit in self.manifest.commits for shard in commit.shards)

    def _tables(self, columns: list[str]) -> Iterator[pa.Table]:
        for ref in self._shards():
            table = self.dataset.read(ref)
            check_example_schema(table.schema, self.dataset.shard_url(ref))
            rows = self._rows_left_out(ref)
            kept = table.select(columns)
            yield kept.filter([row not in rows for row in range(table.num_rows)]) if rows else kept
