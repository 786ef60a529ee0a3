"""The examples of another dataset as they are, for other operators."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields
from functools import partial
from typing import Literal

from omnimill.infra.dataset import Unit
from omnimill.pipelines.base import Record
from omnimill.pipelines.sources.example_shards import ExampleShards, row_records
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
        return row_records(unit, "key", partial(self._again, unit))

    def _again(self, unit: Unit, key: str, provenance: Provenance, parent: Example) -> list[Example]:
        columns = {column.name: getattr(parent, column.name) for column in fields(parent) if column.name not in _OWN}
        return [make_example(self, unit, key, provenance, **columns)]
