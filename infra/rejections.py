"""What a command turned down, as artifacts of its MLflow run: how much for which reason, and some of it to look at."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

import pyarrow as pa

from omnimill.infra.dataset import Commit, Dataset
from omnimill.infra.lineage import CommandRun

REASONS, SAMPLE = "drop_reasons.json", "quarantine_sample.json"
_COLUMNS = ["source", "operator", "reason", "key", "uri", "message", "unit"]
# Most records of one reason and source in the sample, most records in all, and most files looked into for them.
_OF_A_REASON, _RECORDS, _FILES = 3, 100, 20
_CHARACTERS = 500


def record_rejections(run: CommandRun, dataset: Dataset, commits: Sequence[Commit]) -> None:
    """Store the table of reasons and a sample of the quarantine, where there is anything to tell."""
    reasons = [[*key, count] for key, count in sorted(_reasons(commits).items())]
    if reasons:
        run.table(["source", "what", "verdict", "reason", "count"], reasons, REASONS)
    if sample := _sample(dataset, commits):
        run.table(_COLUMNS, sample, SAMPLE)


def _reasons(commits: Sequence[Commit]) -> Counter[tuple[str, str, str, str]]:
    """Counts by source, what was turned down (record, example), verdict and reason."""
    found: Counter[tuple[str, str, str, str]] = Counter()
    for commit in commits:
        counts = commit.counts
        for what, verdict, reasons in (
            ("record", "dropped", counts.records_dropped),
            ("record", "quarantined", counts.quarantined),
            ("example", "dropped", counts.examples_dropped),
        ):
            for reason, count in reasons.items():
                found[commit.source, what, verdict, reason] += count
    return found


def _sample(dataset: Dataset, commits: Sequence[Commit]) -> list[list[str]]:
    """Some quarantined records of every reason and source, of the first files that have them."""
    held: Counter[tuple[str, str]] = Counter()
    rows: list[list[str]] = []
    files = 0
    for commit in commits:
        wanted = any(held[commit.source, reason] < _OF_A_REASON for reason in commit.counts.quarantined)
        if commit.quarantine is None or not wanted:
            continue
        files += 1
        for row in _rows(dataset.read(commit.quarantine, "quarantine")):
            key = (row["source"], row["reason"])
            if held[key] < _OF_A_REASON:
                held[key] += 1
                rows.append([row[name][:_CHARACTERS] for name in _COLUMNS])
            if len(rows) >= _RECORDS:
                return rows
        if files >= _FILES:
            break
    return rows


def _rows(table: pa.Table) -> Iterator[dict[str, str]]:
    for batch in table.select(_COLUMNS).to_batches(max_chunksize=1024):
        yield from batch.to_pylist()
