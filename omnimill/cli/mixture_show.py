"""``omnimill mixture show FILE TASK``: what the model would read and write."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from omnimill.cli.output import print_json

Tasks = Annotated[list[str] | None, typer.Argument(help="Tasks whose examples are shown; none: the tasks are listed.")]
Count = Annotated[int | None, typer.Option("-n", min=1, help="Examples of each task; 5, or 1 when no task is named.")]
Html = Annotated[
    Path | None, typer.Option("--html", help="Write a page with pictures and sound, of all tasks or those.")
]
Stage = Annotated[
    Path | None, typer.Option("--training", help="A training's YAML file, whose settings and budgets hold.")
]
Epoch = Annotated[int, typer.Option("--epoch", min=0, help="Of the draws of prompts, patches and noise.")]


def show_examples(
    file: Path,
    root: str,
    names: Sequence[str],
    count: int | None,
    html: Path | None,
    stage: Path | None,
    epoch: int,
    json: bool,
) -> None:
    """Show examples of some tasks, or of all: in the terminal, as JSON or as a page."""
    from omnimill.mixtures.loading import load_mixture
    from omnimill.training.runs.stages import load_stage
    from omnimill.training.showing.page import write_page
    from omnimill.training.showing.rows import show_tasks
    from omnimill.training.showing.words import lines

    training = load_stage(stage) if stage else None
    number = count or (5 if names else 1)
    shown = show_tasks(load_mixture(file), root, names, number, epoch, training)
    if html:
        write_page(html, ", ".join(names) or str(file), shown.examples, shown.missing)
    if json:
        found = {"examples": [one.facts() for one in shown.examples], "missing": shown.missing}
        print_json(found | ({"page": str(html)} if html else {}))
        return
    if html:
        print(f"{html}: {len(shown.examples)} examples")
    else:
        print("\n\n".join("\n".join(lines(one)) for one in shown.examples))
    for why in shown.missing:
        print(why)
