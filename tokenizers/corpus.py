"""What tokenizers learn from: texts, pictures and sound of an example dataset, and the ranges of its vectors.

What is held out is decided by keyed hash of example ids, so it does not depend on how the dataset is cut into shards.
What is not asked for is not read.
"""

from __future__ import annotations

import heapq
import tempfile
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from omnimill.config import Config
from omnimill.errors import OmnimillError
from omnimill.infra import arrow_files, storage
from omnimill.infra.dataset import Dataset, FileRef
from omnimill.infra.lineage import CommandRun
from omnimill.infra.selections import left_out, load_selection, selection_url
from omnimill.infra.settling import settled
from omnimill.locations import Range
from omnimill.rng import digest64, uniform
from omnimill.schema import check_example_schema
from omnimill.tokenizers.store import VectorRanges

Column = Literal["images", "audio"]

# Shards that are kept open for reading items out of order.
_OPEN_SHARDS = 64


@dataclass(frozen=True)
class Sample:
    """An encoded picture or clip, and the example it belongs to: its id, and its source's name."""

    example: str
    source: str
    data: bytes


class Split(Config):
    """Which examples measure quality instead of being learnt from, by a number in 0..1 that each has of its own.

    seed: of these numbers. held_out: examples with a number up to this are held out.
    learn_all: those are learnt from as well, because there are no others.
    """

    seed: int
    held_out: float
    learn_all: bool = False

    def measures(self, example: str) -> bool:
        """Whether an example, given by its id, measures quality."""
        return _own_number(self.seed, example) <= self.held_out

    def learns(self, example: str) -> bool:
        """Whether an example is learnt from."""
        return self.learn_all or not self.measures(example)


def _own_number(seed: int, example: str) -> float:
    return uniform("held_out", seed, example)


class Corpus:
    """One version of an example dataset, less what selections leave out and what is erased by now.

    Args:
        root: fsspec URL or path.
        name: of the dataset.
        selections: names of selections of that version.
        manifest: digest of the version; the current one when None.

    Raises:
        OmnimillError: there is no such dataset or selection, or the dataset does not hold examples.
        IntegrityError: a selection was made for another version.
    """

    def __init__(self, root: str, name: str, selections: Sequence[str] = (), manifest: str | None = None) -> None:
        self.dataset = Dataset(root, name)
        self.digest, self.manifest = self.dataset.manifest(manifest)
        if self.manifest.kind != "examples":
            raise OmnimillError(f"dataset {name!r} under {root} holds {self.manifest.kind}, not examples")
        self.shards = tuple(shard for commit in self.manifest.commits for shard in commit.shards)
        found = {selection: load_selection(self.dataset, selection, self.digest) for selection in selections}
        self.selections = {selection: digest for selection, (digest, _) in found.items()}
        self._erased = settled(self.dataset, self.digest, self.manifest)
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

    def split(self, column: Column, share: float, seed: int) -> Split | None:
        """Hold out a share of the examples that have pictures or clips, at least one; None when no example has any."""
        low, high = 2.0, -1.0
        for item in self._items(column):
            number = _own_number(seed, item.example)
            low, high = min(low, number), max(high, number)
        if high < low:
            return None
        held_out = max(share, low)
        return Split(seed=seed, held_out=held_out, learn_all=high <= held_out)

    def media(self, column: Column, count: int, seed: int, split: Split | None = None) -> list[Sample]:
        """Up to `count` pictures or clips of the whole dataset, or of what a split holds out, chosen by keyed hash."""
        wanted = (item for item in self._items(column) if split is None or split.measures(item.example))
        keyed = ((digest64(f"{column}_sample", seed, item.example, item.place), item) for item in wanted)
        chosen = [item for _, item in heapq.nsmallest(count, keyed, key=lambda pair: pair[0])]
        samples: dict[_Item, Sample] = {}
        for item in sorted(chosen, key=lambda one: one.shard):
            samples[item] = self.shard_media(item.shard, column).sample(item.row, item.place)
        return [samples[item] for item in chosen]

    def shard_media(self, shard: int, column: Column) -> ShardMedia:
        """The pictures or clips of one shard, by its number."""
        ref = self.shards[shard]
        return ShardMedia(self._mapped(ref).select(["id", "source", column]), column, self._rows_left_out(ref))

    def _items(self, column: Column) -> Iterator[_Item]:
        """Every item of a list column; reads no item."""
        for shard, ref in enumerate(self.shards):
            table = self._mapped(ref).select(["id", column])
            lengths = pc.list_value_length(table.column(column)).to_pylist()
            left_out = self._rows_left_out(ref)
            for row, (example, length) in enumerate(zip(table.column("id").to_pylist(), lengths, strict=True)):
                for place in range(0 if row in left_out else length):
                    yield _Item(shard, row, place, example)

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

    def _mapped(self, ref: FileRef) -> pa.Table:
        """A shard as a memory map; of a remote one a copy is made that lasts as long as this object."""
        if storage.is_local(self.dataset.url):
            return self.dataset.read(ref)
        copy = Path(self._copies.name) / f"{ref.digest}.arrow"
        if not copy.exists():
            partial = copy.with_suffix(f".{uuid.uuid4().hex}")
            storage.download(self.dataset.shard_url(ref), partial)
            partial.replace(copy)
        return arrow_files.read_table(str(copy))

    @cached_property
    def _copies(self) -> tempfile.TemporaryDirectory[str]:
        return tempfile.TemporaryDirectory(prefix="omnimill-shards-")

    def _rows_left_out(self, ref: FileRef) -> frozenset[int]:
        files = (*self.left_out(ref.digest), *self._erased.files(ref.digest))
        return frozenset(row for file in files for row in left_out(self.dataset, file).column("row").to_pylist())

    def _tables(self, columns: list[str]) -> Iterator[pa.Table]:
        for ref in self.shards:
            table = self.dataset.read(ref)
            check_example_schema(table.schema, self.dataset.shard_url(ref))
            rows = self._rows_left_out(ref)
            kept = table.select(columns)
            yield kept.filter([row not in rows for row in range(table.num_rows)]) if rows else kept


