"""``omnimill mixture``: look at a mixture, check it against its data, and plan what a training would see of it."""

from __future__ import annotations

import typer

from omnimill.cli import mixture_ledger, mixture_simulate, mixture_validate, mixture_views


def register(app: typer.Typer) -> None:
    """Add the command group to the program."""
    group = typer.Typer(help="Task mixtures: show, validate, simulate, diff, ledger.", no_args_is_help=True)
    group.command("show")(mixture_views.show)
    group.command("validate")(mixture_validate.validate)
    group.command("simulate")(mixture_simulate.simulate)
    group.command("diff")(mixture_views.diff)
    group.command("ledger")(mixture_ledger.ledger)
    app.add_typer(group, name="mixture")
