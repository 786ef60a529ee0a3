"""``omnimill train``."""

from __future__ import annotations

import typer

from omnimill.cli.output import DEFAULT_ROOT, Cpus, Json, Root, print_json, print_table


def register(app: typer.Typer) -> None:
    app.command()(train)


def train(
    config: str = typer.Argument(help="Training configuration (YAML), e.g. training/configs/demo.yaml."),
    root: Root = DEFAULT_ROOT,
    workers: int | None = typer.Option(None, "--workers", min=1, help="Instead of the configuration's number."),
    restart: bool = typer.Option(False, "--restart", help="Set the existing run aside and begin anew."),
    cpus: Cpus = None,
    json: Json = False,
) -> None:
    """Train a backbone on a mixture, or go on from the run's newest checkpoint.

    Run again after a stop or a crash, it continues the same run: the same losses, to the last bit, as without it.

    Example: omnimill train training/configs/demo.yaml --root runs/demo
    """
    from dataclasses import asdict

    from omnimill.config import load_config
    from omnimill.errors import ConfigError
    from omnimill.training.config import TrainConfig
    from omnimill.training.run import train as run_training

    settings = load_config(config, TrainConfig)
    if workers is not None:
        if settings.streams % workers:
            raise ConfigError(f"--workers {workers}: streams ({settings.streams}) must be a multiple of it")
        settings = settings.model_copy(update={"workers": workers})
    result = run_training(settings, root, restart=restart, cpus=cpus)
    if json:
        print_json(asdict(result))
        return
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
