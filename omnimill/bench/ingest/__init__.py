"""``omnimill bench ingest``: every speed and memory figure of ingestion, against peers in the same run."""

from __future__ import annotations

from collections.abc import Iterator
from importlib import import_module

from omnimill.bench.metric import Metric

# Modules of this package with a `run() -> list[Metric]`, in the order they are measured.
SECTIONS: tuple[str, ...] = ()


def run() -> list[Metric]:
    """All sections, one after the other: nothing else may run on the machine meanwhile."""
    return list(_metrics())


def _metrics() -> Iterator[Metric]:
    for section in SECTIONS:
        yield from import_module(f"{__name__}.{section}").run()
