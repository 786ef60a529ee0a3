"""Language identification: what is set, what is left as the source says, what is dropped."""

from __future__ import annotations

from omnimill.pipelines.operators.text_language import TextLanguage
from omnimill.schema import Example, Meta, Provenance, Text

TEXTS = {
    "en": "All human beings are born free and equal in dignity and rights.",
    "de": "Alle Menschen sind frei und gleich an Würde und Rechten geboren.",
    "zh": "人人生而自由。在尊严和权利上一律平等。",
    "ar": "يولد جميع الناس أحرارا متساوين في الكرامة والحقوق.",
    "th": "มนุษย์ทั้งหลายเกิดมามีอิสระและเสมอภาคกันในเกียรติศักดิ์และสิทธิ",
}


def example(text: str, language: str | None = None) -> Example:
    where = Provenance(uri="", digest="")
    texts = [Text(role="body", text=text)]
    return Example(id="i", source="s", unit="u", key="k", provenance=where, text=texts, meta=Meta(language=language))


def test_languages_are_found() -> None:
    examples = [example(text) for text in TEXTS.values()]
    assert TextLanguage(op="text_language")(examples) == [None] * len(TEXTS)
    assert [one.meta.language for one in examples] == list(TEXTS)
    assert all(0.5 < one.meta.scores["language"] <= 1 for one in examples)


def test_what_the_source_says_stands_unless_overridden() -> None:
    told = example(TEXTS["de"], "en")
    TextLanguage(op="text_language")([told])
    assert (told.meta.language, told.meta.scores) == ("en", {})
    TextLanguage(op="text_language", override=True)([told])
    assert told.meta.language == "de"


def test_unwanted_and_unsure_are_dropped() -> None:
    wanted = TextLanguage(op="text_language", languages=("en", "pt"))
    examples = [example(TEXTS["en"]), example(TEXTS["de"]), example("x", "pt-BR"), example("x", "fr"), example("1 2 …")]
    assert wanted(examples) == [None, "language_unwanted", None, "language_unwanted", None]
    assert (examples[-1].meta.language, examples[-1].meta.scores) == (None, {})
    sure = TextLanguage(op="text_language", min_score=0.9999)
    assert sure([example("ok"), example("ok", "en")]) == ["language_unsure", None]
