"""One unit from read to commit, in plain Python: nothing here knows about Ray.

The same unit, settings and input give the same shards and the same commit record, byte for byte, whatever the number
of threads and wherever it runs; less what was erased by then (`omnimill.infra.erasures`).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from omnimill.errors import OmnimillError
from omnimill.infra import storage
from omnimill.infra.dataset import Commit, Dataset, InputRef, Unit
from omnimill.infra.execution import Execution
from omnimill.pipelines.base import Operator, Source
from omnimill.pipelines.erased import Erased
from omnimill.pipelines.recipe import recipe_digest
from omnimill.pipelines.settled import Settled
from omnimill.pipelines.sink import SHARD_BYTES, Sink
from omnimill.pipelines.timing import READ, WRITE, StepTimes
from omnimill.pipelines.verdicts import (
    Outcome,
    Rejection,
    ThreadedWalk,
    Walk,
    quarantined,
    unread,
)

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
        attempts: commits that are looked for, in this order; when none of them is there the last one is made. Of a
            volatile source it takes over what stands of the attempt before.

    Raises:
        OmnimillError: an input changed while it was being read, or an operator broke its contract.
        Exception: what tells about this machine and not about the data, see `verdicts.quarantined`.
    """
    execution, times = Execution(), StepTimes()
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
        erased = Erased(dataset, source, inputs)
        sink, settled = Sink(dataset, unit, shard_bytes), Settled(source, dataset, tried[-1])
        walk = walk or ThreadedWalk(threads, times)
        records = times.each(READ, walk.read(settled.read, unit))
        for batch in walk.judged(sink.count(settled.marked(records)), operators):
            with times.step(WRITE):
                sink.write(erased.dropped(settled.filled(batch)))
        settled.check_used_up()
        with times.step(WRITE):
            commit = sink.close(tried[-1])
        if input_marks(marks) != marks:
            raise OmnimillError(f"source {source.name}: an input of unit {unit.id} changed while it was being read")
    if stored is not None:
        # The marks are those of now; what doing the unit took is still true.
        dataset.commit(stored, {**dataset.observed(stored), "inputs": marks})
        return stored
    dataset.commit(commit, {"inputs": marks, **execution.told(), "steps": times.as_json()})
    return commit


def abandon_unit(
    source: Source, operators: Sequence[Operator], unit: Unit, dataset: Dataset, rejection: Rejection
) -> Commit:
    """Commit a unit that could not be opened, or that kills its worker, as one quarantined record.

    The commit names no inputs, so the next run tries the unit again.
    """
    sink = Sink(dataset, unit, SHARD_BYTES)
    sink.write(list(sink.count([Outcome(unread(unit), rejection)])))
    commit = sink.close(_commit(source, operators, unit, ()))
    dataset.commit(commit, {"inputs": {}, **Execution().told()})
    return commit


def input_marks(uris: Iterable[str]) -> Marks:
    """Size and change mark of files; None for a file that is not there or not readable."""
    return storage.stats(uris)


def _commit(source: Source, operators: Sequence[Operator], unit: Unit, inputs: tuple[InputRef, ...]) -> Commit:
    return Commit(unit=unit.id, source=source.name, recipe=recipe_digest(source, operators), inputs=inputs)
