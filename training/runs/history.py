"""The loss curve of a run: one JSON line per update in ``runs/<run>/history.jsonl``.

Whoever writes a run holds its lock, so there is one writer at a time, also while a killed run's processes are still
on their way out. Going on from a checkpoint first cuts the history back to it: the curve is one curve.
"""

from __future__ import annotations

import fcntl
import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, Self

from omnimill.errors import OmnimillError

HISTORY = "history.jsonl"
# What a line says about speed; everything else in it is the same whenever and wherever the step is computed.
TIMING = "timing"
LOCK_PATIENCE_SECONDS = 60.0


@contextmanager
def run_lock(run: Path, patience: float = LOCK_PATIENCE_SECONDS) -> Iterator[None]:
    """Be the only writer of a run for the length of a ``with`` block; the lock ends with the process that holds it.

    Raises:
        OmnimillError: another process kept the lock for `patience` seconds.
    """
    run.mkdir(parents=True, exist_ok=True)
    deadline = time.monotonic() + patience
    with (run / "lock").open("a+") as file:
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() >= deadline:
                    raise OmnimillError(
                        f"{run} is being trained by another process, which has held {run / 'lock'} for more than "
                        f"{patience:.0f} s; wait for it to end or stop it"
                    ) from None
                time.sleep(0.1)
        yield


class HistoryWriter:
    """Appends to a run's history from a given step on; later lines that are already there are cut off.

    Args:
        step: updates done; the next line is the one of this step.

    Raises:
        OmnimillError: the history does not reach up to `step`.
    """

    def __init__(self, run: Path, step: int) -> None:
        path = run / HISTORY
        path.touch()
        _cut(path, step)
        self._file = path.open("a", encoding="utf-8")

    def append(self, line: dict[str, Any]) -> None:
        """Write one line; a reader sees it whole or not at all."""
        self._file.write(json.dumps(line, allow_nan=False) + "\n")
        self._file.flush()

    def to_disk(self) -> None:
        """Let what was written survive a power cut: called before a checkpoint is published."""
        os.fsync(self._file.fileno())

    def close(self) -> None:
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _cut(path: Path, steps: int) -> None:
    """Keep the lines of the steps 0 … steps-1 only; a shorter history is a new file, so that readers notice."""
    partial = path.with_name(f".{path.name}.partial")
    with path.open("rb") as old, partial.open("wb") as new:
        for step in range(steps):
            line = old.readline()
            if not line.endswith(b"\n") or json.loads(line)["step"] != step:
                raise OmnimillError(f"{path}: line {step + 1} should be that of step {step}; the history is damaged")
            new.write(line)
    partial.replace(path)


class HistoryReader:
    """Follows a history that is being written.

    A run that restarts from a checkpoint cuts the history back and writes the same lines again; a reader that has seen
    them does not see them twice.

    Args:
        first: step of the first line that is wanted.
    """

    def __init__(self, run: Path, first: int = 0) -> None:
        self._path = run / HISTORY
        self._next = first
        self._file: BinaryIO | None = None
        self._rest = b""

    def read(self) -> list[dict[str, Any]]:
        """The whole lines that were not read before, in order."""
        lines = []
        if self._reopen():
            assert self._file is not None
            *whole, self._rest = (self._rest + self._file.read()).split(b"\n")
            lines = [line for line in map(json.loads, whole) if line["step"] >= self._next]
            self._next += len(lines)
        return lines

    def close(self) -> None:
        if self._file is not None:
            self._file.close()

    def _reopen(self) -> bool:
        """Open the history, again if it was replaced; False while there is none."""
        try:
            current = self._path.stat().st_ino
        except FileNotFoundError:
            return False
        if self._file is None or os.fstat(self._file.fileno()).st_ino != current:
            self.close()
            self._file, self._rest = self._path.open("rb"), b""
        return True


def read_history(run: Path) -> list[dict[str, Any]]:
    """Every whole line of a run's history, in order; empty when it has none."""
    reader = HistoryReader(run)
    lines = reader.read()
    reader.close()
    return lines
