"""What a checkpoint has seen, exactly: its whole order of examples is planned again, from lengths alone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence, Set
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from omnimill.config import digest_json
from omnimill.errors import IntegrityError, OmnimillError
from omnimill.mixtures.course import Course
from omnimill.mixtures.inversion import locate
from omnimill.mixtures.ledger import Entry, Ledger, task_names
from omnimill.mixtures.sampler import StreamState
from omnimill.mixtures.shares import owner
from omnimill.training.checkpoints.checkpoint import CheckpointRecord, read_record, root_of, run_folder
from omnimill.training.planning.planner import PackedSequence, VirtualStreams, plan_digest
from omnimill.training.runs.inputs import open_streams


@dataclass(frozen=True)
class Consumed:
    """An example that was trained on: at which step (from 0), in which virtual stream, for which task.

    row: among the rows that the task can use. epoch: how often its share of the task had been through before.
    """

    step: int
    stream: int
    task: str
    example_id: str
    row: int
    epoch: int


def replay(
    checkpoint: str | Path, root: str | None = None, example_ids: Set[str] | None = None
) -> Iterator[PackedSequence]:
    """Every packed sequence of the steps 0 … step-1 of a checkpoint, step by step, but for steps that it was told to
    leave out.

    Args:
        checkpoint: its folder or its ``checkpoint.json``; nothing else of it is read, but the ledger of its run.
        root: where the token datasets lie; the root that the checkpoint lies under when None.
        example_ids: only streams that have drawn one of these.

    Raises:
        IntegrityError: see :func:`check_order`.
    """
    record = read_record(checkpoint)
    root = root or root_of(checkpoint)
    streams = open_streams(record, root, ledger_entries(checkpoint, root))
    check_order(record, streams)
    wanted = range(record.config.streams) if example_ids is None else readers(streams.course, example_ids, record.plan)
    if wanted:
        for step, sequences in enumerate(islice(streams.planner(wanted), record.step)):
            if not record.config.leaves_out(step):
                yield from sequences


def in_order(record: CheckpointRecord, streams: VirtualStreams) -> bool:
    """Whether what a checkpoint has seen can be planned again: it was put in order as it would be now."""
    return bool(record.plan["order"] == streams.order(record.step))


def check_order(record: CheckpointRecord, streams: VirtualStreams) -> None:
    """Raise IntegrityError when a checkpoint's steps cannot be planned again."""
    if not in_order(record, streams):
        raise IntegrityError(
            f"run {record.run!r}, step {record.step}: its examples were put in order by another version of omnimill, "
            "which alone can plan its steps again (the run's tag omnimill.code names it)"
        )


def consumed(
    checkpoint: str | Path, example_ids: Set[str] | None = None, root: str | None = None
) -> Iterator[Consumed]:
    """What a checkpoint was trained on, step by step, in order: all of it, or where it met some examples."""
    entries = ledger_entries(checkpoint, root or root_of(checkpoint))
    tasks = task_names(entries)
    for sequence in replay(checkpoint, root, example_ids):
        for item in sequence.items:
            if example_ids is None or item.example_id in example_ids:
                yield Consumed(sequence.step, sequence.stream, tasks[item.task], item.example_id, item.row, item.epoch)


def readers(course: Course, example_ids: Set[str], plan: Mapping[str, Any]) -> list[int]:
    """The streams that have drawn one of these examples.

    Args:
        plan: the state of all streams, as a checkpoint holds it.
    """
    sampler = course.timeline.last
    states = {int(stream): StreamState.from_json(state) for stream, state in plan["streams"].items()}
    found: set[int] = set()
    for task, rows in enumerate(course.rows):
        for row in rows.locate_ids(example_ids):
            for epoch in range(owner(sampler.layouts[task], row, 0)[1]):
                with suppress(IndexError):
                    stream, k = locate(sampler, task, row, epoch, states.__getitem__)
                    if k < states[stream].taken[task]:
                        found.add(stream)
    return sorted(found)


def ledger_entries(checkpoint: str | Path, root: str) -> list[Entry]:
    """What held up to a checkpoint; see :func:`held_by`."""
    return held_by(checkpoint, root)[1]


def held_by(checkpoint: str | Path, root: str) -> tuple[Path, list[Entry]]:
    """The folder of a checkpoint's run, and what held up to it by its ledger: above it, or where the run lies.

    Raises:
        OmnimillError: the checkpoint is a merged one.
        IntegrityError: no ledger has the entry that the checkpoint stands on.
    """
    record = read_record(checkpoint)
    if record.merged is not None:
        parents = ", ".join(parent.url for parent in record.merged.parents)
        raise OmnimillError(f"{checkpoint} was merged and has seen no data itself; ask about its parents: {parents}")
    folder = Path(checkpoint).resolve()
    folder = folder.parent if folder.is_file() else folder
    # Beside it; else wherever the run lies, of which one that was begun anew has a number behind its name.
    with suppress(IntegrityError):
        return folder.parent.parent, [held.entry for held in Ledger(folder.parent.parent).held(record.ledger)]
    runs = run_folder(root, record.run).parent
    for run in (runs / record.run, *sorted(runs.glob(f"{record.run}.*"))):
        with suppress(IntegrityError):
            return run, [held.entry for held in Ledger(run).held(record.ledger)]
    raise IntegrityError(
        f"no ledger under {runs} has the entry {record.ledger[:16]}, on which {checkpoint} stands; a run's ledger lies "
        "in its folder, and says what held when"
    )


def sequence_digest(sequence: PackedSequence) -> int:
    """60 bits that say what a packed sequence holds."""
    return int(plan_digest([sequence])[:15], 16)


def combine_digests(digests: Sequence[int]) -> str:
    """What all streams hold at one step, from the digests of their sequences in the order of the streams."""
    return digest_json(list(digests))[:16]
