"""``omnimill slow``: what takes the time, of a run that goes on or of one that is done."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from omnimill.cli.output import DEFAULT_ROOT, Json, Root, print_json, print_table
from omnimill.errors import ConfigError, OmnimillError

if TYPE_CHECKING:
    from omnimill.infra.slow import Part, Profile
    from omnimill.training.runs.speed import Speed

_STEPS_SHOWN = 12


def register(app: typer.Typer) -> None:
    """Add the command to the program."""
    app.command("slow")(slow)


def slow(
    names: Annotated[
        list[str] | None, typer.Argument(help="Datasets and training runs; all under the root when none is named.")
    ] = None,
    root: Root = DEFAULT_ROOT,
    minutes: Annotated[
        float | None, typer.Option(help="Only units that were begun in the last so many minutes.", min=0)
    ] = None,
    json: Json = False,
) -> None:
    """Tell what takes the time: by dataset, source, step, machine and unit, and of training by loader and model.

    Works while a run goes on: it reads what committed units and done steps say of themselves.

    Example: omnimill slow --root runs/demo
    """
    since = 0.0 if minutes is None else time.time() - 60 * minutes
    datasets, runs = list(_profiles(names, root, since)), list(_speeds(names, root))
    if missing := sorted(set(names or ()) - {one.dataset for one in datasets} - {one.run for one in runs}):
        raise OmnimillError(f"no units of a dataset and no steps of a run under {root}: {', '.join(missing)}")
    if not datasets and not runs:
        raise OmnimillError(f"nothing under {root} tells what it took: no dataset has units, no run has steps")
    if json:
        print_json({"datasets": [asdict(one) for one in datasets], "runs": [asdict(one) for one in runs]})
        return
    if datasets:
        _print_parts("Datasets", [one.whole for one in datasets])
    for one in datasets:
        _print_profile(one)
    if runs:
        print_table(
            "Training",
            ["run", "steps", "s a step", "tokens/s", "waits for data", "padding"],
            [
                [
                    one.run,
                    one.steps,
                    f"{one.step_seconds:.3g}",
                    f"{one.tokens_per_second:,.0f}",
                    f"{one.data_wait_share:.1%}",
                    ", ".join(f"{side} {share:.0%}" for side, share in one.padding_share.items()),
                ]
                for one in runs
            ],
        )
    for run in runs:
        _print_findings(run.run, run.findings)


def _profiles(names: list[str] | None, root: str, since: float) -> Iterator[Profile]:
    from omnimill.infra.dataset import Dataset
    from omnimill.infra.slow import profile
    from omnimill.infra.verify import datasets

    # All files under a root are listed to find its datasets: not for those that are named.
    for dataset in [Dataset(root, name) for name in names] if names else datasets(root):
        if (found := profile(dataset, since)) is not None:
            yield found


def _speeds(names: list[str] | None, root: str) -> Iterator[Speed]:
    from omnimill.infra.runs_folder import runs_folder
    from omnimill.training.runs.history import HISTORY
    from omnimill.training.runs.speed import speed

    try:
        folder = runs_folder(root)
    except ConfigError:
        return  # nothing is trained under a root that is a bucket, unless a folder for runs is named
    for file in sorted(folder.glob(f"*/{HISTORY}")):
        if (not names or file.parent.name in names) and (found := speed(file.parent)) is not None:
            yield found


def _print_profile(one: Profile) -> None:
    if len(one.sources) > 1:
        _print_parts(f"{one.dataset}: sources", one.sources)
    if one.steps:
        print_table(
            f"{one.dataset}: steps",
            ["source", "step", "seconds", "share of the source"],
            [
                [step.source, step.step, f"{step.seconds:,.2f}", f"{step.share:.1%}"]
                for step in one.steps[:_STEPS_SHOWN]
            ],
        )
    if len(one.machines) > 1:
        _print_parts(f"{one.dataset}: machines", one.machines)
    print_table(
        f"{one.dataset}: longest units",
        ["unit", "file", "machine", "seconds", "x mean"],
        [[unit.unit, unit.file, unit.host, f"{unit.seconds:,.2f}", f"{unit.times_mean:.1f}"] for unit in one.units],
    )
    _print_findings(one.dataset, one.findings)


def _print_parts(title: str, parts: tuple[Part, ...] | list[Part]) -> None:
    print_table(
        title,
        ["of", "units", "rows", "seconds at work", "on the processor", "ms a row"],
        [
            [
                part.name,
                part.units,
                part.rows,
                f"{part.busy_seconds:,.1f}",
                "" if part.processor_share is None else f"{part.processor_share:.0%}",
                "" if part.seconds_per_row is None else f"{part.seconds_per_row * 1e3:,.3g}",
            ]
            for part in parts
        ],
    )


def _print_findings(name: str, findings: tuple[str, ...]) -> None:
    for finding in findings:
        print(f"{name}: {finding}")
