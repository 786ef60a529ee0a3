"""Features of shards, measured once and kept: ``<dataset>/features/<recipe>/<shard>.arrow``.

A file is a pure function of the shard and the recipe, and appears whole; losing the folder costs nothing but time.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import pyarrow as pa

from omnimill.errors import OmnimillError
from omnimill.infra import arrow_files, storage
from omnimill.infra.dataset import Dataset, FileRef
from omnimill.pipelines.dedup.base import Featurizer, Step
from omnimill.pipelines.dedup.facts import READS, facts, facts_recipe
from omnimill.schema import check_example_schema


@dataclass(frozen=True)
class Measure:
    """How some features come about. reads: example columns. setup: gives what measures them."""

    recipe: str
    reads: tuple[str, ...]
    setup: Callable[[], Featurizer]


FACTS = Measure(facts_recipe(), READS, lambda: facts)


def measure_of(step: Step) -> Measure:
    """The features of a step."""
    return Measure(step.feature_recipe(), step.reads(), step.featurizer)


def measured(dataset: Dataset, measure: Measure) -> set[str]:
    """The digests of the shards that have these features."""
    names = storage.list_folder(storage.join(dataset.url, "features", measure.recipe))
    return {name.removesuffix(".arrow") for name in names}


def load(dataset: Dataset, shard: FileRef, measure: Measure, featurizer: Featurizer | None = None) -> pa.Table:
    """Features of a shard, one row for each of its rows; measured and stored if they are not there yet.

    Args:
        featurizer: what `measure` sets up, when the caller has it already.

    Raises:
        OmnimillError: features and rows differ in number.
    """
    url = storage.join(dataset.url, "features", measure.recipe, f"{shard.digest}.arrow")
    try:
        return arrow_files.read_table(url)
    except FileNotFoundError:
        pass
    table = dataset.read(shard)
    check_example_schema(table.schema, dataset.shard_url(shard))
    found = (featurizer or measure.setup())(table.select(list(measure.reads)))
    if found.num_rows != shard.rows:
        raise OmnimillError(f"{dataset.shard_url(shard)}: {shard.rows} rows gave {found.num_rows} rows of features")
    arrow_files.write_table(found, url)
    return found
