"""Which rows of a version a page looks at: all of a small one, of a large one some that a keyed hash chooses.

What a page says of rows must cost the same for a thousand shards as for a million; what it says of whole versions comes
from their manifests. Rows that were erased are never looked at.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from omnimill import rng
from omnimill.infra import arrow_files, storage
from omnimill.infra.arrow_files import BATCH_ROWS
from omnimill.infra.dataset import Commit, Dataset, FileRef, Manifest
from omnimill.infra.erasures import ErasedRows
from omnimill.infra.settling import settled
from omnimill.rng import Int64s

# Shards of all sources together (every source has one at least), and files of what was turned down.
MOST_FILES = 96
# Record batches of a shard: reading one from a local disk touches the columns that are asked for alone, from a remote
# store it is read whole.
_BATCHES_LOCAL, _BATCHES_REMOTE = 16, 2


@dataclass(frozen=True)
class Piece:
    """Rows of a record batch of a shard: all columns, of which nothing is read before it is used.

    places: where the rows stand in the batch.
    """

    source: str
    shard: FileRef
    batch: int
    places: Int64s
    rows: pa.RecordBatch


@dataclass(frozen=True)
class Sampled:
    """What is looked at of a version.

    shards: of every source. seen: rows that these show, erased ones among them. rows, files: that there are.
    erased: what is not shown.
    """

    dataset: Dataset
    shards: Sequence[tuple[str, FileRef]]
    seen: int
    rows: int
    files: int
    erased: ErasedRows

    def describe(self) -> str:
        """How much is looked at, in words."""
        if self.seen == self.rows:
            return f"all {self.rows:,} rows"
        return (
            f"{self.seen:,} of {self.rows:,} rows, of {len(self.shards):,} of {self.files:,} shards, chosen by a hash"
        )

    def pieces(self) -> Iterator[Piece]:
        """The record batches that are looked at, one at a time."""
        for source, ref in self.shards:
            gone = self.erased.rows(ref.digest)
            with arrow_files.open_batches(self.dataset.shard_url(ref)) as reader:
                for number in _batches(self.dataset, ref):
                    rows = reader.get_batch(number)
                    places = np.setdiff1d(np.arange(rows.num_rows), gone - number * BATCH_ROWS)
                    if len(places) < rows.num_rows:
                        rows = rows.take(pa.array(places))
                    yield Piece(source, ref, number, places, rows)


def sampled(dataset: Dataset, digest: str, manifest: Manifest) -> Sampled:
    """What to look at of a version: the same for the same version."""
    by_source: dict[str, list[FileRef]] = {}
    for commit in manifest.commits:
        by_source.setdefault(commit.source, []).extend(commit.shards)
    files = sum(map(len, by_source.values()))
    share = files if files <= MOST_FILES else max(1, MOST_FILES // len(by_source))
    chosen = [(source, ref) for source, refs in sorted(by_source.items()) for ref in _first(refs, share)]
    seen = sum(_rows(ref, number) for _, ref in chosen for number in _batches(dataset, ref))
    return Sampled(dataset, chosen, seen, manifest.rows, files, settled(dataset, digest, manifest))


def some_commits(commits: Iterable[Commit]) -> list[Commit]:
    """At most `MOST_FILES` commits, the same ones of the same commits."""
    found = list(commits)
    if len(found) <= MOST_FILES:
        return found
    return sorted(found, key=lambda commit: rng.digest64("report", commit.unit))[:MOST_FILES]


def _first(refs: Sequence[FileRef], count: int) -> Sequence[FileRef]:
    """`count` different shards."""
    different = list({ref.digest: ref for ref in refs}.values())
    if len(different) <= count:
        return different
    return sorted(different, key=lambda ref: rng.digest64("report", ref.digest))[:count]


def _batches(dataset: Dataset, ref: FileRef) -> Sequence[int]:
    """Numbers of the record batches of a shard that are looked at, spread over it."""
    count = -(-ref.rows // BATCH_ROWS)
    most = _BATCHES_LOCAL if storage.is_local(dataset.url) else _BATCHES_REMOTE
    if count <= most:
        return range(count)
    return [(2 * i + 1) * count // (2 * most) for i in range(most)]


def _rows(ref: FileRef, batch: int) -> int:
    return min(BATCH_ROWS, ref.rows - batch * BATCH_ROWS)
