"""What decides the ids of a tokenizer set beside its text model and its codebooks."""

from __future__ import annotations

import re
from collections import Counter
from typing import Literal, Self

from pydantic import Field, model_validator

from omnimill.config import Config

Modality = Literal["text", "image", "audio"]
Paradigm = Literal["S", "R", "X"]
Medium = Literal["image", "audio"]
Prefix = Literal["text S", "text R", "text X", "image S", "image R", "image X", "audio S", "audio R", "audio X"]
Growing = Literal["piece", "sentinel", "history", "input", "prefix", "special", "image_code", "audio_code"]

# Surface forms that other tokens have; a special token cannot take one.
_TAKEN = re.compile(
    r"</?s>|<(unk|(extra_id|unused|(image|audio)_(history|code))_\d+|(image|audio)_(input|start|mask))>"
    r"|\[(Text|Image|Audio)\] \[[SRX]\]"
)


class Growth(Config):
    """Tokens that joined a vocabulary in use: they have the ids behind all that were there before.

    range: which kind. count: how many; they are the last of the kind's total.
    """

    range: Growing
    count: int = Field(ge=1)


class VocabularyLayout(Config):
    """Which tokens there are; `omnimill.tokenizers.vocabulary` lays them out. The defaults give the reference's ids.

    locations: bins of a number (0: none). sentinels: of corrupted spans. history: markers of earlier pictures, and as
    many of earlier clips. inputs: media whose current picture or clip has a marker. prefixes: fused tokens of target
    modality and denoising paradigm. specials: further tokens of the text table, as they read (``<break>``).
    joint: media whose codes stand in the text table too, so that one id space holds both; the others have their own
    table. row_multiple: tables of embeddings are padded to a multiple of so many rows.
    growth: what was added after the vocabulary came into use, oldest first. The numbers above, `specials`, the codebook
    and the text model are as they are now, growth included.
    """

    locations: int = Field(default=1000, ge=0, le=1_000_000)
    sentinels: int = Field(default=200, ge=0, le=1_000_000)
    history: int = Field(default=8, ge=0, le=1_000_000)
    inputs: tuple[Medium, ...] = ("image", "audio")
    prefixes: tuple[Prefix, ...] = ("text S", "text R", "text X", "image S", "image R", "audio S", "audio R")
    specials: tuple[str, ...] = ()
    joint: tuple[Medium, ...] = ()
    row_multiple: int = Field(default=128, ge=1)
    growth: tuple[Growth, ...] = ()

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.locations == 1:
            raise ValueError("locations must be 0 (none) or at least 2, the ends of a range; found 1")
        for name in ("inputs", "prefixes", "specials", "joint"):
            doubled = [entry for entry, count in Counter(getattr(self, name)).items() if count > 1]
            if doubled:
                raise ValueError(f"{name}: {doubled[0]!r} appears twice")
        for special in self.specials:
            if not special or special != special.strip() or "\u2581" in special:
                raise ValueError(f"specials: {special!r} must be text without spaces at its ends")
            if _TAKEN.fullmatch(special):
                raise ValueError(f"specials: {special!r} is the surface form of another token")
        for kind, total in self._totals().items():
            grown = self.grown(kind)
            if grown > total:
                raise ValueError(f"growth: {grown} tokens {kind!r} were added, but there are {total} in all")
        return self

    def grown(self, kind: Growing) -> int:
        """How many tokens of a kind were added later."""
        return sum(step.count for step in self.growth if step.range == kind)

    def _totals(self) -> dict[Growing, int]:
        return {
            "sentinel": self.sentinels,
            "history": self.history,
            "input": len(self.inputs),
            "prefix": len(self.prefixes),
            "special": len(self.specials),
        }


class NumberLayout(Config):
    """How numbers are written among text.

    form: ``locations``: one of `VocabularyLayout.locations` tokens each. ``decimals``: as text, in brackets.
    digits: behind the point of a decimal number.
    """

    form: Literal["locations", "decimals"] = "locations"
    digits: int = Field(default=3, ge=0, le=12)
