"""Words, lines and scripts of a batch of texts, shared by the operators of text.

Words are what white space separates. Texts most of whose letters belong to a script that writes no spaces between words
(`UNSPACED`) have none that can be counted this way: what is measured in words is null for them, and a rule over null
turns nothing down.
"""

from __future__ import annotations

import polars as pl

WORD = r"\S+"
LETTER = r"\p{Alphabetic}"
UNSPACED = r"[\p{Han}\p{Hiragana}\p{Katakana}\p{Bopomofo}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}\p{Tibetan}]"
# The end of a sentence in any script, with the quotation marks and brackets that may close behind it.
SENTENCE_END = r"""[\p{Sentence_Terminal}…]["'”\u{2019}»)\]」』]*"""

# Unicode's White_Space but the space itself; replaced by spaces, splitting needs no regular expression.
_WHITE = [
    *"\t\n\x0b\x0c\r\x85\xa0\u1680\u2028\u2029\u202f\u205f\u3000",
    *(chr(code) for code in range(0x2000, 0x200B)),
]


def words_of(frame: pl.DataFrame, text: str = "text") -> pl.DataFrame:
    """The words of texts in reading order: `row` (of the text) and `word`."""
    spaced = pl.col(text).str.replace_many(_WHITE, [" "] * len(_WHITE))
    words = frame.select("row", word=spaced.str.split(" ")).explode("word")
    return words.filter(pl.col("word").str.len_bytes() > 0)


def lines_of(frame: pl.DataFrame) -> pl.DataFrame:
    """The lines of texts that are not blank, stripped, in reading order: `row` and `line`."""
    lines = frame.select("row", line=pl.col("text").str.split("\n")).explode("line")
    return lines.with_columns(pl.col("line").str.strip_chars()).filter(pl.col("line").str.len_bytes() > 0)


def with_unspaced(frame: pl.DataFrame) -> pl.DataFrame:
    """`frame` with the column `unspaced`: whether most letters of `text` are of a script that writes no spaces.

    Such letters take three bytes, so texts in which they are less than a tenth of all characters are not searched.
    """
    text = pl.col("text")
    many = (text.str.len_bytes() - text.str.len_chars()) * 5 >= text.str.len_chars()
    asked = frame.select(many.fill_null(False)).to_series()
    unspaced = pl.Series([False]).new_from_index(0, len(frame))
    if asked.any():
        found = frame.filter(asked).select(
            (text.str.count_matches(UNSPACED) * 2 > text.str.count_matches(LETTER)).alias("unspaced")
        )
        unspaced = unspaced.scatter(asked.arg_true(), found.to_series())
    return frame.with_columns(unspaced.alias("unspaced"))


def above(score: str, bound: float | None) -> pl.Expr:
    """Whether a score is above a bound; None is no bound."""
    return pl.lit(False) if bound is None else pl.col(score) > bound


def below(score: str, bound: float | None) -> pl.Expr:
    """Whether a score is below a bound; None is no bound."""
    return pl.lit(False) if bound is None else pl.col(score) < bound


def first_reason(rules: dict[str, pl.Expr]) -> pl.Expr:
    """The name of the first rule that holds for a row, null when none does."""
    return pl.coalesce(
        *(pl.when(holds).then(pl.lit(reason)) for reason, holds in rules.items()), pl.lit(None, pl.String)
    )
