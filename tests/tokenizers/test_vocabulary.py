"""Ids of added tokens are the published ones, for any size of text model."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from omnimill.errors import OmnimillError
from omnimill.tokenizers.vocabulary import CODE_OFFSET, TextVocabulary, code_rows

REFERENCE = TextVocabulary(32000)


def test_published_ids() -> None:
    v = REFERENCE
    assert (v.PAD, v.BOS, v.EOS, v.UNKNOWN) == (0, 0, 1, 2)
    assert (v.location(0), v.location(999)) == (32999, 32000)
    assert (v.sentinel(0), v.sentinel(199)) == (33199, 33000)
    assert [v.image_history(k) for k in range(1, 9)] == list(range(33200, 33216, 2))
    assert [v.audio_history(k) for k in range(1, 9)] == list(range(33201, 33216, 2))
    assert (v.image_input, v.audio_input) == (33216, 33217)
    assert [v.prefix("text", p) for p in "SRX"] == [33218, 33219, 33220]  # type: ignore[arg-type]
    assert [v.prefix("image", p) for p in "SR"] == [33221, 33222]  # type: ignore[arg-type]
    assert [v.prefix("audio", p) for p in "SR"] == [33223, 33224]  # type: ignore[arg-type]
    assert (v.size, v.rows) == (33225, 33280)


def test_rows_of_code_tables() -> None:
    assert (code_rows(16384), code_rows(8192)) == (16512, 8320)
    assert code_rows(126) == 128
    assert code_rows(127) == 256
    assert CODE_OFFSET == 2


@given(st.integers(300, 40000))
def test_every_added_id_is_distinct_and_the_range_is_full(pieces: int) -> None:
    v = TextVocabulary(pieces)
    added = [v.location(b) for b in range(1000)] + [v.sentinel(i) for i in range(200)]
    added += [v.image_history(k) for k in range(1, 9)] + [v.audio_history(k) for k in range(1, 9)]
    added += [v.image_input, v.audio_input, *(v.prefix("text", p) for p in ("S", "R", "X"))]
    added += [v.prefix(m, p) for m in ("image", "audio") for p in ("S", "R")]
    assert sorted(added) == list(range(pieces, v.size))
    assert v.rows % 128 == 0
    assert v.size <= v.rows < v.size + 128
    assert all(v.location_bin(v.location(b)) == b for b in range(1000))


def test_surface_forms() -> None:
    v = TextVocabulary(500)
    assert v.surface(v.sentinel(7)) == "<extra_id_7>"
    assert v.surface(v.location(0)) == "<extra_id_200>"
    assert v.surface(v.audio_history(3)) == "<audio_history_3>"
    assert v.surface(v.prefix("image", "R")) == "[Image] [R]"
    assert v.surface(v.EOS) == "</s>"
    assert v.surface(3) is None
    assert v.surface(v.size) == f"<unused_{v.size}>"
    names = [v.surface(token) for token in range(500, v.rows)]
    assert len(set(names)) == len(names)


def test_what_does_not_exist_is_an_error() -> None:
    v = REFERENCE
    for call in (
        lambda: v.location(1000),
        lambda: v.location(-1),
        lambda: v.sentinel(200),
        lambda: v.image_history(0),
        lambda: v.audio_history(9),
        lambda: v.prefix("image", "X"),
        lambda: v.location_bin(33000),
    ):
        with pytest.raises(OmnimillError):
            call()


def test_golden_ids_of_added_pieces(parity: Path) -> None:
    """The reference vocabulary's ids, for its own size and for a small model."""
    file = parity / "tokenizer" / "tokenizer_cases.json"
    if not file.exists():
        return
    golden = json.loads(file.read_text())
    small = TextVocabulary(golden["base_vocab"])
    assert small.size == golden["total_vocab"]
    by_surface = {REFERENCE.surface(i): i for i in range(REFERENCE.size) if REFERENCE.surface(i)}
    small_ids = {small.surface(i): i for i in range(small.size) if small.surface(i)}
    for piece, ids in golden["pieces"].items():
        surface = piece.removeprefix("▁").replace("▁", " ")
        assert by_surface[surface] == ids["id_with_llama_32000_base"]
        assert small_ids[surface] == ids["id"]
