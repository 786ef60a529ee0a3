"""What a checkpoint has seen, exactly: its whole order of examples is planned again, from lengths alone."""

from __future__ import annotations

from collections.abc import Iterator, Sequence, Set
from dataclasses import dataclass
from pathlib import Path

from omnimill.config import digest_json
from omnimill.training.checkpoint import read_record
from omnimill.training.inputs import open_streams
from omnimill.training.planner import PackedSequence, plan_digest


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


def replay(checkpoint: str | Path, root: str | None = None) -> Iterator[PackedSequence]:
    """Every packed sequence of the steps 0 … step-1 of a checkpoint, stream by stream.

    Args:
        checkpoint: its folder or its ``checkpoint.json``; nothing else of it is read.
        root: where the token dataset lies; the root that the checkpoint lies under when None.
    """
    record = read_record(checkpoint)
    streams = open_streams(record, root or root_of(checkpoint))
    for stream in range(record.config.streams):
        planner = streams.planner(stream)
        for _ in range(record.step):
            yield next(planner)


def consumed(
    checkpoint: str | Path, example_ids: Set[str] | None = None, root: str | None = None
) -> Iterator[Consumed]:
    """What a checkpoint was trained on, stream by stream, in order: all of it, or where it met some examples."""
    tasks = [task.name for task in read_record(checkpoint).mixture.tasks]
    for sequence in replay(checkpoint, root):
        for item in sequence.items:
            if example_ids is None or item.example_id in example_ids:
                yield Consumed(sequence.step, sequence.stream, tasks[item.task], item.example_id, item.row, item.epoch)


def root_of(checkpoint: str | Path) -> str:
    """The root that a checkpoint lies under: ``<root>/runs/<run>/checkpoints/<step>``."""
    folder = Path(checkpoint).resolve()
    folder = folder.parent if folder.is_file() else folder
    return str(folder.parents[3])


def sequence_digest(sequence: PackedSequence) -> int:
    """60 bits that say what a packed sequence holds."""
    return int(plan_digest([sequence])[:15], 16)


def combine_digests(digests: Sequence[int]) -> str:
    """What all streams hold at one step, from the digests of their sequences in the order of the streams."""
    return digest_json(list(digests))[:16]
