"""Proves from a run's ledger, by planning it again, that no example was skipped or repeated through its changes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from omnimill.errors import OmnimillError
from omnimill.mixtures.course import Course
from omnimill.mixtures.ledger import Change, Entry, Held, Ledger, Update, changes
from omnimill.mixtures.online import weights_of
from omnimill.mixtures.sampler import Draws, Sampler, StreamState
from omnimill.training.checkpoints.checkpoint import newest, read_record
from omnimill.training.lineage.replay import check_order
from omnimill.training.planning.planner import Planner
from omnimill.training.runs.inputs import open_streams
from omnimill.training.runs.records import counters

# Steps that are compared at a time; what was drawn in them is held in memory.
_STEPS = 256
_SHOWN = 20


@dataclass
class Proof:
    """What came out.

    steps, streams: that were planned again. draws: made by then. placed: of them, trained on. pending: waiting in
    pools. void: passed over, for a selection that came in on the way leaves them out. faults: what is wrong, at most
    the first twenty; none: every draw was made once, in its order, and had one of these three fates.
    """

    steps: int
    streams: int
    draws: int = 0
    placed: int = 0
    pending: int = 0
    void: int = 0
    faults: list[str] = field(default_factory=list)

    def fault(self, text: str) -> None:
        if len(self.faults) < _SHOWN:
            self.faults.append(text)


def prove(run: Path, root: str) -> tuple[list[Held], Proof]:
    """Plan a run again up to its newest checkpoint, from lengths alone.

    Each stream's draws are made again, too, era by era and without packing. They must be numbered without a gap; of
    every task they must go on in the stream's share where they left off, through every change; the counters that the
    ledger recorded at a change must be theirs; and each must have been placed once, be pending or be void. Every
    decision of online mixing must follow from the losses that it names.

    Returns:
        The ledger's entries that hold, and the outcome.

    Raises:
        OmnimillError: the run has no checkpoint.
        IntegrityError: the ledger is damaged; or see `check_order`.
    """
    folder = newest(run)
    if folder is None:
        raise OmnimillError(f"{run} has no checkpoint: there is nothing to prove yet")
    record = read_record(folder)
    held = Ledger(run).held(record.ledger)
    entries = [one.entry for one in held]
    streams = open_streams(record, root, entries)
    check_order(record, streams)
    proof = Proof(record.step, record.config.streams)
    for stream in range(record.config.streams):
        _Stream(streams.course, stream, streams.planner([stream]), proof).check(record.step)
    _check_decisions(entries, proof)
    return held, proof


class _Stream:
    """One stream's draws, made again beside its plan."""

    def __init__(self, course: Course, stream: int, planner: Planner, proof: Proof) -> None:
        self._course, self._stream, self._planner, self._proof = course, stream, planner, proof
        self._timeline = course.timeline
        self._state = self._timeline.start(stream)
        # Draws that were made and are not placed yet: number to (task, row, epoch).
        self._waiting: dict[int, tuple[int, int, int]] = {}

    def check(self, steps: int) -> None:
        """Compare the steps 0 … steps - 1."""
        recorded = {change.step: change for change in changes(self._course.entries) if change.streams}
        for begin, end in self._spans(steps):
            if begin in recorded:
                self._compare(recorded[begin])
            carried = self._timeline.carry(self._stream, self._state, begin)
            self._drop_void(begin)
            placed = [item for _ in range(begin, end) for item in next(self._planner)[0].items]
            after = self._planner_state()
            sampler = self._timeline.sampler(begin)
            draws, self._state = sampler.next_many(self._stream, carried, after["draws"] - carried.draws)
            self._check_order(sampler, draws, carried)
            values = zip(draws.task.tolist(), draws.row.tolist(), draws.epoch.tolist(), strict=True)
            self._waiting |= dict(enumerate(values, start=draws.first))
            for item in placed:
                if self._waiting.pop(item.draw, None) != (item.task, item.row, item.epoch):
                    self._proof.fault(
                        f"stream {self._stream}, steps {begin} to {end - 1}: draw {item.draw} was placed twice or is "
                        "not what the sampler gives"
                    )
            self._proof.placed += len(placed)
            self._drop_void(begin)
            if StreamState.from_json(after) != self._state:
                self._proof.fault(f"stream {self._stream}: before step {end} its counters are not those of its draws")
        pool = {entry[0]: tuple(entry[1:]) for entry in self._planner_state()["pool"]}
        if pool != self._waiting:
            self._proof.fault(f"stream {self._stream}: {len(self._waiting.keys() ^ pool.keys())} draws got lost")
        self._proof.pending += len(pool)
        self._proof.draws += self._state.draws

    def _spans(self, steps: int) -> Iterator[tuple[int, int]]:
        """Runs of steps in which nothing changes, of `_STEPS` at most."""
        begin = 0
        while begin < steps:
            until = self._timeline.holds_until(begin)
            end = min(steps, begin + _STEPS, steps if until is None else until)
            yield begin, end
            begin = end

    def _planner_state(self) -> dict[str, Any]:
        state: dict[str, Any] = self._planner.snapshot()()[str(self._stream)]
        return state

    def _compare(self, change: Change) -> None:
        if change.streams[self._stream] != counters(self._planner_state()) or (
            StreamState.from_json(change.streams[self._stream]) != self._state
        ):
            self._proof.fault(
                f"stream {self._stream}: the ledger has other counters at the change of step {change.step} than its "
                "draws give"
            )

    def _check_order(self, sampler: Sampler, draws: Draws, before: StreamState) -> None:
        """The first and last draw of every task are where the share says, counted from before."""
        for task in np.unique(draws.task).tolist():
            own = np.flatnonzero(draws.task == task)
            share = sampler.share(self._stream, task, before)
            for place, k in ((own[0], before.taken[task]), (own[-1], before.taken[task] + len(own) - 1)):
                if share.position(int(draws.row[place]), int(draws.epoch[place])) != k:
                    self._proof.fault(
                        f"stream {self._stream}: draw {draws.first + place} is not the {k}-th of its task"
                    )

    def _drop_void(self, step: int) -> None:
        void = [number for number, (task, row, _) in self._waiting.items() if self._timeline.is_void(step, task, row)]
        for number in void:
            del self._waiting[number]
        self._proof.void += len(void)


