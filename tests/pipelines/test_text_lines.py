"""Rules of C4, RefinedWeb, FineWeb and on boilerplate: which lines they take out, and which documents."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from omnimill.pipelines.operators.text import TextOperator
from omnimill.pipelines.operators.text_c4 import TextC4
from omnimill.pipelines.operators.text_lines import LineOperator
from omnimill.pipelines.operators.text_web import TextBoilerplate, TextFineWeb, TextRefinedWeb
from omnimill.schema import Example, Provenance, Text

S = "This is a sentence of several words."


def example(*texts: str, role: str = "body") -> Example:
    parts = [Text(role=role, text=text, image=i or None) for i, text in enumerate(texts)]
    return Example(id="i", source="s", unit="u", key="k", provenance=Provenance(uri="", digest=""), text=parts)


def outcome(operator: TextOperator, *texts: str) -> tuple[str | None, list[str]]:
    """The verdict, and the texts that are left."""
    one = example(*texts)
    (reason,) = operator([one])
    return reason, [text.text for text in one.text]


@pytest.mark.parametrize(
    ("line", "kept"),
    [
        ('She said "stop it right now please"', 'She said "stop it right now please"'),
        ("No full stop at the end of this", None),
        ("It ends in an ellipsis, that is none...", None),
        ("Only four words here.", None),
        ("This site needs JavaScript to work at all.", None),
        ("Read our Privacy Policy before you go on reading.", None),
        ("One " + "x" * 1001 + " of these words is too long.", None),
        ("  The claim stands[12] without its source[citation needed].  ", "The claim stands without its source."),
        ("Die Würde des Menschen ist unantastbar!", "Die Würde des Menschen ist unantastbar!"),
    ],
)
def test_c4_keeps_sentences(line: str, kept: str | None) -> None:
    text = f"{S} {S}\n{line}\n\n{S}"
    left = [f"{S} {S}", *([] if kept is None else [kept]), "", S]
    assert outcome(TextC4(op="text_c4"), text) == (None, ["\n".join(left)])


def test_c4_turns_pages_down() -> None:
    c4 = TextC4(op="text_c4")
    three = f"{S} {S}\n{S}"
    assert outcome(c4, f"{three}\nLorem ipsum dolor sit amet consectetur.")[0] == "lorem_ipsum"
    assert outcome(c4, f"{three}\nif (a) {{ return the sum of it all; }}.")[0] == "curly_bracket"
    # A line that goes anyway does no harm.
    assert outcome(c4, f"{three}\nif (a) {{ return }}") == (None, [three])
    assert outcome(c4, f"{S}\n{S}\nMenu")[0] == "few_sentences"
    assert outcome(TextC4(op="text_c4", min_sentences=None), "Menu\nHome")[0] == "no_text_left"
    assert outcome(c4, "") == ("few_sentences", [""])


def test_c4_counts_sentences_and_words_of_lines_that_go() -> None:
    one = example(f"{S} Is it? Yes!\nMenu of two")
    TextC4(op="text_c4")([one])
    assert one.meta.scores == {
        "c4_removed_words": 3 / 13,
        "c4_sentences": 3,
        "c4_lorem_ipsum": 0,
        "c4_curly_bracket": 0,
    }


def test_c4_in_a_script_without_spaces() -> None:
    text = "人人生而自由。他们赋有理性和良心。应以兄弟关系的精神相对待。"
    assert outcome(TextC4(op="text_c4"), f"{text}\n目录") == (None, [text])


def test_texts_of_an_example_stay_apart() -> None:
    one = example(f"{S}\nHome", "Menu", f"{S} {S}")
    one.text.append(Text(role="caption", text="No sentence"))
    assert TextC4(op="text_c4")([one]) == [None]
    assert [(text.text, text.image) for text in one.text] == [(S, None), (f"{S} {S}", 2), ("No sentence", None)]


def test_without_rewriting_lines_are_only_counted() -> None:
    text = f"{S} {S}\n{S}\nHome"
    reason, left = outcome(TextC4(op="text_c4", rewrite=False), text)
    assert (reason, left) == (None, [text])


@pytest.mark.parametrize(
    ("line", "kept"),
    [
        ("BUY NOW WHILE STOCKS LAST", False),
        ("NASA and ESA signed it", True),
        ("12.5 / 30 (2019)", False),
        ("In 2019 it was 12.5", True),
        ("3 likes", False),
        ("1,204 Comments", False),
        ("3 likes were all that it got", True),
        ("Share", False),
        ("Sign in to post a comment", False),
        ("The whole story: read more...", False),
        ("2 items in your cart", False),
        ("Sign in to the guest book was not asked of anybody who came in those years", True),
    ],
)
def test_refinedweb_takes_lines_out(line: str, kept: bool) -> None:
    text = f"{S} {S}\n\n{line}"
    reason, (left,) = outcome(TextRefinedWeb(op="text_refinedweb", max_removed=None), text)
    assert reason is None
    assert left == (text if kept else f"{S} {S}")


def test_refinedweb_drops_a_document_that_lost_too_many_words() -> None:
    assert outcome(TextRefinedWeb(op="text_refinedweb"), f"{S * 5}\nShare\nTweet")[0] == "web_lines"
    reason, left = outcome(TextRefinedWeb(op="text_refinedweb"), f"{' '.join([S] * 6)}\nShare\nTweet")
    assert (reason, left) == (None, [" ".join([S] * 6)])


def test_fineweb_rules() -> None:
    fineweb = TextFineWeb(op="text_fineweb")
    long = "This line is longer than thirty characters"
    assert outcome(fineweb, "\n".join(f"{long} {i}" for i in range(9)))[0] == "unpunctuated_lines"
    assert outcome(fineweb, "\n".join(f"{long} {i}." for i in range(9)))[0] is None
    assert outcome(fineweb, "\n".join([f"{long}.", *(f"{long} {i}." for i in range(4)), f"{long}."]))[0] == (
        "fineweb_repeated_lines"
    )
    assert outcome(fineweb, "\n".join(f"Short line {i}." for i in range(9)))[0] == "short_lines"
    one = example(f"{long}\n\nShort.\n{long}")
    fineweb([one])
    assert one.meta.scores == pytest.approx(
        {"punctuated_lines": 1 / 3, "fineweb_repeated_line_chars": 42 / 90, "short_lines": 1 / 3}
    )


@pytest.mark.parametrize(
    ("line", "kept"),
    [
        ("We use cookies to give you the best experience on our website.", False),
        ("Accept all cookies", False),
        ("The baker uses butter for all his cookies", True),
        ("© 2019 Example Ltd. All rights reserved.", False),
        ("Copyright 2021 by nobody", False),
        ("Home | News | Contact us", False),
        ("Start » Reisen » Italien » Rom", False),
        ("Skip to content", False),
        ("It costs 3 | 4 pounds", True),
        ("JavaScript must be enabled to use the system", False),
    ],
)
def test_boilerplate_lines(line: str, kept: bool) -> None:
    text = f"{line}\n{S} {S}"
    operator = TextBoilerplate(op="text_boilerplate", max_removed=None)
    assert outcome(operator, text) == (None, [text if kept else f"{S} {S}"])


def test_repeated_headers_and_page_numbers_are_kept_once() -> None:
    pages = [f"The Origin of Species\n{S} Page {i}.\n- {i} -" for i in range(1, 4)]
    _, (left,) = outcome(TextBoilerplate(op="text_boilerplate"), "\n".join(pages))
    assert left.count("The Origin of Species") == 1
    assert [line for line in left.split("\n") if line.startswith("-")] == ["- 1 -"]


def test_a_page_of_boilerplate_is_dropped() -> None:
    assert outcome(TextBoilerplate(op="text_boilerplate"), "Home | News | Contact\nHello there")[0] == "boilerplate"


OPERATORS: list[LineOperator] = [
    TextC4(op="text_c4", min_sentences=None),
    TextRefinedWeb(op="text_refinedweb", max_removed=None),
    TextBoilerplate(op="text_boilerplate", max_removed=None),
]


@settings(max_examples=40)
@given(st.lists(st.lists(st.sampled_from([S, "Menu", "3 likes", "", "A | B | C", "人权。", "x" * 40]))), st.data())
def test_a_batch_gives_what_each_example_gives_alone(pages: list[list[str]], data: st.DataObject) -> None:
    operator = data.draw(st.sampled_from(OPERATORS))
    together = [example("\n".join(lines), S) for lines in pages]
    reasons = operator(together)
    for lines, one, reason in zip(pages, together, reasons, strict=True):
        alone = example("\n".join(lines), S)
        assert operator([alone]) == [reason]
        assert alone == one
