"""The registry of ids: the text table, the tables of image and audio codes, and what every id of them means.

By default there are three id spaces, those of Unified-IO 2 (arXiv 2312.17172 section B.1 and its released vocabulary).
Text, for a SentencePiece model of n pieces (n = 32,000 gives the published ids)::

    0 BOS, also padding   1 EOS   2 unknown   3 … n-1 the other pieces in the model's order
    n      … n+999    location tokens, descending: bin b is n + 999 - b
    n+1000 … n+1199   span sentinels, descending: sentinel i is n + 1199 - i
    n+1200 … n+1215   history markers, interleaved: image k, audio k for k = 1 … 8
    n+1216, n+1217    image input, audio input
    n+1218 … n+1224   [Text] [S], [Text] [R], [Text] [X], [Image] [S], [Image] [R], [Audio] [S], [Audio] [R]

Image and audio codes: 0 starts a target (and pads), 1 is the reserved mask, 2 … are the codes.

:class:`~omnimill.vocabulary_layout.VocabularyLayout` changes the numbers, adds special tokens (behind the prefixes), or
lets codes follow in the text table, behind the special tokens and without a start and mask of their own. What
was added to a vocabulary in use (`growth`) has the ids behind all the others. Special ids are built by these methods,
never by tokenizing their surface form.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from omnimill.errors import ConfigError, OmnimillError
from omnimill.tokenizers.token_table import TokenRange, TokenTable
from omnimill.tokens import TokenLayout
from omnimill.vocabulary_layout import Medium, Modality, Paradigm, VocabularyLayout

REFERENCE = VocabularyLayout()
SENTINELS = REFERENCE.sentinels
HISTORY = REFERENCE.history

# Ids in an image or audio table: what starts a target (and pads), the reserved mask id, and where the codes begin.
CODE_START = 0
CODE_MASK = 1
CODE_OFFSET = 2

_CONTROLS = ("<s>", "</s>", "<unk>")
_MEDIA: tuple[Medium, ...] = ("image", "audio")


@dataclass(frozen=True)
class TextVocabulary:
    """Ids of the text table for a SentencePiece model of `pieces` pieces; see the module's text.

    image_codes, audio_codes: sizes of the codebooks, which matter where the layout's `joint` names them.
    """

    pieces: int
    layout: VocabularyLayout = REFERENCE
    image_codes: int = 0
    audio_codes: int = 0

    PAD: ClassVar[int] = 0
    BOS: ClassVar[int] = 0
    EOS: ClassVar[int] = 1
    UNKNOWN: ClassVar[int] = 2

    @cached_property
    def table(self) -> TokenTable:
        """Every range of the table."""
        codes = {"image": self.image_codes, "audio": self.audio_codes}
        totals = {f"{medium}_code": codes[medium] for medium in self.layout.joint}
        kinds = {"piece": self.pieces - len(_CONTROLS), **_added(self.layout), **totals}
        return TokenTable.lay_out("text", _ranges(kinds, self.layout), self.layout.row_multiple)

    @property
    def size(self) -> int:
        """Ids in use."""
        return self.table.size

    @property
    def rows(self) -> int:
        """Rows of the embedding table."""
        return self.table.rows

    def piece(self, number: int) -> int:
        """Id of piece `number` of the text model, its control pieces moved to 0, 1 and 2."""
        return number if number < len(_CONTROLS) else self.table.id("piece", number - len(_CONTROLS))

    def piece_number(self, token: int) -> int | None:
        """Number of the piece that an id stands for; None for an added token and for padding rows."""
        if not 0 <= token < self.size:
            return None
        kind, index = self.table.locate(token)
        return {"control": index, "piece": index + len(_CONTROLS)}.get(kind)

    def location(self, location_bin: int) -> int:
        """Id of a location token, from bin 0."""
        return self.table.id("location", location_bin)

    def is_location(self, token: int) -> bool:
        return 0 <= token < self.size and self.table.locate(token)[0] == "location"

    def location_bin(self, token: int) -> int:
        """Bin of a location token's id."""
        if not self.is_location(token):
            raise OmnimillError(f"id {token} is not a location token of a vocabulary of {self.pieces} pieces")
        return self.table.locate(token)[1]

    def sentinel(self, number: int) -> int:
        """Id of the span sentinel `number`; 0 stands for the first corrupted span."""
        return self.table.id("sentinel", number)

    @cached_property
    def sentinels(self) -> NDArray[np.int64]:
        """Ids of all span sentinels, by number: int64 [n]."""
        return np.array([self.sentinel(number) for number in range(self.layout.sentinels)], np.int64)

    def image_history(self, k: int) -> int:
        """Id of the marker of history picture k = 1 … `layout.history`."""
        return self._history("image", k)

    def audio_history(self, k: int) -> int:
        """Id of the marker of history clip k = 1 … `layout.history`."""
        return self._history("audio", k)

    @property
    def image_input(self) -> int:
        return self._named("input", "image", self.layout.inputs)

    @property
    def audio_input(self) -> int:
        return self._named("input", "audio", self.layout.inputs)

    def prefix(self, modality: Modality, paradigm: Paradigm) -> int:
        """Id of the fused token of target modality and denoising paradigm that starts every encoder text."""
        return self._named("prefix", f"{modality} {paradigm}", self.layout.prefixes)

    def special(self, name: str) -> int:
        """Id of a special token of the layout, by its surface form."""
        return self._named("special", name, self.layout.specials)

    def surface(self, token: int) -> str | None:
        """The readable form of an added or control token; None for an ordinary piece of text.

        Ids beyond those in use (padding rows of the table) are written ``<unused_ID>``.
        """
        return self.table.surface(token)

    def marks(self) -> Iterator[int]:
        """Ids of the added tokens that a prompt may name: all but codes."""
        for block in self.table.ranges:
            if block.name not in ("control", "piece", "image_code", "audio_code"):
                yield from range(block.start, block.stop)

    def _history(self, medium: Medium, k: int) -> int:
        if not 1 <= k <= self.layout.history:
            raise OmnimillError(f"{medium} history marker {k} does not exist; allowed: 1 to {self.layout.history}")
        return self.table.id("history", 2 * (k - 1) + _MEDIA.index(medium))

    def _named(self, kind: str, name: str, names: tuple[str, ...]) -> int:
        if name not in names:
            allowed = ", ".join(names) or "none"
            raise OmnimillError(f"the vocabulary has no {kind} token {name!r}; allowed: {allowed}")
        return self.table.id(kind, names.index(name))


