"""``omnimill mixture``: look at a mixture, check it against its data, and run its sampler."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from omnimill.cli import mixture_validate, mixture_views
from omnimill.cli.output import DEFAULT_ROOT, Json, Root, print_json, print_table

if TYPE_CHECKING:
    from omnimill.mixtures.simulate import Simulation

File = Annotated[Path, typer.Argument(help="The mixture, a YAML file.")]


def register(app: typer.Typer) -> None:
    """Add the command group to the program."""
    group = typer.Typer(help="Task mixtures: show, validate, simulate, diff.", no_args_is_help=True)
    group.command("show")(mixture_views.show)
    group.command("validate")(mixture_validate.validate)
    group.command("simulate")(simulate)
    group.command("diff")(mixture_views.diff)
    app.add_typer(group, name="mixture")


def simulate(
    file: File,
    streams: Annotated[
        int, typer.Option("--streams", min=1, help="Virtual streams: packed sequences in a global batch.")
    ] = 8,
    draws: Annotated[int, typer.Option("--draws", min=1, help="Examples that each stream draws.")] = 1000,
    root: Root = DEFAULT_ROOT,
    json: Json = False,
) -> None:
    """Run the sampler, reading no media: realised rates, epochs of every task and source, deviations, speed.

    Example: omnimill mixture simulate mixtures/demo.yaml --streams 64 --draws 10000 --root runs/demo
    """
    from dataclasses import asdict

    from omnimill.mixtures.loading import load_mixture
    from omnimill.mixtures.simulate import simulate as run
    from omnimill.mixtures.validate import open_mixture

    opened = open_mixture(load_mixture(file), root, file)
    result = run(opened.mixture, opened.rows, streams, draws)
    if json:
        print_json({"mixture": opened.mixture.content_digest(), "manifests": opened.manifests, **asdict(result)})
    else:
        _print_simulation(result)


def _print_simulation(result: Simulation) -> None:
    table = [
        [
            task.name,
            f"{task.planned:.3%}",
            f"{task.realised:.3%}",
            task.draws,
            task.rows,
            f"{task.epochs:.2f}",
            ", ".join(f"{source.name} {source.epochs:.2f}" for source in task.sources),
            f"{task.round_deviation:.2f}",
            f"{task.stream_deviation:.2f}",
        ]
        for task in result.tasks
    ]
    columns = ["task", "planned", "realised", "draws", "rows", "epochs", "by source", "off in a round", "in a stream"]
    print_table(f"{result.streams} streams, {result.draws:,} draws each", columns, table)
    print(
        f"{result.draws_per_second:,} draws/s; deviations are in draws: below 1 in every round, "
        f"at most {result.stream_deviation_bound:.2f} in every stream"
    )
