"""Progress of long work: a live line on a terminal, one plain log line every few seconds elsewhere; always stderr."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from omnimill import logs

PLAIN_INTERVAL_SECONDS = 5.0

# Where logs go to standard error, so does nothing else.
_logged = os.environ.get(logs.SETTING) == logs.STDERR
console = (
    Console(file=logs.Lines(), highlight=False, width=10_000) if _logged else Console(stderr=True, highlight=False)
)

Advance = Callable[..., None]


@contextmanager
def progress(label: str, total: int | None, unit: str = "units") -> Iterator[Advance]:
    """Report work as it is done.

    Yields:
        ``advance(n, **facts)``: `n` more items are done; `facts` (rows, dropped, …) replace those shown before.
    """
    if console.is_terminal:
        columns = (TextColumn(label), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn())
        with Progress(*columns, TextColumn("{task.fields[facts]}"), console=console, transient=True) as bar:
            task = bar.add_task(label, total=total, facts="")

            def advance_bar(n: int = 1, **facts: Any) -> None:
                bar.update(task, advance=n, facts=_facts(facts))

            yield advance_bar
        return
    started = last = time.monotonic()
    done = 0

    def advance_line(n: int = 1, **facts: Any) -> None:
        nonlocal done, last
        done += n
        now = time.monotonic()
        if now - last >= PLAIN_INTERVAL_SECONDS and done != total:
            last = now
            _line(label, done, total, unit, now - started, facts)

    yield advance_line
    _line(label, done, total, unit, time.monotonic() - started, {})


def _line(label: str, done: int, total: int | None, unit: str, seconds: float, facts: dict[str, Any]) -> None:
    logs.event("progress", what=label, done=done, total=total, of=unit, seconds=round(seconds, 3), **facts)
    if _logged:
        return
    of = f"/{total}" if total is not None else ""
    left = f" eta={seconds / done * (total - done):.0f}s" if total and 0 < done < total else ""
    print(f"{label}: {done}{of} {unit} in {seconds:.1f}s{left} {_facts(facts)}".rstrip(), file=sys.stderr, flush=True)


def _facts(facts: dict[str, Any]) -> str:
    return " ".join(f"{name}={value}" for name, value in facts.items())
