"""One unit from read to commit, in plain Python: nothing here knows about Ray.

The same unit, settings and input give the same shards and the same commit record, byte for byte, whatever the number
of threads and wherever it runs.
"""

from __future__ import annotations

import resource
import socket
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import pyarrow as pa

from omnimill.errors import OmnimillError
from omnimill.infra import storage
from omnimill.infra.dataset import Commit, Counts, Dataset, FileRef, InputRef, Unit
from omnimill.pipelines.base import Operator, Source
from omnimill.pipelines.recipe import recipe_digest
from omnimill.pipelines.verdicts import (
    Outcome,
    Rejection,
    ThreadedWalk,
    Walk,
    quarantined,
    unread,
)
from omnimill.schema import Example, to_table

SHARD_BYTES = 256 << 20
# A bad record's own bytes are kept in quarantine up to this size; beyond it the pointer has to do.
QUARANTINE_BYTES = 1 << 20

Marks = dict[str, storage.Mark | None]


def process_unit(
    source: Source,
    operators: Sequence[Operator],
    unit: Unit,
    dataset: Dataset,
    *,
    threads: int = 4,
    walk: Walk | None = None,
    shard_bytes: int = SHARD_BYTES,
    attempts: Sequence[int] = (0,),
) -> Commit:
    """Read, decode, judge and write one unit, and commit it; a unit that is committed already is left as it is.

    Args:
        threads: decoders running at once; no influence on the result.
        walk: another way to go through the records than with so many threads.
        shard_bytes: a shard is closed when its rows reach this size.
        attempts: commits that are looked for, in this order; when none of them is there the last one is made.

    Raises:
        OmnimillError: an input changed while it was being read, or an operator broke its contract.
        Exception: what tells about this machine and not about the data, see `verdicts.quarantined`.
    """
    started = time.monotonic()
    marks = input_marks(unit.files)
    try:
        inputs = tuple(source.inputs(unit))
    except OSError as error:
        return abandon_unit(source, operators, unit, dataset, quarantined(error, "read", "unreadable_input"))
    marks |= input_marks({ref.uri for ref in inputs} - set(marks))
    commit = _commit(source, operators, unit, inputs)
    tried = [commit.model_copy(update={"attempt": attempt}) for attempt in attempts]
    stored = next((found for one in tried if (found := dataset.committed(one)) is not None), None)
    if stored is None:
        sink = _Sink(dataset, unit, shard_bytes)
        walk = walk or ThreadedWalk(threads)
        for batch in walk.judged(sink.count(walk.read(source, unit)), operators):
            sink.write(batch)
        commit = sink.close(tried[-1])
        if input_marks(marks) != marks:
            raise OmnimillError(f"source {source.name}: an input of unit {unit.id} changed while it was being read")
    dataset.commit(stored or commit, _observed(marks, time.monotonic() - started))
    return stored or commit


def abandon_unit(
    source: Source, operators: Sequence[Operator], unit: Unit, dataset: Dataset, rejection: Rejection
) -> Commit:
    """Commit a unit that could not be opened, or that kills its worker, as one quarantined record.

    The commit names no inputs, so the next run tries the unit again.
    """
    sink = _Sink(dataset, unit, SHARD_BYTES)
    sink.write(list(sink.count([Outcome(unread(unit), rejection)])))
    commit = sink.close(_commit(source, operators, unit, ()))
    dataset.commit(commit, _observed({}, 0.0))
    return commit


def input_marks(uris: Iterable[str]) -> Marks:
    """Size and change mark of files; None for a file that is not there or not readable."""
    return storage.stats(uris)


def _commit(source: Source, operators: Sequence[Operator], unit: Unit, inputs: tuple[InputRef, ...]) -> Commit:
    return Commit(unit=unit.id, source=source.name, recipe=recipe_digest(source, operators), inputs=inputs)


def _observed(marks: Marks, seconds: float) -> dict[str, Any]:
    """What is worth knowing about this one execution; kept beside the commit, outside its digest."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return {"inputs": marks, "seconds": round(seconds, 3), "host": socket.gethostname(), "peak_rss_bytes": peak}


class _Sink:
    """Writes what a unit's records became, and keeps the account."""

    def __init__(self, dataset: Dataset, unit: Unit, shard_bytes: int) -> None:
        self._dataset = dataset
        self._where = {"source": unit.source, "unit": unit.id}
        self._shard_bytes = shard_bytes
        self._tables: list[pa.Table] = []
        self._shards: list[FileRef] = []
        self._quarantine: list[dict[str, Any]] = []
        self._drops: list[dict[str, Any]] = []
        self._records_in = 0
        self._kept = 0
        self._reasons: dict[str, Counter[str]] = {"quarantined": Counter(), "dropped": Counter(), "examples": Counter()}

    def count(self, records: Iterable[Outcome]) -> Iterator[Outcome]:
        """`records`, counted as they come in, so that the account has a side that verdicts cannot touch."""
        for record in records:
            self._records_in += 1
            yield record

    def write(self, batch: Iterable[Outcome]) -> None:
        examples: list[Example] = []
        for outcome in batch:
            if outcome.rejection is None:
                self._kept += 1
                examples.extend(outcome.examples)
                self._drop_examples(outcome)
            else:
                self._reject(outcome, outcome.rejection)
        if examples:
            self._tables.append(to_table(examples))
        if sum(table.nbytes for table in self._tables) >= self._shard_bytes:
            self._flush()

    def _drop_examples(self, outcome: Outcome) -> None:
        for drop in outcome.drops:
            self._reasons["examples"][drop.reason] += 1
            self._drop(drop.key, outcome, "example", drop.operator, drop.reason)

    def _drop(self, key: str, outcome: Outcome, level: str, operator: str, reason: str) -> None:
        uri = outcome.record.provenance.uri
        row = {"key": key, "uri": uri, "level": level, "operator": operator, "reason": reason}
        self._drops.append({**self._where, **row})

    def _reject(self, outcome: Outcome, rejection: Rejection) -> None:
        self._reasons[rejection.verdict][rejection.reason] += 1
        record = outcome.record
        if rejection.verdict == "dropped":
            self._drop(record.key, outcome, "record", rejection.operator, rejection.reason)
            return
        self._quarantine.append(
            {
                **self._where,
                "key": record.key,
                "uri": record.provenance.uri,
                "offset": record.provenance.offset,
                "length": record.provenance.length,
                "operator": rejection.operator,
                "reason": rejection.reason,
                "message": rejection.message,
                "tries": rejection.tries,
                "data": record.data if record.data is not None and len(record.data) <= QUARANTINE_BYTES else None,
            }
        )

    def _flush(self) -> None:
        if self._tables:
            self._shards.append(self._dataset.publish_shard(pa.concat_tables(self._tables)))
            self._tables = []

    def close(self, commit: Commit) -> Commit:
        """Store what is left; the commit completed by files and account (not yet published)."""
        self._flush()
        reasons = {name: dict(sorted(sums.items())) for name, sums in self._reasons.items()}
        counts = Counts(
            records_in=self._records_in,
            kept=self._kept,
            records_dropped=reasons["dropped"],
            quarantined=reasons["quarantined"],
            examples_written=sum(shard.rows for shard in self._shards),
            examples_dropped=reasons["examples"],
        )
        return commit.model_copy(
            update={
                "shards": tuple(self._shards),
                "quarantine": self._dataset.publish_quarantine(self._quarantine),
                "drops": self._dataset.publish_drops(self._drops),
                "counts": counts,
            }
        )
