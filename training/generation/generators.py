"""Generators of checkpoints and of models in training: one for encoder-decoders, one for decoder-only backbones."""

from __future__ import annotations

from pathlib import Path

from omnimill.tokenizers.store import SET, Tokenizers, load_tokenizers
from omnimill.training.backbone.build import AnyBackbone, with_weights
from omnimill.training.backbone.model import Backbone
from omnimill.training.checkpoints import checkpoint
from omnimill.training.checkpoints.checkpoint import CheckpointRecord
from omnimill.training.generation.generate import Generator
from omnimill.training.generation.interleaved import SequenceGenerator
from omnimill.training.runs.inputs import TrainInputs

AnyGenerator = Generator | SequenceGenerator


def make_generator(model: AnyBackbone, inputs: TrainInputs, tokenizers: Tokenizers) -> AnyGenerator:
    """The generator of a model's kind; arguments as there."""
    if isinstance(model, Backbone):
        return Generator(model, inputs, tokenizers)
    return SequenceGenerator(model, inputs, tokenizers)


def load_generator(root: str, path: str | Path, device: str = "cpu") -> tuple[AnyGenerator, CheckpointRecord]:
    """The generator of a checkpoint, and the checkpoint's record.

    Args:
        root: holds the tokenizers.
        path: a checkpoint's folder, or a run's: then its newest checkpoint.
        device: that model and tokenizers compute on.

    Raises:
        OmnimillError: there is no checkpoint, or the root does not have the tokenizers that it was trained with.
        IntegrityError: the checkpoint or the tokenizers are damaged.
    """
    folder = checkpoint.find(path)
    record = checkpoint.read_record(folder)
    layout = record.layout
    tokenizers = load_tokenizers(root, layout.tokenizers, layout.digests.get(SET), device, batch=1)
    model = with_weights(record.backbone, checkpoint.load_weights(folder))
    return make_generator(model.to(device), record, tokenizers), record
