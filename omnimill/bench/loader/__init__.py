"""How fast records of a mixture come from disk or memory, how soon the first, and how soon after a change of ranks.

The same records, shuffled and mixed 7 to 3, are written in each contestant's own format and read by its own loader:
omnimill's reader, MosaicML Streaming, litdata, webdataset, grain with ArrayRecord, Megatron-Energon and Lance. Each
runs in a process of its own. The packages of the peers do not all install beside ours; they may lie in another virtual
environment, whose interpreter `PEERS_VARIABLE` names.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from omnimill.bench.metric import OURS, Metric
from omnimill.errors import OmnimillError
from omnimill.progress import progress

PEERS_VARIABLE = "OMNIMILL_PEERS_PYTHON"
_PEERS = ("streaming", "litdata", "webdataset", "grain", "energon", "lance")
_FOLDER = Path(__file__).parent / "peers"
_TIMEOUT_SECONDS = 600
_RECORD_BYTES = 50_000
_COUNTS = (8_400, 3_600)  # 600 MB
_SECONDS = 4.0
# The first batch takes milliseconds, so it is told by the median of so many openings, each in a fresh process.
_OPENINGS = 7


def run() -> list[Metric]:
    """Measure all contestants that are there; what is not there is named on the standard error stream.

    Raises:
        OmnimillError: no peer can be run, or a contestant fails.
    """
    with tempfile.TemporaryDirectory(prefix="omnimill-bench-") as folder:
        return _measure(Path(folder))


def _measure(home: Path) -> list[Metric]:
    present = [OURS, *(peer for peer in _PEERS if _is_there(peer))]
    if len(present) == 1:
        raise OmnimillError(f"no peer is installed; {PEERS_VARIABLE} may name another interpreter that has some")
    rates: dict[str, dict[str, float]] = {}
    firsts: dict[str, dict[str, float]] = {}
    resumed: dict[str, float] = {}
    cases = [(cold, workers, touch) for workers in (0, 2) for touch in (False, True) for cold in (True, False)]
    with progress("loader", len(present) * (len(cases) + 2), "readings") as advance:
        for name in present:
            folder = home / name
            folder.mkdir()
            settings = {"folder": str(folder), "counts": _COUNTS, "size": _RECORD_BYTES}
            _ask(name, "write", settings)
            for cold, workers, touch in cases:
                limits = {"seconds": _SECONDS, "most": sum(_COUNTS) * 9 // 10 if cold else 1 << 60}
                said = _ask(name, "read", {**settings, **limits, "cold": cold, "workers": workers, "touch": touch})
                case = f"{_state(cold)}, {workers} workers{', bytes read' if touch else ''}"
                rates.setdefault(case, {})[name] = said["samples"] / said["seconds"]
                advance(1)
            opening = {**settings, "seconds": 0.0, "most": 0, "workers": 0, "touch": False}
            for cold in (True, False):
                times = [_ask(name, "read", {**opening, "cold": cold})["first_batch"] for _ in range(_OPENINGS)]
                firsts.setdefault(f"{_state(cold)}, 0 workers", {})[name] = statistics.median(times)
                advance(1)
            answer = _ask(name, "resume", settings)
            if answer.get("skipped") or answer.get("repeated"):
                raise OmnimillError(f"{name}: after a change of ranks {answer}")
            if "seconds" in answer:
                resumed[name] = answer["seconds"]
    metrics = [Metric.of(f"loader: {case}", "samples/s", found, "largest") for case, found in rates.items()]
    metrics += [Metric.of(f"loader: first batch, {case}", "s", found, "smallest") for case, found in firsts.items()]
    metrics.append(Metric.of("loader: gone on with 10^9 samples, other ranks", "s", resumed, "smallest"))
    return metrics


def _state(cold: bool) -> str:
    return "cold" if cold else "warm"


def _is_there(peer: str) -> bool:
    try:
        _ask(peer, "version", {"folder": "."})
    except OmnimillError as error:
        reason = str(error).strip().rsplit("\n", 1)[-1]
        sys.stderr.write(f"{peer} is left out: {reason}\n")
        return False
    return True


def _ask(name: str, command: str, settings: dict[str, Any]) -> dict[str, Any]:
    """Run a contestant's program; raises OmnimillError when it fails."""
    if name == OURS:
        program = [sys.executable, "-m", "omnimill.bench.loader.ours"]
    else:
        program = [os.environ.get(PEERS_VARIABLE, sys.executable), str(_FOLDER / f"{name}_loader.py")]
    done = subprocess.run(
        [*program, command, json.dumps(settings)], capture_output=True, text=True, timeout=_TIMEOUT_SECONDS, check=False
    )
    lines = done.stdout.strip().splitlines()
    if done.returncode or not lines:
        raise OmnimillError(f"{name}: {command}: {done.stderr.strip()[-2000:] or 'no answer'}")
    answer: dict[str, Any] = json.loads(lines[-1])
    return answer
