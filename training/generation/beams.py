"""Beam search: the likeliest of several texts that are followed at once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from omnimill.tokenizers.vocabulary import TextVocabulary
from omnimill.training.generation.decoding import Decoder, Rule


def length_penalty(tokens: int, strength: float) -> float:
    """What a text's log-probability is divided by (Wu et al. 2016, arXiv 1609.08144, equation 14); 1 at strength 0.

    Args:
        tokens: of the text, its end included.
    """
    return float(((5.0 + tokens) / 6.0) ** strength)


@dataclass
class _Search:
    """The texts of one answer: open ones, best first, with their log-probabilities, and the best finished one."""

    texts: list[list[int]] = field(default_factory=lambda: [[]])
    scores: list[float] = field(default_factory=lambda: [0.0])
    best: list[int] = field(default_factory=list)
    best_score: float = -float("inf")

    def finish(self, ids: list[int], score: float) -> None:
        """Take a finished text; `score` with its penalty."""
        if score > self.best_score:
            self.best, self.best_score = ids, score


def beam_search(
    decoder: Decoder,
    places: Tensor,
    allowed: range,
    beams: int,
    penalty: float,
    rule: Rule | None = None,
    advance: Callable[[int], object] = lambda _: None,
) -> list[list[int]]:
    """Texts without EOS of as many answers as the decoder has sequences.

    A search ends when no open text can become better than the best finished one. Texts that the places leave no room
    for to end are finished where they stand.

    Args:
        places: float32 [n, 2], position of every token.
        allowed: ids that may come out; starts with EOS.
        beams: texts that are followed at once.
        penalty: strength of :func:`length_penalty`; below 0 long texts are made dearer.
        rule: see `omnimill.training.generation.decoding.decode`.
        advance: told how many tokens there are more.
    """
    searches = [_Search() for _ in range(decoder.rows)]
    going = list(searches)
    # The best that a text can still come to has the largest divisor of a negative number.
    bound = max(length_penalty(count, penalty) for count in (1, len(places)))
    previous = torch.zeros(decoder.rows, dtype=torch.int64, device=places.device)
    for number, place in enumerate(places):
        logits = decoder.step(previous, place.expand(len(previous), 2))[:, allowed.start : allowed.stop]
        if rule is not None:
            logits = rule(logits, [text for search in going for text in search.texts])
        gains, tokens = logits.double().log_softmax(-1).topk(min(2 * beams, len(allowed)), dim=-1)
        gains_of, tokens_of = gains.tolist(), (tokens + allowed.start).tolist()
        advance(len(going))
        kept: list[int] = []
        first = 0
        for search in going:
            rows = range(first, first + len(search.texts))
            first = rows.stop
            found = [
                (search.scores[row - rows.start] + gain, row, token)
                for row in rows
                for gain, token in zip(gains_of[row], tokens_of[row], strict=True)
                if gain > -float("inf")
            ]
            # Among equal ones the earlier text and the likelier token go first.
            found.sort(key=lambda one: -one[0])
            kept += _go_on(search, found[: 2 * beams], rows.start, beams, length_penalty(number + 1, penalty), bound)
        going = [search for search in going if search.texts]
        if not going:
            break
        decoder.keep(torch.tensor(kept, device=places.device))
        previous = torch.tensor([text[-1] for search in going for text in search.texts], device=places.device)
    for search in going:
        for text, score in zip(search.texts, search.scores, strict=True):
            search.finish(text, score / length_penalty(len(places), penalty))
    return [search.best for search in searches]


def _go_on(
    search: _Search, found: Sequence[tuple[float, int, int]], first: int, beams: int, divisor: float, bound: float
) -> list[int]:
    """Finish the texts that end, keep the best of the others; the decoder's rows that these go on from.

    Args:
        found: log-probability, row and token, best first. first: row of the search's first text.
    """
    texts: list[list[int]] = []
    scores: list[float] = []
    rows: list[int] = []
    for rank, (score, row, token) in enumerate(found):
        text = search.texts[row - first]
        if token == TextVocabulary.EOS:
            # One that would not be followed if it went on does not count as finished either.
            if rank < beams:
                search.finish(text, score / divisor)
        elif len(texts) < beams:
            texts.append([*text, token])
            scores.append(score)
            rows.append(row)
    if not scores or search.best_score >= scores[0] / bound:
        texts, scores, rows = [], [], []
    search.texts, search.scores = texts, scores
    return rows
