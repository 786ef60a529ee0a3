"""Weights that a run starts from: those of a checkpoint of this program, or published ones."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch.distributed as dist

from omnimill.errors import ConfigError, OmnimillError
from omnimill.infra import storage
from omnimill.training.backbone.build import AnyBackbone
from omnimill.training.backbone.model import Backbone
from omnimill.training.checkpoints import checkpoint
from omnimill.training.checkpoints.published_weights import fill_from_published, published_digest
from omnimill.training.runs.config import differences
from omnimill.training.runs.inputs import TrainInputs

# What a run calls the weights that it starts from among its inputs in MLflow.
INIT_FROM = "init_from"


def fill(model: AnyBackbone, source: str) -> None:
    """Give a backbone the weights of `source`.

    Args:
        model: on the CPU.
        source: a checkpoint's folder, or a run's (its newest checkpoint); or published weights, as file, index or
            folder, see `omnimill.training.checkpoints.published_weights`.

    Raises:
        OmnimillError: there are no such weights, or they are those of a backbone of other shapes.
        IntegrityError: the checkpoint is damaged.
    """
    if not is_checkpoint(source):
        if not isinstance(model, Backbone):
            raise OmnimillError(f"{source}: not a checkpoint; published weights are those of encoder-decoders")
        fill_from_published(model, source)
        return
    folder = checkpoint.find(source)
    record = checkpoint.read_record(folder)
    weights = checkpoint.load_weights(folder)
    here = {name: value.shape for name, value in model.state_dict().items()}
    if here != {name: value.shape for name, value in weights.items()}:
        changes = differences(record.backbone.model_dump(mode="json"), model.config.model_dump(mode="json"))
        listed = "\n".join(f"  {line}" for line in changes)
        raise OmnimillError(f"{folder}: its backbone has other shapes than the one to start:\n{listed}")
    model.load_state_dict(weights)


def carried(inputs: TrainInputs) -> tuple[Path, int]:
    """The checkpoint whose weights and optimizer a new run goes on with, and the updates that these have done.

    Raises:
        ConfigError: `init_from` is no checkpoint, or one whose optimizer this run cannot go on with.
    """
    config = inputs.config
    if config.init_from is None or not is_checkpoint(config.init_from):
        raise ConfigError(
            f"init_optimizer: the optimizer's state comes from a checkpoint; found init_from: {config.init_from!r}"
        )
    folder = checkpoint.find(config.init_from)
    record = checkpoint.read_record(folder)
    before, now = (
        {
            "optimizer.name": one.config.optimizer.name,
            "backbone": one.backbone.model_dump(mode="json"),
            # Which parameters have a state.
            "train_encoders": one.config.train_encoders_from is not None,
        }
        for one in (record, inputs)
    )
    if changes := differences(before, now):
        listed = "\n".join(f"  {line}" for line in changes)
        raise ConfigError(
            f"init_optimizer: the optimizer of {folder} cannot be gone on with:\n{listed}\nTake its weights alone: "
            "`init_optimizer: false`."
        )
    return folder, record.updates_before + record.step


def carry_on(folder: Path, state: dict[str, Any], group: dist.ProcessGroup | None) -> None:
    """Fill a new learner's state from another run's checkpoint; the optimizer's settings stay its own.

    Args:
        state, group: as of `checkpoint.load_state`.
    """
    settings = [
        {key: value for key, value in one.items() if key not in ("params", "updates")}
        for one in state["optimizer"]["param_groups"]
    ]
    checkpoint.load_state(folder, state, group)
    for one, own in zip(state["optimizer"]["param_groups"], settings, strict=True):
        one.update(own)


def source_digest(source: str) -> str:
    """A digest of what :func:`fill` would read; errors as there."""
    return checkpoint.read_record(checkpoint.find(source)).digest if is_checkpoint(source) else published_digest(source)


def is_checkpoint(source: str) -> bool:
    """Whether it is a folder of a checkpoint or of a run of this program; those lie on a file system."""
    if not storage.is_local(source):
        return False
    path = Path(storage.filesystem(source)[1])
    return (path / checkpoint.RECORD).exists() or checkpoint.newest(path) is not None
