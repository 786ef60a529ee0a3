"""Rules for the text of web pages: RefinedWeb's by lines, FineWeb's, and what stands on every page of a site."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Literal

import polars as pl
from pydantic import Field

from omnimill.pipelines.operators.text import TextOperator
from omnimill.pipelines.operators.text_lines import LineOperator, removed
from omnimill.pipelines.operators.text_words import LETTER, SENTENCE_END, above, below, lines_of

_COUNTER = (
    r"(?i)^[\d.,]+\s*[km]?\s*(?:likes?|shares?|comments?|views?|retweets?|reposts?|reposts|replies|reply|followers?"
    r"|downloads?|points?|votes?|upvotes?|subscribers?|items?)$"
)
# Of short lines: how they begin, how they end, and what may stand anywhere in them.
_INTERFACE = (
    r"(?i)^(?:sign[ -]?in|sign[ -]?up|log[ -]?in|log[ -]?out|register|subscribe|skip to|jump to|share (?:this|on)"
    r"|follow us|click here|back to top|read more|load more|view all)\b"
    r"|(?:read more|see more|continue reading|learn more|click here|sign in)\W*$"
    r"|items? in (?:your )?(?:cart|basket|bag)|add to (?:cart|basket|bag|wishlist)|your (?:cart|basket) is empty"
)


class TextRefinedWeb(LineOperator):
    """The line-wise corrections of RefinedWeb (Penedo et al. 2023, appendix G.2).

    Lines go that are mostly upper-case letters, only numbers, a counter ("3 likes") or a single word, and short ones
    (at most `short_line_words` words) that are parts of an interface ("sign in …", "… read more", "items in cart"). A
    document goes when more than `max_removed` of its words were in such lines. The paper's patterns are examples: these
    are ours, and English. The rules about a line's words do not hold in scripts without spaces, whose shares are of
    characters.
    """

    op: Literal["text_refinedweb"]
    max_upper_share: float | None = Field(0.5, ge=0, le=1)
    numeric: bool = True
    counters: bool = True
    single_words: bool = True
    interface: bool = True
    short_line_words: int = Field(10, ge=1)
    max_removed: float | None = Field(0.05, ge=0, le=1)

    version: ClassVar[int] = 1

    def judge_lines(self, lines: pl.DataFrame) -> pl.DataFrame:
        line = pl.col("stripped")
        bad = pl.lit(False)
        if self.max_upper_share is not None:
            upper, letters = line.str.count_matches(r"\p{Uppercase}"), line.str.count_matches(LETTER)
            bad |= upper > self.max_upper_share * letters
        if self.numeric:
            bad |= line.str.contains(
                r"^[\p{Number}\p{Punctuation}\p{Symbol}\s]*\p{Number}[\p{Number}\p{Punctuation}\p{Symbol}\s]*$"
            )
        if self.counters:
            bad |= line.str.contains(_COUNTER)
        if self.single_words:
            bad |= (pl.col("words") == 1) & ~pl.col("unspaced")
        if self.interface:
            bad |= (pl.col("words") <= self.short_line_words) & line.str.contains(_INTERFACE)
        return lines.with_columns(keep=~bad & ~pl.col("blank"))

    def scores(self) -> Mapping[str, pl.Expr]:
        return {"refinedweb_removed_words": removed("size")}

    def rules(self) -> Mapping[str, pl.Expr]:
        return {"web_lines": above("refinedweb_removed_words", self.max_removed), **super().rules()}


class TextFineWeb(TextOperator):
    """The three rules that FineWeb adds (Penedo et al. 2024, section 3.6).

    Shares of the lines that are not blank: those that end in punctuation, those shorter than 30 characters, and the
    share of characters in lines that repeat an earlier line. The rule on short lines is about alphabets and does not
    hold in scripts without spaces.
    """

    op: Literal["text_fineweb"]
    roles: tuple[str, ...] = ("body",)
    min_punctuated_lines: float | None = Field(0.12, ge=0, le=1)
    max_repeated_line_chars: float | None = Field(0.1, ge=0, le=1)
    max_short_lines: float | None = Field(0.67, ge=0, le=1)
    short_line_chars: int = Field(30, ge=1)

    def measure(self, frame: pl.DataFrame) -> pl.DataFrame:
        line = pl.col("line")
        lines = lines_of(frame).with_columns(
            chars=line.str.len_chars(), first=pl.struct("row", "line").is_first_distinct()
        )
        shares = lines.group_by("row", maintain_order=True).agg(
            punctuated_lines=line.str.contains(f"{SENTENCE_END}$").mean(),
            fineweb_repeated_line_chars=pl.col("chars").filter(~pl.col("first")).sum() / pl.col("chars").sum(),
            short_lines=(pl.col("chars") < self.short_line_chars).mean(),
        )
        joined = frame.join(shares, on="row", how="left", maintain_order="left")
        return joined.with_columns(short_lines=pl.when(~pl.col("unspaced")).then("short_lines"))

    def rules(self) -> Mapping[str, pl.Expr]:
        return {
            "unpunctuated_lines": below("punctuated_lines", self.min_punctuated_lines),
            "fineweb_repeated_lines": above("fineweb_repeated_line_chars", self.max_repeated_line_chars),
            "short_lines": above("short_lines", self.max_short_lines),
        }


_COOKIES = (
    r"(?i)\b(?:we|this (?:web)?site|our (?:web)?sites?)\b.{0,60}\buses? (?:\w+ ){0,3}cookies\b"
    r"|\b(?:accept|reject|manage|allow) (?:all |your )?cookies\b"
    r"|\bcookie (?:policy|settings|preferences|consent|notice)\b"
)
_RIGHTS = (
    r"(?i)\ball rights reserved\b|\balle rechte vorbehalten\b|\btous droits réservés\b"
    r"|\btodos los derechos reservados\b"
    r"|^(?:copyright\s*)?(?:©|\(c\))\s*(?:\d{4}|\w+ \d{4})|^copyright\s+\d{4}|^powered by \w+"
)
_LINKS = (
    r"(?i)^(?:skip to (?:main )?content|(?:primary|main|footer|site) (?:menu|navigation)|terms (?:of use|of service|"
    r"(?:and|&) conditions)|privacy policy|back to top|(?:previous|next) (?:post|article|page)|share this\W*|"
    r"leave a (?:reply|comment)|subscribe to our newsletter|javascript (?:must be|is) (?:enabled|disabled|required).*|"
    r"(?:please )?enable javascript.*)$"
)
# Three or more short items between bars, bullets or arrows: "Home | News | Contact".
_MENU = r"^[^|•·»\u{203a}/]{1,30}(?:\s*(?:\||•|·|»|\u{203a}|\s/\s)\s*[^|•·»\u{203a}/]{1,30}){2,}$"


class TextBoilerplate(LineOperator):
    """Takes out lines that stand on every page of a site or of a book and say nothing of its subject.

    cookies: notices about cookies. rights: claims of copyright. menus: rows of links, and single links that most sites
    have. repeated_lines: a line of at most `short_line_words` words that stands in the text at least so often (headers
    and footers; of lines that do not end like sentences digits do not count, since pages are numbered), all its
    occurrences but the first; None keeps them.
    max_removed: a document goes when a larger share of its words was in such lines.

    The words are English, with the commonest claim of rights in German, French and Spanish.
    """

    op: Literal["text_boilerplate"]
    cookies: bool = True
    rights: bool = True
    menus: bool = True
    repeated_lines: int | None = Field(3, ge=2)
    short_line_words: int = Field(12, ge=1)
    max_removed: float | None = Field(0.5, ge=0, le=1)

    version: ClassVar[int] = 1

    def judge_lines(self, lines: pl.DataFrame) -> pl.DataFrame:
        line = pl.col("stripped")
        bad = pl.lit(False)
        if self.cookies:
            bad |= line.str.contains(_COOKIES)
        # Long lines that mention rights are prose about them.
        short = line.str.len_chars() <= 200
        if self.rights:
            bad |= short & line.str.contains(_RIGHTS)
        if self.menus:
            bad |= (short & line.str.contains(_MENU)) | line.str.contains(_LINKS)
        if self.repeated_lines is not None:
            numberless = line.str.replace_all(r"\d+", "0")
            same = pl.when(line.str.contains(f"{SENTENCE_END}$")).then(line).otherwise(numberless)
            alike = lines.select("row", same=same)
            times = alike.select(pl.len().over("row", "same")).to_series()
            first = alike.select(pl.struct("row", "same").is_first_distinct()).to_series()
            few_words = (pl.col("words") <= self.short_line_words) & ~(pl.col("unspaced") & (line.str.len_chars() > 24))
            bad |= pl.lit(times >= self.repeated_lines) & ~pl.lit(first) & few_words
        return lines.with_columns(keep=~bad & ~pl.col("blank"))

    def scores(self) -> Mapping[str, pl.Expr]:
        return {"boilerplate_words": removed("size")}

    def rules(self) -> Mapping[str, pl.Expr]:
        return {"boilerplate": above("boilerplate_words", self.max_removed), **super().rules()}
