"""Examples of another dataset as a source: what was ingested (and fetched) once is the input of the next DAG."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import ClassVar

import pyarrow as pa

from omnimill.errors import IntegrityError
from omnimill.infra import arrow_files
from omnimill.infra.dataset import Dataset, InputRef, Unit
from omnimill.pipelines.base import Source
from omnimill.schema import Example, check_example_schema, from_row


class ExampleShards(Source):
    """Base of sources that read an ingested dataset; a unit is a shard.

    path: the dataset's folder, ``<root>/<dataset>``.
    manifest: digest of the version to read; the current one when None.
    """

    selection: ClassVar[tuple[str, ...]] = ("manifest",)

    path: str
    manifest: str | None = None

    def units(self) -> Iterator[Unit]:
        root, _, name = self.path.rstrip("/").rpartition("/")
        dataset = Dataset(root or ".", name)
        _, manifest = dataset.manifest(self.manifest)
        # Units of the same content have published the same shard: it is read once.
        for url in dict.fromkeys(dataset.shard_url(ref) for commit in manifest.commits for ref in commit.shards):
            yield Unit(source=self.name, files=(url,))

    def inputs(self, unit: Unit) -> list[InputRef]:
        found = super().inputs(unit)
        for ref in found:
            if ref.digest != shard_digest(ref.uri):
                raise IntegrityError(f"{ref.uri}: content hashes to {ref.digest}")
        return found


def shard_digest(url: str) -> str:
    """The digest that a shard is named by."""
    return url.rsplit("/", 1)[-1].removesuffix(".arrow")


def open_shard(url: str) -> pa.Table:
    """The rows of a shard, memory-mapped when it is local.

    Raises:
        IntegrityError: it is of another schema version.
    """
    table = arrow_files.read_table(url)
    check_example_schema(table.schema, url)
    return table


def examples_at(table: pa.Table, rows: Sequence[int]) -> list[Example]:
    """The examples in these rows of a shard, in this order."""
    return [from_row(row) for number in rows for row in table.slice(number, 1).to_pylist()]
