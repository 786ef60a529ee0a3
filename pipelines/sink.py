"""Where the records of a unit end: shards of examples, lists of what was turned down, and the account of both."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import pyarrow as pa

from omnimill.infra.dataset import DROPS_SCHEMA, QUARANTINE_SCHEMA, Commit, Counts, Dataset, FileRef, Unit
from omnimill.infra.index_pieces import publish_shard
from omnimill.pipelines.base import Record
from omnimill.pipelines.verdicts import BATCH_BYTES, Outcome, Rejection, payload_bytes
from omnimill.schema import Example, to_table

SHARD_BYTES = 256 << 20
# A bad record's own bytes are kept in quarantine up to this size, and so many of a unit; else the pointer has to do.
QUARANTINE_BYTES = 1 << 20
QUARANTINE_UNIT_BYTES = 64 << 20
_ROWS_AT_ONCE = 4096
# What a row takes beside its media and texts: ids, keys, URIs, digests.
_ROW_BYTES = 512


class Sink:
    """Writes what a unit's records became, and keeps the account."""

    def __init__(self, dataset: Dataset, unit: Unit, shard_bytes: int) -> None:
        self._dataset = dataset
        self._where = {"source": unit.source, "unit": unit.id}
        self._shard_bytes = shard_bytes
        self._examples: list[Example] = []
        self._tables: list[pa.Table] = []
        self._size = 0
        self._shards: list[FileRef] = []
        self._quarantine = _Rows(QUARANTINE_SCHEMA)
        self._drops = _Rows(DROPS_SCHEMA)
        self._spare = QUARANTINE_UNIT_BYTES
        self._records_in = 0
        self._kept = 0
        self._reasons: dict[str, Counter[str]] = {"quarantined": Counter(), "dropped": Counter(), "examples": Counter()}

    def count(self, records: Iterable[Outcome]) -> Iterator[Outcome]:
        """`records`, counted as they come in, so that the account has a side that verdicts cannot touch."""
        for record in records:
            self._records_in += 1
            yield record

    def write(self, batch: Iterable[Outcome]) -> None:
        """Take in judged records. Where shards are cut depends on the examples alone, not on batches."""
        packed = self._size
        for outcome in batch:
            if outcome.rejection is not None:
                self._reject(outcome, outcome.rejection)
                continue
            self._kept += 1
            self._drop_examples(outcome)
            self._examples.extend(outcome.examples)
            self._size += sum(_ROW_BYTES + payload_bytes(example) for example in outcome.examples)
            if self._size >= self._shard_bytes:
                self._flush()
                packed = 0
            elif self._size - packed >= BATCH_BYTES:
                self._pack()
                packed = self._size
        self._pack()

    def _drop_examples(self, outcome: Outcome) -> None:
        for drop in outcome.drops:
            self._reasons["examples"][drop.reason] += 1
            self._drop(drop.key, outcome, "example", drop.operator, drop.reason)

    def _drop(self, key: str, outcome: Outcome, level: str, operator: str, reason: str) -> None:
        uri = outcome.record.provenance.uri
        row = {"key": key, "uri": uri, "level": level, "operator": operator, "reason": reason}
        self._drops.add({**self._where, **row})

    def _reject(self, outcome: Outcome, rejection: Rejection) -> None:
        self._reasons[rejection.verdict][rejection.reason] += 1
        record = outcome.record
        if rejection.verdict == "dropped":
            self._drop(record.key, outcome, "record", rejection.operator, rejection.reason)
            return
        self._quarantine.add(
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
                "data": self._kept_bytes(record),
            }
        )

    def _kept_bytes(self, record: Record) -> bytes | None:
        if record.data is None or len(record.data) > min(QUARANTINE_BYTES, self._spare):
            return None
        self._spare -= len(record.data)
        return record.data

    def _pack(self) -> None:
        if self._examples:
            self._tables.append(to_table(self._examples))
            self._examples = []

    def _flush(self) -> None:
        self._pack()
        if self._tables:
            self._shards.append(publish_shard(self._dataset, pa.concat_tables(self._tables)))
            self._tables = []
            self._size = 0

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
                "quarantine": self._dataset.publish_rejected(self._quarantine.table(), "quarantine"),
                "drops": self._dataset.publish_rejected(self._drops.table(), "drops"),
                "counts": counts,
            }
        )


class _Rows:
    """Rows of one schema, packed as they come: an archive of a stranger may hold millions of records."""

    def __init__(self, schema: pa.Schema) -> None:
        self._schema = schema
        self._packed: list[pa.Table] = []
        self._loose: list[Mapping[str, Any]] = []

    def add(self, row: Mapping[str, Any]) -> None:
        self._loose.append(row)
        if len(self._loose) >= _ROWS_AT_ONCE:
            self._pack()

    def table(self) -> pa.Table | None:
        """All rows; None when there are none."""
        self._pack()
        return pa.concat_tables(self._packed) if self._packed else None

    def _pack(self) -> None:
        if self._loose:
            self._packed.append(pa.Table.from_pylist(self._loose, self._schema))
            self._loose = []
