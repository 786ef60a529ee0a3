"""``omnimill learn``: the proof that a backbone learns, on data whose answers are known."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from omnimill.cli.output import DEFAULT_ROOT, Json, Root, print_json, print_table


def register(app: typer.Typer) -> None:
    """Add the commands to the program."""
    commands = typer.Typer(no_args_is_help=True, help="The proof that a backbone learns: data with known answers.")
    commands.command("prepare")(prepare)
    commands.command("check")(check)
    app.add_typer(commands, name="learn")


def prepare(root: Root = DEFAULT_ROOT, json: Json = False) -> None:
    """Draw shapes, play tunes, and bring them as far as tokens; a second run redoes nothing.

    Then: omnimill train configs/learn.yaml, and omnimill learn check.

    Example: omnimill learn prepare --root runs/learn
    """
    from omnimill.learn.prepare import prepare as prepare_data

    steps = prepare_data(root)
    if json:
        print_json({step.command: step.answer for step in steps})
        return
    print_table("Ready to train", ["step", "seconds"], [[step.command, f"{step.seconds:.1f}"] for step in steps])


def check(
    checkpoint: Annotated[
        Path | None, typer.Argument(help="A checkpoint's folder, or a run's; the run learn if not given.")
    ] = None,
    root: Root = DEFAULT_ROOT,
    count: Annotated[int, typer.Option("-n", min=1, help="Held-out examples of every task, at most.")] = 200,
    json: Json = False,
) -> None:
    """Ask a trained backbone about combinations that it never saw, and tell right answers from wrong ones.

    Ends with exit code 1 when too few are right.

    Example: omnimill learn check --root runs/learn
    """
    from dataclasses import asdict

    from omnimill.errors import OmnimillError
    from omnimill.learn.check import check as check_answers
    from omnimill.training.checkpoint import run_folder

    results = check_answers(root, checkpoint or run_folder(root, "learn"), count)
    if json:
        print_json([{**asdict(result), "passed": result.passed} for result in results])
    else:
        rows = [
            [one.task, one.modality, one.count, one.right, f"{one.right / one.count:.1%}", f"{one.needed:.0%}",
             one.exact, f"{one.loss:.4f}"]
            for one in results
        ]  # fmt: skip
        columns = ["held-out task", "answers in", "asked", "right", "share", "needed", "exact", "loss"]
        print_table("Combinations that were never trained on", columns, rows)
    if failed := [result.task for result in results if not result.passed]:
        raise OmnimillError(f"too few right answers: {', '.join(failed)}")