def code_table(medium: Medium, codes: int, layout: VocabularyLayout = REFERENCE) -> TokenTable:
    """The table of a codebook that has an id space of its own."""
    controls = (
        TokenRange(f"{medium}_start", 1, form=(f"<{medium}_start>",)),
        TokenRange(f"{medium}_mask", 1, form=(f"<{medium}_mask>",)),
    )
    blocks = _blocks({f"{medium}_code": codes}, layout)
    return TokenTable.lay_out(medium, (*controls, *blocks), layout.row_multiple)


@dataclass(frozen=True)
class Vocabulary:
    """Every table of a tokenizer set, and where each codebook's codes are."""

    text: TextVocabulary

    @classmethod
    def of(cls, layout: TokenLayout) -> Self:
        """The vocabulary that a token dataset was made with."""
        return cls(TextVocabulary(layout.text_pieces, layout.vocabulary, layout.image.codes, layout.audio.codes))

    @cached_property
    def tables(self) -> dict[str, TokenTable]:
        """By name: ``text``, and ``image`` and ``audio`` where they have an id space of their own."""
        codes: dict[Medium, int] = {"image": self.text.image_codes, "audio": self.text.audio_codes}
        own = [medium for medium in _MEDIA if medium not in self.text.layout.joint]
        return {"text": self.text.table, **{m: code_table(m, codes[m], self.text.layout) for m in own}}

    def table_of(self, medium: Medium) -> TokenTable:
        """The table that holds a medium's codes."""
        return self.tables.get(medium, self.text.table)

    def code(self, medium: Medium, code: int) -> int:
        """Id of a code."""
        return self.table_of(medium).id(f"{medium}_code", code)

    def code_of(self, medium: Medium, token: int) -> int:
        """The code that an id stands for.

        Raises:
            OmnimillError: the id is no code of this medium.
        """
        kind, index = self.table_of(medium).locate(token)
        if kind != f"{medium}_code":
            raise OmnimillError(f"id {token} is {kind} {index}, not a code of {medium}")
        return index


