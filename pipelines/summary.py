"""What an ingestion answers: accounts per source, as JSON, as a table and in MLflow."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from omnimill.config import digest_json
from omnimill.infra.dataset import Commit, Counts, Dataset, InputRef, Manifest, published_json, total
from omnimill.infra.lineage import About, CommandRun, Reference, about, licence_tags
from omnimill.infra.rejections import record_rejections
from omnimill.infra.selections import selection_url
from omnimill.pipelines.base import Parent
from omnimill.pipelines.dag import Pipeline

# The command of the MLflow run of one source of an ingestion.
SOURCE = "ingest source"


@dataclass(frozen=True)
class SourceResult:
    """One source's commits in the published version; `committed` of them were made by this run."""

    pipeline: Pipeline
    commits: tuple[Commit, ...]
    committed: int

    @property
    def counts(self) -> Counts:
        return total(commit.counts for commit in self.commits)

    @property
    def inputs(self) -> list[InputRef]:
        """Every input, by URI and content, once."""
        refs = {(ref.uri, ref.digest): ref for commit in self.commits for ref in commit.inputs}
        return [refs[key] for key in sorted(refs)]


@dataclass(frozen=True)
class IngestResult:
    """A finished ingestion: the published version, and what each source gave."""

    dataset: Dataset
    digest: str
    manifest: Manifest
    sources: tuple[SourceResult, ...]
    seconds: float

    @property
    def committed(self) -> int:
        """Units that this run did; the others were there before."""
        return sum(source.committed for source in self.sources)

    def as_json(self) -> dict[str, Any]:
        """The shape that ``--json`` prints."""
        return {
            **published_json(self.digest, self.manifest, self.committed, self.seconds),
            "sources": [
                {
                    "name": source.pipeline.name,
                    "type": source.pipeline.source.type,
                    "units": len(source.commits),
                    "committed": source.committed,
                    **source.counts.as_json(),
                }
                for source in self.sources
            ],
        }


def named_parents(parents: Iterable[Parent]) -> dict[str, Parent]:
    """Every dataset version that was read, once, by the dataset's name; further versions of a name have their digest.

    Of one version, all selections that were used.
    """
    found: dict[str, Parent] = {}
    for parent in parents:
        name = parent.dataset.name
        if name in found and found[name].digest != parent.digest:
            name = f"{name}@{parent.digest[:12]}"
        before = found[name].selections if name in found else {}
        found[name] = replace(parent, selections={**before, **parent.selections})
    return found


def record_run(run: CommandRun, result: IngestResult, parents: Mapping[str, Parent]) -> None:
    """Log what went in and came out to MLflow."""
    for parent in parents.values():
        dataset = parent.dataset
        run.input(dataset.name, parent.digest, dataset.url)
        for name, digest in parent.selections.items():
            run.input(f"{dataset.name}-{name}", digest, selection_url(dataset, digest))
    licences = {source.pipeline.name: source.pipeline.source.licence for source in result.sources}
    run.inputs(dict(_files_of(source) for source in result.sources))
    run.output(result.dataset.name, result.digest, result.dataset.url, about(result.manifest, licences))
    counts = result.manifest.counts
    run.metrics(
        {
            "units": len(result.manifest.commits),
            "units_committed": result.committed,
            **_of_counts(counts),
            "shard_bytes": sum(shard.bytes for commit in result.manifest.commits for shard in commit.shards),
            "input_bytes": sum(ref.bytes for source in result.sources for ref in source.inputs),
            "seconds": result.seconds,
        }
    )
    run.tags(licence_tags(licences))
    run.json(result.as_json(), "accounts.json")
    record_rejections(run, result.dataset, [commit for source in result.sources for commit in source.commits])


def record_source(run: CommandRun, result: SourceResult) -> None:
    """Log one source's part of an ingestion, in a run of its own."""
    source, counts = result.pipeline.source, result.counts
    files, known = _files_of(result)
    run.input(files.name, files.digest, files.url, known)
    run.metrics(
        {
            "units": len(result.commits),
            "units_committed": result.committed,
            **_of_counts(counts),
            "shard_bytes": sum(shard.bytes for commit in result.commits for shard in commit.shards),
        }
    )
    run.tags(
        {
            "omnimill.source": source.name,
            "omnimill.source_type": source.type,
            **licence_tags({source.name: source.licence}),
        }
    )


def _files_of(result: SourceResult) -> tuple[Reference, About]:
    """What a source read, as one input: its files, by what they hold."""
    refs, source = result.inputs, result.pipeline.source
    digest = digest_json([[ref.uri, ref.digest] for ref in refs])
    known = About(bytes=sum(ref.bytes for ref in refs), files=len(refs), licences={source.name: source.licence})
    return Reference(source.name, digest, common_folder(ref.uri for ref in refs)), known


def _of_counts(counts: Counts) -> dict[str, float]:
    return {
        "records_in": counts.records_in,
        "records_kept": counts.kept,
        "records_dropped": sum(counts.records_dropped.values()),
        "records_quarantined": sum(counts.quarantined.values()),
        "examples_written": counts.examples_written,
        "examples_dropped": sum(counts.examples_dropped.values()),
    }


def common_folder(uris: Iterable[str]) -> str:
    """The deepest folder that holds all of these files; the file's own name when there is one; empty when none."""
    split = [uri.split("/") for uri in uris]
    if len(split) < 2:
        return "/".join(split[0]) if split else ""
    levels = zip(*split, strict=False)
    return "/".join(parts[0] for parts in itertools.takewhile(lambda parts: len(set(parts)) == 1, levels))


def table_rows(sources: Sequence[SourceResult]) -> list[list[Any]]:
    """One row per source: name, type, units, records in, kept, dropped, quarantined, examples written, dropped."""
    return [
        [
            source.pipeline.name,
            source.pipeline.source.type,
            len(source.commits),
            counts.records_in,
            counts.kept,
            sum(counts.records_dropped.values()),
            sum(counts.quarantined.values()),
            counts.examples_written,
            sum(counts.examples_dropped.values()),
        ]
        for source in sources
        for counts in [source.counts]
    ]
