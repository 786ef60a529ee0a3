"""The text tokenizer: training, round trips, special tokens that text cannot forge."""

from __future__ import annotations

import io
import json
import pickle
import re
import struct
from pathlib import Path

import pytest
import sentencepiece
from hypothesis import given, settings
from hypothesis import strategies as st

from omnimill.errors import BadRecord, OmnimillError
from omnimill.tokenizers.text import BpeConfig, TextTokenizer, sample_texts, train_bpe
from omnimill.tokenizers.vocabulary import TextVocabulary
from omnimill.vocabulary_layout import Growth, VocabularyLayout

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


def stored_piece(text: str, kind: int) -> bytes:
    """A piece as a model file holds it: field 1, a message of its text, its score and its type."""
    piece = text.encode()
    body = b"\x0a" + bytes([len(piece)]) + piece + b"\x15" + struct.pack("<f", -1000.0) + bytes([0x18, kind])
    return b"\x0a" + bytes([len(body)]) + body


def as_reference(model: bytes, vocabulary: TextVocabulary) -> sentencepiece.SentencePieceProcessor:
    """The model with the added tokens as the reference has them: user-defined pieces that carry the word boundary."""
    surfaces = [str(vocabulary.surface(token)).replace(" ", "\u2581") for token in vocabulary.marks()]
    processor = sentencepiece.SentencePieceProcessor()
    processor.LoadFromSerializedProto(model + b"".join(stored_piece(f"\u2581{name}", kind=4) for name in surfaces))
    return processor


marked = st.lists(
    st.sampled_from(
        ["<extra_id_0>", "<extra_id_1199>", "[Text] [S]", "[Text][S]", "<image_input>", " ", "  ", "red", "a.", "中"]
    )
    | st.text(max_size=3),
    max_size=8,
).map("".join)


@given(text=marked)
@settings(max_examples=150)
def test_marked_text_is_read_as_the_reference_reads_it(tokenizer: TextTokenizer, text: str) -> None:
    v = tokenizer.vocabulary
    assert list(v.marks()) == list(range(v.pieces, v.size))
    reference = as_reference(tokenizer.model, v)
    controls = [reference.bos_id(), reference.eos_id(), reference.unk_id()]
    order = controls + [piece for piece in range(v.pieces) if piece not in controls] + list(range(v.pieces, v.size))
    assert tokenizer.encode_marked(text) == [order.index(piece) for piece in reference.EncodeAsIds(text)]
    assert tokenizer.decode(tokenizer.encode_marked(text)) == text.replace("\u2581", " ")


@pytest.mark.parametrize(
    ("text", "marks"),
    [
        ("[Text] [S] a cup", 1),
        ("[Text][S] a cup", 0),
        ("a<extra_id_0>", 0),
        ("a <extra_id_0>, b", 1),
        ("<extra_id_0><extra_id_1>", 1),
        ("<image_history_1> <audio_history_8> <image_history_9>", 2),
        ("</s> <0x41> <unused_1700>", 0),
        ("", 0),
    ],
)
def test_added_tokens_are_read_at_word_starts_only(tokenizer: TextTokenizer, text: str, marks: int) -> None:
    ids = tokenizer.encode_marked(text)
    assert sum(tokenizer.vocabulary.surface(token) is not None for token in ids) == marks
    assert tokenizer.decode(ids) == text


def test_other_layouts_write_and_read_their_own_tokens(tokenizer: TextTokenizer) -> None:
    layout = VocabularyLayout(locations=10, specials=("<break>",), joint=("image",))
    other = TextTokenizer.of(tokenizer.model, "other", TextVocabulary(0, layout, image_codes=16))
    v = other.vocabulary
    assert v.pieces == tokenizer.vocabulary.pieces
    ids = other.encode_marked("a cup <break> <image_code_3>")
    assert v.special("<break>") in ids
    assert v.table.id("image_code", 3) not in ids
    assert pickle.loads(pickle.dumps(other)).vocabulary == v
    assert other.encode("a red cup") == tokenizer.encode("a red cup")


def test_pieces_that_were_added_later_keep_the_ids_of_all_others(tokenizer: TextTokenizer) -> None:
    layout = VocabularyLayout(growth=(Growth(range="piece", count=2),))
    larger = tokenizer.model + stored_piece("\u2581cups", kind=1) + stored_piece("\u2581tables", kind=1)
    new = TextTokenizer.of(larger, "larger", TextVocabulary(0, layout))
    assert new.vocabulary.pieces == tokenizer.vocabulary.pieces + 2
    assert new.vocabulary.table.extends(tokenizer.vocabulary.table)
    used = range(tokenizer.vocabulary.size)
    assert [new.decode([token]) for token in used] == [tokenizer.decode([token]) for token in used]
    assert [new.decode([token]) for token in range(used.stop, new.vocabulary.size)] == ["cups", "tables"]


def test_bytes_and_long_and_empty_texts(tokenizer: TextTokenizer) -> None:
    assert tokenizer.encode("") == tokenizer.encode_marked("") == []
    text = "nul \0 in 中文 and emoji \U0001f600 " * 5000
    ids = tokenizer.encode(text)
    assert tokenizer.decode(ids) == text
    assert tokenizer.encode_marked(text) == ids
    for encode in (tokenizer.encode, tokenizer.encode_marked):
        with pytest.raises(BadRecord) as caught:
            encode("half \ud800 a pair")
        assert caught.value.reason == "text_not_unicode"


def test_a_model_without_byte_fallback_has_unknown_pieces() -> None:
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.Train(
        sentence_iterator=iter(CORPUS), model_writer=model, model_type="bpe", vocab_size=60, hard_vocab_limit=False,
        minloglevel=2,
    )  # fmt: skip
    tokenizer = TextTokenizer.of(model.getvalue(), "no bytes")
    ids = tokenizer.encode("red 中 cup")
    assert ids.count(TextVocabulary.UNKNOWN) == 1
    assert tokenizer.decode(ids) == "red  <unk> cup"


def test_golden_cases_of_a_llama_like_model(parity: Path) -> None:
    file = parity / "tokenizer" / "tokenizer_cases.json"
    if not file.exists():
        return
    tokenizer = TextTokenizer(file.parent / "mini_llama_like.model")
    for case in json.loads(file.read_text())["cases"]:
        assert tokenizer.encode_marked(case["text"]) == case["ids"], case["text"]
        assert tokenizer.decode(case["ids"]) == case["decoded"]
        if not re.search(r"<extra|_history_|_input|\[S\]|\[R\]|\[X\]", case["text"]):
            assert tokenizer.encode(case["text"]) == case["ids"]
