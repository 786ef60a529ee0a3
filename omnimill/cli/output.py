"""What every command shares: where things live, how results are printed."""

from __future__ import annotations

import json
import sys
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

Root = Annotated[
    str,
    typer.Option(
        "--root", envvar="OMNIMILL_ROOT", help="Where datasets, runs and the tracking store live (path or URL)."
    ),
]
Json = Annotated[bool, typer.Option("--json", help="One JSON document on stdout, everything else on stderr.")]
Cpus = Annotated[int | None, typer.Option("--cpus", help="Cores for a local Ray; all when not given.")]

DEFAULT_ROOT = "runs/default"
PLAIN_WIDTH = 140  # of tables that go to a file or a pipe


def print_json(value: Any) -> None:
    """One JSON document on stdout."""
    sys.stdout.write(json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def print_table(title: str, columns: list[str], rows: list[list[Any]]) -> None:
    """A table for people, on stdout; numbers are set right."""
    table = Table(title=title, title_justify="left")
    for i, column in enumerate(columns):
        numeric = bool(rows) and all(isinstance(row[i], int | float) for row in rows)
        table.add_column(column, justify="right" if numeric else "left", overflow="fold")
    for row in rows:
        table.add_row(*(f"{cell:,}" if isinstance(cell, int) else str(cell) for cell in row))
    Console(highlight=False, width=None if sys.stdout.isatty() else PLAIN_WIDTH).print(table)
