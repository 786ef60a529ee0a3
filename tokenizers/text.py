"""Text as ids: byte-pair encoding in the manner of LLaMA, trained here or loaded from an existing model file."""

from __future__ import annotations

import heapq
import io
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from functools import cached_property
from itertools import groupby
from pathlib import Path
from typing import Self

import sentencepiece

from omnimill.config import Config
from omnimill.errors import BadRecord, OmnimillError
from omnimill.infra import storage
from omnimill.rng import digest64
from omnimill.tokenizers.vocabulary import REFERENCE, TextVocabulary
from omnimill.vocabulary_layout import VocabularyLayout

# The trainer skips longer sentences without a word, so texts are cut into lines of at most this many characters.
_LINE_CHARACTERS = 1000
# What SentencePiece writes for a space.
_SPACE = "\u2581"
# Fields 3.3 of a model file, normaliser and dummy prefix, set to false. Protocol buffers that are written one after the
# other are one message, in which the last value of a field counts.
_NO_DUMMY_PREFIX = b"\x1a\x02\x18\x00"


class TextTokenizer:
    """A SentencePiece model whose control pieces are moved to 0 (BOS), 1 (EOS) and 2 (unknown).

    Args:
        model_file: path or URL of a SentencePiece model: one of :func:`train_bpe`, or LLaMA's own ``tokenizer.model``.
        layout: of the ids behind the pieces.

    Raises:
        OmnimillError: the file is not a SentencePiece model, or one without BOS, EOS and unknown pieces.
    """

    def __init__(self, model_file: str | Path, layout: VocabularyLayout = REFERENCE) -> None:
        self._load(storage.read_bytes(str(model_file)), str(model_file), TextVocabulary(0, layout))

    @classmethod
    def of(cls, model: bytes, name: str, vocabulary: TextVocabulary | None = None) -> Self:
        """A tokenizer from a model file's content.

        Args:
            model: the content.
            name: what messages call it.
            vocabulary: decides the ids behind the pieces (its own number of pieces does not count); the reference's
                layout when None.
        """
        tokenizer = cls.__new__(cls)
        tokenizer._load(model, name, vocabulary or TextVocabulary(0))
        return tokenizer

    def _load(self, model: bytes, name: str, vocabulary: TextVocabulary) -> None:
        processor = _processor(model, name)
        controls = [processor.bos_id(), processor.eos_id(), processor.unk_id()]
        if min(controls) < 0:
            raise OmnimillError(f"{name}: needs BOS, EOS and unknown pieces, found their ids to be {controls}")
        ordinary = [piece for piece in range(processor.GetPieceSize()) if piece not in controls]
        self.model = model
        self.name = name
        self.vocabulary = replace(vocabulary, pieces=len(controls) + len(ordinary))
        self._processor = processor
        self._spaced = processor.EncodeAsPieces("a")[0].startswith(_SPACE)
        self._pieces = {self.vocabulary.piece(number): piece for number, piece in enumerate(controls + ordinary)}
        self._ids = [0] * len(self._pieces)
        for token, piece in self._pieces.items():
            self._ids[piece] = token

    def __getstate__(self) -> tuple[bytes, str, TextVocabulary]:
        return self.model, self.name, self.vocabulary

    def __setstate__(self, state: tuple[bytes, str, TextVocabulary]) -> None:
        self._load(*state)

    def encode(self, text: str) -> list[int]:
        """Ids of a text, without BOS and EOS. Added tokens never come out, whatever the text says.

        Raises:
            BadRecord: ``text_not_unicode``: half of a surrogate pair.
        """
        return self._encode(self._processor, text)

    def encode_between(self, texts: Sequence[str], tokens: Sequence[int]) -> list[int]:
        """Ids of texts with one given token between each and the next, which takes the place of a word.

        Args:
            texts: one more than tokens. Never names added tokens, as :meth:`encode`.

        Raises:
            BadRecord: ``text_not_unicode``.
        """
        if not tokens:
            return self.encode(texts[0])
        ids: list[int] = []
        for number, text in enumerate(texts):
            # A space before a token is the token's own; the first text is given one to start with, as everywhere.
            shown = text.removesuffix(" ") if number < len(tokens) else text
            ids += self._encode(self._processor if number == 0 else self._verbatim, shown)
            ids += tokens[number : number + 1]
        return ids

    def encode_marked(self, text: str) -> list[int]:
        """Ids of a text in which added tokens are named by their surface forms, as :meth:`decode` writes them.

        For prompts that a person wrote, never for data. As in the reference's vocabulary a form counts at the start
        of a word only, and a prefix token with its inner space only (``[Text] [S]``); everything else is text.

        Raises:
            BadRecord: ``text_not_unicode``.
        """
        if not text:
            return []
        marked = (_SPACE if self._spaced else "") + text.replace(" ", _SPACE)
        ids: list[int] = []
        end = 0
        for found in self._marks.finditer(marked):
            ids += self._encode(self._verbatim, marked[end : found.start()])
            ids.append(self._marked_ids[found[0]])
            end = found.end()
        return ids + self._encode(self._verbatim, marked[end:])

    def decode(self, ids: Iterable[int]) -> str:
        """Text of any ids of the table; added and control tokens appear in their readable form, as words."""
        parts: list[str] = []
        for special, run in groupby(map(int, ids), key=lambda token: self.vocabulary.surface(token) is not None):
            if special:
                for token in run:
                    parts.append(f"{' ' if parts else ''}{self.vocabulary.surface(token)}")
                continue
            pieces = [self._pieces[token] for token in run]
            # The library leaves out the space that starts what it decodes.
            inner = parts and self._spaced and self._processor.IdToPiece(pieces[0]).startswith(_SPACE)
            parts.append(f"{' ' if inner else ''}{self._processor.DecodeIds(pieces)}")
        return "".join(parts)

    @cached_property
    def _verbatim(self) -> sentencepiece.SentencePieceProcessor:
        """The model without a space put before the text."""
        return _processor(self.model + _NO_DUMMY_PREFIX, self.name)

    @cached_property
    def _marked_ids(self) -> dict[str, int]:
        marks = {str(self.vocabulary.surface(token)): token for token in self.vocabulary.marks()}
        return {_SPACE + surface.replace(" ", _SPACE): token for surface, token in marks.items()}

    @cached_property
    def _marks(self) -> re.Pattern[str]:
        longest_first = sorted(self._marked_ids, key=len, reverse=True)
        return re.compile("|".join(map(re.escape, longest_first)) or r"(?!)")

    def _encode(self, processor: sentencepiece.SentencePieceProcessor, text: str) -> list[int]:
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise BadRecord("text_not_unicode", f"character {error.start} is half of a surrogate pair") from None
        return [self._ids[piece] for piece in processor.EncodeAsIds(text)]


