"""Sizes of backbones that hold several decoders: two towers with links between them, or members that vote."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, PositiveInt, model_validator

from omnimill.config import Config
from omnimill.training.backbone.decoder_config import DecoderConfig

LinkForm = Literal["attention", "attention_mlp"]
TowerOutput = Literal["joined", "by_modality", "first"]


class TowersConfig(Config):
    """Two decoders side by side over the same sequence, with gated cross-attention between them.

    to_first: after every how many layers of the first it looks at the second; null: never. to_second: the other way
        round. link: what a link is made of. Its gates start closed.
    output: ``joined``: both share the table, and a linear map brings their outputs together (JAM-Cross). Otherwise each
        has a table of its own: ``by_modality``: ids of text are predicted by the first, of picture codes by the second
        (as Zipper's towers each write their own modality). ``first``: everything by the first, which looks at the
        second (Flamingo's one way).
    """

    kind: Literal["towers"] = "towers"
    towers: tuple[DecoderConfig, DecoderConfig]
    to_first: PositiveInt | None = 1
    to_second: PositiveInt | None = 1
    link: LinkForm = "attention"
    output: TowerOutput = "joined"

    @property
    def rows(self) -> int:
        """Of the joint id space."""
        return self.towers[0].rows

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        _same_ids(self.towers)
        first, second = self.towers
        if self.output == "joined" and (first.width, first.tied) != (second.width, second.tied):
            raise ValueError("output joined shares the table: both towers need one width, and tied must be equal")
        for name, tower in (("to_first", first), ("to_second", second)):
            every = getattr(self, name)
            if every is not None and every > tower.layers:
                raise ValueError(f"{name} must be at most the tower's {tower.layers} layers; found {every}")
        return self


class VotingConfig(Config):
    """Whole decoders whose distributions are multiplied: log p = sum of weight * log p of each, up to a constant.

    With weights 1, 1, -1 and the members large, tuned small, small it is emulated fine-tuning (arXiv 2310.12962).
    """

    kind: Literal["voting"] = "voting"
    members: tuple[DecoderConfig, ...] = Field(min_length=2)
    weights: tuple[float, ...]

    @property
    def rows(self) -> int:
        """Of the joint id space."""
        return self.members[0].rows

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        _same_ids(self.members)
        if len(self.weights) != len(self.members):
            raise ValueError(f"a weight for each of the {len(self.members)} members; found {len(self.weights)}")
        return self


def _same_ids(configs: tuple[DecoderConfig, ...]) -> None:
    if len({(one.rows, one.image_ids) for one in configs}) > 1:
        raise ValueError("all decoders need the same ids: rows and image_ids must be equal")
