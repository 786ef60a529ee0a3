"""``omnimill checkpoint``: what was trained here, as others read it and as a team names it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from omnimill.cli.output import DEFAULT_ROOT, Json, Root, print_json


def register(app: typer.Typer) -> None:
    group = typer.Typer(no_args_is_help=True, help="Checkpoints for other programs, and their names in a registry.")
    group.command("export")(export)
    group.command("register")(register_checkpoint)
    app.add_typer(group, name="checkpoint")


def export(
    checkpoint: Annotated[Path, typer.Argument(help="A checkpoint's folder, or a run's: its newest checkpoint.")],
    target: Annotated[str, typer.Argument(help="Folder (path or URL) to write model.safetensors into.")],
    backbone_only: Annotated[
        bool, typer.Option("--backbone-only", help="Leave the code networks of the tokenizers out.")
    ] = False,
    root: Root = DEFAULT_ROOT,
    json: Json = False,
) -> None:
    """Write a checkpoint under the names that Unified-IO 2's PyTorch models are published by.

    The way back is `init_from` of a training configuration, which takes published models too.

    Example: omnimill checkpoint export runs/demo/runs/demo runs/demo/exported --backbone-only --root runs/demo
    """
    from dataclasses import asdict

    from omnimill.training.checkpoints.export import export as write

    result = write(root, checkpoint, target, backbone_only=backbone_only)
    if json:
        print_json(asdict(result))
    else:
        print(f"{result.file}: {result.tensors:,} tensors, {result.parameters:,} values")


def register_checkpoint(
    checkpoint: Annotated[Path, typer.Argument(help="A checkpoint's folder, or a run's: its newest checkpoint.")],
    name: Annotated[str, typer.Option("--name", help="The registered model; made if there is none of that name.")],
    alias: Annotated[
        list[str] | None, typer.Option("--alias", help="Points here from now on; may be repeated.")
    ] = None,
    root: Root = DEFAULT_ROOT,
    json: Json = False,
) -> None:
    """Make a checkpoint a version of a model in MLflow's registry, and let aliases point at it.

    Example: omnimill checkpoint register runs/demo/runs/demo --name demo --alias champion --root runs/demo
    """
    from dataclasses import asdict

    from omnimill.errors import ConfigError
    from omnimill.infra.model_names import check_alias, check_name
    from omnimill.training.checkpoints.register import register as register_it

    try:
        check_name(name)
        aliases = [check_alias(one) for one in alias or ()]
    except ValueError as error:
        raise ConfigError(f"--name, --alias: {error}") from None
    result = register_it(root, checkpoint, name, aliases)
    if json:
        print_json(asdict(result))
    else:
        called = "".join(f", {name}@{one}" for one in result.aliases)
        print(f"{result.checkpoint} is version {result.version} of {result.model}{called}")
