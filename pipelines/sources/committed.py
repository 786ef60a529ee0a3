"""The examples of another dataset as they are, for other operators."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields
from functools import partial
from typing import Literal

import pyarrow as pa

from omnimill.infra.dataset import Unit
from omnimill.pipelines.base import Record
from omnimill.pipelines.sources.example_shards import ExampleShards, examples_at, open_shard, origins
from omnimill.pipelines.sources.examples import make_example
from omnimill.schema import Example, Provenance

_OWN = ("id", "source", "unit", "key", "provenance")


class CommittedExamplesSource(ExampleShards):
    """Examples as they were ingested, to be judged and changed by other operators.

    What was expensive to read (fetched pictures, rendered scenes) is not read again. A record is an example; key,
    provenance and everything else stay as they are, scores of earlier operators among them.
    """

    type: Literal["examples"]

    def read(self, unit: Unit) -> Iterator[Record]:
        table, rows = open_shard(unit)
        keys, provenances = table.column("key").to_pylist(), origins(table)
        for row in rows:
            decode = partial(self._decode, unit, keys[row], provenances[row], table, row)
            yield Record(keys[row], provenances[row], decode)

    def _decode(self, unit: Unit, key: str, provenance: Provenance, table: pa.Table, row: int) -> list[Example]:
        (parent,) = examples_at(table, [row])
        columns = {column.name: getattr(parent, column.name) for column in fields(parent) if column.name not in _OWN}
        return [make_example(self, unit, key, provenance, **columns)]