def _check_decisions(entries: list[Entry], proof: Proof) -> None:
    """Weights follow from the losses that caused them."""
    change: Change | None = None
    past: list[Update] = []
    for entry in entries:
        if isinstance(entry, Change):
            change = entry
            continue
        past.append(entry)
        assert change is not None
        if change.online is None:
            continue
        expected = weights_of(change.online, change.mixture, [update.losses for update in past])
        if expected.keys() != entry.weights.keys() or any(
            abs(entry.weights[name] - weight) > 1e-9 * weight for name, weight in expected.items()
        ):
            proof.fault(f"the weights that were decided after {entry.decided} updates do not follow from their losses")


def describe(entries: list[Entry]) -> list[dict[str, Any]]:
    """The entries as JSON for people: what each changed, and how many draws had been made by then."""
    rows: list[dict[str, Any]] = []
    for entry in entries:
        if isinstance(entry, Update):
            rows.append({**entry.model_dump(mode="json")})
            continue
        rows.append(
            {
                "kind": "change",
                "step": entry.step,
                "mixture": entry.mixture.content_digest(),
                "datasets": {one.name: one.manifest for one in entry.versions.datasets},
                "selections": {f"{one.dataset}/{one.name}": one.digest for one in entry.versions.selections},
                "erasures": list(entry.versions.erasures),
                "online": entry.online.rule if entry.online else None,
                "rates": dict(zip((task.name for task in entry.mixture.tasks), entry.mixture.rates, strict=True)),
                "phases": len(entry.mixture.phases),
                "draws": sum(state["draws"] for state in entry.streams),
            }
        )
    return rows
