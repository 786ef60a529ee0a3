"""What one execution of a unit took, where and when; kept beside its commit, outside the digest."""

from __future__ import annotations

import os
import resource
import socket
import time
from typing import Any


class Execution:
    """Measures from when it is made."""

    def __init__(self) -> None:
        self._begun, self._clock, self._cpu = time.time(), time.monotonic(), _processor_seconds()

    def told(self) -> dict[str, Any]:
        """begun: seconds since the epoch; seconds, cpu_seconds (of this process and of children that ended) since
        then; host, process; peak_rss_bytes: of the process in all its life."""
        return {
            "begun": round(self._begun, 3),
            "seconds": round(time.monotonic() - self._clock, 3),
            "cpu_seconds": round(_processor_seconds() - self._cpu, 3),
            "host": socket.gethostname(),
            "process": os.getpid(),
            "peak_rss_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        }


def _processor_seconds() -> float:
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + children.ru_utime + children.ru_stime
