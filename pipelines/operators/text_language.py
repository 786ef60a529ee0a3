"""The language of a text, by py3langid."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any, ClassVar, Literal

from pydantic import Field

from omnimill.errors import ConfigError
from omnimill.pipelines.base import Operator
from omnimill.schema import Example


class TextLanguage(Operator):
    """Finds the language of a text, and turns down those that are not wanted.

    Sets ``meta.language`` (a code of ISO 639) and the score ``language``, the model's probability, unless the source
    brings a language; an example without letters gets neither.

    override: judge the text whatever the source says.
    languages: codes that are kept; None keeps all. A regional code ("pt-BR") counts as its language.
    min_score: least probability of a language that was found here; None is no bound.
    max_chars: of the text that are looked at.
    """

    reads: ClassVar[tuple[str, ...]] = ("text", "meta")
    writes: ClassVar[tuple[str, ...]] = ("meta",)

    op: Literal["text_language"]
    roles: tuple[str, ...] = ("body", "caption", "alt_text", "transcript")
    override: bool = False
    languages: tuple[str, ...] | None = None
    min_score: float | None = Field(None, ge=0, le=1)
    max_chars: int = Field(4000, ge=1)

    def __call__(self, examples: Sequence[Example]) -> list[str | None]:
        return [self._judge(example) for example in examples]

    def _judge(self, example: Example) -> str | None:
        meta = example.meta
        text = "\n".join(text.text for text in example.text if text.role in self.roles)[: self.max_chars]
        if (meta.language is None or self.override) and any(map(str.isalpha, text)):
            language, score = _model().classify(text)
            meta.language, meta.scores["language"] = str(language), float(score)
            if self.min_score is not None and score < self.min_score:
                return "language_unsure"
        if self.languages is not None and meta.language is not None:
            spoken = meta.language.replace("_", "-").split("-")[0].lower()
            return None if spoken in self.languages else "language_unwanted"
        return None


@cache
def _model() -> Any:
    try:
        from py3langid.langid import MODEL_FILE, LanguageIdentifier  # noqa: PLC0415 - an extra
    except ImportError:
        raise ConfigError("operator text_language needs py3langid: pip install 'omnimill[web]'") from None
    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
