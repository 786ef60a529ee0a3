"""The examples that token rows were made from."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache

import pyarrow as pa

from omnimill.infra import arrow_files, storage
from omnimill.mixtures.versions import TokenData
from omnimill.schema import Example, check_example_schema, from_row

# Example shards kept open at a time; a local one costs a memory map, a remote one its size in memory.
_OPEN = 4


class ExampleShards:
    """Finds examples by the token shards of their rows.

    Args:
        data: versions of token datasets; of every unit the first input is the example shard that it was made from.
    """

    def __init__(self, data: TokenData) -> None:
        self._made_from: Mapping[str, str] = {
            url: storage.join(data.root, commit.inputs[0].uri) for commit, _, url in data.shards() if commit.inputs
        }

    def example(self, shard: str, example_id: str) -> Example | None:
        """An example; None where its shard, or the example in it, is not there any more.

        Args:
            shard: URL of the token shard.

        Raises:
            IntegrityError: the shard is of another version of the schema.
        """
        try:
            table, places = _opened(self._made_from[shard])
            place = places[example_id]
        except (KeyError, FileNotFoundError):
            return None
        (row,) = table.slice(place, 1).to_pylist()
        return from_row(row)


@lru_cache(maxsize=_OPEN)
def _opened(url: str) -> tuple[pa.Table, dict[str, int]]:
    """A shard and where each example is in it."""
    table = arrow_files.read_table(url)
    check_example_schema(table.schema, url)
    return table, {one: place for place, one in enumerate(table.column("id").to_pylist())}
