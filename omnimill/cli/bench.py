"""``omnimill bench``: measured figures beside those of peers in the same run."""

from __future__ import annotations

from dataclasses import asdict
from enum import StrEnum
from importlib import import_module
from typing import Annotated

import typer

from omnimill.cli.output import Json, print_json, print_table


class Benchmark(StrEnum):
    """What can be measured."""

    INGEST = "ingest"
    PACKING = "packing"
    SAMPLER = "sampler"


def register(app: typer.Typer) -> None:
    """Add the command to the program."""
    app.command("bench")(bench)


def bench(
    names: Annotated[list[Benchmark] | None, typer.Argument(help="Benchmarks to run; all when none is named.")] = None,
    json: Json = False,
) -> None:
    """Measure ingestion, packing and sampling against named peers on the same input.

    Example: omnimill bench packing --json
    """
    metrics = [
        metric for name in names or list(Benchmark) for metric in import_module(f"omnimill.bench.{name.value}").run()
    ]
    if json:
        print_json({"metrics": [asdict(metric) for metric in metrics]})
        return
    rows = [
        [
            one.metric,
            one.unit,
            f"{one.ours:.4g}",
            ", ".join(f"{name} {value:.4g}" for name, value in one.peers.items()),
            "" if one.ratio_to_best_peer is None else f"{one.ratio_to_best_peer:.2f}",
            "" if one.ceiling_share is None else f"{one.ceiling_share:.1%}",
        ]
        for one in metrics
    ]
    print_table("Benchmarks", ["metric", "unit", "omnimill", "peers", "x best peer", "of ceiling"], rows)
