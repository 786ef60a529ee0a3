"""``omnimill bench``: measured figures beside those of peers in the same run."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from omnimill.cli.output import Json, print_json, print_table

if TYPE_CHECKING:
    from omnimill.bench.metric import Metric


class Benchmark(StrEnum):
    """What can be measured."""

    INGEST = "ingest"
    LOADER = "loader"
    LOOKUP = "lookup"
    MIX = "mix"
    PACKING = "packing"
    PLANNER = "planner"
    SAMPLER = "sampler"
    SCALE = "scale"
    TOKENIZE = "tokenize"
    TRAIN = "train"


def register(app: typer.Typer) -> None:
    """Add the command to the program."""
    app.command("bench")(bench)


def bench(
    names: Annotated[list[Benchmark] | None, typer.Argument(help="Benchmarks to run; all when none is named.")] = None,
    section: Annotated[list[str] | None, typer.Option(help="Only these parts of `ingest`.")] = None,
    page: Annotated[Path | None, typer.Option(help="Also update a Markdown page, with machine and versions.")] = None,
    json: Json = False,
) -> None:
    """Measure our parts beside their peers or ceilings, on the same input in the same run.

    Example: omnimill bench sampler --json
    """
    from omnimill.bench import ingest, loader, lookup, mix, packing, planner, sampler, scale, tokenize, train
    from omnimill.bench import page as pages

    runs: dict[Benchmark, Callable[[], list[Metric]]] = {
        Benchmark.INGEST: partial(ingest.run, section or ingest.SECTIONS),
        Benchmark.LOADER: loader.run,
        Benchmark.LOOKUP: lookup.run,
        Benchmark.MIX: mix.run,
        Benchmark.PACKING: packing.run,
        Benchmark.PLANNER: planner.run,
        Benchmark.SAMPLER: sampler.run,
        Benchmark.SCALE: scale.run,
        Benchmark.TOKENIZE: tokenize.run,
        Benchmark.TRAIN: train.run,
    }
    measured = {name.value: runs[name]() for name in names or list(Benchmark)}
    if page is not None:
        day = time.strftime("%Y-%m-%d")
        sections = {name: pages.section(name, day, metrics) for name, metrics in measured.items()}
        before = page.read_text(encoding="utf-8") if page.exists() else ""
        page.write_text(pages.update(before, sections), encoding="utf-8")
    metrics = [metric for found in measured.values() for metric in found]
    if json:
        print_json({"metrics": [asdict(metric) for metric in metrics]})
    else:
        print_table("Benchmarks", list(pages.COLUMNS), pages.rows(metrics))
