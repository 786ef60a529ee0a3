"""Sizes of the decoder-only backbone, which reads and writes one joint space of ids: text, `<break>` and codes."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, PositiveFloat, PositiveInt, model_validator

from omnimill.config import Config
from omnimill.errors import ConfigError
from omnimill.tokenizers.vocabulary import Vocabulary
from omnimill.tokens import TokenLayout

DecoderSize = Literal["tiny", "7b"]


class DecoderConfig(Config):
    """A decoder over one id space.

    rows: of its table. image_ids: ids of picture codes, as ranges (first, behind the last).
    positions: ``rotary``: of queries and keys, in every layer. ``learned``: a vector for each of `max_positions`, added
        to the input.
    mlp_form: ``gated``: three matrices. ``gelu``: two.
    head_norm: RMS norm of queries and keys, see `omnimill.training.backbone.blocks.Attention`.
    tied: the table is the output matrix, too.
    norm_groups: equal parts of the width that norms treat each by itself. head_groups: runs of heads that have a scale
        vector each in their norms. More than 1 in what was merged side by side.
    logit_scale: of the products with the output matrix; null: 1 / sqrt(width).
    """

    kind: Literal["decoder"] = "decoder"
    width: PositiveInt
    heads: PositiveInt
    head_width: PositiveInt
    mlp: PositiveInt
    layers: PositiveInt
    rows: PositiveInt
    image_ids: tuple[tuple[int, int], ...] = ()
    positions: Literal["rotary", "learned"] = "rotary"
    max_positions: PositiveInt = 4096
    mlp_form: Literal["gated", "gelu"] = "gated"
    head_norm: Literal["qk_norm", "none"] = "qk_norm"
    tied: bool = True
    norm_groups: PositiveInt = 1
    head_groups: PositiveInt = 1
    logit_scale: PositiveFloat | None = Field(default=None)

    @property
    def scale(self) -> float:
        """Of the products with the output matrix."""
        return self.width**-0.5 if self.logit_scale is None else self.logit_scale

    @classmethod
    def of(cls, size: DecoderSize, layout: TokenLayout) -> Self:
        """The configuration of a named size for the ids of `layout`.

        ``tiny`` is for a CPU and minutes; ``7b`` has the shape of JAM's parents (d = 4096; 32 layers from 12 d² L).

        Raises:
            ConfigError: the tokenizers keep codes of pictures in a table of their own.
        """
        if "image" not in layout.vocabulary.joint:
            raise ConfigError(
                f"a decoder-only backbone has one table; tokenizer set {layout.tokenizers!r} keeps codes of pictures "
                "in a table of their own: train it with layout.vocabulary.joint: [image]"
            )
        vocabulary = Vocabulary.of(layout)
        ranges = tuple(
            (block.start, block.stop) for block in vocabulary.text.table.ranges if block.name == "image_code"
        )
        return cls(**_SHAPES[size], rows=vocabulary.text.rows, image_ids=ranges)

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.head_width % 4:
            raise ValueError(f"head_width must be a multiple of 4; found {self.head_width}")
        if self.width % self.norm_groups or self.heads % self.head_groups:
            raise ValueError(
                f"width ({self.width}) must be a multiple of norm_groups, heads ({self.heads}) of head_groups; found "
                f"{self.norm_groups}, {self.head_groups}"
            )
        for first, behind in self.image_ids:
            if not 0 <= first < behind <= self.rows:
                raise ValueError(f"image_ids are ranges of the {self.rows} rows; found {first} to {behind}")
        return self


_SHAPES: dict[DecoderSize, dict[str, int]] = {
    "tiny": {"width": 128, "heads": 4, "head_width": 32, "mlp": 352, "layers": 4},
    # Three matrices of 10,912 have as many weights as two of 4 d.
    "7b": {"width": 4096, "heads": 32, "head_width": 128, "mlp": 10_912, "layers": 32},
}
