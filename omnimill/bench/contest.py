"""Runs a contestant in a process of its own and measures its time and memory."""

from __future__ import annotations

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

T = TypeVar("T")

_SAMPLE_SECONDS = 0.05


@dataclass(frozen=True)
class Run(Generic[T]):
    """What a contestant returned, the wall-clock seconds of its call, and the peak memory of it and its children.

    peak_bytes: largest sum of unique set sizes (pages that only one process has), sampled 20 times a second.
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


def _sample(pid: int | None, stop: threading.Event, peak: list[int]) -> None:
    while not stop.wait(_SAMPLE_SECONDS):
        try:
            root = psutil.Process(pid)
            processes = [root, *root.children(recursive=True)]
        except psutil.NoSuchProcess:
            return
        peak[0] = max(peak[0], sum(map(_unique_bytes, processes)))


def _unique_bytes(process: psutil.Process) -> int:
    try:
        return int(process.memory_full_info().uss)
    except (psutil.NoSuchProcess, psutil.AccessDenied):
        return 0
