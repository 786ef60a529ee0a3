"""How long lineage questions take over 100 million examples and a long training, and how much memory."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from omnimill.bench.contest import run_alone
from omnimill.bench.lookup_catalog import COMMON, EXAMPLES, TOKENS, Size, Written, write
from omnimill.bench.metric import OURS, Metric

_MIB = 1 << 20


def run(size: Size | None = None) -> list[Metric]:
    """Write the catalog and ask every question in a process of its own."""
    with tempfile.TemporaryDirectory(prefix="omnimill-bench-") as folder:
        root = Path(folder)
        started = time.perf_counter()
        written = write(root, size or Size())
        metrics = [_metric("catalog and training written", "s", time.perf_counter() - started)]
        bytes_ = sum(path.stat().st_size for name in (EXAMPLES, TOKENS) for path in (root / name / "index").glob("*.*"))
        metrics.append(_metric("index", "GB", bytes_ / 1e9))
        for name, prepare in _questions(folder, written).items():
            found = run_alone(prepare)
            metrics.append(_metric(name, "s", found.seconds))
            metrics.append(_metric(f"{name}: processor time", "s", found.value))
            metrics.append(_metric(f"{name}: memory", "MiB", found.peak_bytes / _MIB))
        return metrics


def _questions(root: str, written: Written) -> dict[str, Callable[[], Callable[[], float]]]:
    """What is asked, by name; each gives the processor time that it took."""
    return {
        "impact of an example id": partial(_impact, root, written.id, True),
        "impact of a URL": partial(_impact, root, written.url, True),
        "impact of a content digest": partial(_impact, root, written.digest, True),
        "impact of a domain in every shard": partial(_impact, root, f"domain:{COMMON}", False),
        "impact of a licence of every row": partial(_impact, root, "licence:CC-BY-4.0", False),
        "trace of an example": partial(_trace, root, written.id),
        "trace of a shard": partial(_trace, root, written.shard),
        "trace of a row of tokens": partial(_trace, root, f"{written.token_shard}#3"),
        "trace of a checkpoint": partial(_trace, root, written.checkpoint),
    }


def _impact(root: str, query: str, exact: bool) -> Callable[[], float]:
    from omnimill.training.lineage import audit  # noqa: PLC0415

    def ask() -> float:
        began = time.process_time()
        answer: dict[str, Any] = audit.impact(root, query)
        spent = time.process_time() - began
        (found,) = answer["runs"]
        # What is asked of was seen, and where it is told exactly, at as many steps.
        assert found["checkpoints"][0]["times_seen"] == len(found["steps"]) > 0 if exact else found["steps"] is None
        return spent

    return ask


def _trace(root: str, artefact: str) -> Callable[[], float]:
    from omnimill.training.lineage import provenance  # noqa: PLC0415

    def ask() -> float:
        began = time.process_time()
        assert provenance.trace(root, artefact)["sources"]
        return time.process_time() - began

    return ask


def _metric(name: str, unit: str, value: float) -> Metric:
    return Metric.of(name, unit, {OURS: value}, best="smallest")
