"""What stands of a unit that is done again, for sources whose records may be gone by now.

A picture that was fetched last month may answer 404 today. So when a unit of a `VolatileSource` is done again, its
examples and drops are taken over from the commit before, and only the other records are read.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace

from omnimill.errors import IntegrityError
from omnimill.infra.dataset import Commit, Dataset, Unit
from omnimill.pipelines.base import Record, Source, VolatileSource
from omnimill.pipelines.verdicts import Drop, Outcome, Rejection
from omnimill.schema import Example, check_example_schema, from_row


class Settled:
    """The records that the commit before another attempt kept or dropped; none of a first attempt or a lasting source.

    keys: of these records. Not among them are those that were quarantined and those that were never reached.
    """

    def __init__(self, source: Source, dataset: Dataset, commit: Commit) -> None:
        """`commit`: the one to be made."""
        self._source, self._dataset = source, dataset
        self._where = f"source {source.name}: unit {commit.unit}"
        self._before = commit  # which holds nothing yet
        if commit.attempt and isinstance(source, VolatileSource):
            self._before = dataset.committed(commit.model_copy(update={"attempt": commit.attempt - 1})) or commit
        self._dropped: dict[str, Rejection] = {}
        self._dropped_examples: dict[str, Drop] = {}
        self._read_drops()
        kept = (key for ref in self._before.shards for key in dataset.read(ref).column("key").to_pylist())
        self.keys = frozenset((*kept, *self._dropped, *self._dropped_examples))
        self._left = len(self.keys)
        self._examples = self._stored()

    def read(self, unit: Unit) -> Iterator[Record]:
        """The source's records, those that stand not read."""
        if isinstance(self._source, VolatileSource):
            return self._source.read(unit, self.keys)
        return self._source.read(unit)

    def marked(self, records: Iterable[Outcome]) -> Iterator[Outcome]:
        """The records of the unit, those that stand marked, so that nobody decodes them."""
        for outcome in records:
            outcome.settled = outcome.rejection is None and outcome.record.key in self.keys
            yield outcome

    def filled(self, judged: Iterable[Outcome]) -> Iterator[Outcome]:
        """The records, those that stand as they came out before.

        Raises:
            IntegrityError: they come in another order than before; a shard is of another schema version.
        """
        for outcome in judged:
            yield self._as_before(outcome) if outcome.settled else outcome

    def check_used_up(self) -> None:
        """Raise IntegrityError unless all that stands was taken over."""
        if self._left:
            raise IntegrityError(f"{self._where}: {self._left} records that were kept or dropped did not come again")

    def _read_drops(self) -> None:
        if self._before.drops is None:
            return
        for row in self._dataset.read(self._before.drops, "drops").to_pylist():
            key, operator, reason = row["key"], row["operator"], row["reason"]
            if row["level"] == "record":
                self._dropped[key] = Rejection("dropped", operator, reason)
            else:
                self._dropped_examples[key] = Drop(key, operator, reason)

    def _as_before(self, outcome: Outcome) -> Outcome:
        self._left -= 1
        key = outcome.record.key
        if key in self._dropped:
            return replace(outcome, rejection=self._dropped[key])
        if key in self._dropped_examples:
            return replace(outcome, drops=[self._dropped_examples[key]])
        example = next(self._examples, None)
        if example is None or example.key != key:
            raise IntegrityError(f"{self._where}: record {key!r} comes in another place than before")
        return replace(outcome, examples=[example])

    def _stored(self) -> Iterator[Example]:
        """The examples that were written, one in memory at a time where shards are local."""
        for ref in self._before.shards:
            table = self._dataset.read(ref)
            check_example_schema(table.schema, self._dataset.shard_url(ref))
            for number in range(table.num_rows):
                (row,) = table.slice(number, 1).to_pylist()
                yield from_row(row)
