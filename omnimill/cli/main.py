"""The ``omnimill`` program: collects the commands and turns errors into exit codes."""

from __future__ import annotations

import sys

import typer
from rich.markup import escape

import omnimill
from omnimill import logs
from omnimill.cli import (
    bench,
    catalog,
    checkpoint,
    cluster,
    dedup,
    demo,
    doctor,
    evaluate,
    generate,
    ingest,
    learn,
    lineage,
    merge,
    mixture,
    plan,
    quarantine,
    report,
    slow,
    tokenize,
    train,
)
from omnimill.errors import OmnimillError
from omnimill.progress import console

app = typer.Typer(
    name="omnimill",
    help="Raw web data of every modality into packed, mixture-sampled any-to-any training on Ray.",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
)


@app.callback(invoke_without_command=True)
def _root(version: bool = typer.Option(False, "--version", help="Print the version and stop.")) -> None:
    if version:
        print(omnimill.__version__)
        raise typer.Exit


# One module per group of commands; each adds its own with `register(app)`.
for _module in (
    ingest,
    plan,
    dedup,
    quarantine,
    tokenize,
    catalog,
    mixture,
    train,
    merge,
    checkpoint,
    generate,
    evaluate,
    report,
    slow,
    lineage,
    cluster,
    doctor,
    demo,
    learn,
    bench,
):
    _module.register(app)


def main(argv: list[str] | None = None) -> int:
    """Run the command line; returns the exit code (see `omnimill.errors`)."""
    logs.log_warnings()
    try:
        app(args=sys.argv[1:] if argv is None else argv, prog_name="omnimill")
    except OmnimillError as error:
        console.print(f"[bold red]error:[/] {escape(str(error))}", soft_wrap=True)
        return error.exit_code
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else 1
    return 0


def entry() -> None:
    """Console script."""
    sys.exit(main())
