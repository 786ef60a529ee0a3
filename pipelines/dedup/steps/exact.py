"""Rows that are the same to the last bit: their record, their text or their pictures."""

from __future__ import annotations

import itertools
from functools import partial
from typing import ClassVar, Literal

import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
from blake3 import blake3

from omnimill.pipelines.dedup.base import NODE, Featurizer, GroupStep
from omnimill.pipelines.dedup.facts import DIGEST, from_hex, halves
from omnimill.pipelines.dedup.texts import flat_texts
from omnimill.pipelines.dedup.verdicts import keep_first
from omnimill.rng import digest64

_LOWER = bytes(range(256)).lower()
_WHITE_SPACE = b" \t\n\r\x0b\x0c"


class Exact(GroupStep):
    """Of rows that are the same keeps one (reason ``exact_record``, ``exact_text`` or ``exact_images``).

    of: what must be the same.
        record: the bytes that were read from the source (``provenance.digest``). A record is kept or left out with all
        the examples that it was expanded into.
        text: all text.
        images: all pictures, in order, as they were in the source.
        Rows without text or pictures are nobody's twins.
    fold: whether white space and the case of ASCII letters make no difference to text.
    """

    reasons: ClassVar[tuple[str, ...]] = ("exact_record", "exact_text", "exact_images")

    step: Literal["exact"]
    of: Literal["record", "text", "images"]
    fold: bool = True

    @property
    def row_bytes(self) -> int:
        return 56

    def reads(self) -> tuple[str, ...]:
        return ("source", "provenance") if self.of == "record" else (self.of,)

    def featurizer(self) -> Featurizer:
        if self.of == "text":
            return partial(_texts, fold=self.fold)
        return _records if self.of == "record" else _images

    def keyed(self, rows: pa.Table) -> pa.Table:
        rows = rows.filter(pc.is_valid(rows.column("digest")))
        key, check = halves(rows.column("digest"))
        keyed = rows.select([*NODE.names, "origin"] if self.of == "record" else NODE.names)
        return keyed.append_column("key", pa.array(key)).append_column("check", pa.array(check))

    def decide(self, keyed: pa.Table) -> pa.Table:
        frame = pl.from_arrow(keyed)
        assert isinstance(frame, pl.DataFrame)
        return keep_first(frame, f"exact_{self.of}", ["key", "check"], "origin" if self.of == "record" else None)


def _records(table: pa.Table) -> pa.Table:
    """The digest of each row's record, and a number for where that lies, which rows of one record have in common."""
    where = table.column("provenance").combine_chunks()
    places = zip(table.column("source").to_pylist(), *(column.to_pylist() for column in where.flatten()), strict=True)
    origin = pa.array([digest64(*map(str, place)) for place in places], pa.uint64())
    return pa.table({"digest": from_hex(where.field("digest"), "provenance.digest"), "origin": origin})


def _texts(table: pa.Table, fold: bool) -> pa.Table:
    digests: list[bytes | None] = []
    for texts in flat_texts(table.column("text")):
        data = texts.data.data
        each: list[memoryview | bytes] = [
            data[start:end] for start, end in itertools.pairwise(texts.row_bytes.tolist())
        ]
        if fold:
            each = [bytes(text).translate(_LOWER, _WHITE_SPACE) for text in each]
        digests += [blake3(text).digest(length=16) if len(text) else None for text in each]
    return pa.table({"digest": pa.array(digests, DIGEST)})


def _images(table: pa.Table) -> pa.Table:
    digests: list[bytes | None] = []
    for lists in table.column("images").chunks:
        # `flatten` keeps to the chunk's own values; the pictures themselves are not touched.
        each = lists.flatten().field("digest").to_pylist()
        start = 0
        for count in pc.list_value_length(lists).to_pylist():
            text = "".join(each[start : start + count])
            digests.append(blake3(text.encode()).digest(length=16) if text else None)
            start += count
    return pa.table({"digest": pa.array(digests, DIGEST)})
