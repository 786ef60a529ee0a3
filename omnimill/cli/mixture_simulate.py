"""``omnimill mixture simulate``: what a training would see of a mixture, planned from lengths alone."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from omnimill.cli.output import DEFAULT_ROOT, Json, Root, print_json, print_table

if TYPE_CHECKING:
    from omnimill.training.planning.simulate import Simulation

_DEFAULT_STREAMS = 8
_GIGA = 1e9


def simulate(
    file: Annotated[Path, typer.Argument(help="The mixture, a YAML file.")],
    sequences: Annotated[int, typer.Option("--sequences", min=1, help="Packed sequences to plan.")] = 10_000,
    streams: Annotated[
        int | None, typer.Option("--streams", min=1, help="Packed sequences in a global batch; the stage's by default.")
    ] = None,
    stage: Annotated[
        Path | None, typer.Option("--stage", help="A training file, or FILE:STAGE: its budgets, packing and rendering.")
    ] = None,
    nodes: Annotated[
        int, typer.Option("--nodes", min=1, help="Machines that share the streams, for what each reads.")
    ] = 1,
    processes: Annotated[
        int | None, typer.Option("--processes", min=1, help="That share the work; more for long plans by default.")
    ] = None,
    root: Root = DEFAULT_ROOT,
    json: Json = False,
) -> None:
    """Plan packed sequences, reading no media: realised rates, epochs, tokens, padding, reads and cache of a node.

    Over the token datasets under the root; before they are there, over rows as the catalog describes them.

    Example: omnimill mixture simulate mixtures/pretrain.yaml --sequences 200000 --streams 512 --nodes 64
    """
    from dataclasses import asdict, replace

    from omnimill.errors import ConfigError
    from omnimill.mixtures.loading import load_mixture
    from omnimill.mixtures.validate import open_mixture
    from omnimill.training.planning.simulate import Setting
    from omnimill.training.planning.simulate import simulate as run
    from omnimill.training.planning.simulated_corpus import dataset_exists
    from omnimill.training.runs.stages import load_stage

    mixture = load_mixture(file)
    setting = Setting(mixture, root, sequences, streams or _DEFAULT_STREAMS, nodes=nodes)
    if stage is not None:
        config = load_stage(stage)
        setting = replace(
            setting,
            streams=streams or config.streams,
            packing=config.packing,
            render=config.render,
            backbone=config.backbone,
        )
    try:
        result = run(setting, processes)
    except ConfigError:
        # What does not fit the data is better said with the lines of the file.
        if all(dataset_exists(root, name) for name in mixture.datasets):
            open_mixture(mixture, root, file)
        raise
    if json:
        print_json({"mixture": mixture.content_digest(), **asdict(result)})
    else:
        _print(str(file), root, result)


def _print(file: str, root: str, result: Simulation) -> None:
    capped = [task for task in result.tasks if task.max_epochs is not None]
    columns = ["task", "planned", "realised", "off by", "draws", "rows", "epochs", "tokens each", "of all tokens"]
    print_table(
        f"{file} over {'rows as the catalog describes them' if result.virtual else root}: "
        f"{result.sequences:,} sequences, {result.streams} in a step",
        columns,
        [
            [
                task.name,
                f"{task.planned:.3%}",
                f"{task.realised:.3%}",
                f"{task.off:+.4f}",
                task.draws,
                task.rows,
                f"{task.epochs:.4g}",
                f"{task.tokens:.0f}",
                f"{task.token_share:.2%}",
            ]
            for task in result.tasks
        ],
    )
    if capped:
        rows = [
            [task.name, f"{task.max_epochs:g}", f"{task.epochs:.4g}", "-" if task.cap_step is None else task.cap_step]
            for task in capped
        ]
        print_table("Caps on epochs", ["task", "max_epochs", "epochs", "exceeded from step"], rows)
    reads = {source.name: source for source in result.reads.sources}
    print_table(
        "Sources",
        ["source", "rows", "examples", "epochs", "windows read", "reads of a shard", "GB read"],
        [
            [
                source.name,
                source.rows,
                source.examples,
                f"{source.epochs:.4g}",
                reads[source.name].windows,
                f"{reads[source.name].per_shard:.3g}",
                f"{reads[source.name].bytes / _GIGA:.4g}",
            ]
            for source in result.sources
        ],
    )
    amounts = {
        **{f"input {name}": count for name, count in result.input_tokens.items()},
        **{f"target {name}": count for name, count in result.target_tokens.items()},
    }
    whole = sum(amounts.values())
    tokens = [[name, count, f"{count / whole:.1%}"] for name, count in amounts.items()]
    print_table("Tokens", ["modality", "tokens", "share"], tokens)
    print_table("Padding", ["budget", "empty"], [[name, f"{share:.1%}"] for name, share in result.padding.items()])
    spread = ", ".join(f"{number}: {count / result.sequences:.1%}" for number, count in result.packed.items())
    print(f"Examples in a sequence: {result.examples_per_sequence:.3f} on average ({spread})")
    print(
        f"Furthest from a planned rate: {result.off:.4f} percentage points in what is drawn, "
        f"{result.off_packed:.4f} in what is packed by the end"
    )
    print(
        f"A node of {result.reads.nodes}: reads {result.reads.cache_bytes / _GIGA:,.1f} GB of different data in all, "
        f"{result.reads.open_bytes / _GIGA:,.2f} GB at a time"
    )
    if result.estimated:
        print(f"Lengths are guesses, for nobody states them, of: {', '.join(result.estimated)}")
    print(f"{result.draws:,} draws in {result.seconds:.1f} s: {result.draws_per_second:,} a second")
