"""Configurations of every kind of backbone, and which of them one stored as JSON is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import Discriminator, Tag

from omnimill.training.backbone.config import BackboneConfig
from omnimill.training.backbone.decoder_config import DecoderConfig
from omnimill.training.backbone.towers_config import TowersConfig, VotingConfig

# Those whose models are a `SequenceModel`.
SequenceConfig = DecoderConfig | TowersConfig | VotingConfig


def kind_of(value: Any) -> str:
    """The kind that a configuration, or its JSON, is of; an encoder-decoder's does not say."""
    found = value.get("kind") if isinstance(value, Mapping) else getattr(value, "kind", None)
    return "encoder_decoder" if found is None else str(found)


AnyBackboneConfig = Annotated[
    Annotated[BackboneConfig, Tag("encoder_decoder")]
    | Annotated[DecoderConfig, Tag("decoder")]
    | Annotated[TowersConfig, Tag("towers")]
    | Annotated[VotingConfig, Tag("voting")],
    Discriminator(kind_of),
]
