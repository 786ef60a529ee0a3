"""Pictures that were fetched before, by their URL: the output of img2dataset in each of its formats.

Of every shard there is a table (``00000.parquet``) with the columns ``url``, ``key`` and ``status``. The pictures lie
in a tar beside it, in a folder of files beside it, or in a column of the table itself.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from omnimill.errors import BadRecord
from omnimill.infra import storage
from omnimill.pipelines.decoders.tars import read_members
from omnimill.pipelines.spool import Spool

_ENDINGS = ("jpg", "jpeg", "png", "webp")


@dataclass
class Shard:
    """A shard that holds wanted pictures: URLs by key. container: the tar, folder or table they lie in."""

    container: str
    kind: str
    urls: dict[str, str]


@dataclass
class Found:
    """Pictures by URL, and what was wrong with the files that they were looked for in."""

    pictures: Spool = field(default_factory=Spool)
    faults: list[tuple[str, BadRecord]] = field(default_factory=list)


def tables(folder: str) -> list[str]:
    """The tables of a folder of img2dataset; none when it is not there."""
    return [storage.join(folder, name) for name in storage.list_folder(folder) if name.endswith(".parquet")]


def wanted_shards(folder: str, wanted: set[str], faults: list[tuple[str, BadRecord]]) -> list[Shard]:
    """The shards that hold `wanted` URLs, each URL in the first shard that has it; damaged tables go to `faults`."""
    shards: list[Shard] = []
    left = set(wanted)
    for table in tables(folder):
        try:
            keys, columns = _keys(table, left)
        except BadRecord as fault:
            faults.append((table, fault))
            continue
        if keys:
            left -= set(keys.values())
            shards.append(Shard(*_container(table, columns), keys))
    return shards


def container_files(shard: Shard) -> list[str]:
    """The files that a shard's wanted pictures lie in, besides its table."""
    if shard.kind == "tar":
        return [shard.container] if storage.exists(shard.container) else []
    return [url for _, url in _files(shard)] if shard.kind == "folder" else []


def fetch_found(folder: str, wanted: set[str], max_bytes: int) -> Found:
    """Read wanted pictures from a folder of img2dataset; those above `max_bytes` have no bytes."""
    found = Found()
    for shard in wanted_shards(folder, wanted, found.faults):
        readers = {"tar": _from_tar, "folder": _from_folder, "table": _from_table}
        try:
            for key, data, uri in readers[shard.kind](shard, max_bytes):
                found.pictures.put(shard.urls[key], data, uri)
        except BadRecord as fault:
            found.faults.append((shard.container, fault))
    return found


def _keys(table: str, wanted: set[str]) -> tuple[dict[str, str], list[str]]:
    """Wanted URLs of a table by key, and the table's columns."""
    values = pa.array(sorted(wanted), pa.string())
    keys: dict[str, str] = {}
    taken: set[str] = set()
    columns: list[str] = []
    for batch, names in _batches(table, ("url", "key", "status")):
        columns = names
        chosen = pc.is_in(batch.column("url").cast(pa.string()), value_set=values)
        for row in batch.filter(chosen).to_pylist():
            if row.get("status", "success") == "success" and row["url"] not in taken:
                taken.add(row["url"])
                keys[str(row["key"])] = row["url"]
    return keys, columns


def _batches(table: str, wanted: tuple[str, ...]) -> Iterator[tuple[pa.RecordBatch, list[str]]]:
    try:
        with storage.open_read(table) as stream:
            file = pq.ParquetFile(stream)
            names = file.schema_arrow.names
            if not {"url", "key"} <= set(names):
                raise BadRecord("missing_field", f"no columns 'url' and 'key'; it has {', '.join(sorted(names))}")
            for batch in file.iter_batches(1024, columns=[name for name in wanted if name in names]):
                yield batch, names
    except (pa.ArrowException, OSError) as fault:
        if getattr(fault, "errno", None) is not None:
            raise
        raise BadRecord("parquet_unreadable", str(fault)) from fault


def _container(table: str, columns: list[str]) -> tuple[str, str]:
    stem = table.removesuffix(".parquet")
    if any(ending in columns for ending in _ENDINGS):
        return table, "table"
    return (stem, "folder") if storage.list_folder(stem) else (f"{stem}.tar", "tar")


def _from_tar(shard: Shard, max_bytes: int) -> Iterator[tuple[str, bytes, str]]:
    if not storage.exists(shard.container):
        raise BadRecord("missing_file", "a table of fetched pictures, but no tar, folder or column with them")
    left = set(shard.urls)
    for member in read_members(shard.container, max_bytes):
        key, _, ending = member.name.rsplit("/", 1)[-1].partition(".")
        if key in left and ending in _ENDINGS:
            yield key, member.data or b"", f"{shard.container}#{member.name}"
            left.remove(key)
            if not left:
                return


def _files(shard: Shard) -> Iterator[tuple[str, str]]:
    for name in storage.list_folder(shard.container):
        key, _, ending = name.partition(".")
        if key in shard.urls and ending in _ENDINGS:
            yield key, storage.join(shard.container, name)


def _from_folder(shard: Shard, max_bytes: int) -> Iterator[tuple[str, bytes, str]]:
    for key, url in _files(shard):
        with storage.open_read(url) as stream:
            data = stream.read(max_bytes + 1)
        yield key, data if len(data) <= max_bytes else b"", url


def _from_table(shard: Shard, max_bytes: int) -> Iterator[tuple[str, bytes, str]]:
    for batch, _ in _batches(shard.container, ("url", "key", *_ENDINGS)):
        keys = batch.column("key").cast(pa.string())
        chosen = pc.is_in(keys, value_set=pa.array(sorted(shard.urls), pa.string()))
        for row in batch.filter(chosen).to_pylist():
            data = _column(row)
            key = str(row["key"])
            yield key, data if len(data) <= max_bytes else b"", f"{shard.container}#{key}"


def _column(row: Mapping[str, Any]) -> bytes:
    values = (row.get(ending) for ending in _ENDINGS)
    return next((bytes(value) for value in values if isinstance(value, bytes)), b"")
