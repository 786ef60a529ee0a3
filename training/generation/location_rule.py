"""Location tokens that are forced: numbers come in whole groups, and a list of boxes does not end too soon."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from omnimill.tokenizers.vocabulary import TextVocabulary

# A number comes next when location tokens together are likelier than this (the reference's released program), and a
# list ends only when its end is likelier than this (arXiv 2312.17172, section E.3).
NUMBER_ABOVE = 0.3
END_ABOVE = 0.5


class LocationRule:
    """What may come next in an answer of boxes, points or other groups of numbers, each with or without words.

    Within a group only location tokens; before one, location tokens alone if they are likely enough together; and the
    end only where it is likelier than not. Probabilities are those of the model, whatever the temperature.

    Args:
        vocabulary: of the answer's ids; one without location tokens has no rule.
        group: numbers that belong together, 4 for a box.
    """

    def __init__(self, vocabulary: TextVocabulary, group: int) -> None:
        self._group = group
        self._vocabulary = vocabulary
        ends = [vocabulary.location(number) for number in (0, vocabulary.layout.locations - 1)]
        self._ids = range(min(ends), max(ends) + 1)

    def __call__(self, logits: Tensor, answers: Sequence[Sequence[int]]) -> Tensor:
        """The logits of B answers, float32 [B, vocabulary size], -inf for what may not come next.

        Args:
            answers: the ids of each so far.
        """
        places = torch.arange(logits.shape[1], device=logits.device)
        numbers = (places >= self._ids.start) & (places < self._ids.stop)
        chance = logits.softmax(-1)
        within = torch.tensor([self._numbers(ids) % self._group > 0 for ids in answers], device=logits.device)
        forced = within | ((chance * numbers).sum(-1) > NUMBER_ABOVE)
        too_soon = chance[:, TextVocabulary.EOS] <= END_ABOVE
        end = places == TextVocabulary.EOS
        barred = (forced[:, None] & ~numbers) | (~forced & too_soon)[:, None] & end
        return logits.masked_fill(barred, -torch.inf)

    def _numbers(self, ids: Sequence[int]) -> int:
        """Location tokens at the end."""
        count = 0
        while count < len(ids) and ids[-1 - count] in self._ids:
            count += 1
        return count
