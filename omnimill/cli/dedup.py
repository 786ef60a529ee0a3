"""``omnimill dedup``: which rows of a dataset are not to be used."""

from __future__ import annotations

from typing import Annotated

import typer

from omnimill.cli.output import DEFAULT_ROOT, Cpus, Json, Root, print_json, print_table
from omnimill.config import load_config

DedupFile = Annotated[str, typer.Argument(metavar="FILE", help="YAML file with the dataset and the steps.")]


def register(app: typer.Typer) -> None:
    app.command("dedup")(dedup)


def dedup(file: DedupFile, root: Root = DEFAULT_ROOT, cpus: Cpus = None, json: Json = False) -> None:
    """Find duplicates, leaked evaluation data and rows below thresholds across a whole dataset, as a selection.

    Shards are not rewritten; tokenization leaves out what the selections it names leave out.

    Example: omnimill dedup pipelines/dags/demo_dedup.yaml --root runs/demo
    """
    from omnimill.pipelines.dedup.config import Dedup
    from omnimill.pipelines.dedup.run import dedup as run

    result = run(load_config(file, Dedup), root, cpus)
    if json:
        print_json(result.as_json())
        return
    rows = [[name, dropped] for name, dropped in result.steps]
    print_table(f"{result.selection.name} {result.digest[:12]} of {result.dataset.name}", ["step", "left out"], rows)
    if result.selection.dropped:
        print_table("Reasons", ["reason", "rows"], [list(item) for item in result.selection.dropped.items()])
    print(f"{result.selection.kept:,} of {result.manifest.rows:,} rows kept, in {result.seconds:.1f} s")
