"""``omnimill bench ingest``: every speed and memory figure of ingestion, against peers in the same run."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module

from omnimill.bench.metric import Metric
from omnimill.errors import OmnimillError
from omnimill.progress import console

# Modules of this package with a `run() -> list[Metric]`, in the order they are measured.
SECTIONS: tuple[str, ...] = ("images", "text_rules", "fetch", "video", "text_near", "image_near")


def run(sections: Sequence[str] = SECTIONS) -> list[Metric]:
    """Measure sections one after the other; nothing else should run on the machine meanwhile.

    Raises:
        OmnimillError: there is no such section.
    """
    unknown = [section for section in sections if section not in SECTIONS]
    if unknown:
        raise OmnimillError(f"no section {', '.join(unknown)} in `bench ingest`; there is: {', '.join(SECTIONS)}")
    metrics: list[Metric] = []
    for section in sections:
        console.print(f"bench ingest: {section}")
        metrics += import_module(f"{__name__}.{section}").run()
    return metrics
