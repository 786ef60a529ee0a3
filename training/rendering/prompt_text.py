"""What recipes need of a text tokenizer, and what stands in for one before there is any."""

from __future__ import annotations

from typing import Protocol

from omnimill.tokenizers.vocabulary import TextVocabulary

# Tokens of a word of English, of a vocabulary of the reference's size.
_TOKENS_PER_WORD = 4 / 3


class PromptText(Protocol):
    """Encodes the literals of prompts."""

    vocabulary: TextVocabulary

    def encode(self, text: str) -> list[int]:
        """Ids of a text."""
        ...


class CountedText:
    """Says how many tokens a prompt has by its words, where there is no tokenizer."""

    def __init__(self, pieces: int) -> None:
        self.vocabulary = TextVocabulary(pieces)

    def encode(self, text: str) -> list[int]:
        """As many ids as the text has tokens, roughly."""
        return [0] * round(len(text.split()) * _TOKENS_PER_WORD)
