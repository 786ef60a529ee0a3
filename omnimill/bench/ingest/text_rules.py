"""The rules of Gopher and C4 on web-like documents, against datatrove's filters of the same rules.

Every contestant gets the same documents, asks its three filters in the same order (Gopher's quality, Gopher's
repetition, C4) with the same bounds, and asks a filter only about what the ones before kept. Documents per second of
processor time, so that neither side gains from threads. datatrove runs twice: as it comes, with words and sentences by
spaCy, and with words by white space and sentences by a regular expression, the cheapest it can be given.

Verdicts agree on most but not all documents, for the rules leave room: runs of words are measured here as the paper
says (every occurrence of a repeated run counts), there only from the second occurrence on; there spaces count as
characters, and spaCy counts punctuation as words.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from importlib.util import find_spec

import numpy as np

from omnimill import rng
from omnimill.bench.contest import run_alone
from omnimill.bench.metric import Metric

DOCUMENTS = 5_000
SEED = 7

CONSONANTS = ("b", "d", "f", "g", "k", "l", "m", "n", "p", "r", "s", "t", "v", "st", "tr", "pl", "ch")
VOWELS = ("a", "e", "i", "o", "u", "ea", "ou")
FUNCTION_WORDS = ("the", "of", "and", "to", "in", "that", "is", "with", "for", "on", "have", "be", "as", "it", "was")

Verdicts = list[bool]
Contest = Callable[[], tuple[Verdicts, float]]


def run() -> list[Metric]:
    """Time all contestants on the same documents, and count how often their verdicts agree with ours."""
    contests: dict[str, Callable[[], Contest]] = {"omnimill": partial(_ours, DOCUMENTS)}
    if find_spec("datatrove") is None:
        sys.stderr.write("datatrove is not installed (the `bench` extra): no peer for the text rules\n")
    else:
        contests["datatrove_whitespace"] = partial(_datatrove, DOCUMENTS, spacy=False)
        if find_spec("spacy") is None:
            sys.stderr.write(
                "spacy is not installed (the `bench` extra): datatrove runs with words by white space only\n"
            )
        else:
            contests["datatrove"] = partial(_datatrove, DOCUMENTS, spacy=True)
    runs = {name: run_alone(prepare) for name, prepare in contests.items()}
    kept = {name: done.value[0] for name, done in runs.items()}
    speed = {name: DOCUMENTS / done.value[1] for name, done in runs.items()}
    shares = {name: sum(verdicts) / DOCUMENTS for name, verdicts in kept.items()}
    same = {
        name: sum(a == b for a, b in zip(kept["omnimill"], verdicts, strict=True)) / DOCUMENTS
        for name, verdicts in kept.items()
        if name != "omnimill"
    }
    return [
        Metric.of("text_rules_documents_per_core_second", "1/s", speed, best="largest"),
        Metric.of(
            "text_rules_peak_memory", "MB", {n: done.peak_bytes / 1e6 for n, done in runs.items()}, best="smallest"
        ),
        Metric("text_rules_kept", "share", shares.pop("omnimill"), shares, None, None, None),
        Metric("text_rules_equal_verdicts", "share", 1.0, same, None, None, None),
    ]


def documents(count: int) -> Iterator[str]:
    """Pages of about 2.5 kB: prose of words with Zipf's frequencies in sentences and paragraphs, a third spoiled.

    They are spoiled by too few words, lists, numbers, repeated sentences, code or repeated lines, from hardly to
    wholly, so that many lie near the bounds.
    """
    draw = rng.generator(SEED, "vocabulary")
    syllables = [c + v for c in CONSONANTS for v in VOWELS]
    vocabulary = list(FUNCTION_WORDS)
    lengths = draw.choice([1, 2, 3, 4], size=30_000, p=[0.05, 0.4, 0.4, 0.15])
    vocabulary += [
        "".join(draw.choice(syllables, size=length)) + str(draw.choice(["", "n", "s", "r"])) for length in lengths
    ]
    # Zipf-Mandelbrot with the constants usual for English.
    weights = 1.0 / (2.7 + np.arange(len(vocabulary)))
    weights /= weights.sum()
    for i in range(count):
        one = rng.generator(SEED, "document", i)
        words = [vocabulary[k] for k in one.choice(len(vocabulary), size=int(one.integers(240, 420)), p=weights)]
        yield _page(words, one, int(one.integers(18)))


def _page(words: list[str], draw: np.random.Generator, kind: int) -> str:
    """Words as a page; kinds 0 to 5 are spoiled, each in its own way and to its own degree."""
    degree = float(draw.random())
    if kind == 0:
        words = words[: int(20 + 60 * degree)]
    if kind == 1:
        words = [str(draw.integers(10_000)) if draw.random() < 0.4 * degree else word for word in words]
    sentences = _sentences(words, draw)
    if kind == 2:
        marks = ["- " if draw.random() < 0.8 + 0.2 * degree else "" for _ in sentences]
        return "\n".join(f"{mark}{sentence}" for mark, sentence in zip(marks, sentences, strict=True))
    if kind == 3:
        again = draw.random(len(sentences)) < 0.3 * degree
        sentences = [one for sentence, twice in zip(sentences, again, strict=True) for one in [sentence] * (1 + twice)]
    if kind == 4 and degree < 0.5:
        sentences.insert(len(sentences) // 2, "function render() { return document.title; }.")
    paragraphs = [" ".join(sentences[i : i + 4]) for i in range(0, len(sentences), 4)]
    if kind == 5:
        refrain = " ".join(sentences[0].split()[: int(4 + 8 * degree)])
        paragraphs = [part for paragraph in paragraphs for part in (paragraph, refrain)]
    return "\n\n".join(
        ["Home | News | Contact", *paragraphs, "We use cookies to improve this site, see our privacy policy."]
    )


def _sentences(words: list[str], draw: np.random.Generator) -> list[str]:
    sentences, at = [], 0
    while at < len(words):
        length = int(draw.integers(6, 24))
        sentence = " ".join(words[at : at + length])
        comma = ", " if length > 12 else " "
        end = str(draw.choice([".", ".", ".", "!", "?"]))
        sentences.append(sentence[:1].upper() + sentence[1:].replace(" ", comma, 1) + end)
        at += length
    return sentences


def _ours(count: int) -> Contest:
    from omnimill.pipelines.operators.text_c4 import TextC4  # noqa: PLC0415 - in the contestant's process only
    from omnimill.pipelines.operators.text_gopher import TextQuality  # noqa: PLC0415
    from omnimill.pipelines.operators.text_repetition import TextRepetition  # noqa: PLC0415
    from omnimill.pipelines.verdicts import BATCH_EXAMPLES  # noqa: PLC0415
    from omnimill.schema import Example, Provenance, Text  # noqa: PLC0415

    operators = (
        TextQuality(op="text_quality"),
        TextRepetition(op="text_repetition"),
        # datatrove's defaults, those of C4's published code.
        TextC4(op="text_c4", min_words_per_line=3, min_sentences=5),
    )

    def judge(texts: list[str]) -> Verdicts:
        kept = [False] * len(texts)
        for start in range(0, len(texts), BATCH_EXAMPLES):
            left = [
                (
                    start + i,
                    Example(id="", source="", unit="", key="", provenance=nowhere, text=[Text(role="body", text=text)]),
                )
                for i, text in enumerate(texts[start : start + BATCH_EXAMPLES])
            ]
            for operator in operators:
                reasons = operator([example for _, example in left])
                left = [one for one, reason in zip(left, reasons, strict=True) if reason is None]
            for i, _ in left:
                kept[i] = True
        return kept

    nowhere = Provenance(uri="", digest="")
    return _timed(judge, count)


def _datatrove(count: int, spacy: bool) -> Contest:
    from datatrove.data import Document  # noqa: PLC0415
    from datatrove.pipeline.filters import C4QualityFilter, GopherQualityFilter, GopherRepetitionFilter  # noqa: PLC0415
    from datatrove.utils.word_tokenizers import WhitespaceTokenizer  # noqa: PLC0415

    class Plain(WhitespaceTokenizer):  # type: ignore[misc, unused-ignore]
        def word_tokenize(self, text: str) -> list[str]:
            return text.split()

    language = "en" if spacy else Plain()
    kinds = (GopherQualityFilter, GopherRepetitionFilter, C4QualityFilter)
    filters = [kind(language=language) for kind in kinds]

    def judge(texts: list[str]) -> Verdicts:
        return [
            all(one.filter(document) is True for one in filters)
            for document in (Document(text=t, id="") for t in texts)
        ]

    return _timed(judge, count)


def _timed(judge: Callable[[list[str]], Verdicts], count: int) -> Contest:
    """What judges, warmed up, with the documents already made."""
    texts = list(documents(count))
    judge(texts[:64])

    def work() -> tuple[Verdicts, float]:
        started = time.process_time()
        return judge(texts), time.process_time() - started

    return work
