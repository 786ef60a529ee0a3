"""Numbers among text come back within the stated error, and what is no such writing is refused."""

from __future__ import annotations

import math

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from omnimill.errors import BadRecord, ConfigError
from omnimill.locations import UNIT, Range
from omnimill.tokenizers.number_format import DecimalFormat, LocationFormat, NumberFormat, number_format
from omnimill.tokenizers.text import TextTokenizer
from omnimill.tokenizers.vocabulary import TextVocabulary
from omnimill.vocabulary_layout import NumberLayout, VocabularyLayout

ends = st.floats(-1e5, 1e5)
ranges = st.tuples(ends, ends).map(lambda pair: Range(low=min(pair), high=max(pair)))
# Words as they come: with brackets, figures and spaces that look like the writing itself.
words = st.one_of(st.text(max_size=12), st.sampled_from(["[0.1000]", " ", "]", "[[", "1, 2", " a  b "])).map(
    lambda text: text.replace("\u2581", "")
)


def slack(within: Range) -> float:
    """What sums of numbers of this size may be off by."""
    return 1e-9 * max(abs(within.low), abs(within.high), 1e-3) + 1e-9 * (within.high - within.low)


@given(data=st.data(), within=st.lists(ranges, min_size=1, max_size=7))
@settings(max_examples=60)
def test_numbers_come_back_within_the_error(numbers: NumberFormat, data: st.DataObject, within: list[Range]) -> None:
    values = [data.draw(st.one_of(st.floats(r.low, r.high), st.sampled_from([r.low, r.high]))) for r in within]
    (found,) = numbers.read(numbers.write([values], within), within)
    for value, back, r in zip(values, found, within, strict=True):
        assert isinstance(back, float)
        assert r.low - slack(r) <= back <= r.high + slack(r)
        assert abs(value - back) <= numbers.error(r) + slack(r)


@given(value=st.floats(allow_nan=False, allow_infinity=False), within=ranges)
@example(value=1e308, within=UNIT)
@settings(max_examples=60)
def test_what_lies_outside_is_clipped(numbers: NumberFormat, value: float, within: Range) -> None:
    (found,) = numbers.read(numbers.write([[value]], [within]), [within])
    clipped = min(max(value, within.low), within.high)
    assert abs(found[0] - clipped) <= numbers.error(within) + slack(within)  # type: ignore[operator]


@given(parts=st.lists(st.one_of(words, st.tuples(st.floats(0, 1), st.floats(0, 1))), max_size=6))
@settings(max_examples=150)
def test_words_come_back_as_they_are(numbers: NumberFormat, parts: list[str | tuple[float, float]]) -> None:
    expected: list[str | tuple[float, float]] = []
    for part in parts:
        if isinstance(part, str) and expected and isinstance(expected[-1], str) and part:
            expected[-1] += f" {part}"
        elif part != "":
            expected.append(part)
    found = numbers.read(numbers.write(parts, (UNIT, UNIT)), (UNIT, UNIT))
    assert [part if isinstance(part, str) else len(part) for part in found] == [
        part if isinstance(part, str) else len(part) for part in expected
    ]
    for before, after in zip(expected, found, strict=True):
        if not isinstance(before, str):
            assert all(abs(a - float(b)) <= numbers.error(UNIT) + 1e-12 for a, b in zip(before, after, strict=True))


def test_location_tokens_by_hand(text: TextTokenizer) -> None:
    numbers = LocationFormat(text)
    n = text.vocabulary.pieces
    ids = numbers.write([(0.0, 0.5), "dog", (1.0, 2.0)], (UNIT, UNIT))
    assert ids == [n + 999, n + 500, *text.encode("dog"), n, n]
    assert numbers.read(ids, (UNIT, UNIT)) == [(0.0, 499 / 999), "dog", (1.0, 1.0)]


def test_decimals_by_hand(text: TextTokenizer) -> None:
    numbers = DecimalFormat(text, 2)
    within = (UNIT, Range(low=-10.0, high=10.0))
    assert text.decode(numbers.write([(0.5, -3.14159), "a [dog]", (7.0, -0.001)], within)) == (
        "[0.50, -3.14] a [[dog]] [1.00, 0.00]"
    )
    assert text.decode(DecimalFormat(text, 0).write([(7.6,)], within[1:])) == "[8]"
    assert numbers.error(UNIT) == 0.005


@pytest.mark.parametrize(
    ("written", "message"),
    [
        ("[0.5000 0.5000]", "at character 0"),
        ("[0.500, 0.5000]", "4 digits behind the point"),
        ("[0.5000, 0.5000", "at character 0"),
        ("dog 0.5] [0.5000, 0.5000]", "at character 7"),
        ("[0.5000, nan]", "at character 0"),
        ("[0.5000, 1e9]", "at character 0"),
        ("[0.5000, \u0660.\u0665\u0660\u0660\u0660]", "at character 0"),
        ("[0.5000]", "1 numbers in [0.5000]; allowed: groups of 2"),
        ("[0.5000, 0.5000, 0.5000]", "groups of 2"),
        ("[0.5000, 1.5000]", "the number 1.5; allowed: 0.0 to 1.0"),
        ("[0.5000, 0.5000]dog", "set off by one space"),
        ("[0.5000, 0.5000][0.5000, 0.5000]", "set off by one space"),
    ],
)
def test_malformed_decimals_are_refused(text: TextTokenizer, written: str, message: str) -> None:
    with pytest.raises(BadRecord) as caught:
        DecimalFormat(text, 4).read(text.encode(written), (UNIT, UNIT))
    assert caught.value.reason == "numbers_malformed"
    assert message in caught.value.message


def test_what_is_no_sequence_of_numbers_and_words_is_refused(text: TextTokenizer, numbers: NumberFormat) -> None:
    v = text.vocabulary
    ids = numbers.write([(0.5, 0.5), "dog"], (UNIT, UNIT))
    for stray in (v.EOS, v.sentinel(3), v.prefix("text", "S"), v.size):
        with pytest.raises(BadRecord, match="allowed: text and numbers"):
            numbers.read([*ids, stray], (UNIT, UNIT))
    with pytest.raises(BadRecord) as caught:
        numbers.read(numbers.write([(0.5,)], (UNIT,)), (UNIT, UNIT))
    assert caught.value.reason == "numbers_malformed"


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_numbers_that_are_not_finite_are_refused(numbers: NumberFormat, value: float) -> None:
    with pytest.raises(BadRecord) as caught:
        numbers.write([(0.5, value)], (UNIT, UNIT))
    assert caught.value.reason == "number_not_finite"


@given(locations=st.integers(2, 5000), share=st.floats(0, 1))
@settings(max_examples=60)
def test_any_number_of_location_tokens(text: TextTokenizer, locations: int, share: float) -> None:
    layout = VocabularyLayout(locations=locations)
    model = TextTokenizer.of(text.model, "text", TextVocabulary(0, layout))
    numbers = LocationFormat(model)
    ids = numbers.write([(share,)], (UNIT,))
    assert numbers.error(UNIT) == 1 / (locations - 1)
    ((back,),) = numbers.read(ids, (UNIT,))
    assert 0 <= share - float(back) + 1e-9 <= numbers.error(UNIT) + 2e-9
    assert numbers.write([(float(back),)], (UNIT,)) == ids


def test_location_tokens_need_location_tokens(text: TextTokenizer) -> None:
    model = TextTokenizer.of(text.model, "text", TextVocabulary(0, VocabularyLayout(locations=0)))
    with pytest.raises(ConfigError, match="needs location tokens"):
        number_format(NumberLayout(), model)
