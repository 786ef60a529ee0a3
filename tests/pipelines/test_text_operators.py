"""Filters of text against values worked out by hand, and against a plain rewriting of their rules."""

from __future__ import annotations

import math
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from omnimill.pipelines.operators.text import TextBlocklist, TextLength, TextOperator
from omnimill.pipelines.operators.text_gopher import TextQuality
from omnimill.pipelines.operators.text_repetition import TextRepetition
from omnimill.schema import Example, Provenance, Text, to_table


def example(*texts: str, role: str = "body") -> Example:
    return Example(
        id="i",
        source="s",
        unit="u",
        key="k",
        provenance=Provenance(uri="", digest=""),
        text=[Text(role=role, text=text) for text in texts],
    )


def score(operator: TextOperator, text: str) -> dict[str, float]:
    one = example(text)
    operator([one])
    return one.meta.scores


def verdict(operator: TextOperator, *texts: str, role: str = "body") -> str | None:
    return operator([example(*texts, role=role)])[0]


def test_length_counts_characters_and_words() -> None:
    operator = TextLength(op="text_length", min_chars=3, max_chars=10, min_words=2, max_words=3)
    cases = {"a b": None, " ab ": "text_too_short", "abcd": "text_too_short", "a b c d": "text_too_long"}
    cases |= {"ab cd ef gh": "text_too_long", "": "text_too_short", "größe ü": None}
    assert operator([example(text) for text in cases]) == list(cases.values())
    assert score(operator, " größe ü\n") == {"text_chars": 7, "text_words": 2}


def test_only_the_named_roles_are_judged() -> None:
    operator = TextLength(op="text_length", min_chars=10, roles=("caption",))
    assert verdict(operator, "short", role="caption") == "text_too_short"
    assert verdict(operator, "short", role="label") is None
    assert verdict(operator, "short", "and more", role="caption") is None
    assert operator([]) == []
    assert operator([example()]) == [None]


LENIENT = {"min_words": None, "min_stop_words": None}


def test_quality_scores() -> None:
    text = "• one two\n- three #tag...\n\nfour…\nfour…\nthe 12"
    assert score(TextQuality(op="text_quality"), text) == pytest.approx(
        {
            # Words: •, one, two, -, three, #tag..., four…, four…, the, 12
            "text_words": 10,
            "mean_word_length": (1 + 3 + 3 + 1 + 5 + 7 + 5 + 5 + 3 + 2) / 10,
            "hashes_per_word": 1 / 10,
            "ellipses_per_word": 3 / 10,
            "letter_words": 7 / 10,
            "bullet_lines": 2 / 5,
            "ellipsis_lines": 3 / 5,
            "stop_words": 1,
        }
    )


PROSE = "the quick brown fox jumps over the lazy dog and runs away from here"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (PROSE, None),
        ("", "no_words"),
        (" \n\t", "no_words"),
        ("a b c d", "word_length"),
        ("extraordinarily incomprehensible", "word_length"),
        ("good #tags #make #spam", "many_symbols"),
        ("1234 5678 9012 word", "few_letters"),
        ("\n".join(f"- listed {word}s" for word in PROSE.split()[1:8]), "bullet_lines"),
        (
            "\n".join(f"{word} is a fine line of text about it and more …" for word in PROSE.split()[:5]),
            "ellipsis_lines",
        ),
    ],
)
def test_quality_rules(text: str, reason: str | None) -> None:
    lenient = {**LENIENT, "min_letter_words": 0.6, "min_mean_word_length": 2.9}
    assert verdict(TextQuality(op="text_quality", **lenient), text) == reason


def test_quality_bounds_the_number_of_words() -> None:
    operator = TextQuality(op="text_quality", max_words=150)
    assert verdict(operator, " ".join([PROSE] * 3)) == "few_words"
    assert verdict(operator, " ".join([PROSE] * 5)) is None
    assert verdict(operator, " ".join([PROSE] * 11)) == "many_words"


def test_stop_words_are_those_of_the_language() -> None:
    german = ("der", "und", "die")
    operator = TextQuality(op="text_quality", min_words=1, stop_words={"de": german, "en": ("the", "and")})
    told = {"de": None, "de-AT": None, "en": "few_stop_words", None: "few_stop_words", "fr": None}
    for language, reason in told.items():
        one = example("Der Hund, die Katze UND eine Maus laufen")
        one.meta.language = language
        assert operator([one]) == [reason], language
    unsure = operator.model_copy(update={"assume_language": None})
    assert verdict(unsure, "Der Hund läuft hinter seiner Katze") is None
    with pytest.raises(ValidationError, match="one word"):
        TextQuality(op="text_quality", stop_words={"en": ("of the",)})


def test_a_bound_of_none_only_measures() -> None:
    bounds = [name for name in TextQuality.model_fields if name.startswith(("min_", "max_"))]
    operator = TextQuality(op="text_quality", **dict.fromkeys(bounds))
    assert verdict(operator, "#### ……… ### 1") is None
    assert score(operator, "#### ……… ### 1")["hashes_per_word"] == 7 / 4
    runs = TextRepetition(op="text_repetition", top={2: None}, duplicate={2: None}, max_repeated_lines=None)
    assert verdict(runs, "a b a b a b a b") is None
    assert score(runs, "a b a b a b a b")["duplicate_2gram"] == 1


