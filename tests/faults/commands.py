"""``omnimill`` as a process of its own that is to be killed, with all that it started."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any


class Run:
    """A command of ``omnimill`` in a session of its own, with two cores and its answer as JSON."""

    def __init__(self, *arguments: str | Path) -> None:
        # Every descendant inherits the mark, also those that leave the session.
        self.mark = f"OMNIMILL_KILL_TEST={uuid.uuid4().hex}"
        name, value = self.mark.split("=")
        command = [Path(sys.executable).with_name("omnimill"), *arguments, "--cpus", "2", "--json"]
        environment = {key: text for key, text in os.environ.items() if key != "RAY_ADDRESS"}
        self.process = subprocess.Popen(
            list(map(str, command)),
            env={**environment, name: value},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def kill(self) -> None:
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.communicate()

    def left_behind(self) -> Iterator[int]:
        for folder in Path("/proc").iterdir():
            try:
                if folder.name.isdigit() and self.mark.encode() in (folder / "environ").read_bytes().split(b"\0"):
                    yield int(folder.name)
            except OSError:
                continue

    def wait_until_gone(self, seconds: float = 20.0) -> list[int]:
        """Processes of the run that are still there after `seconds`."""
        end = time.monotonic() + seconds
        while (left := list(self.left_behind())) and time.monotonic() < end:
            time.sleep(0.1)
        return left

    def named(self, title: str) -> list[int]:
        """Processes of the run whose title begins so."""
        found = []
        for pid in self.left_behind():
            try:
                if Path("/proc", str(pid), "cmdline").read_bytes().startswith(title.encode()):
                    found.append(pid)
            except OSError:
                continue
        return found


def answer_of(module: str, *arguments: object, timeout: float) -> dict[str, Any]:
    """What a program beside this one prints in its last line, as JSON; it and all that it started are then ended."""
    environment = {key: text for key, text in os.environ.items() if key != "RAY_ADDRESS"}
    environment["PYTHONPATH"] = os.pathsep.join([str(Path(__file__).parents[1]), *sys.path])
    process = subprocess.Popen(
        [sys.executable, "-m", f"faults.{module}", *map(str, arguments)],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        out, err = process.communicate(timeout=timeout)
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    assert process.returncode == 0, err
    answer: dict[str, Any] = json.loads(out.splitlines()[-1])
    return answer
