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
    commands.command("jam")(jam)
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
    from omnimill.training.checkpoints.checkpoint import run_folder

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


def jam(
    root: Root = DEFAULT_ROOT,
    scale: Annotated[str, typer.Option(help="full: what docs/jam.md tells of; small: whether it runs.")] = "full",
    json: Json = False,
) -> None:
    """Replicate JAM in small: two parents, three merges, training on, tuning; then tables, and a page of answers.

    Run again after a stop, it goes on where it was. At full scale it ends with exit code 1 when too few of the tuned
    model's answers are text, the picture that was asked for, and text.

    Example: omnimill learn jam --root runs/jam
    """
    from dataclasses import asdict

    from omnimill.config import allowed
    from omnimill.errors import ConfigError, OmnimillError
    from omnimill.learn.jam import replicate
    from omnimill.learn.jam_inputs import FULL, SCALES

    if scale not in SCALES:
        raise ConfigError(f"--scale: found {scale!r}; {allowed(scale, list(SCALES))}")
    chosen = SCALES[scale]
    # A model that has hardly been trained forgets what it hardly knew.
    result = replicate(root, chosen, margin=None if chosen is FULL else 100.0)
    if json:
        print_json(asdict(result))
    else:
        tasks = list(result.models[0].perplexities)
        rows = [(one.model, one) for one in result.models]
        rows += [(one.model, one) for one in result.scratch.values()]
        print_table(
            "Perplexity on what is held out",
            ["model", "updates", "cost", *tasks],
            [
                [name, one.step, f"{one.cost:.3g}", *(f"{one.perplexities[task]:.4f}" for task in tasks)]
                for name, one in rows
            ],
        )
        asked = result.asked
        print(f"answers: {asked.count}; text, picture, text: {asked.ordered}; with the scene: {asked.right}")
    if chosen is FULL and not result.asked.passed:
        raise OmnimillError("too few answers are text, the picture that was asked for, and text")
