"""``omnimill report``: datasets, mixtures and training runs as HTML."""

from __future__ import annotations

from functools import partial
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
    out: Annotated[
        str | None,
        typer.Option("--out", help="An HTML file, or a folder for one page each; <root>/report.html when not given."),
    ] = None,
    root: Root = DEFAULT_ROOT,
    json: Json = False,
) -> None:
    """Write a page that needs no other file: what data, mixtures and training runs are like, with examples to look at.

    Example: omnimill report --root runs/demo
    """
    from omnimill.infra import storage
    from omnimill.infra.lineage import command_run
    from omnimill.infra.report.page import write_report
    from omnimill.training.lineage.report_mixtures import mixture_card

    target = out or storage.join(root, "report.html")
    with command_run(root, "report", {"names": names or [], "out": target}) as run:
        shown = write_report(root, target, names or [], partial(mixture_card, root))
        if storage.is_local(target):
            run.artifact(target, "report")
    if json:
        print_json({"report": target, "shows": shown})
    else:
        print(f"{target} shows {', '.join(shown)}")
