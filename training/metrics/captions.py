"""Sentences against reference sentences: CIDEr-D and BLEU.

Both count n-grams of the same tokens. Published figures of COCO captions come from tokens of the Penn Treebank's
program without punctuation; :func:`tokenise` follows its rules for what captions hold, so that figures are comparable,
but they are not those of that program to the last digit.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Sequence

from omnimill.training.metrics.score import paired

Gram = tuple[str, ...]

_ORDERS = 4
# CIDEr-D's: deviation of the penalty on lengths, in words, and the factor of its scale.
_DEVIATION, _SCALE = 6.0, 10.0
# Numbers with their marks; a word before its "n't"; that; other endings after an apostrophe; words with hyphens.
_TOKEN = re.compile(r"\d+(?:[.,:]\d+)*(?!\w)|\w+?(?=n't\b)|n't\b|'\w+|\w+(?:-\w+)*")


def tokenise(text: str) -> list[str]:
    """Words in lower case, without punctuation; ``don't`` becomes ``do`` and ``n't``, ``dog's`` ``dog`` and ``'s``."""
    return _TOKEN.findall(text.lower().replace("\u2019", "'"))


def caption_scores(predictions: Sequence[str | None], references: Sequence[Sequence[str]]) -> dict[str, float | None]:
    """CIDEr-D and BLEU-4; a caption that could not be read is an empty one."""
    paired(predictions, references)
    sentences = [tokenise(prediction or "") for prediction in predictions]
    wanted = [[tokenise(text) for text in texts] for texts in references]
    return {"cider_d": cider_d(sentences, wanted), "bleu_4": bleu(sentences, wanted)}


def cider_d(sentences: Sequence[Sequence[str]], references: Sequence[Sequence[Sequence[str]]]) -> float | None:
    """CIDEr-D (Vedantam, Zitnick and Parikh, arXiv 1411.5726, section 5 and its supplement), the mean over sentences.

    Per order n = 1 … 4 the cosine of term frequencies times inverse document frequencies, with the sentence's weight of
    an n-gram clipped to the reference's, times exp(-d^2 / 72) for a difference of d words; the mean over orders and
    references, times 10. A document is what all references of one example say. Tables print 100 times this.

    Args:
        sentences: tokens of each. references: tokens of the texts of each example, at least one.

    Returns:
        0 … 10; None without examples. With a single example every document frequency is 1 of 1, so it is 0.
    """
    if not references:
        return None
    counted = [[_grams(text) for text in texts] for texts in references]
    documents = Counter(gram for texts in counted for gram in {gram for grams in texts for gram in grams})
    total = math.log(len(references))
    inverse = {gram: total - math.log(number) for gram, number in documents.items()}
    scores = [
        sum(_similarity(_grams(sentence), grams, inverse, total) for grams in texts) / max(len(texts), 1)
        for sentence, texts in zip(sentences, counted, strict=True)
    ]
    return _SCALE * sum(scores) / len(scores)


def bleu(sentences: Sequence[Sequence[str]], references: Sequence[Sequence[Sequence[str]]]) -> float | None:
    """BLEU of up to four words over all sentences together (Papineni et al. 2002), without smoothing, 0 … 1.

    Counts of n-grams are clipped to the largest in one reference. The brevity penalty compares with the references
    closest in length, of equally close ones the shorter.
    """
    if not references:
        return None
    matched, possible = [0] * _ORDERS, [0] * _ORDERS
    length = wanted = 0
    for sentence, texts in zip(sentences, references, strict=True):
        length += len(sentence)
        wanted += min((abs(len(text) - len(sentence)), len(text)) for text in texts)[1] if texts else 0
        most: Counter[Gram] = Counter()
        for text in texts:
            most |= _grams(text)
        for gram, count in _grams(sentence).items():
            matched[len(gram) - 1] += min(count, most[gram])
            possible[len(gram) - 1] += count
    if not all(matched):
        return 0.0
    precision = sum(math.log(hit / of) for hit, of in zip(matched, possible, strict=True)) / _ORDERS
    return math.exp(precision + min(0.0, 1.0 - wanted / length))


def _grams(tokens: Sequence[str]) -> Counter[Gram]:
    return Counter(
        tuple(tokens[i : i + order]) for order in range(1, _ORDERS + 1) for i in range(len(tokens) - order + 1)
    )


def _similarity(sentence: Counter[Gram], reference: Counter[Gram], inverse: dict[Gram, float], total: float) -> float:
    """Of one sentence and one reference, the mean over orders; `total` weighs n-grams that no reference has."""
    products, squares, others = [0.0] * _ORDERS, [0.0] * _ORDERS, [0.0] * _ORDERS
    length = 0
    for gram, count in sentence.items():
        length += count if len(gram) == 1 else 0
        weight = count * inverse.get(gram, total)
        squares[len(gram) - 1] += weight * weight
        if gram in reference:
            other = reference[gram] * inverse[gram]
            products[len(gram) - 1] += min(weight, other) * other
    for gram, count in reference.items():
        length -= count if len(gram) == 1 else 0
        others[len(gram) - 1] += (count * inverse[gram]) ** 2
    norms = [math.sqrt(one * other) for one, other in zip(squares, others, strict=True)]
    cosines = [product / norm if norm else 0.0 for product, norm in zip(products, norms, strict=True)]
    return math.exp(-(length**2) / (2.0 * _DEVIATION**2)) * sum(cosines) / _ORDERS
