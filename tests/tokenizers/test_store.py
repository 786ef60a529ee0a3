"""Stored sets: whole or absent, checked by content, older ones stay readable."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from omnimill.errors import IntegrityError, OmnimillError
from omnimill.infra import storage
from omnimill.tokenizers import store
from omnimill.tokenizers.store import StoredSet, Tokenizers, load_text, load_tokenizers, stored_set
from omnimill.tokenizers.text import BpeConfig, train_bpe
from omnimill.tokens import AudioLayout, ImageLayout, TokenLayout


def text_set(root: str, name: str, words: str) -> StoredSet:
    """A set of a text model alone."""
    files = {"text": train_bpe([words] * 30, BpeConfig(pieces=300))}
    stored = StoredSet(text_pieces=300, image=ImageLayout(), audio=AudioLayout(), digests=store.file_digests(files))
    store.publish(root, name, stored, files)
    return stored


def test_a_set_comes_back_as_it_was(root: str, tokenizers: Tokenizers) -> None:
    layout = tokenizers.layout
    assert layout.tokenizers == "mini"
    assert layout.text_pieces == tokenizers.text.vocabulary.pieces == 400
    assert set(layout.digests) == {"text", "image", "audio", "set"}
    again = load_tokenizers(root, "mini", layout.digests["set"])
    picture = np.random.default_rng(0).random((1, 32, 32, 3), np.float32)
    np.testing.assert_array_equal(again.image.encode(picture), tokenizers.image.encode(picture))
    assert again.layout == layout
    assert load_text(root, layout).encode("red block") == tokenizers.text.encode("red block")
    # A layout that names no digests means the current set.
    assert load_text(root, TokenLayout(tokenizers="mini", digests={})).model == tokenizers.text.model


def test_a_new_set_leaves_the_old_one_readable(tmp_path: Path) -> None:
    root = str(tmp_path)
    old, new = text_set(root, "words", "one small word"), text_set(root, "words", "another large sentence")
    assert load_tokenizers(root, "words").layout.digests["set"] == new.digest != old.digest
    assert load_tokenizers(root, "words", old.digest).text.model != load_tokenizers(root, "words").text.model


def test_how_a_set_was_made_is_not_what_it_is(tmp_path: Path) -> None:
    stored = text_set(str(tmp_path), "words", "one small word")
    assert stored.model_copy(update={"made": store.Made(recipe="x", quality={"a": 1.0})}).digest == stored.digest


def test_a_set_on_an_object_store() -> None:
    stored = text_set("memory://bucket/root", "words", "one small word")
    assert load_tokenizers("memory://bucket/root", "words", stored.digest).text.encode("small")


def test_a_damaged_file_is_found_out(tmp_path: Path) -> None:
    stored = text_set(str(tmp_path), "words", "one small word")
    url = storage.join(str(tmp_path), "tokenizers", "words", stored.digest, "text.model")
    Path(url).write_bytes(Path(url).read_bytes() + b"x")
    with pytest.raises(IntegrityError, match=r"text\.model: content hashes to"):
        load_tokenizers(str(tmp_path), "words")
    index = Path(url).with_name("tokenizers.json")
    index.write_text(index.read_text().replace('"text_pieces":300', '"text_pieces":301'))
    with pytest.raises(IntegrityError, match="content hashes to"):
        load_tokenizers(str(tmp_path), "words", stored.digest)


def test_sets_of_other_versions_of_the_program(tmp_path: Path) -> None:
    root = str(tmp_path)
    text_set(root, "words", "one small word")
    assert store.current_set(root, "words") == stored_set(root, "words")
    assert store.current_set(root, "others") is None
    index = tmp_path / "tokenizers" / "words" / "tokenizers.json"
    current = index.read_text()
    index.write_text(current.replace('"version":2', '"version":1'))
    with pytest.raises(IntegrityError, match=r"version 1; this omnimill reads 2; omnimill tokenizer train makes"):
        load_tokenizers(root, "words")
    assert store.current_set(root, "words") is None
    index.write_text(current.replace('"version":2', '"version":7'))
    with pytest.raises(IntegrityError, match=r"version 7; this omnimill reads 2$"):
        store.current_set(root, "words")


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(OmnimillError, match="omnimill tokenizer train"):
        load_tokenizers(str(tmp_path), "words")
    text_set(str(tmp_path), "words", "one small word")
    tokenizers = load_tokenizers(str(tmp_path), "words")
    with pytest.raises(OmnimillError, match="no image tokenizer"):
        _ = tokenizers.image
    with pytest.raises(OmnimillError, match="no audio tokenizer"):
        _ = tokenizers.audio
