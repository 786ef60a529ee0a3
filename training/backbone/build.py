"""A model of every kind of backbone from its configuration."""

from __future__ import annotations

from collections.abc import Mapping
from typing import overload

import torch
from torch import Tensor

from omnimill.training.backbone.config import BackboneConfig
from omnimill.training.backbone.decoder_config import DecoderConfig
from omnimill.training.backbone.decoder_only import DecoderOnly, SequenceModel
from omnimill.training.backbone.kinds import SequenceConfig
from omnimill.training.backbone.model import Backbone
from omnimill.training.backbone.towers import Towers, Voting
from omnimill.training.backbone.towers_config import TowersConfig

AnyBackbone = Backbone | SequenceModel


def build(
    config: BackboneConfig | SequenceConfig, seed: int = 0, activations: torch.dtype = torch.float32
) -> AnyBackbone:
    """The model of a configuration.

    Args:
        seed: of the initial weights.
        activations: what layers compute in.
    """
    if isinstance(config, BackboneConfig):
        return Backbone(config, seed, activations)
    return build_sequence_model(config, seed, activations)


def build_sequence_model(
    config: SequenceConfig, seed: int = 0, activations: torch.dtype = torch.float32
) -> SequenceModel:
    """As :func:`build`, of those over one joint id space."""
    if isinstance(config, DecoderConfig):
        return DecoderOnly(config, seed, activations)
    return Towers(config, seed, activations) if isinstance(config, TowersConfig) else Voting(config, seed, activations)


@overload
def with_weights(config: BackboneConfig, weights: Mapping[str, Tensor]) -> Backbone: ...


@overload
def with_weights(config: SequenceConfig, weights: Mapping[str, Tensor]) -> SequenceModel: ...


def with_weights(config: BackboneConfig | SequenceConfig, weights: Mapping[str, Tensor]) -> AnyBackbone:
    """The model of a configuration for answering, not training: its tensors are the given ones, by name, uncopied."""
    with torch.device("meta"):
        model = build(config)
    model.load_state_dict(weights, assign=True)
    return model.eval()
