"""Pieces of an index: the keys of one shard, written by whoever writes the shard, who has its rows at hand.

``<dataset>/index/pieces/<shard>.keys`` is there between a unit's commit and the publishing of a version, which takes it
into a segment without reading the shard. Where there is none the shard is read.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Set
from contextlib import suppress

import numpy as np
import pyarrow as pa

from omnimill.errors import OmnimillError
from omnimill.infra import arrow_files, storage
from omnimill.infra.dataset import Dataset, FileRef
from omnimill.infra.index_keys import FileKeys, keys_of_table

_FOLDER = "index/pieces"
_DOMAINS, _LICENCES, _VERSION = b"domains", b"licences", b"version"
# Raised with other keys of the same rows.
_NOW = b"1"
_SCHEMA = pa.schema([pa.field("hash", pa.uint64(), nullable=False), pa.field("row", pa.int64(), nullable=False)])


def publish_shard(dataset: Dataset, table: pa.Table) -> FileRef:
    """Store rows as a shard, and their keys beside it, if these can be written."""
    ref = dataset.publish_shard(table)
    keys = keys_of_table(table)
    said = {_DOMAINS: json.dumps(keys.domains), _LICENCES: json.dumps(keys.licences), _VERSION: _NOW}
    piece = pa.table([keys.hashes, keys.rows], _SCHEMA.with_metadata(said))
    with suppress(OSError, OmnimillError):
        arrow_files.write_table(piece, _url(dataset, ref.digest))
    return ref


def read(dataset: Dataset, shard: str) -> FileKeys | None:
    """The keys of a shard; None when there is no piece."""
    with suppress(OSError, ValueError, KeyError, pa.ArrowException):
        piece = arrow_files.read_table(_url(dataset, shard))
        said = piece.schema.metadata
        if said[_VERSION] == _NOW:
            # Copied: the file will be deleted.
            hashes, rows = (np.array(piece.column(name).to_numpy()) for name in ("hash", "row"))
            return FileKeys(hashes, rows, json.loads(said[_DOMAINS]), json.loads(said[_LICENCES]))
    return None


def delete(dataset: Dataset, shards: Iterable[str]) -> None:
    """Remove pieces that are in a segment by now."""
    for shard in _shards(dataset).intersection(shards):
        filesystem, path = storage.filesystem(_url(dataset, shard))
        with suppress(OSError):
            filesystem.rm_file(path)


def leftovers(dataset: Dataset, covered: Set[str]) -> list[str]:
    """URLs of pieces that nobody will read: of shards that segments cover, or that are gone."""
    there = {name.removesuffix(".arrow") for name in storage.list_folder(storage.join(dataset.url, "shards"))}
    return [_url(dataset, shard) for shard in sorted(_shards(dataset) - (there - covered))]


def _shards(dataset: Dataset) -> set[str]:
    """Shards that there are pieces of."""
    return {name.removesuffix(".keys") for name in storage.list_folder(storage.join(dataset.url, _FOLDER))}


def _url(dataset: Dataset, shard: str) -> str:
    return storage.join(dataset.url, _FOLDER, f"{shard}.keys")
