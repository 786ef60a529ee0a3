"""Near-duplicate texts: hashes of word runs, signatures, links, groups."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from omnimill.pipelines.dedup.base import EDGES, NODE
from omnimill.pipelines.dedup.components import cluster
from omnimill.pipelines.dedup.minhash import band_keys, signatures, similarity, sketch
from omnimill.pipelines.dedup.shingles import shingles_of
from omnimill.pipelines.dedup.stars import best_scores, both_ways, large_star, later_first, small_star, star_verdicts
from omnimill.pipelines.dedup.steps.text_near import TextNear
from omnimill.rng import generator

WORDS = [f"w{i}" for i in range(3000)]


def runs(text: str, n: int) -> list[tuple[str, ...]]:
    """What `shingles` hashes, the slow way: words by a regular expression, tuples of n of them."""
    unspaced = "\u0e00-\u0fff\u1000-\u107f\u1780-\u17ff\u3040-\uffff\U00010000-\U0010ffff"
    marks = "\u2000-\u207f\u3000-\u303f"
    folded = "".join(character.lower() if len(character.lower()) == 1 else character for character in text)
    words = re.findall(f"[{unspaced}]|[^\x00-/:-@[-`{{-\x7f{unspaced}{marks}]+", folded)
    return [tuple(words[i : i + n]) for i in range(max(len(words) - n + 1, min(len(words), 1)))]


texts = st.text(st.one_of(st.sampled_from("ab AB \n.é-字ม\u2019。😀"), st.characters(codec="utf-8")), max_size=60)


@settings(max_examples=200)
@given(st.lists(texts, min_size=1, max_size=6), st.integers(1, 4))
def test_equal_word_runs_have_equal_hashes_and_others_differ(many: list[str], n: int) -> None:
    # Characters whose lower case Python and Arrow see differently say nothing about runs of words.
    many = [re.sub("[\u0130\u03a3\u1e9e]", "", text) for text in many]
    found = shingles_of(many, n)
    expected = [run for text in many for run in runs(text, n)]
    assert np.diff(found.rows).tolist() == [len(runs(text, n)) for text in many]
    assert len(set(zip(expected, found.hashes.tolist(), strict=True))) == len(set(expected)) == len(set(found.hashes))


def words(*keys: Any, count: int = 300) -> list[str]:
    return [WORDS[i] for i in generator(*keys).integers(0, len(WORDS), count)]


def changed(text: list[str], share: float, *keys: Any) -> list[str]:
    random = generator("changed", *keys).random(len(text))
    return [f"{word}x" if value < share else word for word, value in zip(text, random, strict=True)]


def jaccard(a: str, b: str, n: int = 5) -> float:
    left, right = set(runs(a, n)), set(runs(b, n))
    return len(left & right) / len(left | right)


@pytest.mark.parametrize("length", [8, 60, 1000])
def test_signatures_estimate_jaccard_similarity(length: int) -> None:
    errors = []
    for i in range(150):
        first = words("estimate", i, count=length)
        pair = [" ".join(first), " ".join(changed(first, (i % 10) / 50, i))]
        values = signatures(shingles_of(pair, 5), 120)
        small = sketch(values)
        truth = jaccard(*pair)
        for estimate in (np.mean(values[0] == values[1]), similarity(small[:1], small[1:], 120)[0]):
            errors.append((estimate - truth) / np.sqrt(max(truth * (1 - truth), 0.02) / 120))
    # Unbiased, and spread like 120 independent comparisons (a set of few runs repeats its bins).
    assert abs(np.mean(errors)) < 0.35
    assert np.std(errors) < (2.5 if length == 8 else 1.25)


def test_band_keys_agree_where_bands_do() -> None:
    signature = generator("bands").integers(0, 3, (200, 12)).astype(np.uint16)
    keys = band_keys(signature, 4)
    bands = [(band, *row[3 * band : 3 * band + 3]) for row in signature.tolist() for band in range(4)]
    assert len(set(zip(bands, keys.reshape(-1).tolist(), strict=True))) == len(set(bands)) == len(np.unique(keys))


def near_table(many: list[str], step: TextNear) -> pa.Table:
    """What the graph gives `TextNear.keyed`, in one shard whose order of preference is the order of the texts."""
    column = pa.chunked_array(
        [pa.array([[{"text": text}] for text in many[i : i + 64]]) for i in range(0, len(many), 64)]
    )
    count = len(many)
    zeros = np.zeros(count, np.uint64)
    node = [zeros.astype(np.uint32), np.arange(count, dtype=np.uint32), zeros, zeros, np.arange(count, dtype=np.uint64)]
    features = step.featurizer()(pa.table({"text": column}))
    return pa.table([*node, features.column("signature")], names=[*NODE.names, "signature"])


@pytest.fixture(scope="module")
def planted() -> list[str]:
    """600 texts; the last 200 are those before them with a share of words changed that grows from 0 to 10 %."""
    originals = [words("planted", i) for i in range(400)]
    copies = [changed(original, i / 2000, "copy", i) for i, original in enumerate(originals[:200])]
    return [" ".join(text) for text in (*originals, *copies)]


def test_recall_and_precision_against_brute_force(planted: list[str]) -> None:
    step = TextNear(step="text_near", threshold=0.8)
    edges = step.link(step.keyed(near_table(planted, step)))
    found = {(b, a) for a, b in zip(edges.column("a_row").to_pylist(), edges.column("b_row").to_pylist(), strict=True)}
    truth = {(i, 400 + i): jaccard(planted[i], planted[400 + i]) for i in range(200)}
    assert found <= set(truth), "texts that have nothing in common are not linked"
    sure, never = (
        [pair for pair, value in truth.items() if test(value)] for test in (lambda j: j > 0.9, lambda j: j < 0.7)
    )
    assert len(sure) > 20 and len(never) > 20
    assert set(sure) <= found and not set(never) & found


def edges_of(pairs: list[tuple[int, int]]) -> pa.Table:
    """Links between rows whose number gives their shard, row, preference and id, in no simple way."""

    def node(i: int) -> list[int]:
        return [i % 3, i, i * 7 % 4, i * 5 % 11, i]

    columns = zip(*([*node(a), *node(b), (a + 2 * b) % 10 / 10] for a, b in pairs), strict=True)
    return pa.table([pa.array(column, field.type) for column, field in zip(columns, EDGES, strict=True)], schema=EDGES)


def ordered(table: pa.Table) -> pa.Table:
    return table.sort_by([(name, "ascending") for name in table.column_names])


@settings(max_examples=50)
@given(st.lists(st.tuples(st.integers(0, 30), st.integers(0, 30)).filter(lambda pair: pair[0] != pair[1]), min_size=1))
def test_star_rounds_find_the_connected_components(pairs: list[tuple[int, int]]) -> None:
    edges = edges_of(pairs)
    stars, before = both_ways(edges), None
    while before is None or ordered(stars) != ordered(before):
        stars, before = small_star(later_first(large_star(both_ways(stars)))), stars
    found = star_verdicts(pa.concat_tables([stars, best_scores(edges)]), "near")
    assert ordered(found) == ordered(cluster(edges, "near"))
