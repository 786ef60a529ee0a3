"""Commands that run one after the other in one process, as a user would type them."""

from __future__ import annotations

import contextlib
import io
import json
import shlex
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omnimill.cli.main import main
from omnimill.errors import OmnimillError
from omnimill.progress import console


@dataclass(frozen=True)
class Step:
    """A command that was run: what it answered and how long it took."""

    command: str
    answer: Any
    seconds: float


def run_step(*arguments: str, root: str) -> Step:
    """Run one command in this process (so that all share one Ray), showing what a user would type.

    Raises:
        OmnimillError: it did not end well.
    """
    typed = ["omnimill", *arguments, "--root", root]
    console.print(f"\n[bold]$ {shlex.join(typed)}[/]", soft_wrap=True)
    started = time.monotonic()
    stdout = io.StringIO()
    with contextlib.redirect_stdout(stdout):
        code = main([*arguments, "--root", root, "--json"])
    if code != 0:
        raise OmnimillError(f"{shlex.join(typed)} ended with exit code {code}")
    return Step(" ".join(arguments[:2]), json.loads(stdout.getvalue()), time.monotonic() - started)


def need_project_files(*paths: str) -> None:
    """Raises OmnimillError when the current directory does not have them."""
    missing = [path for path in paths if not Path(path).exists()]
    if missing:
        raise OmnimillError(f"run this in the project's folder: {missing[0]} is not here")
