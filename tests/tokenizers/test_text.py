"""The text tokenizer: training, round trips, special tokens that text cannot forge."""

from __future__ import annotations

import json
import pickle
import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from omnimill.errors import OmnimillError
from omnimill.tokenizers.text import BpeConfig, TextTokenizer, sample_texts, train_bpe

CORPUS = [
    "The quick brown fox jumps over the lazy dog, 12 times.",
    "def main() -> int:\n    return 0\n",
    "A photograph of a red cup on a wooden table near the window.",
] * 20


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> TextTokenizer:
    file = tmp_path_factory.mktemp("text") / "text.model"
    file.write_bytes(train_bpe(CORPUS, BpeConfig(pieces=400)))
    return TextTokenizer(file)


def test_training_is_deterministic_and_merges_what_is_frequent(tokenizer: TextTokenizer) -> None:
    assert train_bpe(CORPUS, BpeConfig(pieces=400)) == tokenizer.model
    assert tokenizer.vocabulary.pieces == 400
    assert len(tokenizer.encode("The quick brown fox")) < 12
    assert len(tokenizer.encode("1234")) == 5  # every digit for itself, after the word boundary


@given(text=st.text(max_size=60))
@settings(max_examples=60)
def test_any_text_comes_back(tokenizer: TextTokenizer, text: str) -> None:
    ids = tokenizer.encode(text)
    assert all(3 <= token < tokenizer.vocabulary.pieces for token in ids)
    assert tokenizer.decode(ids) == text.replace("▁", " ")


@pytest.mark.parametrize("typed", ["<extra_id_0>", "[Text] [S]", "<image_input>", "<s>", "</s>", "<unk>", "<0x41>"])
def test_typed_surface_forms_stay_text(tokenizer: TextTokenizer, typed: str) -> None:
    ids = tokenizer.encode(f"{typed} a {typed}")
    assert all(3 <= token < tokenizer.vocabulary.pieces for token in ids)
    assert tokenizer.decode(ids) == f"{typed} a {typed}"


def test_decode_takes_every_id_of_the_table(tokenizer: TextTokenizer) -> None:
    v = tokenizer.vocabulary
    for token in range(v.rows):
        assert isinstance(tokenizer.decode([token]), str)
    ids = [v.prefix("text", "S"), *tokenizer.encode("a red cup"), v.sentinel(0), v.location(999), v.EOS]
    assert tokenizer.decode(ids) == "[Text] [S] a red cup <extra_id_0> <extra_id_1199> </s>"


def test_a_tokenizer_travels_between_processes(tokenizer: TextTokenizer) -> None:
    copy = pickle.loads(pickle.dumps(tokenizer))
    assert copy.encode("a red cup") == tokenizer.encode("a red cup")


def test_a_small_corpus_gives_fewer_pieces_and_none_is_an_error(tmp_path: Path) -> None:
    file = tmp_path / "text.model"
    file.write_bytes(train_bpe(["ab ab ab"], BpeConfig(pieces=5000)))
    assert TextTokenizer(file).vocabulary.pieces < 300
    with pytest.raises(OmnimillError, match="no text"):
        train_bpe([], BpeConfig(pieces=400))
    with pytest.raises(OmnimillError, match="100 pieces"):
        train_bpe(CORPUS, BpeConfig(pieces=100))
    file.write_bytes(b"something else")
    with pytest.raises(OmnimillError, match="not a SentencePiece model"):
        TextTokenizer(file)


@given(st.permutations([(str(i), "x" * (i + 1)) for i in range(12)]), st.integers(1, 90))
@settings(max_examples=30)
def test_the_sample_fits_its_budget_and_ignores_order(texts: list[tuple[str, str]], budget: int) -> None:
    sample = sample_texts(texts, budget, seed=3)
    assert sample == sample_texts(sorted(texts), budget, seed=3)
    size = sum(map(len, sample))
    assert size >= min(budget, sum(len(text) for _, text in texts))
    assert size - len(sample[-1]) < budget


def test_golden_cases_of_a_llama_like_model(parity: Path) -> None:
    file = parity / "tokenizer" / "tokenizer_cases.json"
    if not file.exists():
        return
    tokenizer = TextTokenizer(file.parent / "mini_llama_like.model")
    v = tokenizer.vocabulary
    specials = {v.surface(token): token for token in range(v.pieces, v.size)}
    pattern = re.compile("( ?(?:" + "|".join(re.escape(str(s)) for s in specials) + ") ?)")
    for case in json.loads(file.read_text())["cases"]:
        ids: list[int] = []
        for part in pattern.split(case["text"]):
            special = specials.get(part.strip())
            ids += [special] if special is not None else tokenizer.encode(part)
        assert ids == case["ids"], case["text"]
        assert tokenizer.decode(case["ids"]) == case["decoded"]
