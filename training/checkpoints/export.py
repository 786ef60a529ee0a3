"""A checkpoint as Unified-IO 2 publishes its models: one file, the backbone and both code networks in it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from omnimill.errors import OmnimillError
from omnimill.infra import lineage, storage
from omnimill.tokenizers import weights
from omnimill.tokenizers.store import SET, load_tokenizers
from omnimill.tokens import TokenLayout
from omnimill.training.checkpoints import checkpoint
from omnimill.training.checkpoints.checkpoint import folder_name
from omnimill.training.checkpoints.published_weights import published_tensors, write_published


@dataclass(frozen=True)
class Exported:
    """file: URL of ``model.safetensors``. tensors, parameters: in it."""

    file: str
    digest: str
    tensors: int
    parameters: int


def export(root: str, path: str | Path, target: str, *, backbone_only: bool = False) -> Exported:
    """Write ``model.safetensors`` of a checkpoint into the folder `target`; equal checkpoints give equal bytes.

    Args:
        root: holds the tokenizers, and the record of what was written.
        path: a checkpoint's folder, or a run's: then its newest checkpoint.
        backbone_only: leave the code networks of the tokenizers out.

    Raises:
        OmnimillError: there is no checkpoint, or the root does not have the tokenizers that it was trained with, or
            the reference has no code networks of their type.
        IntegrityError: the checkpoint or the tokenizers are damaged.
    """
    folder = checkpoint.find(path)
    record = checkpoint.read_record(folder)
    facts = {"run": record.run, "step": record.step, "target": target, "backbone_only": backbone_only}
    with lineage.command_run(root, "checkpoint export", facts) as run:
        run.input(f"{record.run}/{folder_name(record.step)}", record.digest, str(folder))
        tensors = published_tensors(checkpoint.load_weights(folder))
        if not backbone_only:
            tensors |= _code_tensors(root, record.layout)
        file = write_published(target, tensors)
        digest = storage.digest_file(file)
        run.output("model.safetensors", digest, file)
    return Exported(file, digest, len(tensors), sum(tensor.numel() for tensor in tensors.values()))


def _code_tensors(root: str, layout: TokenLayout) -> dict[str, Tensor]:
    """Of the code networks of a tokenizer set, those that it has."""
    found = load_tokenizers(root, layout.tokenizers, layout.digests.get(SET))
    tensors: dict[str, Tensor] = {}
    for codes in (found.image_codes, found.audio_codes):
        if codes is not None:
            try:
                tensors |= weights.published_tensors(codes.network)
            except OmnimillError as error:
                raise OmnimillError(f"{error}; --backbone-only leaves the code networks out") from None
    return tensors
