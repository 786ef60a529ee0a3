"""``omnimill checkpoint register``: a checkpoint as a version of a model in MLflow's registry."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from omnimill.infra import lineage
from omnimill.infra.registered_models import register as register_model
from omnimill.training.checkpoints import checkpoint
from omnimill.training.runs.follow import checkpoint_name


@dataclass(frozen=True)
class Registered:
    """A version of a registered model. checkpoint: ``<run>/<step's folder>``."""

    model: str
    version: str
    aliases: list[str]
    checkpoint: str
    digest: str
    url: str


def register(root: str, path: str | Path, model: str, aliases: Sequence[str]) -> Registered:
    """Make a checkpoint a version of a registered model, unless it is one, and point aliases at that version.

    Args:
        root: whose tracking store has the registry.
        path: a checkpoint's folder, or a run's: then its newest checkpoint.
        model: name of the registered model; made if need be.
        aliases: that shall point here, wherever they pointed before.

    Raises:
        OmnimillError: there is no such checkpoint, or the tracking store cannot be used.
    """
    folder = checkpoint.find(path).absolute()
    record = checkpoint.read_record(folder)
    name = checkpoint_name(folder)
    config = {"checkpoint": name, "model": model, "aliases": list(aliases)}
    with lineage.command_run(root, "checkpoint register", config, f"register {name}") as run:
        run.input(name, record.digest, str(folder))
        version = register_model(run.client, run.id, model, aliases, record.digest, str(folder), name)
        run.tags({"omnimill.registered_model": model, "omnimill.registered_version": version})
    return Registered(model, version, list(aliases), name, record.digest, str(folder))
