"""``omnimill merge``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import typer

from omnimill.cli.output import DEFAULT_ROOT, Json, Root, print_json, print_table

if TYPE_CHECKING:
    from omnimill.training.merging.plan import MergePlan
    from omnimill.training.merging.run import MergeResult, Opened


def register(app: typer.Typer) -> None:
    """Add the command to the program."""
    app.command()(merge)


def merge(
    config: str = typer.Argument(help="Merge file (YAML): name, parents, method."),
    root: Root = DEFAULT_ROOT,
    plan: bool = typer.Option(False, "--plan", help="Do nothing: print the name map, or every mismatch."),
    json: Json = False,
) -> None:
    """Merge checkpoints into one that a run can start from.

    Before anything is done it prints what every weight is made of, or everything in which the parents do not fit
    together; afterwards the perplexities of the parents and of the merged model.

    Example: omnimill merge training/configs/merging/uniform.yaml --plan --root runs/demo
    """
    from dataclasses import asdict

    from omnimill.config import load_config
    from omnimill.training.merging.run import map_as_json, open_parents, plan_merge
    from omnimill.training.merging.run import merge as run
    from omnimill.training.merging.settings import MergeConfig

    settings = load_config(config, MergeConfig)
    if plan:
        opened = open_parents(settings, root)
        found = plan_merge(settings, opened)
        if json:
            print_json({"parents": [one.name for one in opened], "map": map_as_json(found, opened)})
        else:
            _show_map(found, opened)
        return
    result = run(settings, root, (lambda *_: None) if json else _show_map)
    if json:
        print_json(asdict(result))
    else:
        _show_result(result)


def _show_map(plan: MergePlan, opened: Sequence[Opened]) -> None:
    from omnimill.training.merging.plan import name_map

    print_table(
        "parents",
        ["", "checkpoint", "digest"],
        [[one.parent.letter, one.name, one.record.digest[:12]] for one in opened],
    )
    rows = [
        [line.names, line.count, " x ".join(map(str, line.shape)), line.sources or "-", line.rule]
        for line in name_map(plan, [one.parent for one in opened])
    ]
    print_table("what is made of what", ["merged", "tensors", "shape", "of", "how"], rows)


def _show_result(result: MergeResult) -> None:
    if result.report:
        names = list(dict.fromkeys(name for found in result.report.values() for name in found.modalities))
        tasks = list(dict.fromkeys(name for found in result.report.values() for name in found.tasks))
        rows = [
            [model]
            + [_number(found.modalities.get(name)) for name in names]
            + [_number(found.tasks.get(name)) for name in tasks]
            for model, found in result.report.items()
        ]
        print_table("perplexity at step 0", ["model", *names, *tasks], rows)
    print(f"{result.parameters:,} parameters in {result.checkpoint}, {result.digest[:12]}; {result.seconds:.1f} s")


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"