@dataclass(frozen=True)
class _Item:
    """A picture or clip by its place: number of the shard, row, place in the row's list; and its example's id."""

    shard: int
    row: int
    place: int
    example: str


class ShardMedia:
    """The items of a list column of one shard, in order.

    Args:
        table: the shard's ids, sources and that column.
        column: of pictures or of clips.
        left_out: rows that count as having no items.
    """

    def __init__(self, table: pa.Table, column: Column, left_out: frozenset[int]) -> None:
        self._ids = table.column("id")
        self._sources = table.column("source")
        self._lists = table.column(column)
        lengths = np.asarray(pc.list_value_length(self._lists), np.int64)
        lengths[list(left_out)] = 0
        self._ends = np.cumsum(lengths)

    def __len__(self) -> int:
        return int(self._ends[-1]) if len(self._ends) else 0

    def example(self, number: int) -> str:
        """Id of the example that item `number` belongs to."""
        return str(self._ids[self._row(number)].as_py())

    def data(self, number: int) -> bytes:
        """Item `number`, encoded as it is stored."""
        row = self._row(number)
        return self.sample(row, number - (int(self._ends[row - 1]) if row else 0)).data

    def sample(self, row: int, place: int) -> Sample:
        """An item by row, and place in the row's list."""
        data: bytes = self._lists[row].values[place]["data"].as_py()
        return Sample(str(self._ids[row].as_py()), str(self._sources[row].as_py()), data)

    def _row(self, number: int) -> int:
        return int(np.searchsorted(self._ends, number, side="right"))


class MediaItems:
    """Every picture or clip of a corpus by number, read when it is asked for.

    Keeps a number for each shard, and some shards open; on a local disk these are memory maps.
    """

    def __init__(self, corpus: Corpus, column: Column) -> None:
        self._shard = lru_cache(_OPEN_SHARDS)(lambda shard: corpus.shard_media(shard, column))
        self._ends = np.cumsum([len(corpus.shard_media(i, column)) for i in range(len(corpus.shards))], dtype=np.int64)

    def __len__(self) -> int:
        return int(self._ends[-1]) if len(self._ends) else 0

    def example(self, number: int) -> str:
        """Id of the example that item `number` belongs to."""
        media, inside = self._find(number)
        return media.example(inside)

    def data(self, number: int) -> bytes:
        """Item `number`, encoded as it is stored."""
        media, inside = self._find(number)
        return media.data(inside)

    def _find(self, number: int) -> tuple[ShardMedia, int]:
        shard = int(np.searchsorted(self._ends, number, side="right"))
        return self._shard(shard), number - (int(self._ends[shard - 1]) if shard else 0)