CHINESE = "人人生而自由。在尊严和权利上一律平等。他们赋有理性和良心。并应以兄弟关系的精神相对待。"
THAI = "มนุษย์ทั้งหลายเกิดมามีอิสระและเสมอภาคกันในเกียรติศักดิ์และสิทธิ ต่างมีเหตุผลและมโนธรรม"


@pytest.mark.parametrize("text", [CHINESE, THAI, CHINESE + " UN 1948"])
def test_scripts_without_spaces_are_not_judged_by_words(text: str) -> None:
    for operator in (TextQuality(op="text_quality"), TextRepetition(op="text_repetition")):
        assert verdict(operator, text) is None
        assert not {"text_words", "mean_word_length", "top_2gram"} & set(score(operator, text))
    assert verdict(TextLength(op="text_length", min_words=20), text) is None
    assert verdict(TextLength(op="text_length", min_chars=500), text) == "text_too_short"
    assert verdict(TextRepetition(op="text_repetition"), "\n".join([text] * 3)) == "repeated_lines"
    # Letters of scripts with spaces in the majority: words count.
    assert score(TextQuality(op="text_quality"), f"{PROSE} {PROSE} 人权")["text_words"] == 29


def test_repeated_lines_and_paragraphs() -> None:
    lines = score(TextRepetition(op="text_repetition"), "aaaa\nbb\n aaaa \n\ncc\nbb")
    assert lines["repeated_lines"] == 2 / 5
    assert lines["repeated_line_chars"] == 6 / 14
    assert lines["repeated_paragraphs"] == 0
    text = "one\ntwo\n\nthree\n \n\none\ntwo"
    paragraphs = score(TextRepetition(op="text_repetition"), text)
    assert paragraphs["repeated_paragraphs"] == 1 / 3
    assert paragraphs["repeated_paragraph_chars"] == 7 / 19
    assert verdict(TextRepetition(op="text_repetition"), text) == "repeated_lines"
    by_paragraph = TextRepetition(op="text_repetition", max_repeated_lines=None, max_repeated_line_chars=None)
    assert verdict(by_paragraph, text) == "repeated_paragraphs"


def test_a_repeated_run_is_measured_by_characters() -> None:
    operator = TextRepetition(op="text_repetition", top={2: 0.5}, duplicate={2: 0.5, 3: 0.5})
    # "aa bb" comes twice: 2 x 4 of the 15 characters. No run of three words repeats.
    found = score(operator, "aa bb ccc aa bb dddd")
    assert (found["top_2gram"], found["duplicate_2gram"], found["duplicate_3gram"]) == (8 / 15, 8 / 15, 0)
    assert verdict(operator, "aa bb ccc aa bb dddd") == "top_2gram"
    assert verdict(operator, "one two three four") is None
    assert verdict(operator, "one") is None
    assert set(score(operator, "").values()) == {0}


def rewritten(text: str, n: int) -> tuple[float, float]:
    """The two shares of `text_repetition`, word by word."""
    words = text.split()
    runs = [tuple(words[i : i + n]) for i in range(len(words) - n + 1)]
    times = Counter(runs)
    total = sum(map(len, words))
    most = max(times.values(), default=0)
    top = max((count * sum(map(len, run)) for run, count in times.items() if count == most > 1), default=0)
    covered = {i + k for i, run in enumerate(runs) if times[run] > 1 for k in range(n)}
    return top / total, sum(len(words[i]) for i in covered) / total


@settings(max_examples=60)
@given(st.lists(st.lists(st.sampled_from(["a", "bb", "ccc", "é"]), min_size=1, max_size=25), min_size=1, max_size=5))
def test_repetition_agrees_with_its_rules_written_plainly(documents: list[list[str]]) -> None:
    operator = TextRepetition(op="text_repetition", top={1: 1, 2: 1, 3: 1}, duplicate={1: 1, 2: 1, 4: 1})
    examples = [example(" ".join(words)) for words in documents]
    operator(examples)
    for one in examples:
        text = one.text[0].text
        for n in (1, 2, 3):
            assert one.meta.scores[f"top_{n}gram"] == pytest.approx(rewritten(text, n)[0])
        for n in (1, 2, 4):
            assert one.meta.scores[f"duplicate_{n}gram"] == pytest.approx(rewritten(text, n)[1])


def test_blocked_words_are_whole_and_in_any_case() -> None:
    operator = TextBlocklist(op="text_blocklist", words=("lorem  ipsum", "c++", "straße"))
    cases = {
        "Here is Lorem\nIPSUM, again": "blocked_word",
        "lorem": None,
        "deplorem ipsum": None,
        "I like C++.": "blocked_word",
        "abc++ d": None,
        "die STRASSE": None,
        "die Straße": "blocked_word",
        "straße": "blocked_word",
    }
    assert operator([example(text) for text in cases]) == list(cases.values())
    with pytest.raises(ValidationError, match="blank word"):
        TextBlocklist(op="text_blocklist", words=("fine", " "))


def test_scores_can_be_stored() -> None:
    examples = [example("", PROSE), example("x"), example(role="label")]
    for operator in (
        TextLength(op="text_length"),
        TextQuality(op="text_quality"),
        TextRepetition(op="text_repetition"),
        TextBlocklist(op="text_blocklist", words=("no",)),
    ):
        operator(examples)
    scores = [dict(row) for row in to_table(examples).column("meta").combine_chunks().field("scores").to_pylist()]
    assert scores[0]["text_words"] == len(PROSE.split())
    assert scores[2] == {}
    assert all(math.isfinite(value) for row in scores for value in row.values())
