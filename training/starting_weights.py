"""Weights that a run starts from: those of a checkpoint of this program, or published ones."""

from __future__ import annotations

from pathlib import Path

from omnimill.errors import OmnimillError
from omnimill.infra import storage
from omnimill.training import checkpoint
from omnimill.training.backbone.model import Backbone
from omnimill.training.config import differences
from omnimill.training.published_weights import fill_from_published, published_digest


def fill(model: Backbone, source: str) -> None:
    """Give a backbone the weights of `source`.

    Args:
        model: on the CPU.
        source: a checkpoint's folder, or a run's (its newest checkpoint); or published weights, as file, index or
            folder, see `omnimill.training.published_weights`.

    Raises:
        OmnimillError: there are no such weights, or they are those of a backbone of other shapes.
        IntegrityError: the checkpoint is damaged.
    """
    if not _is_checkpoint(source):
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


def source_digest(source: str) -> str:
    """A digest of what :func:`fill` would read; errors as there."""
    return (
        checkpoint.read_record(checkpoint.find(source)).digest if _is_checkpoint(source) else published_digest(source)
    )


def _is_checkpoint(source: str) -> bool:
    """Whether it is a folder of a checkpoint or of a run of this program; those lie on a file system."""
    if not storage.is_local(source):
        return False
    path = Path(storage.filesystem(source)[1])
    return (path / checkpoint.RECORD).exists() or checkpoint.newest(path) is not None
