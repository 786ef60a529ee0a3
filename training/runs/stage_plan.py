"""``omnimill train --plan``: what each stage of a training is, and what a worker's device has to hold for it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from omnimill.errors import ConfigError
from omnimill.mixtures.config import Mixture
from omnimill.mixtures.loading import read_mixture
from omnimill.mixtures.versions import current_versions, open_versions
from omnimill.tokens import TokenLayout
from omnimill.training.engine.memory import Memory, memory
from omnimill.training.planning.simulated_corpus import dataset_exists
from omnimill.training.rendering.stage_room import stage_faults
from omnimill.training.runs.backbones import resolve_backbone
from omnimill.training.runs.config import TrainConfig
from omnimill.training.runs.stages import Stage

# Faults of a stage that are named: too small a budget is too small for all of a modality.
_MOST_LISTED = 8


@dataclass(frozen=True)
class StagePlan:
    """One stage.

    run: what it is called. tokenized: whether its data are there; else the reference's layout is assumed.
    sequences: packed sequences that a worker computes at once. memory: of a worker.
    """

    run: str
    mixture: str
    steps: int
    streams: int
    workers: int
    sequences: int
    tokenized: bool
    memory: Memory


def plan_stages(stages: Sequence[Stage], root: str) -> list[StagePlan]:
    """What the stages come to; nothing is started.

    Raises:
        ConfigError: a stage's budgets cannot hold a task of its mixture.
    """
    return [_plan(stage.config, root) for stage in stages]


def _plan(config: TrainConfig, root: str) -> StagePlan:
    source = read_mixture(config.mixture)
    layout = _layout(source.mixture, root)
    known = layout or TokenLayout(tokenizers="reference", digests={})
    if found := stage_faults(source.mixture, config, known):
        more = [f"… and {len(found) - _MOST_LISTED} more tasks"] if len(found) > _MOST_LISTED else []
        raise ConfigError("\n".join([f"run {config.name}:", *source.describe(found[:_MOST_LISTED]), *more]))
    sequences = config.streams // config.workers // config.parallel.micro_batches
    return StagePlan(
        run=config.name,
        mixture=config.mixture,
        steps=config.steps,
        streams=config.streams,
        workers=config.workers,
        sequences=sequences,
        tokenized=layout is not None,
        memory=memory(
            resolve_backbone(config, known),
            config.optimizer,
            config.packing.budgets,
            config.parallel,
            dtype=getattr(torch, config.precision.activations),
            workers=config.workers,
            sequences=sequences,
        ),
    )


def _layout(mixture: Mixture, root: str) -> TokenLayout | None:
    """Of the mixture's token datasets; None unless all are there."""
    if not all(dataset_exists(root, name) for name in mixture.datasets):
        return None
    return open_versions(root, current_versions(root, mixture)).layout
