"""``omnimill checkpoint export``: what was trained here, as others read it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from omnimill.cli.output import DEFAULT_ROOT, Json, Root, print_json


def register(app: typer.Typer) -> None:
    group = typer.Typer(no_args_is_help=True, help="Checkpoints for other programs.")
    # A group of one command would otherwise be the command itself.
    group.callback()(lambda: None)
    group.command("export")(export)
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

    from omnimill.training.export import export as write

    result = write(root, checkpoint, target, backbone_only=backbone_only)
    if json:
        print_json(asdict(result))
    else:
        print(f"{result.file}: {result.tensors:,} tensors, {result.parameters:,} values")
