"""``omnimill train``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from omnimill.cli.output import DEFAULT_ROOT, Cpus, Json, Root, print_json, print_table

if TYPE_CHECKING:
    from omnimill.training.runs.config import TrainConfig
    from omnimill.training.runs.stages import Stage

# Parts of a worker's memory, in the order in which they are told.
_PARTS = ("weights", "gradients", "optimizer", "gathered", "activations", "logits", "total")


def register(app: typer.Typer) -> None:
    app.command()(train)


def train(
    config: str = typer.Argument(help="Training configuration (YAML), e.g. training/configs/demo.yaml."),
    root: Root = DEFAULT_ROOT,
    stage: str | None = typer.Option(None, "--stage", help="Of a file with stages, this one alone."),
    workers: int | None = typer.Option(None, "--workers", min=1, help="Instead of the configuration's number."),
    restart: bool = typer.Option(False, "--restart", help="Set the existing run aside and begin anew."),
    back_to: int | None = typer.Option(
        None, "--back-to", min=1, help="Go on from the checkpoint after so many updates; later ones are set aside."
    ),
    plan: bool = typer.Option(False, "--plan", help="Start nothing: tell the stages and the memory of a worker."),
    cpus: Cpus = None,
    json: Json = False,
) -> None:
    """Train a backbone on a mixture, stage by stage where the file has stages.

    Run again after a stop or a crash, it continues the same run: the same losses, to the last bit, as without it.

    Example: omnimill train training/configs/demo.yaml --root runs/demo
    """
    from dataclasses import asdict, replace

    from omnimill.training.runs.stage_runs import train_stages
    from omnimill.training.runs.stages import choose, read_stages

    stages = read_stages(config)
    if workers is not None:
        stages = [replace(one, config=_with_workers(one.config, workers)) for one in stages]
    if plan:
        _show_plan(stages if stage is None else [choose(stages, stage, config)], root, json)
        return
    results = train_stages(stages, root, only=stage, restart=restart, back_to=back_to, cpus=cpus)
    if json:
        answers = [asdict(result) for result in results]
        print_json(answers[0] if stages[0].name is None else {"stages": answers})
        return
    for result in results:
        facts = {
            "steps": str(result.steps),
            "done before": str(result.started_at),
            "skipped, not finite": str(result.skipped),
            "loss": "not finite" if result.loss is None else f"{result.loss:.4f}",
            **{f"loss, {name}": f"{value:.4f}" for name, value in result.loss_by_modality.items()},
            "checkpoint": result.checkpoint,
            "MLflow run": result.mlflow_run or "none",
            "seconds": f"{result.seconds:.1f}",
        }
        print_table(f"run {result.run}", ["", ""], [[name, value] for name, value in facts.items()])


def _with_workers(config: TrainConfig, workers: int) -> TrainConfig:
    from pydantic import ValidationError

    from omnimill.errors import ConfigError

    try:
        return type(config).model_validate({**config.model_dump(), "workers": workers})
    except ValidationError as error:
        faults = "; ".join(fault["msg"].removeprefix("Value error, ") for fault in error.errors())
        raise ConfigError(f"--workers {workers}: run {config.name}: {faults}") from None


def _show_plan(stages: list[Stage], root: str, json: bool) -> None:
    from omnimill.training.runs.stage_plan import plan_stages

    plans = plan_stages(stages, root)
    if json:
        facts = ("run", "mixture", "steps", "streams", "workers", "sequences", "tokenized")
        parts = (*_PARTS, "trained", "frozen")
        print_json(
            {
                "stages": [
                    {name: getattr(one, name) for name in facts}
                    | {"memory": {name: getattr(one.memory, name) for name in parts}}
                    for one in plans
                ]
            }
        )
        return
    rows = [
        [one.run, one.steps, one.streams, one.workers, one.sequences]
        + [f"{getattr(one.memory, part) / 1e9:.2f}" for part in _PARTS]
        for one in plans
    ]
    print_table("GB of one worker", ["run", "steps", "streams", "workers", "at once", *_PARTS], rows)
    for one in plans:
        print(f"{one.run}: {one.memory.trained:,} trained parameters, {one.memory.frozen:,} frozen")
    if not all(one.tokenized for one in plans):
        print("the data are not all tokenized: told for the reference's layout")
