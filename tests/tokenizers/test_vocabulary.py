"""Ids are the published ones by default, whatever the layout every id has one meaning, and growth keeps old ids."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from omnimill.errors import ConfigError, OmnimillError
from omnimill.tokenizers.vocabulary import CODE_MASK, CODE_OFFSET, CODE_START, TextVocabulary, Vocabulary, code_table
from omnimill.tokens import AudioLayout, ImageLayout, TokenLayout
from omnimill.vocabulary_layout import Growth, VocabularyLayout

REFERENCE = TextVocabulary(32000)
BY_DEFAULT = Vocabulary.of(TokenLayout(tokenizers="set", digests={}))

layouts = st.builds(
    VocabularyLayout,
    locations=st.sampled_from([0, 2, 10, 1000]),
    sentinels=st.integers(0, 12),
    history=st.integers(0, 5),
    inputs=st.sampled_from([(), ("image",), ("image", "audio")]),
    prefixes=st.sampled_from([(), ("text S",), ("text S", "image X", "audio R")]),
    specials=st.sampled_from([(), ("<break>",), ("<break>", "<mask>", "@@")]),
    joint=st.sampled_from([(), ("image",), ("audio", "image")]),
    row_multiple=st.sampled_from([1, 64, 128]),
)
vocabularies = st.builds(TextVocabulary, st.integers(3, 60), layouts, st.integers(1, 40), st.integers(1, 40)).map(
    Vocabulary
)


def grown(vocabulary: Vocabulary, steps: list[tuple[str, int]]) -> Vocabulary:
    """The vocabulary after tokens were added, one step after the other."""
    text = vocabulary.text
    totals = {"sentinels": text.layout.sentinels, "history": text.layout.history}
    specials, sizes = [*text.layout.specials], [text.pieces, text.image_codes, text.audio_codes]
    for kind, count in steps:
        match kind:
            case "sentinel":
                totals["sentinels"] += count
            case "history":
                totals["history"] += count
            case "special":
                specials += [f"<new_{len(specials) + i}>" for i in range(count)]
            case _:
                sizes[("piece", "image_code", "audio_code").index(kind)] += count
    growth = tuple(Growth(range=kind, count=count) for kind, count in steps)  # type: ignore[arg-type]
    layout = VocabularyLayout(
        **{**text.layout.model_dump(), **totals, "specials": tuple(specials), "growth": growth},
    )
    return Vocabulary(TextVocabulary(sizes[0], layout, sizes[1], sizes[2]))


def test_published_ids() -> None:
    v = REFERENCE
    assert (v.PAD, v.BOS, v.EOS, v.UNKNOWN) == (0, 0, 1, 2)
    assert (v.location(0), v.location(999)) == (32999, 32000)
    assert (v.sentinel(0), v.sentinel(199)) == (33199, 33000)
    assert v.sentinels.tolist() == list(range(33199, 32999, -1))
    assert [v.image_history(k) for k in range(1, 9)] == list(range(33200, 33216, 2))
    assert [v.audio_history(k) for k in range(1, 9)] == list(range(33201, 33216, 2))
    assert (v.image_input, v.audio_input) == (33216, 33217)
    assert [v.prefix("text", p) for p in "SRX"] == [33218, 33219, 33220]  # type: ignore[arg-type]
    assert [v.prefix("image", p) for p in "SR"] == [33221, 33222]  # type: ignore[arg-type]
    assert [v.prefix("audio", p) for p in "SR"] == [33223, 33224]  # type: ignore[arg-type]
    assert (v.size, v.rows) == (33225, 33280)


def test_published_code_tables() -> None:
    tables = BY_DEFAULT.tables
    assert {name: (table.size, table.rows) for name, table in tables.items()} == {
        "text": (33225, 33280),
        "image": (16386, 16512),
        "audio": (8194, 8320),
    }
    assert tables["image"].id("image_start") == CODE_START == 0
    assert tables["image"].id("image_mask") == CODE_MASK == 1
    assert BY_DEFAULT.code("image", 0) == BY_DEFAULT.code("audio", 0) == CODE_OFFSET == 2
    assert (BY_DEFAULT.code("image", 16383), BY_DEFAULT.code("audio", 8191)) == (16385, 8193)
    assert [code_table("image", codes).rows for codes in (126, 127)] == [128, 256]


def test_ranges_of_the_reference() -> None:
    told = [(r["range"], r["first_id"], r["last_id"], r["first_index"]) for r in REFERENCE.table.as_json()["ranges"]]
    assert told == [
        ("control", 0, 2, 0),
        ("piece", 3, 31999, 0),
        ("location", 32000, 32999, 999),
        ("sentinel", 33000, 33199, 199),
        ("history", 33200, 33215, 0),
        ("input", 33216, 33217, 0),
        ("prefix", 33218, 33224, 0),
    ]


@given(vocabularies)
@settings(max_examples=150)
def test_every_id_has_one_meaning_in_any_layout(vocabulary: Vocabulary) -> None:
    layout = vocabulary.text.layout
    for table in vocabulary.tables.values():
        assert table.rows % layout.row_multiple == 0
        assert table.size <= table.rows < table.size + layout.row_multiple
        found = [table.locate(token) for token in range(table.size)]
        assert len(set(found)) == table.size
        assert [table.id(*place) for place in found] == list(range(table.size))
        names = [surface for token in range(table.rows) if (surface := table.surface(token)) is not None]
        assert len(set(names)) == len(names)
        for outside in (-1, table.size):
            with pytest.raises(OmnimillError, match="not in use"):
                table.locate(outside)
    for medium, codes in (("image", vocabulary.text.image_codes), ("audio", vocabulary.text.audio_codes)):
        ids = [vocabulary.code(medium, code) for code in range(codes)]  # type: ignore[arg-type]
        assert [vocabulary.code_of(medium, token) for token in ids] == list(range(codes))  # type: ignore[arg-type]
        assert vocabulary.table_of(medium) is vocabulary.tables["text" if medium in layout.joint else medium]  # type: ignore[arg-type]
    v = vocabulary.text
    assert [v.piece_number(v.piece(number)) for number in range(v.pieces)] == list(range(v.pieces))
    assert all(v.piece_number(token) is None for token in v.marks())
    assert [v.is_location(v.location(b)) for b in range(layout.locations)] == [True] * layout.locations


kinds = st.sampled_from(["sentinel", "history", "special", "piece", "image_code", "audio_code"])


@given(vocabularies, st.lists(st.tuples(kinds, st.integers(1, 5)), max_size=5))
@settings(max_examples=150)
def test_growth_keeps_every_old_id(vocabulary: Vocabulary, steps: list[tuple[str, int]]) -> None:
    later = grown(vocabulary, steps)
    for name, old in vocabulary.tables.items():
        new = later.tables[name]
        assert new.extends(old)
        assert new.size >= old.size
        assert not old.extends(new) or new.size == old.size
        for token in range(old.size):
            assert new.locate(token) == old.locate(token)
            assert new.surface(token) == old.surface(token)
        places = [new.locate(token) for token in range(new.size)]
        assert [new.id(*place) for place in places] == list(range(new.size))
        names = [surface for token in range(new.rows) if (surface := new.surface(token)) is not None]
        assert len(set(names)) == len(names)
    for kind, _ in steps:
        with pytest.raises(OmnimillError, match="does not exist"):
            table = later.tables.get(kind.removesuffix("_code"), later.text.table)
            table.id(kind, table.count(kind))


def test_growth_by_hand() -> None:
    layout = VocabularyLayout(
        sentinels=300,
        specials=("<break>",),
        growth=(Growth(range="special", count=1), Growth(range="sentinel", count=100)),
    )
    v = TextVocabulary(32000, layout)
    assert v.table.extends(REFERENCE.table)
    assert v.special("<break>") == 33225
    assert (v.sentinel(199), v.sentinel(200), v.sentinel(299)) == (33000, 33325, 33226)
    assert (v.surface(33000), v.surface(33325)) == ("<extra_id_199>", "<extra_id_1200>")
    shifted = TextVocabulary(32000, VocabularyLayout(sentinels=300))
    assert not shifted.table.extends(REFERENCE.table)


def test_a_larger_codebook_keeps_ids_in_its_own_table_and_by_growth_in_a_joint_one() -> None:
    assert code_table("image", 20000).extends(code_table("image", 16384))
    old = TextVocabulary(100, VocabularyLayout(joint=("image", "audio")), 64, 32)
    assert not TextVocabulary(100, old.layout, 80, 32).table.extends(old.table)
    growth = (Growth(range="image_code", count=16),)
    assert TextVocabulary(100, VocabularyLayout(joint=("image", "audio"), growth=growth), 80, 32).table.extends(
        old.table
    )


def test_one_id_space_for_decoder_only_models() -> None:
    """JAM's: text, a token between modalities, and the 8,192 codes of its picture tokenizer."""
    layout = VocabularyLayout(
        locations=0, sentinels=0, history=0, inputs=(), prefixes=(), specials=("<break>",), joint=("image",)
    )
    vocabulary = Vocabulary(TextVocabulary(50000, layout, image_codes=8192, audio_codes=8192))
    assert list(vocabulary.tables) == ["text", "audio"]
    assert vocabulary.text.special("<break>") == 50000
    assert (vocabulary.code("image", 0), vocabulary.code("image", 8191)) == (50001, 58192)
    assert (vocabulary.text.size, vocabulary.text.rows) == (58193, 58240)
    assert vocabulary.text.surface(50006) == "<image_code_5>"
    for call in (
        lambda: vocabulary.code_of("image", 50000),
        lambda: vocabulary.text.location(0),
        lambda: vocabulary.text.prefix("text", "S"),
        lambda: vocabulary.text.special("<mask>"),
    ):
        with pytest.raises(OmnimillError):
            call()


