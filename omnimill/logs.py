"""Structured logs: a JSON object on a line for whatever happens, with the run, the stage and the unit that it concerns.

One setting turns them on: ``OMNIMILL_LOG`` names a file that lines are added to, or is ``-`` for standard error, where
everything that is told to people is then a JSON line too.
"""

from __future__ import annotations

import io
import json
import logging
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

SETTING = "OMNIMILL_LOG"
STDERR = "-"

# What holds for every line now: run, command. Of the process and not of a thread: a command has many.
_facts: dict[str, Any] = {}


def enabled() -> bool:
    """Whether anything is logged."""
    return bool(os.environ.get(SETTING))


def event(name: str, **facts: Any) -> None:
    """Log that something happened; nothing at all unless logs are turned on.

    Args:
        name: what, in snake_case.
        facts: what JSON can hold.
    """
    target = os.environ.get(SETTING)
    if not target:
        return
    now = time.time()
    stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now)) + f".{int(now % 1 * 1000):03d}Z"
    line = json.dumps({"time": stamp, "event": name, **_facts, **facts}, ensure_ascii=False, default=str) + "\n"
    if target == STDERR:
        sys.stderr.write(line)
        sys.stderr.flush()
        return
    path = Path(target)
    path.parent.mkdir(parents=True, exist_ok=True)
    # One write of a whole line: processes that add to the same file do not mix lines.
    with path.open("ab", buffering=0) as file:
        file.write(line.encode())


@contextmanager
def context(**facts: Any) -> Iterator[None]:
    """`facts` are in every line that is logged in a ``with`` block."""
    before = dict(_facts)
    _facts.update(facts)
    try:
        yield
    finally:
        _facts.clear()
        _facts.update(before)


class Lines(io.StringIO):
    """A stream whose lines are logged as messages."""

    def __init__(self) -> None:
        super().__init__()
        self._rest = ""

    def write(self, text: str) -> int:
        *lines, self._rest = (self._rest + text).split("\n")
        for line in lines:
            if line.strip():
                event("message", message=line.strip())
        return len(text)


class _Handler(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        event("log", level=record.levelname.lower(), logger=record.name, message=record.getMessage())


def log_warnings() -> None:
    """Have warnings and errors of all libraries logged as well, if logs are turned on."""
    if enabled():
        logging.getLogger().addHandler(_Handler(logging.WARNING))
