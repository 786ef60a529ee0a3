"""Under which keys the rows of a dataset's file are found: ids, addresses, digests; and the domains they come from."""

from __future__ import annotations

import os.path
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from blake3 import blake3

from omnimill.hosts import domains_of, host_of
from omnimill.infra.dataset import InputRef
from omnimill.rng import Int64s, UInt64s

# Where rows name what they are or come from: columns, fields of structs, fields of structs in lists.
_STORED, _REJECTED = ("id",), ("uri", "key")
_FIELDS = {"provenance": ("uri", "digest"), "meta": ("url",), "video": ("uri", "digest")}
_LISTS = {"images": ("uri", "digest"), "audio": ("uri", "digest")}
# The column that only files of records that were turned down have.
_REASON = "reason"
_WEB = ("http://", "https://")
_HEX = re.compile(r"(?:[0-9a-f]{32}){1,2}")
_HEX_DIGITS = 16
_NIBBLES = np.full(256, 255, np.uint8)
_NIBBLES[np.frombuffer(b"0123456789abcdef", np.uint8)] = np.arange(16)


@dataclass(frozen=True)
class FileKeys:
    """What is found in one file of a dataset.

    hashes, rows: uint64 [n], int64 [n]; the key of a row, and the row; sorted, each pair once. domains: rows by domain.
    licences: rows by licence, "" where none is stated.
    """

    hashes: UInt64s
    rows: Int64s
    domains: dict[str, int] = field(default_factory=dict)
    licences: dict[str, int] = field(default_factory=dict)


def key_of(value: str) -> int:
    """64 bits by which a value is found; of a digest or id its own first ones, which are a hash already."""
    if _HEX.fullmatch(value):
        return int(value[:_HEX_DIGITS], 16)
    return int.from_bytes(blake3(value.encode()).digest(length=8), "big")


def plain_address(uri: str) -> str:
    """A path or URL as it is compared: local ones as normal paths without a protocol, relative ones left so."""
    if "://" in uri and not uri.startswith("file://"):
        return uri
    return os.path.normpath(uri.removeprefix("file://"))


def named_values(table: pa.Table) -> Iterator[tuple[Int64s, Literal["address", "name"], pa.Array]]:
    """What rows of a shard, or of a file of records that were turned down, name: reads no medium.

    Yields:
        The rows, int64 [n]; whether the values are paths and URLs or ids, digests and keys; the values, string [n].
    """
    columns = _REJECTED if _REASON in table.column_names else _STORED
    for name in columns:
        if name in table.column_names:
            column = table.column(name).combine_chunks()
            yield np.arange(len(column)), _kind(name), column
    for column, fields in (*_FIELDS.items(), *_LISTS.items()):
        if column not in table.column_names:
            continue
        # Pieces are put together when only names are left of them: media are not to be copied.
        values, rows = table.column(column), np.arange(table.num_rows)
        if pa.types.is_list(values.type):
            rows = pc.list_parent_indices(values).combine_chunks().to_numpy().astype(np.int64)
            values = pc.list_flatten(values)
        for name in fields:
            if values.type.get_field_index(name) >= 0:
                yield rows, _kind(name), pc.struct_field(values, name).combine_chunks()


def keys_of_table(table: pa.Table) -> FileKeys:
    """Keys of the rows of a shard, or of a file of records that were turned down; reads no medium."""
    hashes: list[UInt64s] = []
    rows: list[Int64s] = []
    pairs: list[Int64s] = []
    domains: dict[str, int] = {}
    for owners, kind, values in named_values(table):
        if kind == "address":
            encoded = values.dictionary_encode()
            distinct = encoded.dictionary.to_pylist()
            codes, present = _codes(encoded)
            hashes.append(np.array([key_of(plain_address(value)) for value in distinct], np.uint64)[codes])
            pairs += _in_domains(distinct, codes, owners[present], domains)
        else:
            made, present = hash_many(values)
            hashes.append(made)
        rows.append(owners[present])
    return FileKeys(*_sorted(hashes, rows), _count(pairs, domains), _licences(table))


def keys_of_inputs(inputs: Iterable[InputRef]) -> FileKeys:
    """Keys of the files that a unit read; a row is a file's place among them."""
    hashes, rows = [], []
    for row, ref in enumerate(inputs):
        hashes += [key_of(plain_address(ref.uri)), key_of(ref.digest)]
        rows += [row, row]
    return FileKeys(*_sorted([np.array(hashes, np.uint64)], [np.array(rows, np.int64)]))


