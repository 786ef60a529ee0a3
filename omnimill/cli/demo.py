"""``omnimill demo``: the whole main job on small real input."""

from __future__ import annotations

import typer

from omnimill.cli.output import Root


def register(app: typer.Typer) -> None:
    """Add the command to the program."""
    app.command("demo")(demo)


def demo(root: Root = "runs/demo") -> None:
    """Ingest, tokenize, train, generate and trace a small real corpus; a second run redoes nothing.

    Example: omnimill demo --root runs/demo
    """
    from omnimill.demo.run import run_demo

    run_demo(root)
