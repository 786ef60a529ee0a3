"""Short answers: VQA accuracy, exact match, multiple choice, sets of tags, numbers of tokens.

Unified-IO 2 (arXiv 2312.17172, section E) answers classification as an open question and counts exact matches.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

from omnimill.training.metrics.score import mean, paired

# Of the VQA challenge's evaluation: numbers in words, articles, and marks that separate or go.
_WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
_NUMBERS = {"none": "0", **{word: f"{number}" for number, word in enumerate(_WORDS)}}
_ARTICLES = {"a", "an", "the"}
_MARKS = ';/[]"{}()=+\\_-><@`,?!'
_COMMA_IN_NUMBER = re.compile(r"\d,\d")
_PERIOD = re.compile(r"\.(?!\d)")
# What so many people agree on is wholly right.
_AGREED = 3


def normalise(answer: str) -> str:
    """Lower case and single spaces."""
    return " ".join(answer.lower().split())


def normalise_answer(answer: str) -> str:
    """An answer as the VQA challenge compares it (arXiv 1505.00468; the rules of its evaluation page).

    Lower case; a mark is left out beside a space or where some comma stands between digits, else it becomes a space;
    periods go unless a digit follows; numbers up to ten are written in digits; articles go. The challenge puts
    apostrophes back into contractions from a table; here apostrophes go on both sides, which makes the same pairs equal
    (and "its" the same as "it's").
    """
    text = normalise(answer)
    drop_all = _COMMA_IN_NUMBER.search(text) is not None
    kept = text
    for mark in _MARKS:
        beside_space = f"{mark} " in text or f" {mark}" in text
        kept = kept.replace(mark, "" if beside_space or drop_all else " ")
    kept = _PERIOD.sub("", kept).replace("'", "").replace("\u2019", "")
    words = (_NUMBERS.get(word, word) for word in kept.split())
    return " ".join(word for word in words if word not in _ARTICLES)


def vqa_accuracy(predictions: Sequence[str | None], references: Sequence[Sequence[str]]) -> dict[str, float | None]:
    """The VQA challenge's accuracy (arXiv 1505.00468): min(matches / 3, 1), the mean over leaving one answer out.

    Args:
        predictions: one answer each. references: people's answers, usually ten. Where there are three or fewer, no
            other answer than theirs can be agreed on, and a match of any of them is right.
    """
    paired(predictions, references)
    return {"vqa_accuracy": mean([_soft(*pair) for pair in zip(predictions, references, strict=True)])}


def _soft(prediction: str | None, answers: Sequence[str]) -> float:
    if prediction is None:
        return 0.0
    given = normalise_answer(prediction)
    matches = sum(given == normalise_answer(answer) for answer in answers)
    if len(answers) <= _AGREED:
        return float(matches > 0)
    # Leaving out one of the matching answers, and one of the others.
    without, other = min(max(matches - 1, 0) / _AGREED, 1.0), min(matches / _AGREED, 1.0)
    return (matches * without + (len(answers) - matches) * other) / len(answers)


def exact_match(predictions: Sequence[str | None], references: Sequence[Sequence[str]]) -> dict[str, float | None]:
    """The share of predictions that equal one of their references, up to case and white space."""
    paired(predictions, references)
    hits = [
        prediction is not None and normalise(prediction) in map(normalise, texts)
        for prediction, texts in zip(predictions, references, strict=True)
    ]
    return {"exact_match": mean(hits)}


def choice_accuracy(
    losses: Sequence[Sequence[float] | None], references: Sequence[int], lengths: Sequence[Sequence[int]] | None = None
) -> dict[str, float | None]:
    """Multiple choice by likelihood: the option of the least loss is chosen, of equal ones the first.

    Args:
        losses: of each option, summed over its tokens. references: index of the right option.
        lengths: of the options, in whatever unit; given, losses are divided by them.
    """
    paired(losses, references)
    hits = []
    for number, (options, right) in enumerate(zip(losses, references, strict=True)):
        scaled = list(options or [])
        if lengths is not None and options is not None:
            scaled = [loss / max(length, 1) for loss, length in zip(options, lengths[number], strict=True)]
        hits.append(bool(scaled) and scaled.index(min(scaled)) == right)
    return {"choice_accuracy": mean(hits)}


def tags(text: str) -> frozenset[str]:
    """The tags of a text, which commas or semicolons separate."""
    return frozenset(filter(None, (normalise(tag) for tag in re.split(r"[,;]", text))))


def tag_scores(predictions: Sequence[str | None], references: Sequence[Sequence[str]]) -> dict[str, float | None]:
    """How well sets of tags agree: precision, recall and F1 over all tags of all examples ("micro").

    Args:
        references: texts of one or several tags each; an example has the tags of all its texts.
    """
    paired(predictions, references)
    common = found = wanted = 0
    for prediction, texts in zip(predictions, references, strict=True):
        given = tags(prediction or "")
        right = frozenset[str]().union(*map(tags, texts))
        common, found, wanted = common + len(given & right), found + len(given), wanted + len(right)
    return precision_recall("tag", common, found, wanted)


def precision_recall(name: str, common: int, found: int, wanted: int) -> dict[str, float | None]:
    """Precision, recall and F1 of counts, called ``<name>_precision`` and so on; all None when nothing is wanted."""
    if not wanted:
        return {f"{name}_precision": None, f"{name}_recall": None, f"{name}_f1": None}
    return {
        f"{name}_precision": common / found if found else 0.0,
        f"{name}_recall": common / wanted,
        f"{name}_f1": 2 * common / (found + wanted),
    }


def perplexity(
    losses: Sequence[tuple[float, float] | None], references: Sequence[object] | None = None
) -> dict[str, float | None]:
    """The exponential of the mean loss of a token.

    Args:
        losses: of each text, the sum over its tokens in nats and how many tokens there are (the sum of their weights).
            None: not finite; then the perplexity is infinite.
        references: not needed; when given, as many.
    """
    if references is not None:
        paired(losses, references)
    known = [loss for loss in losses if loss is not None and math.isfinite(loss[0])]
    tokens = sum(count for _, count in known)
    if len(known) < len(losses):
        return {"perplexity": math.inf}
    average = sum(loss for loss, _ in known) / tokens if tokens else None
    # Beyond this the exponential is no float any more.
    return {"perplexity": None if average is None else math.exp(average) if average < 700 else math.inf}
