"""The three id spaces: text with its added tokens, image codes, audio codes.

Layout of the text ids for a SentencePiece model of n pieces (n = 32,000 gives the ids of Unified-IO 2, arXiv 2312.17172
section B.1 and its released vocabulary)::

    0 BOS, also padding   1 EOS   2 unknown   3 … n-1 the other pieces in the model's order
    n      … n+999    location tokens, descending: bin b is n + 999 - b
    n+1000 … n+1199   span sentinels, descending: sentinel i is n + 1199 - i
    n+1200 … n+1215   history markers, interleaved: image k, audio k for k = 1 … 8
    n+1216, n+1217    image input, audio input
    n+1218 … n+1224   [Text] [S], [Text] [R], [Text] [X], [Image] [S], [Image] [R], [Audio] [S], [Audio] [R]

Tables of embeddings are padded to a multiple of 128 rows. Special ids are built by these methods, never by tokenizing
their surface form.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from omnimill.errors import OmnimillError
from omnimill.locations import LOCATIONS

Modality = Literal["text", "image", "audio"]
Paradigm = Literal["S", "R", "X"]

SENTINELS = 200
HISTORY = 8
ROW_MULTIPLE = 128

# Ids in an image or audio table: what starts a target (and pads), the reserved mask id, and where the codes begin.
CODE_START = 0
CODE_MASK = 1
CODE_OFFSET = 2

_PREFIXES: tuple[tuple[Modality, Paradigm], ...] = (
    ("text", "S"),
    ("text", "R"),
    ("text", "X"),
    ("image", "S"),
    ("image", "R"),
    ("audio", "S"),
    ("audio", "R"),
)
_ADDED = LOCATIONS + SENTINELS + 2 * HISTORY + 2 + len(_PREFIXES)


def padded_rows(size: int) -> int:
    """`size` rounded up to the multiple of 128 that embedding tables use."""
    return -(-size // ROW_MULTIPLE) * ROW_MULTIPLE


def code_rows(codes: int) -> int:
    """Rows of the table of a codebook: its codes and the two ids before them, padded (16,384 -> 16,512)."""
    return padded_rows(codes + CODE_OFFSET)


@dataclass(frozen=True)
class TextVocabulary:
    """Ids of the text table for a SentencePiece model of `pieces` pieces; see the module's text."""

    pieces: int

    PAD: ClassVar[int] = 0
    BOS: ClassVar[int] = 0
    EOS: ClassVar[int] = 1
    UNKNOWN: ClassVar[int] = 2

    @property
    def size(self) -> int:
        """Ids in use."""
        return self.pieces + _ADDED

    @property
    def rows(self) -> int:
        """Rows of the embedding table."""
        return padded_rows(self.size)

    def location(self, location_bin: int) -> int:
        """Id of a location token, bin 0 … 999."""
        return self.pieces + LOCATIONS - 1 - _inside("location bin", location_bin, 0, LOCATIONS)

    def is_location(self, token: int) -> bool:
        return self.pieces <= token < self.pieces + LOCATIONS

    def location_bin(self, token: int) -> int:
        """Bin 0 … 999 of a location token's id."""
        if not self.is_location(token):
            raise OmnimillError(f"id {token} is not a location token of a vocabulary of {self.pieces} pieces")
        return self.pieces + LOCATIONS - 1 - token

    def sentinel(self, number: int) -> int:
        """Id of the span sentinel `number`, 0 … 199; 0 stands for the first corrupted span."""
        return self.pieces + LOCATIONS + SENTINELS - 1 - _inside("sentinel", number, 0, SENTINELS)

    def image_history(self, k: int) -> int:
        """Id of the marker of history picture k = 1 … 8."""
        return self._history + 2 * (_inside("image history marker", k, 1, HISTORY + 1) - 1)

    def audio_history(self, k: int) -> int:
        """Id of the marker of history clip k = 1 … 8."""
        return self._history + 2 * (_inside("audio history marker", k, 1, HISTORY + 1) - 1) + 1

    @property
    def image_input(self) -> int:
        return self._history + 2 * HISTORY

    @property
    def audio_input(self) -> int:
        return self.image_input + 1

    def prefix(self, modality: Modality, paradigm: Paradigm) -> int:
        """Id of the fused token of target modality and denoising paradigm that starts every encoder text."""
        if (modality, paradigm) not in _PREFIXES:
            allowed = ", ".join(f"{a} {b}" for a, b in _PREFIXES)
            raise OmnimillError(f"no prefix token for {modality} {paradigm}; allowed: {allowed}")
        return self.audio_input + 1 + _PREFIXES.index((modality, paradigm))

    @property
    def _history(self) -> int:
        return self.pieces + LOCATIONS + SENTINELS

    def surface(self, token: int) -> str | None:
        """The readable form of an added or control token; None for an ordinary piece of text.

        Ids beyond those in use (padding rows of the table) are written ``<unused_ID>``.
        """
        if token < self.pieces:
            return _CONTROLS.get(token)
        if token < self._history:
            return f"<extra_id_{self._history - 1 - token}>"
        added = token - self._history
        return _TAIL[added] if added < len(_TAIL) else f"<unused_{token}>"


_CONTROLS = {TextVocabulary.BOS: "<s>", TextVocabulary.EOS: "</s>", TextVocabulary.UNKNOWN: "<unk>"}
# Surface forms of the added tokens after the sentinels, in the order of their ids.
_TAIL = (
    *(f"<{kind}_history_{k}>" for k in range(1, HISTORY + 1) for kind in ("image", "audio")),
    "<image_input>",
    "<audio_input>",
    *(f"[{modality.capitalize()}] [{paradigm}]" for modality, paradigm in _PREFIXES),
)


def _inside(what: str, value: int, low: int, high: int) -> int:
    if not low <= value < high:
        raise OmnimillError(f"{what} {value} does not exist; allowed: {low} to {high - 1}")
    return value
