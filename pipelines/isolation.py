"""Calls that hostile input may crash, hang or blow up, made in a child process with limits on time and memory.

A child serves one call at a time and is kept for the next one, so a call costs a pipe round trip, not the start of an
interpreter. A child that runs out of time or dies is replaced, and the input that it worked on is a
:class:`~omnimill.errors.BadRecord`. Children end with their parent: they read their work from its pipe.
"""

from __future__ import annotations

import math
import os
import resource
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any, ParamSpec, TypeVar

from omnimill.errors import BadRecord, OmnimillError

P = ParamSpec("P")
T = TypeVar("T")

MEMORY_BYTES = 4 << 30
MAX_IDLE = 4
CALLS_PER_CHILD = 256

_idle: list[_Child] = []
_lock = threading.Lock()


def isolated(kind: str, seconds: float, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """``function(*args, **kwargs)`` in a child process; arguments and result are pickled between the two.

    Args:
        kind: what is read (video, audio, mesh), the first part of the reason codes below.
        seconds: wall-clock limit.
        function: a module-level function.

    Raises:
        BadRecord: ``<kind>_timeout``, ``<kind>_crash`` (the child died),
            ``<kind>_memory`` (more than 4 GiB of address space).
        OmnimillError, ImportError: raised by the function.
        OmnimillError: any other exception of the function, by its type and message.
    """
    with _lock:
        child = _idle.pop() if _idle else None
    child = child or _Child()
    verdict, value = child.call(kind, seconds, (function, args, kwargs))
    with _lock:
        keep = child.calls < CALLS_PER_CHILD and len(_idle) < MAX_IDLE and child.alive
        if keep:
            _idle.append(child)
    if not keep:
        child.close()
    if verdict == "returned":
        return value  # type: ignore[no-any-return]
    if verdict == "raised":
        raise value
    raise OmnimillError(f"{function.__module__}.{function.__qualname__} failed: {value}")


class _Child:
    """One child process and the pipes to it."""

    def __init__(self) -> None:
        environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join(sys.path),
            "OMP_NUM_THREADS": "1",
            "OPENBLAS_NUM_THREADS": "1",
            # Every thread may get an arena of its own, which reserves 64 MiB of the address space that is limited.
            "MALLOC_ARENA_MAX": "4",
        }
        self.process = subprocess.Popen(
            [sys.executable, "-m", "omnimill.pipelines.isolation"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=environment,
        )
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.requests = Connection(os.dup(self.process.stdin.fileno()), readable=False)
        self.answers = Connection(os.dup(self.process.stdout.fileno()), writable=False)
        self.process.stdin.close()
        self.process.stdout.close()
        self.calls = 0
        self.alive = True

    def call(self, kind: str, seconds: float, work: tuple[Any, ...]) -> tuple[str, Any]:
        self.calls += 1
        try:
            self.requests.send((kind, seconds, work))
            if self.answers.poll(seconds):
                return self.answers.recv()  # type: ignore[no-any-return]
            fault = BadRecord(f"{kind}_timeout", f"not done after {seconds:g} s")
        except (EOFError, OSError):
            code = self.process.wait()
            fault = BadRecord(f"{kind}_crash", f"the process that read it ended with code {code}")
        self.alive = False
        return "raised", fault

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        self.requests.close()
        self.answers.close()


def _serve() -> None:
    """Answer calls until the parent closes its end of the pipe."""
    requests = Connection(os.dup(0), writable=False)
    answers = Connection(os.dup(1), readable=False)
    os.dup2(2, 1)  # whatever a library prints must not reach the answers
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    while True:
        try:
            kind, seconds, (function, args, kwargs) = requests.recv()
        except EOFError:
            return
        # A parent that was killed cannot stop a hanging call: the child's own limit does.
        resource.setrlimit(resource.RLIMIT_CPU, (math.ceil(time.process_time() + 2 * seconds), resource.RLIM_INFINITY))
        try:
            answer = ("returned", function(*args, **kwargs))
        except (OmnimillError, ImportError) as error:
            answer = ("raised", error)
        except MemoryError:
            answer = ("raised", BadRecord(f"{kind}_memory", f"needs more than {MEMORY_BYTES >> 20} MiB"))
        except Exception as error:  # noqa: BLE001 - raised again in the parent
            # No traceback: the message is stored, and must not tell where this program is installed.
            answer = ("failed", f"{type(error).__name__}: {error}")
        answers.send(answer)


if __name__ == "__main__":
    _serve()
