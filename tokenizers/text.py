"""Text as ids: byte-pair encoding in the manner of LLaMA, trained here or loaded from an existing model file."""

from __future__ import annotations

import heapq
import io
from collections.abc import Iterable, Iterator
from itertools import groupby
from pathlib import Path
from typing import Self

import sentencepiece

from omnimill.config import Config
from omnimill.errors import OmnimillError
from omnimill.infra import storage
from omnimill.rng import digest64
from omnimill.tokenizers.vocabulary import TextVocabulary

# The trainer skips longer sentences without a word, so texts are cut into lines of at most this many characters.
_LINE_CHARACTERS = 1000


class TextTokenizer:
    """A SentencePiece model whose control pieces are moved to 0 (BOS), 1 (EOS) and 2 (unknown).

    Args:
        model_file: path or URL of a SentencePiece model: one of :func:`train_bpe`, or LLaMA's own ``tokenizer.model``.

    Raises:
        OmnimillError: the file is not a SentencePiece model, or one without BOS, EOS and unknown pieces.
    """

    def __init__(self, model_file: str | Path) -> None:
        self._load(storage.read_bytes(str(model_file)), str(model_file))

    @classmethod
    def of(cls, model: bytes, name: str) -> Self:
        """A tokenizer from a model file's content; `name` is what messages call it."""
        tokenizer = cls.__new__(cls)
        tokenizer._load(model, name)
        return tokenizer

    def _load(self, model: bytes, name: str) -> None:
        processor = sentencepiece.SentencePieceProcessor()
        try:
            processor.LoadFromSerializedProto(model)
        except RuntimeError as error:
            raise OmnimillError(f"{name}: not a SentencePiece model: {error}") from None
        controls = [processor.bos_id(), processor.eos_id(), processor.unk_id()]
        if min(controls) < 0:
            raise OmnimillError(f"{name}: needs BOS, EOS and unknown pieces, found their ids to be {controls}")
        ordinary = [piece for piece in range(processor.GetPieceSize()) if piece not in controls]
        self._processor = processor
        self._pieces = controls + ordinary
        self._ids = [0] * len(self._pieces)
        for token, piece in enumerate(self._pieces):
            self._ids[piece] = token
        self.model = model
        self.name = name
        self.vocabulary = TextVocabulary(len(self._pieces))

    def __getstate__(self) -> tuple[bytes, str]:
        return self.model, self.name

    def __setstate__(self, state: tuple[bytes, str]) -> None:
        self._load(*state)

    def encode(self, text: str) -> list[int]:
        """Ids of a text, without BOS and EOS. Added tokens never come out, whatever the text says."""
        return [self._ids[piece] for piece in self._processor.EncodeAsIds(text)]

    def decode(self, ids: Iterable[int]) -> str:
        """Text of any ids of the table; added and control tokens appear in their readable form, set off by spaces."""
        parts: list[str] = []
        for special, run in groupby(map(int, ids), key=lambda token: self.vocabulary.surface(token) is not None):
            if special:
                parts.extend(str(self.vocabulary.surface(token)) for token in run)
            else:
                parts.append(self._processor.DecodeIds([self._pieces[token] for token in run]))
        return " ".join(parts)


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
    """A SentencePiece BPE model with LLaMA's options: bytes as fallback, text as it is, digits apart.

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
            character_coverage=0.9995,
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
