"""``omnimill mixture validate``: does a mixture fit its data, a number of steps, and a stage of training?"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from omnimill.cli.output import DEFAULT_ROOT, Json, Root, print_json, print_table

if TYPE_CHECKING:
    from omnimill.mixtures.config import Mixture
    from omnimill.mixtures.loading import MixtureSource
    from omnimill.mixtures.rows import TaskRows
    from omnimill.mixtures.validate import OpenMixture
    from omnimill.training.planning.simulate import Simulation
    from omnimill.training.runs.config import TrainConfig

# Packed sequences of the simulation that counts examples in one.
_MEASURED = 4096
# Tasks that a stage cannot hold are named up to this many: too small a budget is too small for all of a modality.
_MOST_LISTED = 8


def validate(
    file: Annotated[Path, typer.Argument(help="The mixture, a YAML file.")],
    steps: Annotated[
        int | None, typer.Option("--steps", min=1, help="Check the tasks' max_epochs in so many steps of training.")
    ] = None,
    streams: Annotated[
        int | None, typer.Option("--streams", min=1, help="Packed sequences in a global batch; the stage's by default.")
    ] = None,
    per_sequence: Annotated[
        float | None,
        typer.Option(
            "--per-sequence", min=1, help="Examples in a packed sequence; else a short simulation counts them."
        ),
    ] = None,
    stage: Annotated[
        Path | None, typer.Option("--stage", help="A training file, or FILE:STAGE, whose budgets must hold every task.")
    ] = None,
    without_data: Annotated[
        bool, typer.Option("--without-data", help="Check what can be known before anything is tokenized.")
    ] = False,
    root: Root = DEFAULT_ROOT,
    json: Json = False,
) -> None:
    """Check a mixture: its data (sources, roles, rows), its caps on epochs, and whether a stage can hold its tasks.

    Example: omnimill mixture validate mixtures/demo.yaml --stage training/configs/demo.yaml --root runs/demo
    """
    from omnimill.mixtures.loading import read_mixture
    from omnimill.mixtures.validate import open_mixture
    from omnimill.training.runs.stages import load_stage

    source = read_mixture(file)
    config = None if stage is None else load_stage(stage).model_copy(update={"mixture": str(file)})
    opened = None if without_data else open_mixture(source.mixture, root, file)
    if config is not None:
        _check_stage(source, config, opened)
    epochs: list[float | None] = [None] * len(source.mixture.tasks)
    if steps is not None:
        epochs = _check_caps(source, config, opened, steps, streams, per_sequence, root)
    tasks = [
        {"name": task.name, **_rows(opened, number), **({} if seen is None else {"epochs": seen})}
        for number, (task, seen) in enumerate(zip(source.mixture.tasks, epochs, strict=True))
    ]
    if json:
        manifests = {} if opened is None else opened.manifests
        print_json({"mixture": source.mixture.content_digest(), "manifests": manifests, "tasks": tasks})
        return
    table = [
        [
            task["name"],
            task.get("rows", "?"),
            "" if seen is None else f"{seen:.2f}",
            "" if opened is None else _refused(opened.rows[number]),
        ]
        for number, (task, seen) in enumerate(zip(tasks, epochs, strict=True))
    ]
    fits = "fits what is known without data" if opened is None else f"fits {', '.join(source.mixture.datasets)}"
    columns = ["task", "rows", f"epochs in {steps:,} steps" if steps else "epochs", "rows it cannot use"]
    print_table(f"{file} {fits}", columns, table)


def _rows(opened: OpenMixture | None, number: int) -> dict[str, Any]:
    if opened is None:
        return {}
    rows = opened.rows[number]
    reasons = {source: dict(sorted(counts.items())) for source, counts in rows.reasons.items() if counts}
    return {"rows": len(rows), "sources": rows.sizes, "not_eligible": reasons}


def _refused(rows: TaskRows) -> str:
    return "; ".join(rows.describe_source(source) for source, counts in rows.reasons.items() if counts)


def _check_stage(source: MixtureSource, config: TrainConfig, opened: OpenMixture | None) -> None:
    from omnimill.errors import ConfigError
    from omnimill.tokens import TokenLayout
    from omnimill.training.rendering.stage_room import stage_faults

    # Without data, the reference's own canvases.
    layout = TokenLayout(tokenizers="reference", digests={}) if opened is None else opened.layout
    if found := stage_faults(source.mixture, config, layout):
        more = [f"… and {len(found) - _MOST_LISTED} more tasks"] if len(found) > _MOST_LISTED else []
        raise ConfigError("\n".join([*source.describe(found[:_MOST_LISTED]), *more]))


def _check_caps(
    source: MixtureSource,
    config: TrainConfig | None,
    opened: OpenMixture | None,
    steps: int,
    streams: int | None,
    per_sequence: float | None,
    root: str,
) -> list[float | None]:
    """Epochs of every task after so many steps."""
    from omnimill.errors import ConfigError
    from omnimill.mixtures.caps import cap_faults, expected_epochs
    from omnimill.mixtures.config import in_examples

    streams = streams or (config.streams if config else None)
    if streams is None:
        raise ConfigError("--steps needs --streams, or --stage, which says how many there are")
    mixture = source.mixture
    sizes = [task.size for task in mixture.tasks] if opened is None else [len(rows) for rows in opened.rows]
    if per_sequence is None or mixture.rate_unit == "tokens":
        measured = _measure(mixture, config, streams, root)
        per_sequence = per_sequence or measured.examples_per_sequence
        mixture = in_examples(mixture, [task.tokens for task in measured.tasks])
    epochs = expected_epochs(mixture, sizes, streams * per_sequence, steps)
    if found := cap_faults(mixture, epochs, steps):
        raise ConfigError("\n".join(source.describe(found)))
    return epochs


def _measure(mixture: Mixture, config: TrainConfig | None, streams: int, root: str) -> Simulation:
    """A short simulation, over the data or, before there are any, over what the catalog says of them."""
    from omnimill.training.planning.simulate import Setting, simulate

    stage = {} if config is None else {name: getattr(config, name) for name in ("packing", "render", "backbone")}
    return simulate(Setting(mixture, root, _MEASURED, min(streams, _MEASURED), **stage), processes=1)
