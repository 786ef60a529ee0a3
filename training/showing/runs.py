"""Ids as text that people can read: ordinary text, added tokens by their readable form, bins of location tokens."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Literal

from omnimill.tokenizers.text import TextTokenizer

RunKind = Literal["text", "special", "location"]


@dataclass(frozen=True)
class Run:
    """A piece of text: ordinary text, one added token by its readable form, or the bins of location tokens in a row."""

    kind: RunKind
    text: str


def text_runs(ids: Sequence[int], text: TextTokenizer) -> Iterator[Run]:
    """The pieces of a text, in order."""
    vocabulary = text.vocabulary

    def kind(token: int) -> RunKind:
        if vocabulary.is_location(token):
            return "location"
        return "text" if vocabulary.surface(token) is None else "special"

    for what, group in groupby(ids, kind):
        run = list(group)
        if what == "location":
            yield Run(what, " ".join(str(vocabulary.location_bin(token)) for token in run))
        elif what == "text":
            yield Run(what, text.decode(run))
        else:
            yield from (Run(what, str(vocabulary.surface(token))) for token in run)
