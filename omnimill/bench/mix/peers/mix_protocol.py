"""What the mixers of peers are asked to do, as programs of their own: no part of omnimill is imported here.

A peer's program is called with a command and JSON on the command line. It writes small records of several parts in its
own format, mixes them by rates, and leaves what every batch was made of in ``<folder>/batches.npz``.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np

# Spread of the records' tokens, as of a log-normal distribution; their means are drawn from this range.
_SPREAD, _LEAST, _MOST = 0.8, 50, 1500

Record = dict[str, int]
# Parts and tokens of the records of one batch.
Batch = tuple[Sequence[int], Sequence[int]]


def tokens(part: int, count: int) -> np.ndarray:
    """How many tokens the records of a part have: int64 [count]."""
    rng = np.random.Generator(np.random.Philox(key=[7, part]))
    mean = rng.uniform(_LEAST, _MOST)
    return np.maximum(np.rint(rng.lognormal(np.log(mean) - _SPREAD**2 / 2, _SPREAD, count)), 1).astype(np.int64)


def tally(batches: Iterable[tuple[np.ndarray, np.ndarray]], parts: int, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Records and tokens of each part in the first `count` batches: int64 [batches, parts] each.

    Args:
        batches: parts and tokens of their records; may end sooner.
    """
    numbers, sums = np.zeros((count, parts), np.int64), np.zeros((count, parts), np.int64)
    for place, (part, size) in enumerate(batches):
        if place == count:
            return numbers, sums
        numbers[place] = np.bincount(part, minlength=parts)
        sums[place] = np.bincount(part, weights=size, minlength=parts).astype(np.int64)
    raise RuntimeError(f"the mixed data ended after {place + 1} batches of {count}")


def serve(
    write: Callable[[Path, int, Iterable[Record]], None],
    batches: Callable[[Path, list[float], int], Iterable[Batch]],
    version: Callable[[], str],
) -> None:
    """Answer the command line: ``version``, or ``mix`` with rates, counts, batch and batches.

    Args:
        write: of a folder, a part's number and its records. batches: of a folder, rates and the size of a batch.
    """
    command, settings = sys.argv[1], json.loads(sys.argv[2])
    answer: dict[str, object] = {"version": version()}
    if command == "mix":
        folder, rates = Path(settings["folder"]), settings["rates"]
        for part, count in enumerate(settings["counts"]):
            write(folder, part, ({"part": part, "tokens": int(one)} for one in tokens(part, count)))
        started = time.perf_counter()
        found = ((np.asarray(part), np.asarray(size)) for part, size in batches(folder, rates, settings["batch"]))
        numbers, sums = tally(found, len(rates), settings["batches"])
        np.savez(folder / "batches.npz", numbers=numbers, tokens=sums)
        answer["seconds"] = time.perf_counter() - started
    sys.stdout.write("\n" + json.dumps(answer) + "\n")
    sys.stdout.flush()
    # Threads and processes of some loaders would keep the program alive.
    os._exit(0)