def _added(layout: VocabularyLayout) -> dict[str, int]:
    """Tokens of the text table behind the pieces, by kind, in the order of their ids."""
    return {
        "location": layout.locations,
        "sentinel": layout.sentinels,
        "history": 2 * layout.history,
        "input": len(layout.inputs),
        "prefix": len(layout.prefixes),
        "special": len(layout.specials),
    }


def _ranges(kinds: dict[str, int], layout: VocabularyLayout) -> Iterator[TokenRange]:
    yield TokenRange("control", len(_CONTROLS), form=_CONTROLS)
    yield from _blocks(kinds, layout)


def _blocks(kinds: dict[str, int], layout: VocabularyLayout) -> Iterator[TokenRange]:
    """The ranges of kinds whose totals are given: those of the first days, then what was added, step by step.

    Raises:
        ConfigError: more was added than there is.
    """
    steps: list[tuple[str, int]] = [
        (step.range, step.count * (2 if step.range == "history" else 1))
        for step in layout.growth
        if step.range in kinds
    ]
    grown: Counter[str] = Counter()
    for kind, count in steps:
        grown[kind] += count
    for kind, total in kinds.items():
        if grown[kind] > total:
            raise ConfigError(f"layout.vocabulary.growth adds {grown[kind]} of {kind!r}, but there are {total} in all")
    have = {kind: total - grown[kind] for kind, total in kinds.items()}
    first_sentinels = have.get("sentinel", 0)
    for kind, count in have.items():
        yield _block(kind, 0, count, first_sentinels, layout)
    for kind, count in steps:
        yield _block(kind, have[kind], count, first_sentinels, layout)
        have[kind] += count


def _block(kind: str, first: int, size: int, first_sentinels: int, layout: VocabularyLayout) -> TokenRange:
    """One range. Sentinels and locations share the surface forms ``<extra_id_N>``: the sentinels of the first days,
    the locations, the sentinels that were added."""
    if kind == "piece":
        return TokenRange(kind, size, first)
    if kind == "location":
        return TokenRange(kind, size, first, descending=True, form="<extra_id_{}>", label=first_sentinels)
    if kind == "sentinel":
        label = first if first < first_sentinels else first + layout.locations
        return TokenRange(kind, size, first, descending=True, form="<extra_id_{}>", label=label)
    if kind.endswith("_code"):
        return TokenRange(kind, size, first, form=f"<{kind}_{{}}>", label=first)
    return TokenRange(kind, size, first, form=_names(kind, layout)[first : first + size])


def _names(kind: str, layout: VocabularyLayout) -> tuple[str, ...]:
    if kind == "history":
        return tuple(f"<{medium}_history_{k}>" for k in range(1, layout.history + 1) for medium in _MEDIA)
    if kind == "input":
        return tuple(f"<{medium}_input>" for medium in layout.inputs)
    if kind == "prefix":
        return tuple(
            f"[{modality.capitalize()}] [{paradigm}]" for modality, paradigm in map(str.split, layout.prefixes)
        )
    return layout.specials
