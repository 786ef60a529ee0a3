"""Answers and captions: figures by hand and those of the published programs, and what holds for any text."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from omnimill.training.metrics.answers import (
    choice_accuracy,
    exact_match,
    normalise_answer,
    perplexity,
    tag_scores,
    vqa_accuracy,
)
from omnimill.training.metrics.captions import bleu, caption_scores, cider_d, tokenise

SENTENCES = [
    "A man isn't riding the 2 brown horses, on a beach.",
    "two dogs play in the snow",
    "a plate of food with broccoli and meat on it",
]
REFERENCES = [
    [
        "A man rides a horse on the beach",
        "the man is riding two brown horses on a beach",
        "a person on a horse by the sea",
        "A rider on the sand",
    ],
    [
        "Two dogs are playing in the snow.",
        "two dogs play with a ball in the deep snow",
        "dogs run in snow",
        "Some dogs in the snow",
    ],
    [
        "a plate of food with meat and broccoli",
        "A dinner plate with broccoli and meat on it",
        "food on a plate",
        "A white plate topped with meat and broccoli",
    ],
]
TEXTS = st.text("ab ,.'c1", max_size=12)


# --- captions ---


def test_cider_d_and_bleu_are_those_of_the_published_programs() -> None:
    # Figures of pycocoevalcap's CIDEr-D and of sacreBLEU 2.6.0 (no smoothing) on these tokens.
    found = caption_scores(SENTENCES, REFERENCES)
    assert found["cider_d"] == pytest.approx(2.60197282942855, rel=1e-12)
    assert found["bleu_4"] == pytest.approx(0.613667294775034, rel=1e-12)


def test_captions_are_split_as_for_coco() -> None:
    assert tokenise("The dog's 1,000-piece, well-kept\u2019s toy isn't 3.5m!") == [
        *("the", "dog", "'s", "1,000", "piece", "well-kept", "'s", "toy", "is", "n't", "3", "5m"),
    ]


def test_captions_that_are_their_reference_score_best_and_unread_ones_nothing() -> None:
    single = [texts[:1] for texts in REFERENCES]
    best = caption_scores([texts[0] for texts in single], single)
    assert best == {"cider_d": pytest.approx(10.0), "bleu_4": pytest.approx(1.0)}
    assert caption_scores([None, None, None], single) == {"cider_d": 0.0, "bleu_4": 0.0}
    assert caption_scores([], []) == {"cider_d": None, "bleu_4": None}


@given(st.lists(st.tuples(TEXTS, st.lists(TEXTS, min_size=1, max_size=3)), min_size=1, max_size=4), st.randoms())
def test_caption_scores_stay_in_range_and_know_no_order(pairs: list[tuple[str, list[str]]], rng: object) -> None:
    found = caption_scores([one for one, _ in pairs], [texts for _, texts in pairs])
    assert 0.0 <= found["cider_d"] <= 10.0 + 1e-9  # type: ignore[operator]
    assert 0.0 <= found["bleu_4"] <= 1.0 + 1e-9  # type: ignore[operator]
    turned = pairs[::-1]
    again = caption_scores([one for one, _ in turned], [texts for _, texts in turned])
    assert again == {name: pytest.approx(value) for name, value in found.items()}


def test_bleu_clips_counts_and_penalises_brevity() -> None:
    long = ["a", "b", "c", "d", "e", "f", "g", "h"]
    # All four precisions are 1, and 5 words stand for 8.
    assert bleu([long[:5]], [[long]]) == pytest.approx(math.exp(1 - 8 / 5))
    # Unigrams: 4 of 8 ("a" at most once), then 3/7, 2/6, 1/5.
    repeated = ["a", "b", "c", "d", "a", "a", "a", "a"]
    assert bleu([repeated], [[long]]) == pytest.approx((4 / 8 * 3 / 7 * 2 / 6 * 1 / 5) ** 0.25)


def test_cider_d_penalises_other_lengths_with_its_deviation_of_six_words() -> None:
    texts = [["a", "b"], ["c", "d"]]
    # Two of four orders have n-grams; the second sentence has nothing of its reference.
    assert cider_d([["a", "b"], ["x"]], [[one] for one in texts]) == pytest.approx(10 * 2 / 4 / 2)
    longer = cider_d([["a", "b"], ["x"]], [[["a", "b", "a", "b"]], [["c", "d"]]])
    unigrams = 1.0 * 2 * 2 / (2 * math.sqrt(2) / math.sqrt(2) * 2 * 2)
    # Weights (1, 1) and (2, 2): min(1, 2) * 2 twice over sqrt(2) * sqrt(8) is 1; bigrams: ab 1 of ab 2, ba 1.
    assert unigrams == pytest.approx(0.5)
    assert longer == pytest.approx(10 * (1 + 2 / math.sqrt(5)) / 4 * math.exp(-4 / 72) / 2)


# --- answers ---


@pytest.mark.parametrize(
    ("given", "normal"),
    [
        ("The Two dogs.", "2 dogs"),
        ("1,000", "1000"),
        ("3.5 m", "3.5 m"),
        ("yes/no", "yes no"),
        ("well- kept", "well kept"),
        ("don't", "dont"),
        ("None", "0"),
        (" An  apple?", "apple"),
    ],
)
def test_answers_are_normalised_as_the_challenge_does(given: str, normal: str) -> None:
    assert normalise_answer(given) == normal


@pytest.mark.parametrize(
    ("matching", "accuracy"),
    # Leaving out one of ten answers in turn: k (k - 1) / 3 + (10 - k) k / 3, capped at 1 each, over 10.
    [(0, 0.0), (1, 0.3), (2, 0.6), (3, 0.9), (4, 1.0), (10, 1.0)],
)
def test_vqa_accuracy_is_the_mean_over_leaving_one_answer_out(matching: int, accuracy: float) -> None:
    answers = ["Red."] * matching + [f"other {i}" for i in range(10 - matching)]
    assert vqa_accuracy(["the red"], [answers])["vqa_accuracy"] == pytest.approx(accuracy)


def test_a_single_answer_is_matched_or_not_and_unread_counts() -> None:
    assert vqa_accuracy(["a dog", None, "cat"], [["dog"], ["dog"], ["dog", "cat"]])["vqa_accuracy"] == pytest.approx(
        2 / 3
    )
    assert exact_match(["Dog ", None, "cat"], [["dog"], [""], ["dog", "hound"]])["exact_match"] == pytest.approx(1 / 3)


def test_choices_go_to_the_least_loss() -> None:
    losses = [[3.0, 1.0], [2.0, 2.0], None]
    assert choice_accuracy(losses, [1, 0, 0])["choice_accuracy"] == pytest.approx(2 / 3)
    assert choice_accuracy([[3.0, 2.0]], [0], lengths=[[3, 1]])["choice_accuracy"] == 1.0


def test_tags_are_counted_over_all_examples() -> None:
    found = tag_scores(["Speech, music", None, "dog; dog"], [["music", "car"], ["rain"], ["dog"]])
    # Common: music, dog; found: speech, music, dog; wanted: music, car, rain, dog.
    assert found == {"tag_precision": 2 / 3, "tag_recall": 0.5, "tag_f1": pytest.approx(4 / 7)}


def test_perplexity_is_of_tokens_not_of_texts() -> None:
    assert perplexity([(2 * math.log(8), 2), (math.log(2), 1)])["perplexity"] == pytest.approx(128 ** (1 / 3))
    assert perplexity([(1.0, 1), (math.nan, 1)])["perplexity"] == math.inf
    assert perplexity([])["perplexity"] is None


def test_as_many_predictions_as_references_are_needed() -> None:
    for metric in (vqa_accuracy, exact_match, tag_scores, caption_scores):
        with pytest.raises(ValueError, match="2 predictions and 1 references"):
            metric(["a", "b"], [["a"]])
