"""New tasks from captions: how long one has to be, and what has to be in it (arXiv 2312.17172, section D.11)."""

from __future__ import annotations

import re
from typing import ClassVar, Literal

import numpy as np
from pydantic import Field

from omnimill.pipelines.operators.augment_items import add_texts, draws, free_item, sample, texts
from omnimill.pipelines.operators.augmentation import Augmentation
from omnimill.schema import Example

Variant = Literal["longer", "shorter", "words", "start"]
_WORD = re.compile(r"[^\W\d_]{4,}")
# How far a bound lies from the caption's own length at most: at half of it, and at twice.
_SLACK = 2


class AugmentCaptions(Augmentation):
    """Adds captions with a demand that they meet; families caption-longer, -shorter, -with-words and -with-start.

    longer, shorter: an item of ``more_than`` or ``fewer_than`` (so many words or characters) and ``fitting_caption``.
    words: of ``words`` (one to three that the caption has) and ``fitting_caption``.
    start: of ``start`` (the caption's first words, up to a third of it) and ``fitting_caption``.

    Words are what white space separates, characters all from the first to the last that is none.

    variants: which are made. items: of each, from different captions.
    """

    reads: ClassVar[tuple[str, ...]] = ("images", "text")
    writes: ClassVar[tuple[str, ...]] = ("text",)

    op: Literal["augment_captions"]
    variants: tuple[Variant, ...] = Field(("longer", "shorter", "words", "start"), min_length=1)
    items: int = Field(1, ge=1)

    def augment(self, example: Example) -> None:
        captions = [caption for caption in dict.fromkeys(map(str.strip, texts(example, "caption"))) if caption]
        rng = draws(example, self.op)
        for variant in self.variants:
            for caption in sample(rng, captions, self.items):
                if demand := _demand(variant, caption, rng):
                    add_texts(example, free_item(example), fitting_caption=caption, **demand)


def _demand(variant: Variant, caption: str, rng: np.random.Generator) -> dict[str, str]:
    """The role of the demand and its words; empty where the caption meets none of the kind."""
    words = caption.split()
    if variant == "words":
        known = list(dict.fromkeys(_WORD.findall(caption)))
        chosen = sample(rng, known, int(rng.integers(1, 4)))
        return {"words": ", ".join(chosen)} if chosen else {}
    if variant == "start":
        most = len(words) // 3
        return {"start": " ".join(words[: int(rng.integers(1, most + 1))])} if most else {}
    unit, length = ("words", len(words)) if rng.integers(2) else ("characters", len(caption))
    if variant == "longer":
        return {"more_than": _counted(int(rng.integers(length // _SLACK, length)), unit)} if length > 1 else {}
    return {"fewer_than": _counted(int(rng.integers(length + 1, _SLACK * length + 1)), unit)}


def _counted(count: int, unit: str) -> str:
    return f"{count} {unit if count != 1 else unit.removesuffix('s')}"
