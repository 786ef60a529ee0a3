"""Benchmark results as a Markdown page: what was measured, where, and with which versions."""

from __future__ import annotations

import os
import platform
import re
from collections.abc import Iterable, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import psutil

from omnimill.bench.metric import Metric

_PACKAGES = (
    "omnimill",
    "ray",
    "pyarrow",
    "polars",
    "numpy",
    "opencv-python-headless",
    "simplejpeg",
    "av",
    "img2dataset",
    "daft",
    "datatrove",
    "ImageHash",
)
COLUMNS = ("metric", "unit", "omnimill", "peers", "x best peer", "ceiling", "of ceiling")


def rows(metrics: Iterable[Metric]) -> list[list[str]]:
    """Cells of a table with `COLUMNS`."""
    return [
        [
            one.metric,
            one.unit,
            f"{one.ours:.4g}",
            ", ".join(f"{name} {value:.4g}" for name, value in one.peers.items()),
            "" if one.ratio_to_best_peer is None else f"{one.ratio_to_best_peer:.2f}",
            "" if one.ceiling is None else f"{one.ceiling:.4g}",
            "" if one.ceiling_share is None else f"{one.ceiling_share:.1%}",
        ]
        for one in metrics
    ]


def section(name: str, day: str, metrics: Sequence[Metric]) -> str:
    """A section of Markdown for one benchmark. day: when it ran, YYYY-MM-DD."""
    table = [COLUMNS, ["---"] * len(COLUMNS), *rows(metrics)]
    lines = ["| " + " | ".join(cells) + " |" for cells in table]
    return "\n".join([f"## {name}", "", f"`omnimill bench {name}`, {day}, {machine()}, {versions()}.", "", *lines, ""])


def update(page: str, sections: Mapping[str, str]) -> str:
    """A page with these sections in place of its own under the same headings, or at its end; the rest stays.

    Args:
        page: Markdown; may be empty.
        sections: from heading to what :func:`section` made.
    """
    head, *parts = re.split(r"^(?=## )", page or "# Benchmarks, as last run\n\n", flags=re.MULTILINE)
    left = dict(sections)
    kept = [left.pop(part.split("\n", 1)[0].removeprefix("## ").strip(), part) for part in parts]
    return head + "\n".join(part.strip("\n") + "\n" for part in (*kept, *left.values()))


def machine() -> str:
    """Processor, cores, memory, system and Python of this machine."""
    memory, python = psutil.virtual_memory().total / (1 << 30), platform.python_version()
    return f"{_processor()}, {os.cpu_count()} cores, {memory:.0f} GiB, {platform.system()}, Python {python}"


def versions() -> str:
    """Versions of what takes part, as far as it is installed."""
    found = []
    for package in _PACKAGES:
        try:
            found.append(f"{package} {version(package)}")
        except PackageNotFoundError:
            continue
    return ", ".join(found)


def _processor() -> str:
    path = Path("/proc/cpuinfo")
    lines = path.read_text().splitlines() if path.exists() else []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor() or platform.machine())