def hash_many(values: pa.Array) -> tuple[UInt64s, Int64s]:
    """:func:`key_of` of the strings that are not null, and their places."""
    present = np.flatnonzero(values.is_valid().to_numpy(zero_copy_only=False))
    values = values.drop_null()
    # Digests of one length, which is what columns of digests hold, need no call for each.
    if len(values) and (size := _one_length(values)) in (32, 64):
        text = _bytes_of(values).reshape(len(values), size)
        nibbles = _NIBBLES[text]
        if nibbles.max() < 16:
            shifts = np.arange(60, -1, -4, dtype=np.uint64)
            return (nibbles[:, :_HEX_DIGITS].astype(np.uint64) << shifts).sum(axis=1, dtype=np.uint64), present
    return np.array([key_of(value) for value in values.to_pylist()], np.uint64), present


def _one_length(values: pa.Array) -> int | None:
    lengths = pc.min_max(pc.binary_length(values)).as_py()
    return lengths["min"] if lengths["min"] == lengths["max"] else None


def _bytes_of(values: pa.StringArray) -> np.ndarray:
    offsets = np.frombuffer(values.buffers()[1], np.int32)[values.offset : values.offset + len(values) + 1]
    return np.frombuffer(values.buffers()[2], np.uint8)[offsets[0] : offsets[-1]]


def _kind(name: str) -> Literal["address", "name"]:
    return "address" if name in ("uri", "url") else "name"


def _codes(encoded: pa.DictionaryArray) -> tuple[Int64s, Int64s]:
    """Which distinct value each that is not null is, and their places."""
    present = np.flatnonzero(encoded.indices.is_valid().to_numpy(zero_copy_only=False))
    return encoded.indices.drop_null().to_numpy().astype(np.int64), present


def _in_domains(distinct: list[str], codes: Int64s, rows: Int64s, domains: dict[str, int]) -> list[Int64s]:
    """(domain, row) pairs: int64 [2, n]; new domains get the next numbers."""
    numbers = [
        [domains.setdefault(domain, len(domains)) for domain in domains_of(host)]
        if value.startswith(_WEB) and (host := host_of(value))
        else []
        for value in distinct
    ]
    if not any(numbers):
        return []
    counts = np.array([len(one) for one in numbers])
    starts = np.concatenate([[0], np.cumsum(counts)])
    flat = np.array([number for one in numbers for number in one], np.int64)
    repeats = counts[codes]
    inside = np.arange(repeats.sum()) - np.repeat(np.cumsum(repeats) - repeats, repeats)
    return [np.stack([flat[np.repeat(starts[codes], repeats) + inside], np.repeat(rows, repeats)])]


def _count(pairs: list[Int64s], domains: dict[str, int]) -> dict[str, int]:
    """How many rows each domain has; a row that names it twice counts once."""
    if not pairs:
        return {}
    distinct = np.unique(np.concatenate(pairs, axis=1), axis=1)
    counts = np.bincount(distinct[0], minlength=len(domains)).tolist()
    return {domain: counts[number] for domain, number in domains.items()}


def _licences(table: pa.Table) -> dict[str, int]:
    if "meta" not in table.column_names or table.column("meta").type.get_field_index("licence") < 0:
        return {}
    values = pc.struct_field(table.column("meta"), "licence")
    found: Counter[str] = Counter()
    for one in pc.value_counts(values).to_pylist():
        found[one["values"] or ""] += one["counts"]
    return dict(sorted(found.items()))


def _sorted(hashes: list[UInt64s], rows: list[Int64s]) -> tuple[UInt64s, Int64s]:
    all_hashes = np.concatenate([np.empty(0, np.uint64), *hashes])
    all_rows = np.concatenate([np.empty(0, np.int64), *rows])
    order = np.lexsort((all_rows, all_hashes))
    all_hashes, all_rows = all_hashes[order], all_rows[order]
    new = np.ones(len(order), np.bool_)
    new[1:] = (np.diff(all_hashes) != 0) | (np.diff(all_rows) != 0)
    return all_hashes[new], all_rows[new]