def _processor(model: bytes, name: str) -> sentencepiece.SentencePieceProcessor:
    processor = sentencepiece.SentencePieceProcessor()
    try:
        processor.LoadFromSerializedProto(model)
    except RuntimeError as error:
        raise OmnimillError(f"{name}: not a SentencePiece model: {error}") from None
    return processor


class BpeConfig(Config):
    """How the text model is trained.

    pieces: vocabulary size; a corpus too small to fill it gives fewer.
    characters: budget of the training sample.
    """

    pieces: int = 32000
    characters: int = 20_000_000


def sample_texts(texts: Iterable[tuple[str, str]], characters: int, seed: int) -> list[str]:
    """As many of the (key, text) pairs as a budget of characters takes (the last one may pass it), in a fixed order.

    Those with the smallest keyed hash are taken, so the sample does not depend on the order in which they come, and no
    more than the sample is held in memory.
    """
    kept: list[tuple[int, str]] = []
    total = 0
    for key, text in texts:
        heapq.heappush(kept, (-digest64("text_sample", seed, key), text))
        total += len(text)
        while total - len(kept[0][1]) >= characters:
            total -= len(heapq.heappop(kept)[1])
    return [text for _, text in sorted(kept, reverse=True)]


def train_bpe(texts: Iterable[str], config: BpeConfig) -> bytes:
    """A SentencePiece BPE model with LLaMA's options: bytes as fallback, text as it is, digits apart, pieces of spaces.

    They are the settings that LLaMA's own model file holds (karpathy/llama2.c prints them), but for the size of the
    vocabulary, which is a limit here.

    One thread and a fixed order: the same texts give the same bytes.

    Raises:
        OmnimillError: there is no text, or too little for even the bytes and letters that occur.
    """
    lines = _lines(texts)
    first = next(lines, None)
    if first is None:
        raise OmnimillError("there is no text to train the text tokenizer on")
    model = io.BytesIO()
    try:
        sentencepiece.SentencePieceTrainer.Train(
            sentence_iterator=_chain(first, lines),
            model_writer=model,
            model_type="bpe",
            vocab_size=config.pieces,
            hard_vocab_limit=False,
            byte_fallback=True,
            split_digits=True,
            normalization_rule_name="identity",
            remove_extra_whitespaces=False,
            allow_whitespace_only_pieces=True,
            character_coverage=0.99995,
            max_sentence_length=_LINE_CHARACTERS * 4 + 4,
            unk_id=0,
            bos_id=1,
            eos_id=2,
            pad_id=-1,
            num_threads=1,
            minloglevel=2,
        )
    except RuntimeError as error:
        raise OmnimillError(f"the text tokenizer cannot be trained with {config.pieces} pieces: {error}") from None
    return model.getvalue()


def _lines(texts: Iterable[str]) -> Iterator[str]:
    for text in texts:
        for line in text.splitlines():
            for start in range(0, len(line), _LINE_CHARACTERS):
                # The trainer reads NUL as the end of its input.
                yield line[start : start + _LINE_CHARACTERS].replace("\0", " ")


def _chain(first: str, rest: Iterator[str]) -> Iterator[str]:
    yield first
    yield from rest
