"""Text denoising loses nothing, follows the published algorithm and its settings; masks of media follow their range."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from omnimill.errors import ConfigError
from omnimill.rng import digest64, generator, subkey
from omnimill.tokenizers.vocabulary import TextVocabulary
from omnimill.training.objectives import (
    OBJECTIVES,
    UL2,
    Denoiser,
    ObjectiveSettings,
    TextSplit,
    corrupt,
    noise_counts,
    noise_mask,
)

VOCABULARY = TextVocabulary(32000)
DENOISERS = (*UL2, Denoiser(paradigm="S", rate=1.0))


def restore(inputs: list[int], targets: list[int]) -> list[int]:
    """The text behind a span corruption, put together from its two halves."""
    sentinels = {VOCABULARY.sentinel(i) for i in range(200)}
    hidden: dict[int, list[int]] = {}
    for token in targets:
        if token in sentinels:
            hidden[token] = []
            last = token
        else:
            hidden[last].append(token)
    return [token for given in inputs for token in hidden.get(given, [given])]


def split_of(denoiser: Denoiser, length: int, room: int, target_room: int, key: str) -> TextSplit:
    settings = ObjectiveSettings(denoisers=(denoiser,))
    return OBJECTIVES["text_denoising"].split(length, room, target_room, settings, digest64(key))


def test_spans_by_hand() -> None:
    ids = np.arange(100, 110)
    mask = np.array([0, 0, 1, 1, 0, 0, 0, 1, 0, 1], bool)
    inputs, targets = corrupt(ids, mask, VOCABULARY)
    assert inputs.tolist() == [100, 101, 33199, 104, 105, 106, 33198, 108, 33197]
    assert targets.tolist() == [33199, 102, 103, 33198, 107, 33197, 109]


def test_golden_traces(parity: Path) -> None:
    path = parity / "15_span_corruption_t5lib.json"
    golden = json.loads(path.read_text()) if path.exists() else {"cases": [], "helper": []}
    for case in golden["cases"]:
        if case["length"] >= 2:  # a single token has nothing to hide
            assert noise_counts(case["length"], case["noise_density"], case["mean_span"]) == (
                case["n_noise"],
                case["n_spans"],
            )
        ids = np.arange(case["length"]) + case["tokens_start"]
        inputs, targets = corrupt(ids, np.array(case["noise_mask"], bool), VOCABULARY)
        assert (inputs.tolist(), targets.tolist()) == (case["inputs_no_eos"], case["targets_no_eos"])
    for case in golden["helper"]:
        room = case["inputs_length"] - 1
        denoiser = Denoiser(paradigm="X", rate=case["noise_density"], mean_span=case["mean_span"])
        split = split_of(denoiser, 5000, room, room, "long")
        assert [split.length, split.targets + 1] == case["tokens_length_and_targets_length"]


@pytest.mark.parametrize(
    ("room", "rate", "mean_span", "length", "targets"),
    [(512, 0.15, 3, 568, 114), (512, 0.15, 8, 588, 100), (512, 0.5, 3, 766, 512), (512, 0.5, 64, 1006, 512)],
)
def test_longest_window_is_the_published_one(
    room: int, rate: float, mean_span: float, length: int, targets: int
) -> None:
    """Raw lengths that fill an encoder and a decoder of 512 tokens, EOS included, and the target that they give."""
    split = split_of(Denoiser(paradigm="X", rate=rate, mean_span=mean_span), 5000, room - 1, room - 1, "long")
    assert (split.length, split.targets + 1) == (length, targets)


@settings(max_examples=200, deadline=None)
@given(
    denoiser=st.sampled_from(DENOISERS),
    length=st.integers(2, 3000),
    room=st.integers(7, 512),
    target_room=st.integers(7, 511),
    key=st.text(max_size=4),
)
def test_every_text_can_be_put_together_again(
    denoiser: Denoiser, length: int, room: int, target_room: int, key: str
) -> None:
    ids = generator("ids", key).integers(3, 32000, length)
    split = split_of(denoiser, length, room, target_room, key)
    inputs, targets = split.apply(ids, VOCABULARY)
    assert (len(inputs), len(targets)) == (split.inputs, split.targets)
    assert len(inputs) <= room
    assert 1 <= len(targets) <= target_room
    window = ids[split.start : split.start + split.length]
    assert len(window) == split.length >= 2
    whole = np.concatenate([inputs, targets]).tolist() if not split.spans else restore([*inputs], [*targets])
    assert whole == window.tolist()


@settings(max_examples=100, deadline=None)
@given(denoiser=st.sampled_from(DENOISERS), length=st.integers(2, 400))
def test_a_text_that_fits_is_used_whole_at_its_rate(denoiser: Denoiser, length: int) -> None:
    split = split_of(denoiser, length, 1000, 1000, "x")
    assert (split.start, split.length) == (0, length)
    assert abs(split.noise - denoiser.rate * length) <= 1
    if denoiser.mean_span and length >= 100:
        assert split.noise / split.spans == pytest.approx(denoiser.mean_span, rel=0.5) or split.spans == 1


def test_noise_starts_clean_and_ends_noisy_and_its_runs_are_uniform() -> None:
    seen = Counter(tuple(noise_mask(5, 3, 2, generator("mask", i)).tolist()) for i in range(4000))
    # Two clean tokens in two runs: one way. Three noise tokens in two runs: two ways.
    assert set(seen) == {(False, True, False, True, True), (False, True, True, False, True)}
    assert all(1850 < count < 2150 for count in seen.values())


def test_denoisers_come_with_their_weights_and_windows_move_with_the_epoch() -> None:
    settings = ObjectiveSettings(
        denoisers=(
            Denoiser(paradigm="S", rate=0.25, weight=1),
            Denoiser(paradigm="R", rate=0.15, mean_span=3, weight=3),
            Denoiser(paradigm="X", rate=0.5, mean_span=3, weight=0),
        )
    )
    splits = [OBJECTIVES["text_denoising"].split(900, 100, 100, settings, subkey(0, epoch)) for epoch in range(2000)]
    counts = Counter(split.paradigm for split in splits)
    assert set(counts) == {"S", "R"}
    assert 1400 < counts["R"] < 1600
    ends = [split.start + split.length for split in splits]
    assert min(split.start for split in splits) < 20
    assert max(ends) > 880
    assert max(ends) <= 900
    assert splits[3] == OBJECTIVES["text_denoising"].split(900, 100, 100, settings, subkey(0, 3))


def test_seven_denoisers_equally_often_by_default() -> None:
    splits = [
        OBJECTIVES["text_denoising"].split(1000, 2000, 2000, ObjectiveSettings(), subkey(0, i)) for i in range(3500)
    ]
    counts = Counter((split.paradigm, split.noise, split.spans) for split in splits)
    assert len(counts) == 7
    assert all(400 < count < 600 for count in counts.values())


def test_generate_shows_nothing_and_cuts_at_the_end() -> None:
    split = OBJECTIVES["generate"].split(50, 100, 20, ObjectiveSettings(), 0)
    inputs, targets = split.apply(np.arange(50), VOCABULARY)
    assert inputs.tolist() == []
    assert targets.tolist() == list(range(20))


def test_media_masks_follow_their_range() -> None:
    settings = ObjectiveSettings(image_mask=(0.2, 0.4))
    shares = [OBJECTIVES["image_denoising"].hidden_share(settings, subkey(0, i)) for i in range(500)]
    assert all(share is not None and 0.2 <= share < 0.4 for share in shares)
    assert np.mean([share for share in shares if share is not None]) == pytest.approx(0.3, abs=0.01)
    assert OBJECTIVES["generate"].hidden_share(settings, 0) is None


@pytest.mark.parametrize(
    "wrong",
    [
        {"denoisers": [{"paradigm": "S", "rate": 0.25, "mean_span": 3}]},
        {"denoisers": [{"paradigm": "R", "rate": 0.15}]},
        {"denoisers": [{"paradigm": "X", "rate": 1.0, "mean_span": 3}]},
        {"denoisers": [{"paradigm": "S", "rate": 0.25, "weight": 0}]},
        {"denoisers": []},
        {"image_mask": [0.9, 0.5]},
        {"audio_mask": [0.5, 1.5]},
    ],
)
def test_impossible_settings_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        ObjectiveSettings.model_validate(wrong)


def test_an_unknown_objective_says_what_is_allowed() -> None:
    with pytest.raises(ConfigError, match="audio_denoising, generate, image_denoising, text_denoising"):
        OBJECTIVES["denoise"]
