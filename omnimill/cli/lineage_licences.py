"""``omnimill lineage licences``: under which licences came what a checkpoint has learnt from."""

from __future__ import annotations

from typing import Annotated

import typer

from omnimill.cli.output import DEFAULT_ROOT, Json, Root, print_json, print_table


def register(group: typer.Typer) -> None:
    """Add the command to those of lineage."""
    group.command("licences")(licences)


def licences(
    checkpoint: Annotated[str, typer.Argument(help="A checkpoint's folder, or a run's: then its newest checkpoint.")],
    exact: Annotated[
        bool, typer.Option("--exact", help="Plan all steps again instead of telling what is expected.")
    ] = False,
    root: Root = DEFAULT_ROOT,
    json: Json = False,
) -> None:
    """Which shares of a checkpoint's examples and tokens came under which licence, and from which source.

    Example: omnimill lineage licences runs/demo/runs/demo --exact --root runs/demo
    """
    from omnimill.training.checkpoints.checkpoint import find
    from omnimill.training.lineage.licences import licences as shares

    answer = shares(find(checkpoint), root, exact=exact)
    if json:
        print_json(answer)
        return
    kinds = [f"{name} {'exact' if sure else 'expected'}" for name, sure in answer["exact"].items()]
    print(f"Step {answer['step']:,}: {answer['examples']:,} examples, {answer['tokens']:,} tokens; {', '.join(kinds)}.")
    for title, name in (("Licences", "licence"), ("Sources", "source")):
        rows = [
            [
                one[name],
                one["examples"],
                f"{one['examples_share']:.2%}",
                one["tokens"],
                f"{one['tokens_share']:.2%}",
            ]
            for one in answer[title.lower()]
        ]
        print_table(title, [name, "examples", "share", "tokens", "share"], rows)
