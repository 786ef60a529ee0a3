"""Every entry that divides a text loses nothing and follows what was published; settings that cannot be are refused."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from omnimill.mixtures.config import Task
from omnimill.mixtures.objectives import OBJECTIVES, UL2, Denoiser
from omnimill.rng import digest64, generator, subkey_many
from omnimill.tokenizers.vocabulary import TextVocabulary
from omnimill.training.objectives.budgets import Medium, Modality, portions
from omnimill.training.objectives.settings import ObjectiveSettings, TokenBudgets
from omnimill.training.objectives.spans import BREAK, corrupt, most_moved, move_spans, noise_mask
from omnimill.training.objectives.text import Rule, TextSplit, denoise, whole_target
from omnimill.vocabulary_layout import VocabularyLayout

VOCABULARY = TextVocabulary(32000)
DENOISERS = tuple(entry.denoiser for entry in OBJECTIVES.values() if entry.denoiser)
MORE = (
    *DENOISERS,
    Denoiser(paradigm="R", rate=(0.1, 0.6), mean_span=5),
    Denoiser(paradigm="S", rate=0.4, moved_spans=4),
)


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


def unmoved(targets: list[int]) -> list[int]:
    """The text behind moved spans: a second sentinel of a kind begins what belongs in the place of the first."""
    sentinels = set(VOCABULARY.sentinels.tolist())
    places = [i for i, token in enumerate(targets) if token in sentinels]
    end = places[len(places) // 2]
    return restore(targets[:end], targets[end:])


def split_of(denoiser: Denoiser, length: int, room: int, target_room: int, key: str) -> TextSplit:
    keys = np.array([digest64(key)], np.uint64)
    return denoise([denoiser], *(np.array([one]) for one in (length, room, target_room)), keys).one()


def splits_of(denoisers: Sequence[Denoiser], length: int, room: int, target_room: int, count: int) -> list[TextSplit]:
    keys = subkey_many(0, np.arange(count, dtype=np.uint64))
    splits = denoise(denoisers, *(np.full(count, one) for one in (length, room, target_room)), keys)
    return [splits.one(i) for i in range(count)]


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
            rule = Rule(np.array([case["noise_density"]]), np.array([case["mean_span"]]), np.array([0]))
            noise, spans = rule.divide(np.array([case["length"]]))
            assert (int(noise[0]), int(spans[0])) == (case["n_noise"], case["n_spans"])
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


@settings(max_examples=200)
@given(
    denoiser=st.sampled_from(MORE),
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
    if split.moved:
        whole = [*inputs, *unmoved(targets.tolist())]
    else:
        whole = restore([*inputs], [*targets]) if split.spans else [*inputs, *targets]
    assert whole == window.tolist()


@settings(max_examples=100)
@given(denoiser=st.sampled_from(MORE), length=st.integers(2, 400))
def test_a_text_that_fits_is_used_whole_at_its_rate(denoiser: Denoiser, length: int) -> None:
    split = split_of(denoiser, length, 1000, 1000, "x")
    assert (split.start, split.length) == (0, length)
    low, high = denoiser.rates
    assert low * length - 1 <= split.noise <= high * length + 1
    if denoiser.mean_span and length >= 100:
        assert split.noise / split.spans == pytest.approx(denoiser.mean_span, rel=0.5) or split.spans == 1


@settings(max_examples=100)
@given(
    denoiser=st.sampled_from(MORE),
    length=st.integers(2, 2000),
    room=st.integers(7, 300),
    target_room=st.integers(7, 300),
    key=st.integers(0, 99),
)
def test_no_longer_window_would_fit(denoiser: Denoiser, length: int, room: int, target_room: int, key: int) -> None:
    """By trying all of them, with what the example drew."""
    split = split_of(denoiser, length, room, target_room, str(key))
    whole = split_of(denoiser, length, 10**6, 10**6, str(key))
    assert whole.length == length or whole.spans == 200
    if isinstance(denoiser.rate, tuple) or denoiser.moved_spans:
        return  # what was drawn is not told by the split
    windows = np.arange(2, length + 1)
    rule = Rule(*(np.full(len(windows), one) for one in (denoiser.rate, denoiser.mean_span or 0.0, 0)))
    fits = rule.fits(windows, np.full(len(windows), room), np.full(len(windows), target_room))
    assert split.length == windows[fits].max(initial=2)
    assert (np.diff(fits.astype(int)) <= 0).all()


def test_noise_starts_clean_and_ends_noisy_and_its_runs_are_uniform() -> None:
    seen = Counter(tuple(noise_mask(5, 3, 2, generator("mask", i)).tolist()) for i in range(4000))
    # Two clean tokens in two runs: one way. Three noise tokens in two runs: two ways.
    assert set(seen) == {(False, True, False, True, True), (False, True, True, False, True)}
    assert all(1850 < count < 2150 for count in seen.values())


def test_denoisers_come_with_their_weights_and_windows_move_with_the_epoch() -> None:
    denoisers = (
        Denoiser(paradigm="S", rate=0.25, weight=1),
        Denoiser(paradigm="R", rate=0.15, mean_span=3, weight=3),
        Denoiser(paradigm="X", rate=0.5, mean_span=3, weight=0),
    )
    splits = splits_of(denoisers, 900, 100, 100, 2000)
    counts = Counter(split.paradigm for split in splits)
    assert set(counts) == {"S", "R"}
    assert 1400 < counts["R"] < 1600
    ends = [split.start + split.length for split in splits]
    assert min(split.start for split in splits) < 20
    assert max(ends) > 880
    assert max(ends) <= 900


def test_seven_denoisers_equally_often_by_default() -> None:
    counts = Counter(
        (split.paradigm, split.noise, split.spans)
        for split in splits_of(ObjectiveSettings().denoisers, 1000, 2000, 2000, 3500)
    )
    # Table 1 of UL2: mean span and rate; the suffix has the last quarter.
    wanted = {("R", 150, 50), ("R", 150, 19), ("S", 250, 0)}
    wanted |= {("X", 500, 167), ("X", 500, 62), ("X", 150, 2), ("X", 500, 8)}
    assert set(counts) == wanted
    assert all(400 < count < 600 for count in counts.values())


def test_prefix_lm_cuts_anywhere_and_causal_lm_asks_for_everything() -> None:
    prefix, causal = (OBJECTIVES[name].denoiser for name in ("prefix_lm", "causal_lm"))
    assert prefix
    assert causal
    asked = [split.noise for split in splits_of([prefix], 100, 500, 500, 2000)]
    assert (min(asked), max(asked)) == (1, 100)
    assert np.histogram(asked, 4, (0, 100))[0].tolist() == pytest.approx([500] * 4, rel=0.15)
    assert {(split.inputs, split.targets) for split in splits_of([causal], 100, 500, 500, 5)} == {(0, 100)}


def test_cm3_moves_one_to_sixteen_spans_mostly_one() -> None:
    cm3 = OBJECTIVES["cm3"].denoiser
    assert cm3
    splits = splits_of([cm3], 300, 500, 500, 2000)
    counts = Counter(split.spans for split in splits)
    # Poisson of mean 1, nothing counted as one: 0.736, 0.184, 0.061, …
    assert [counts[k] / 2000 for k in (1, 2, 3)] == pytest.approx([0.736, 0.184, 0.061], abs=0.03)
    assert all(split.inputs == 0 and split.targets == 300 + 2 * split.spans for split in splits)
    many = Denoiser(paradigm="S", rate=1.0, moved_spans=16)
    assert max(split.spans for split in splits_of([many], 300, 500, 500, 200)) == 16
    assert {split.spans for split in splits_of([many], 3, 500, 500, 20)} == {2}


def test_moved_spans_by_hand() -> None:
    ids = np.arange(100, 105)
    seen = {tuple(move_spans(ids, 1, generator("move", i), VOCABULARY).tolist()) for i in range(400)}
    s = 33199
    assert (100, s, 103, 104, s, 101, 102) in seen
    assert (s, s, 100, 101, 102, 103, 104) in seen
    assert len(seen) == 15  # two of six places


@settings(max_examples=100)
@given(
    pieces=st.lists(st.integers(0, 12), min_size=1, max_size=6), spans=st.integers(1, 4), key=st.integers(0, 1 << 30)
)
def test_no_moved_span_crosses_a_break(pieces: list[int], spans: int, key: int) -> None:
    vocabulary = TextVocabulary(320, VocabularyLayout(specials=(BREAK,)))
    mark = vocabulary.special(BREAK)
    ids = np.array([token for i, size in enumerate(pieces) for token in ([mark] * (i > 0) + [10 + i] * size)], int)
    spans = min(spans, most_moved(len(ids)))
    moved = move_spans(ids, spans, generator("break", key), vocabulary)
    assert len(moved) == len(ids) + 2 * spans
    sentinels = [vocabulary.sentinel(i) for i in range(spans)]
    end = len(moved) - 1 - moved[::-1].tolist().index(sentinels[0]) if spans else len(moved)
    for span in np.split(moved[end:], np.flatnonzero(np.isin(moved[end:], sentinels)))[1:]:
        assert len(set(span[1:].tolist())) <= 1
        assert mark not in span


def test_generate_shows_nothing_and_cuts_at_the_end() -> None:
    split = whole_target(50, 20, 0)
    inputs, targets = split.apply(np.arange(50), VOCABULARY)
    assert inputs.tolist() == []
    assert targets.tolist() == list(range(20))


def test_denoisers_are_named_or_written_out() -> None:
    settings = ObjectiveSettings.model_validate(
        {"denoisers": ["cm3", {"name": "prefix_lm", "weight": 2}, {"paradigm": "R", "rate": 0.15, "mean_span": 3}]}
    )
    cm3, prefix, r3 = settings.denoisers
    assert cm3 == OBJECTIVES["cm3"].denoiser
    assert (prefix.rates, prefix.weight) == ((0, 1), 2)
    assert r3 == UL2[0]
    assert ObjectiveSettings.model_validate(settings.model_dump(mode="json")) == settings
    task = {"name": "t", "rate": 1, "sources": ("s",), "target": "text:body"}
    assert settings.denoisers_of(Task(objective="text_denoising", **task)) == settings.denoisers
    assert settings.denoisers_of(Task(objective="cm3", **task)) == (cm3,)


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
        {"denoisers": [{"paradigm": "S", "rate": [0.7, 0.3]}]},
        {"denoisers": [{"paradigm": "S", "rate": [0, 0]}]},
        {"denoisers": [{"paradigm": "R", "rate": [0.0, 0.3], "mean_span": 3}]},
        {"denoisers": [{"paradigm": "R", "rate": 0.3, "mean_span": 3, "moved_spans": 1}]},
        {"denoisers": ["ul2_r3"]},
        {"denoisers": [{"name": "cm3", "weight": -1}]},
        {"denoisers": ["generate"]},
        {"token_budgets": {"input_tokens": [5, 4]}},
        {"token_budgets": {"alphas": []}},
    ],
)
def test_impossible_settings_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        ObjectiveSettings.model_validate(wrong)


def test_an_unknown_objective_says_what_is_allowed() -> None:
    with pytest.raises(ValidationError, match=r"allowed: generate, text_denoising, .*did you mean 'ul2_r3_15'"):
        Task(name="t", rate=1, sources=("s",), target="text:body", objective="ul2_r3_1")


@pytest.mark.parametrize("alpha", [0.01, 0.1, 1.0, 10.0])
def test_modalities_share_budgets_by_a_dirichlet_distribution(alpha: float) -> None:
    count, plenty = 4000, np.full(4000, 10**6)
    media: dict[Modality, Medium] = dict.fromkeys(("image", "audio"), Medium(plenty, plenty, 10**6, 10**6))
    settings = TokenBudgets(input_tokens=(9000, 9000), target_tokens=(500, 1500), alphas=(alpha,))
    found = portions(settings, plenty, 10**6, media, subkey_many(3, np.arange(count, dtype=np.uint64)))
    shown = np.stack([found.shown[name] for name in ("text", "image", "audio")])
    assert (shown.sum(axis=0) == 9000).all()
    shares = shown / 9000
    assert shares.mean(axis=1) == pytest.approx([1 / 3] * 3, abs=0.025)
    assert shares.var(axis=1) == pytest.approx([2 / 9 / (3 * alpha + 1)] * 3, rel=0.1)
    totals = sum(found.asked.values())
    assert (totals.min(), totals.max()) == (pytest.approx(500, abs=5), pytest.approx(1500, abs=5))
    # The two sides are drawn apart.
    assert abs(np.corrcoef(found.shown["text"], found.asked["text"] / totals)[0, 1]) < 0.06


def test_a_modality_that_is_not_there_gets_nothing_and_one_that_is_short_leaves_the_rest() -> None:
    none, few, many = np.zeros(500, np.int64), np.full(500, 7), np.full(500, 400)
    media: dict[Modality, Medium] = {"image": Medium(many, none, 500, 500), "audio": Medium(none, none, 99, 99)}
    found = portions(TokenBudgets(), few, 100, media, subkey_many(3, np.arange(500, dtype=np.uint64)))
    assert (found.shown["audio"] == 0).all()
    assert (found.shown["text"] <= 7).all()
    # Pictures without codes are input only.
    assert (found.asked["image"] == 0).all()
    assert (found.asked["text"] == 7).all()


def test_the_page_tells_every_entry() -> None:
    page = (Path(__file__).parents[2] / "docs" / "training.md").read_text()
    table = page[page.index("## Objectives") : page.index("All that denoise text")]
    assert set(re.findall(r"`(\w+)`(?=[,|` ]+)", table)) >= set(OBJECTIVES)