def test_another_picture_tokenizer() -> None:
    layout = TokenLayout(image=ImageLayout(codes=1024), audio=AudioLayout(codes=100), tokenizers="x", digests={})
    rows = {name: table.rows for name, table in Vocabulary.of(layout).tables.items()}
    assert rows == {"text": 33280, "image": 1152, "audio": 128}


def test_surface_forms() -> None:
    v = TextVocabulary(500)
    assert v.surface(v.sentinel(7)) == "<extra_id_7>"
    assert v.surface(v.location(0)) == "<extra_id_200>"
    assert v.surface(v.audio_history(3)) == "<audio_history_3>"
    assert v.surface(v.prefix("image", "R")) == "[Image] [R]"
    assert v.surface(v.EOS) == "</s>"
    assert v.surface(3) is None
    assert v.surface(v.size) == f"<unused_{v.size}>"


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
        lambda: v.location_bin(-1),
        lambda: v.table.id("dense"),
    ):
        with pytest.raises(OmnimillError):
            call()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"locations": 1}, "at least 2"),
        ({"specials": ["<a>", "<a>"]}, "appears twice"),
        ({"specials": [" <a>"]}, "without spaces at its ends"),
        ({"specials": ["<extra_id_7>"]}, "surface form of another token"),
        ({"specials": ["[Image] [X]"]}, "surface form of another token"),
        ({"prefixes": ["text Q"]}, "text S"),
        ({"growth": [{"range": "sentinel", "count": 201}]}, "there are 200 in all"),
        ({"growth": [{"range": "location", "count": 1}]}, "sentinel"),
    ],
)
def test_layouts_that_contradict_themselves_are_refused(settings: dict[str, object], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        VocabularyLayout.model_validate(settings)


def test_more_codes_cannot_have_been_added_than_there_are() -> None:
    with pytest.raises(ConfigError, match="adds 9 of 'image_code', but there are 8 in all"):
        code_table("image", 8, VocabularyLayout(growth=(Growth(range="image_code", count=9),)))


def test_golden_ids_of_added_pieces(parity: Path) -> None:
    """The reference vocabulary's ids, for its own size and for a small model."""
    file = parity / "tokenizer" / "tokenizer_cases.json"
    if not file.exists():
        return
    golden = json.loads(file.read_text())
    small = TextVocabulary(golden["base_vocab"])
    assert small.size == golden["total_vocab"]
    assert REFERENCE.size == golden["total_with_llama"]
    by_surface = {REFERENCE.surface(i): i for i in range(REFERENCE.size) if REFERENCE.surface(i)}
    small_ids = {small.surface(i): i for i in range(small.size) if small.surface(i)}
    for piece, ids in golden["pieces"].items():
        surface = piece.removeprefix("▁").replace("▁", " ")
        assert by_surface[surface] == ids["id_with_llama_32000_base"]
        assert small_ids[surface] == ids["id"]
        if ids["id"] >= golden["base_vocab"]:
            assert ids["id"] - golden["base_vocab"] == ids["offset_from_base"]
