"""Generation from decoder-only checkpoints: text, pictures, or both in turn, as they come."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from omnimill.errors import BadRecord, ConfigError, OmnimillError
from omnimill.rng import Key, uniform
from omnimill.tokenizers import image, media
from omnimill.tokenizers.store import SET, Tokenizers, load_tokenizers
from omnimill.training.backbone.build import with_weights
from omnimill.training.backbone.config import BackboneConfig
from omnimill.training.backbone.decoder_config import DecoderConfig
from omnimill.training.backbone.decoder_only import SequenceModel
from omnimill.training.backbone.towers_config import TowersConfig
from omnimill.training.checkpoints import checkpoint
from omnimill.training.checkpoints.checkpoint import CheckpointRecord
from omnimill.training.evaluation.scoring import Decoding
from omnimill.training.generation.decoding import choose
from omnimill.training.generation.generate import Generator, load_generator
from omnimill.training.generation.growing import GrowingSequences
from omnimill.training.generation.interleaving import Order, Progress, State
from omnimill.training.rendering.prompt import Request
from omnimill.training.runs.inputs import TrainInputs


@dataclass(frozen=True)
class Words:
    """One more id of text of request number `request`."""

    request: int
    token: int


@dataclass(frozen=True)
class Drawing:
    """One more code of a picture; `done` of how many."""

    request: int
    done: int


@dataclass(frozen=True)
class Drawn:
    """A whole picture: its codes."""

    request: int
    codes: tuple[int, ...]


@dataclass(frozen=True)
class Ended:
    """Nothing more comes. whole: the model ended it; else there was no more room."""

    request: int
    whole: bool


Event = Words | Drawing | Drawn | Ended


@dataclass(frozen=True)
class Piece:
    """A run of text, or a picture: uint8 [H, W, 3]. ids: of the text, or codes from 0."""

    ids: tuple[int, ...]
    text: str | None = None
    picture: npt.NDArray[np.uint8] | None = None

    @property
    def png(self) -> bytes | None:
        """The picture as a file."""
        return None if self.picture is None else image.encode_png(self.picture)


@dataclass(frozen=True)
class Interleaved:
    """An answer in reading order. cut: tokens of the prompt that did not fit. whole: it ended by itself."""

    pieces: tuple[Piece, ...]
    cut: int
    whole: bool

    @property
    def text(self) -> str:
        """All of its text."""
        return " ".join(piece.text.strip() for piece in self.pieces if piece.text is not None)

    @property
    def pictures(self) -> list[npt.NDArray[np.uint8]]:
        return [piece.picture for piece in self.pieces if piece.picture is not None]


class SequenceGenerator:
    """A trained decoder-only backbone with its tokenizers.

    Args:
        model: on the device that it computes on.
        inputs: what it was trained with; a sequence is as long as its packed sequences at most.
        tokenizers: those of the token dataset that it was trained on.
    """

    def __init__(self, model: SequenceModel, inputs: TrainInputs, tokenizers: Tokenizers) -> None:
        self.model, self.inputs, self.tokenizers = model, inputs, tokenizers
        self.order = Order(inputs.layout)
        self.length = min([inputs.config.packing.budgets.decoder, *_most_positions(model)])

    def generate(
        self, requests: Sequence[Request], decoding: Decoding, told: Callable[[Event], object] = lambda _: None
    ) -> list[Interleaved]:
        """Answer requests, all at once.

        An answer depends on its key and on what is asked. What else is answered at once changes sums in the last bits,
        no draw: equal batches give equal answers.

        Args:
            told: of every event as it comes.

        Raises:
            ConfigError, BadRecord: as :meth:`stream`.
        """
        starts, cuts = self._starts(requests)
        found: list[list[Words | Drawn]] = [[] for _ in requests]
        whole = [True] * len(requests)
        for event in self._stream(requests, starts, decoding):
            told(event)
            if isinstance(event, Ended):
                whole[event.request] = event.whole
            elif not isinstance(event, Drawing):
                found[event.request].append(event)
        return [Interleaved(self._pieces(own), cut, end) for own, cut, end in zip(found, cuts, whole, strict=True)]

    def stream(self, requests: Sequence[Request], decoding: Decoding) -> Iterator[Event]:
        """What answers consist of, as it comes.

        Raises:
            ConfigError: sound is given or asked for, or the pictures given leave no room.
            BadRecord: a picture cannot be decoded.
        """
        return self._stream(requests, self._starts(requests)[0], decoding)

    def picture(self, codes: Sequence[int]) -> npt.NDArray[np.uint8]:
        """uint8 [H, W, 3] of a picture's codes."""
        return image.to_bytes(self.tokenizers.image.decode([list(codes)])[0])

    def _stream(self, requests: Sequence[Request], starts: list[list[int]], decoding: Decoding) -> Iterator[Event]:
        device = next(self.model.parameters()).device
        rows = GrowingSequences(self.model, starts)
        standing = [self._progress(request, start) for request, start in zip(requests, starts, strict=True)]
        guide = self._guide(requests, decoding.image.guidance)
        open_rows = list(range(len(requests)))
        pictures: dict[int, list[int]] = {}
        allowed: dict[frozenset[str], Tensor] = {}
        number = 0
        while True:
            now = [standing[one] for one in open_rows]
            draws = [one.draws for one in now]
            logits = rows.logits
            if guide is not None:
                guide.begin_again(torch.tensor([one.state != "drawing" for one in now], device=device))
                logits = _guided(logits, guide.logits, torch.tensor(draws, device=device), decoding.image.guidance)
            kinds = [one.kinds() for one in now]
            for kind in kinds:
                allowed.setdefault(kind, self.order.allowed(kind).to(device))
            logits = logits.masked_fill(~torch.stack([allowed[kind] for kind in kinds]), -torch.inf)
            keys = [requests[one].key for one in open_rows]
            chosen = _chosen(logits, draws, decoding, keys, number)
            for one, token in zip(open_rows, chosen.tolist(), strict=True):
                yield from self._told(one, token, standing[one], pictures)
            rest = [row for row, one in enumerate(open_rows) if standing[one].state != "over"]
            if not rest:
                return
            if len(rest) < len(open_rows):
                at = torch.tensor(rest, device=device)
                rows.keep(at)
                chosen = chosen[at]
                open_rows = [open_rows[row] for row in rest]
                if guide is not None:
                    guide.keep(at)
            rows.step(chosen)
            if guide is not None and any(standing[one].state == "drawing" for one in open_rows):
                guide.step(chosen)
            number += 1

    def _told(self, request: int, token: int, standing: Progress, pictures: dict[int, list[int]]) -> Iterator[Event]:
        order = self.order
        standing.take(token)
        if token in order.code_of:
            codes = pictures.setdefault(request, [])
            codes.append(order.code_of[token])
            yield Drawing(request, len(codes))
            if len(codes) == order.codes:
                yield Drawn(request, tuple(pictures.pop(request)))
        elif token not in (order.end, order.turn):
            yield Words(request, token)
        if standing.state == "over":
            yield Ended(request, whole=token == order.end or standing.wanted == "image")

    def _progress(self, request: Request, start: Sequence[int]) -> Progress:
        assert request.target != "audio"
        empty, behind_picture = len(start) == 1, start[-1] in self.order.code_of
        state: State = "opening" if empty else "drawn" if behind_picture else "writing"
        # The first slot of a sequence is the start, which is no id of it.
        return Progress(self.order, request.target, self.length - len(start) + 1, state)

    def _guide(self, requests: Sequence[Request], guidance: float) -> GrowingSequences | None:
        """Sequences of pictures alone, behind what replaces captions in training; None without guidance."""
        if guidance == 1 or all(request.target == "text" for request in requests):
            return None
        guide = GrowingSequences(self.model, [self._negative(request.negative) for request in requests])
        guide.hold_start()
        return guide

    def _negative(self, written: str | None) -> list[int]:
        settings, text = self.inputs.render, self.tokenizers.text
        replaced = settings.uninformative_prompt if written is None else written
        special = replaced in text.vocabulary.layout.specials
        ids = [text.vocabulary.special(replaced)] if special else text.encode(replaced)
        return [text.vocabulary.BOS, *ids, *([self.order.turn] if ids else [])]

    def _starts(self, requests: Sequence[Request]) -> tuple[list[list[int]], list[int]]:
        """Ids before every answer, and how many tokens of each prompt were left out."""
        starts, cuts = [], []
        for request in requests:
            if request.target == "audio" or request.clips:
                raise ConfigError("a decoder-only backbone has no sound; allowed: text, image, interleaved")
            shown = self._codes(request.pictures)
            start = [self.tokenizers.text.vocabulary.BOS]
            for codes in shown:
                start += [*([self.order.turn] if len(start) > 1 else []), *(self.order.code_ids[c] for c in codes)]
            # A picture, the break before it and the end.
            least = 2 if request.target == "text" else self.order.codes + 2
            room = self.length - len(start) - least
            if room < 0:
                raise ConfigError(
                    f"--image: found {len(shown)} pictures, which leave no room for an answer in the model's "
                    f"{self.length} ids"
                )
            prompt = self.tokenizers.text.encode(request.text)
            # As in training, half of what there is.
            kept = prompt[: min(self.inputs.render.max_text, (self.length - len(start)) // 2, room)]
            if kept:
                start += [*([self.order.turn] if shown else []), *kept]
            starts.append(start)
            cuts.append(len(prompt) - len(kept))
        return starts, cuts

    def _codes(self, pictures: Sequence[bytes]) -> list[list[int]]:
        """Codes of pictures, as tokenization makes them."""
        canvases = []
        for number, data in enumerate(pictures, 1):
            try:
                rgb = image.decode_rgb(data)
            except BadRecord as error:
                raise BadRecord(error.reason, f"--image, file {number}: {error.message}") from None
            canvases.append(media.target(rgb, self.inputs.layout.image).canvas)
        return [list(map(int, codes)) for codes in self.tokenizers.image.encode(np.stack(canvases))] if canvases else []

    def _pieces(self, events: Iterable[Words | Drawn]) -> tuple[Piece, ...]:
        pieces: list[Piece] = []
        words: list[int] = []

        def close() -> None:
            if words:
                pieces.append(Piece(tuple(words), text=self.tokenizers.text.decode(words)))
                words.clear()

        for event in events:
            if isinstance(event, Words):
                words.append(event.token)
            else:
                close()
                pieces.append(Piece(event.codes, picture=self.picture(event.codes)))
        close()
        return tuple(pieces)


def _guided(logits: Tensor, negative: Tensor, draws: Tensor, guidance: float) -> Tensor:
    """Classifier-free guidance (arXiv 2207.12598) of the sequences that draw; the others as they are."""
    return torch.where(draws[:, None], negative + guidance * (logits - negative), logits)


def _chosen(logits: Tensor, draws: Sequence[bool], decoding: Decoding, keys: Sequence[Key], number: int) -> Tensor:
    """The next ids, int64 [B]: codes as pictures are decoded, everything else as text."""
    chosen = torch.zeros(len(keys), dtype=torch.int64, device=logits.device)
    for drawing, sampling in ((False, decoding.text), (True, decoding.image)):
        at = [row for row, one in enumerate(draws) if one == drawing]
        if at:
            points = [uniform("interleaved", sampling.seed, keys[row], number) for row in at]
            chosen[at] = choose(logits[at], sampling, torch.tensor(points, dtype=torch.float64))
    return chosen


def _most_positions(model: SequenceModel) -> list[int]:
    """Of every part that has learned positions, how many."""
    config = model.config
    parts: Sequence[DecoderConfig]
    if isinstance(config, DecoderConfig):
        parts = (config,)
    else:
        parts = config.towers if isinstance(config, TowersConfig) else config.members
    return [part.max_positions for part in parts if part.positions == "learned"]


def load_sequence_generator(
    root: str, path: str | Path, device: str = "cpu"
) -> tuple[SequenceGenerator, CheckpointRecord]:
    """The generator of a decoder-only checkpoint, and the checkpoint's record; arguments and errors as of
    :func:`omnimill.training.generation.generate.load_generator`.
    """
    folder = checkpoint.find(path)
    record = checkpoint.read_record(folder)
    if isinstance(record.backbone, BackboneConfig):
        raise OmnimillError(f"{folder}: an encoder-decoder, which writes no sequences")
    layout = record.layout
    tokenizers = load_tokenizers(root, layout.tokenizers, layout.digests.get(SET), device, batch=1)
    model = with_weights(record.backbone, checkpoint.load_weights(folder))
    return SequenceGenerator(model.to(device), record, tokenizers), record


def load_any_generator(
    root: str, path: str | Path, device: str = "cpu"
) -> tuple[Generator | SequenceGenerator, CheckpointRecord]:
    """The generator of a checkpoint of either kind; arguments and errors as there."""
    record = checkpoint.read_record(checkpoint.find(path))
    if isinstance(record.backbone, BackboneConfig):
        return load_generator(root, path, device)
    return load_sequence_generator(root, path, device)
