"""``omnimill report``: one HTML page for datasets and training runs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from omnimill.cli.output import DEFAULT_ROOT, Json, Root, print_json


def register(app: typer.Typer) -> None:
    """Add the command to the program."""
    app.command("report")(report)


def report(
    names: Annotated[
        list[str] | None, typer.Argument(help="Datasets and training runs; all when none is named.")
    ] = None,
    out: Annotated[Path | None, typer.Option("--out", help="The HTML file; <root>/report.html when not given.")] = None,
    root: Root = DEFAULT_ROOT,
    json: Json = False,
) -> None:
    """Write one self-contained HTML page: counts, drops by reason, samples, rates, loss curves.

    Example: omnimill report --root runs/demo
    """
    from omnimill.infra.report.page import write_report

    path = out or Path(root) / "report.html"
    shown = write_report(root, path, names or [])
    if json:
        print_json({"report": str(path), "shows": shown})
    else:
        print(f"{path} shows {', '.join(shown)}")
