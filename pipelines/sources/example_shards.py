"""Examples of another dataset as a source: what was ingested (and fetched) once is the input of the next DAG."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import ClassVar, Literal, Self

import pyarrow as pa
import pyarrow.compute as pc

from omnimill.errors import ConfigError, IntegrityError, OmnimillError
from omnimill.infra import arrow_files
from omnimill.infra.dataset import Dataset, FileRef, InputRef, Unit
from omnimill.infra.erasures import erased_rows
from omnimill.infra.selections import load_selection, selected_url
from omnimill.infra.settling import settled
from omnimill.pipelines.base import Parent, Record, Source
from omnimill.schema import Example, Provenance, check_example_schema, from_row

_ORIGIN = ("uri", "digest", "offset", "length")


class ExampleShards(Source):
    """Base of sources that read an ingested dataset; a unit is a shard.

    path: the dataset's folder, ``<root>/<dataset>``.
    manifest: digest of the version to read; the current one when None.
    sources: those of the dataset's sources that are read; all when empty.
    selections: of that version, by name or digest; rows that one of them leaves out are not read.
    """

    selection: ClassVar[tuple[str, ...]] = ("manifest", "sources", "selections")

    path: str
    manifest: str | None = None
    sources: tuple[str, ...] = ()
    selections: tuple[str, ...] = ()

    def pinned(self) -> Self:
        dataset = self._dataset()
        version, _ = dataset.manifest(self.manifest)
        selections = tuple(load_selection(dataset, name, version)[0] for name in self.selections)
        return self.model_copy(update={"manifest": version, "selections": selections})

    def parents(self) -> list[Parent]:
        dataset = self._dataset()
        version = self.manifest or dataset.manifest()[0]
        found = (load_selection(dataset, name, version) for name in self.selections)
        return [Parent(dataset, version, {selection.name: digest for digest, selection in found})]

    def units(self) -> Iterator[Unit]:
        dataset = self._dataset()
        version, manifest = dataset.manifest(self.manifest)
        if manifest.kind != "examples":
            raise OmnimillError(f"{self.path} holds {manifest.kind}, not examples")
        settled(dataset, version, manifest)
        there = sorted({commit.source for commit in manifest.commits})
        if unknown := sorted({*self.sources} - {*there}):
            raise ConfigError(f"{self.path} has no source {', '.join(unknown)}; it has {', '.join(there)}")
        left_out: defaultdict[str, list[FileRef]] = defaultdict(list)
        for name in self.selections:
            for part in load_selection(dataset, name, version)[1].shards:
                left_out[part.shard].append(part.file)
        commits = (commit for commit in manifest.commits if commit.source in (self.sources or there))
        # Units of the same content have published the same shard: it is read once.
        for ref in dict.fromkeys(ref for commit in commits for ref in commit.shards):
            files = (selected_url(dataset, file) for file in left_out[ref.digest])
            yield Unit(source=self.name, files=(dataset.shard_url(ref), *files))

    def inputs(self, unit: Unit) -> list[InputRef]:
        found = super().inputs(unit)
        for ref in found:
            if ref.digest != shard_digest(ref.uri):
                raise IntegrityError(f"{ref.uri}: content hashes to {ref.digest}")
        return found

    def _dataset(self) -> Dataset:
        return _dataset_at(self.path)


def shard_digest(url: str) -> str:
    """The digest that a shard is named by."""
    return url.rsplit("/", 1)[-1].removesuffix(".arrow")


def _dataset_at(path: str) -> Dataset:
    root, _, name = path.rstrip("/").rpartition("/")
    return Dataset(root or ".", name)


def open_shard(unit: Unit) -> tuple[pa.Table, list[int]]:
    """The rows of a unit's shard, memory-mapped when it is local, and the numbers of those that are to be read.

    Rows that are erased by now are not among them; the unit stays the same unit.

    Raises:
        IntegrityError: it is of another schema version.
    """
    url, *selected = unit.files
    table = arrow_files.read_table(url)
    check_example_schema(table.schema, url)
    left_out = {row for file in selected for row in arrow_files.read_table(file).column("row").to_pylist()}
    left_out.update(erased_rows(_dataset_at(url.rsplit("/", 2)[0])).rows(shard_digest(url)).tolist())
    return table, [row for row in range(table.num_rows) if row not in left_out]


def examples_at(table: pa.Table, rows: Sequence[int]) -> list[Example]:
    """The examples in these rows of a shard, in this order."""
    return [from_row(row) for number in rows for row in table.slice(number, 1).to_pylist()]


def row_records(
    unit: Unit, key: Literal["id", "key"], derive: Callable[[str, Provenance, Example], list[Example]]
) -> Iterator[Record]:
    """A record for every row that is to be read, with the row's provenance.

    Args:
        key: the parent's column that becomes the record's key.
        derive: the examples of a record, from its key, its provenance and the parent example.
    """
    table, rows = open_shard(unit)
    keys, provenances = table.column(key).to_pylist(), _origins(table)
    for row in rows:
        yield Record(keys[row], provenances[row], partial(_derived, derive, keys[row], provenances[row], table, row))


def _derived(
    derive: Callable[[str, Provenance, Example], list[Example]],
    key: str,
    provenance: Provenance,
    table: pa.Table,
    row: int,
) -> list[Example]:
    (parent,) = examples_at(table, [row])
    return derive(key, provenance, parent)


def _origins(table: pa.Table) -> list[Provenance]:
    """The provenance of every row of a shard."""
    columns = (pc.struct_field(table.column("provenance"), name).to_pylist() for name in _ORIGIN)
    return [Provenance(**dict(zip(_ORIGIN, values, strict=True))) for values in zip(*columns, strict=True)]
