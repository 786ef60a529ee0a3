"""What a backbone over one joint id space has and does for every token, from its configuration alone."""

from __future__ import annotations

from typing import NamedTuple

from omnimill.training.backbone.decoder_config import DecoderConfig
from omnimill.training.backbone.kinds import SequenceConfig
from omnimill.training.backbone.towers_config import TowersConfig


class TokenWork(NamedTuple):
    """For one token. weights: that it is multiplied with. attention: widths of all heads of all layers, added up."""

    weights: int
    attention: int


def token_work(config: SequenceConfig) -> TokenWork:
    """Of layers, links and output matrices; looking an id up in a table is no work."""
    if isinstance(config, DecoderConfig):
        per_layer = _attention(config, config.width) + _mlp(config)
        inner = config.heads * config.head_width
        return TokenWork(config.layers * per_layer + config.rows * config.width, config.layers * inner)
    if not isinstance(config, TowersConfig):
        parts = [token_work(member) for member in config.members]
        return TokenWork(sum(one.weights for one in parts), sum(one.attention for one in parts))
    first, second = config.towers
    read = (first, second) if config.output == "by_modality" else (first,)
    weights = sum(one.rows * one.width for one in read)
    weights += (first.width + second.width) * first.width if config.output == "joined" else 0
    attention = 0
    for own, other, every in ((first, second, config.to_first), (second, first, config.to_second)):
        bare = token_work(own)
        links = own.layers // every if every else 0
        link = _attention(own, other.width) + (_mlp(own) if config.link == "attention_mlp" else 0)
        weights += bare.weights - own.rows * own.width + links * link
        attention += bare.attention + links * own.heads * own.head_width
    return TokenWork(weights, attention)


def _attention(config: DecoderConfig, context: int) -> int:
    return 2 * (config.width + context) * config.heads * config.head_width


def _mlp(config: DecoderConfig) -> int:
    return (3 if config.mlp_form == "gated" else 2) * config.width * config.mlp
