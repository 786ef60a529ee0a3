"""What workers do with a unit of one source: as a rule, with care after it killed them, and giving it up."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

from omnimill.infra.dataset import Commit, Dataset, Unit
from omnimill.infra.memory import MemoryLimit
from omnimill.pipelines.careful import do_carefully
from omnimill.pipelines.dag import Pipeline
from omnimill.pipelines.process import abandon_unit, process_unit
from omnimill.pipelines.verdicts import Rejection, Walk


@dataclass(frozen=True)
class UnitWork:
    """What a worker needs to do a unit of one source.

    threads: decoders at once. memory_bytes: a worker that takes more is killed. tries: of a unit before it is
    done with care. attempts: of units that were done again before, or shall be now, see `process_unit`.
    """

    pipeline: Pipeline
    root: str
    name: str
    threads: int
    memory_bytes: int
    tries: int
    attempts: Mapping[str, Sequence[int]] = field(default_factory=dict)

    def __call__(self, unit: Unit) -> Commit:
        MemoryLimit.set(self.memory_bytes)
        return self.do(unit, None)

    def do(self, unit: Unit, walk: Walk | None) -> Commit:
        """Read, judge, write and commit a unit, in this process."""
        source, operators = self.pipeline.source, self.pipeline.operators
        attempts = self.attempts.get(unit.id, (0,))
        dataset = Dataset(self.root, self.name)
        return process_unit(source, operators, unit, dataset, threads=self.threads, walk=walk, attempts=attempts)

    def carefully(self, unit: Unit) -> Commit:
        """Do a unit that killed its workers: only the records at fault are given up, or else the unit as a whole."""
        commit = do_carefully(partial(self.do, unit), self.memory_bytes, self.tries)
        return commit or self.abandon(unit)

    def abandon(self, unit: Unit) -> Commit:
        """Quarantine a unit as a whole."""
        message = f"its worker died on each of {self.tries} tries"
        crashed = Rejection("quarantined", "read", "worker_crashed", message, self.tries)
        return abandon_unit(self.pipeline.source, self.pipeline.operators, unit, Dataset(self.root, self.name), crashed)
