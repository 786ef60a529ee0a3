"""A unit that killed its workers, done once more so that only the records at fault are lost.

The unit runs in a child process that goes through it one record at a time and says what it is about to do. When the
child dies, what it said last names the record; one that kills twice is given up and the unit is done again without
it. All other records come out as they would have otherwise, in the same batches and shards.
"""

from __future__ import annotations

import ctypes
import os
import pickle
import signal
import subprocess
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from multiprocessing import Pipe
from multiprocessing.connection import Connection

import cloudpickle

from omnimill.errors import OmnimillError
from omnimill.infra.dataset import Commit, Unit
from omnimill.infra.memory import resident_bytes
from omnimill.pipelines.base import Operator
from omnimill.pipelines.verdicts import (
    Outcome,
    Read,
    Rejection,
    Walk,
    batches,
    by_example,
    decode,
    judge,
    read_records,
    settle_batch,
    unread,
)

MAX_CULPRITS = 16
# So often a child has to die at the same place: one that something else killed is not held against the record.
DEATHS = 2
_LOOK_SECONDS = 0.02
_DEATH_WITH_PARENT = 1  # PR_SET_PDEATHSIG of prctl(2)

CarefulWork = Callable[[Walk], Commit]


@dataclass(frozen=True)
class Place:
    """What a child was doing: the step (read, decode, an operator, write) and the record's number in its unit."""

    step: str
    record: int | None


@dataclass(frozen=True)
class _Death:
    place: Place
    reason: str
    message: str


class CarefulWalk:
    """One record at a time, each step announced.

    Args:
        tell: called with the place before each step.
        given_up: verdicts on records that are not touched, by number.
    """

    def __init__(self, tell: Callable[[Place], None], given_up: Mapping[int, Rejection]) -> None:
        self._tell = tell
        self._given_up = given_up

    def read(self, read: Read, unit: Unit) -> Iterator[Outcome]:
        records = read_records(read, unit)
        number = 0
        while True:
            verdict = self._given_up.get(number)
            if verdict is not None and verdict.operator == "read":
                yield Outcome(unread(unit, number), verdict)
                return
            self._tell(Place("read", number))
            outcome = next(records, None)
            if outcome is None:
                self._tell(Place("write", None))
                return
            if verdict is not None:
                outcome.rejection = verdict
            outcome.number = number
            yield outcome
            number += 1

    def judged(self, records: Iterable[Outcome], operators: Sequence[Operator]) -> Iterator[list[Outcome]]:
        first, rest = by_example(operators)
        for batch in batches(self._decoded(records, operators, first)):
            for outcome in batch:
                self._judge(outcome, rest)
                settle_batch([outcome])
            self._tell(Place("write", None))
            yield batch

    def _decoded(
        self, records: Iterable[Outcome], operators: Sequence[Operator], first: Sequence[Operator]
    ) -> Iterator[Outcome]:
        for outcome in records:
            self._tell(Place("decode", outcome.number))
            self._judge(decode(outcome, operators), first)
            if len(first) == len(operators):
                settle_batch([outcome])
            yield outcome

    def _judge(self, outcome: Outcome, operators: Sequence[Operator]) -> None:
        for operator in operators:
            self._tell(Place(operator.op, outcome.number))
            judge([outcome], [operator])


def do_carefully(work: CarefulWork, memory_bytes: int, tries: int) -> Commit | None:
    """Do a unit in child processes until one lives to the end.

    Args:
        work: does the unit along a walk and commits it.
        memory_bytes: a child that takes more is killed.
        tries: workers that died on the unit before.

    Returns:
        The commit; None when no record is at fault, or more than 16 are.

    Raises:
        OmnimillError: the work failed without dying.
    """
    given_up: dict[int, Rejection] = {}
    deaths: Counter[Place] = Counter()
    while len(given_up) <= MAX_CULPRITS:
        end = _in_child(cloudpickle.dumps((work, given_up)), memory_bytes)
        if isinstance(end, Commit):
            return end
        deaths[end.place] += 1
        if deaths[end.place] < DEATHS:
            continue
        if end.place.record is None:
            return None
        verdict = Rejection("quarantined", end.place.step, end.reason, end.message, tries + DEATHS)
        given_up[end.place.record] = verdict
    return None


def _in_child(work: bytes, memory_bytes: int) -> Commit | _Death:
    here, there = Pipe()
    child = subprocess.Popen(
        [sys.executable, "-m", "omnimill.pipelines.careful", str(there.fileno())],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        pass_fds=(there.fileno(),),
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    there.close()
    place, too_large = Place("open", None), False
    try:
        here.send_bytes(work)
        looked = 0.0
        while True:
            if time.monotonic() - looked > _LOOK_SECONDS:
                looked = time.monotonic()
                if resident_bytes(child.pid) > memory_bytes:
                    too_large = True
                    child.kill()
            if not here.poll(_LOOK_SECONDS):
                continue
            kind, value = here.recv()
            if kind == "place":
                place = value
            elif kind == "committed":
                return Commit.model_validate_json(value)
            else:
                raise OmnimillError(value)
    except (EOFError, OSError):
        code = child.wait()
    finally:
        child.kill()
        child.wait()
        here.close()
    if too_large:
        return _Death(place, "worker_memory", f"its process took more than {memory_bytes >> 20} MiB")
    how = signal.Signals(-code).name if code < 0 else f"exit code {code}"
    return _Death(place, "worker_crashed", f"its process died ({how})")


def _serve(answers: Connection) -> None:
    """Do the work that comes through the pipe and answer with its end."""
    if sys.platform == "linux":
        # Nobody watches the memory of a child whose parent was killed.
        ctypes.CDLL(None).prctl(_DEATH_WITH_PARENT, signal.SIGKILL)
    work, given_up = pickle.loads(answers.recv_bytes())  # noqa: S301 - from the parent, which pickled it
    try:
        commit = work(CarefulWalk(lambda place: answers.send(("place", place)), given_up))
        answers.send(("committed", commit.model_dump_json()))
    except OmnimillError as fault:
        answers.send(("failed", str(fault)))
    except Exception:  # noqa: BLE001 - told to the parent, which raises it
        answers.send(("failed", traceback.format_exc()))


if __name__ == "__main__":
    # Under its own name: what comes back is unpickled by a parent that knows the module as that.
    from omnimill.pipelines import careful

    careful._serve(Connection(int(sys.argv[1])))
