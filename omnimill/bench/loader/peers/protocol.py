"""What the loaders of peers are asked to do, as programs of their own: no part of omnimill is imported here.

A peer's program is called with a command and JSON on the command line and answers with a line of JSON. The package it
measures may need versions of its own, so it may run under another interpreter.
"""

from __future__ import annotations

import json
import os
import sys
import time
import zlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

BATCH = 64
ID_BYTES = 8
# Every so-manieth batch is kept, so many at most, and looked into afterwards for what it is made of.
_LOOK, _LOOKS = 32, 64


def records(part: int, count: int, size: int) -> Iterator[bytes]:
    """The records of one part: bytes that do not compress, of which the first eight are the part and the number."""
    for number in range(count):
        rng = np.random.Generator(np.random.Philox(key=[part, number]))
        head = (part * 1_000_000_000 + number).to_bytes(ID_BYTES, "little")
        yield head + rng.bytes(size - ID_BYTES)


def drop_from_memory(folder: Path) -> None:
    """Let the kernel forget a folder's files, so that they are read from disk again."""
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            descriptor = os.open(path, os.O_RDONLY)
            try:
                os.fsync(descriptor)
                os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
            finally:
                os.close(descriptor)


def read_for(batches: Callable[[], Iterable[list[Any]]], seconds: float, most: int, touch: bool) -> dict[str, Any]:
    """Read batches of bytes for some time.

    Args:
        batches: opens the loader; endless, or it is opened again when it ends.
        most: records at most, in whole batches: when read from disk, each only once.
        touch: whether all bytes of a record are looked at, as whoever decodes it does.

    Returns:
        first_batch: seconds from opening to the first batch. samples, seconds: after that one. parts: samples of some
        batches by part.
    """
    started = time.perf_counter()
    source = iter(batches())
    next(source)
    opened = time.perf_counter()
    samples, looked = 0, 0
    kept: list[list[Any]] = []
    while samples < most and time.perf_counter() - opened < seconds:
        batch = next(source, None)
        if batch is None:
            source = iter(batches())
            continue
        if touch:
            for record in batch:
                looked ^= zlib.crc32(record)
        if samples % (_LOOK * BATCH) < BATCH and len(kept) < _LOOKS:
            kept.append(batch)
        samples += len(batch)
    seconds = time.perf_counter() - opened
    parts = {0: 0, 1: 0}
    for batch in kept:
        for record in batch:
            parts[int.from_bytes(record[:ID_BYTES], "little") // 1_000_000_000] += 1
    return {
        "first_batch": opened - started,
        "samples": samples,
        "seconds": seconds,
        "parts": [parts[0], parts[1]],
        "looked": looked,
    }


def serve(
    write: Callable[[Path, int, Iterable[bytes]], None],
    batches: Callable[[Path, int], Iterable[list[Any]]],
    version: Callable[[], str],
    resume: Callable[[Path], dict[str, Any]] | None = None,
) -> None:
    """Answer the command line.

    Args:
        write: of a folder, a part's number and its records. batches: of a folder and a number of workers.
        resume: what becomes of an order of 10^9 samples when a loader stops and goes on; see `resume` of the bench.
    """
    command, settings = sys.argv[1], json.loads(sys.argv[2])
    folder = Path(settings["folder"])
    answer: dict[str, Any] = {}
    if command == "version":
        answer = {"version": version()}
    elif command == "write":
        for part in (0, 1):
            write(folder, part, records(part, settings["counts"][part], settings["size"]))
    elif command == "read":
        if settings["cold"]:
            drop_from_memory(folder)
        workers, wanted = settings["workers"], (settings["seconds"], settings["most"], settings["touch"])
        answer = read_for(lambda: batches(folder, workers), *wanted)
    elif command == "resume":
        answer = {"refused": "it has no way to go on"} if resume is None else resume(folder)
    sys.stdout.write("\n" + json.dumps(answer) + "\n")
    sys.stdout.flush()
    # Threads and processes of some loaders would keep the program alive.
    os._exit(0)
