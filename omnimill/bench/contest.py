"""Runs a contestant in a process of its own and measures its time and memory."""

from __future__ import annotations

import itertools
import multiprocessing
import threading
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any, Generic, TypeVar

import psutil

from omnimill.errors import OmnimillError
from omnimill.infra.memory import resident_bytes

T = TypeVar("T")

_SAMPLE_SECONDS = 0.1
# Finding the children of a process means looking at all processes of the machine.
_SAMPLES_PER_FAMILY = 5


@dataclass(frozen=True)
class Run(Generic[T]):
    """What a contestant returned, the wall-clock seconds of its call, and the peak memory of it and its children.

    peak_bytes: largest sum of resident memory besides files and shared memory, sampled ten times a second.
    """

    value: T
    seconds: float
    peak_bytes: int


def run_alone(prepare: Callable[[], Callable[[], T]]) -> Run[T]:
    """Call ``prepare()()`` in a fresh process; only the second call is timed.

    Args:
        prepare: a picklable function that imports what is needed and returns the work to time.

    Raises:
        OmnimillError: the contestant failed, with its traceback.
    """
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    process = context.Process(target=_serve, args=(prepare, there))
    process.start()
    there.close()
    assert process.pid is not None  # it was started
    stop, peak = threading.Event(), [0]
    sampler = threading.Thread(target=_sample, args=(process.pid, stop, peak), daemon=True)
    sampler.start()
    try:
        verdict, value, seconds = here.recv()
    except EOFError:
        process.join()
        raise OmnimillError(f"a contestant ended with exit code {process.exitcode}") from None
    finally:
        stop.set()
        sampler.join()
    process.join()
    if verdict != "done":
        raise OmnimillError(f"a contestant failed:\n{value}")
    return Run(value, seconds, peak[0])


def _serve(prepare: Callable[[], Callable[[], Any]], answers: Connection) -> None:
    try:
        work = prepare()
        started = time.perf_counter()
        value = work()
        answers.send(("done", value, time.perf_counter() - started))
    except BaseException:  # noqa: BLE001 - told to the parent
        answers.send(("failed", traceback.format_exc(), 0.0))


def _sample(pid: int, stop: threading.Event, peak: list[int]) -> None:
    # Cheap looks only: unique set sizes would say a little more, but the kernel holds up a process to count them.
    for number in itertools.count():
        if number % _SAMPLES_PER_FAMILY == 0:
            family = _family(pid)
        peak[0] = max(peak[0], sum(map(resident_bytes, family)))
        if stop.wait(_SAMPLE_SECONDS):
            return


def _family(pid: int) -> list[int]:
    try:
        return [pid, *(child.pid for child in psutil.Process(pid).children(recursive=True))]
    except psutil.NoSuchProcess:
        return []
