"""Generation from decoder-only checkpoints: text, pictures, or both in turn, as they come."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from omnimill.errors import BadRecord, ConfigError
from omnimill.rng import Key, uniform
from omnimill.tokenizers import image, media
from omnimill.tokenizers.store import Tokenizers
from omnimill.training.backbone.decoder_config import DecoderConfig
from omnimill.training.backbone.decoder_only import SequenceModel
from omnimill.training.backbone.towers_config import TowersConfig
from omnimill.training.generation.decoding import Decoding, choose
from omnimill.training.generation.growing import GrowingSequences
from omnimill.training.generation.interleaving import Order, Progress, State
from omnimill.training.rendering.prompt import Opening, Request
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
            ConfigError: sound is given or asked for, groups of numbers or beams are, or the pictures given leave no
                room.
            BadRecord: a picture cannot be decoded.
        """
        openings = self._openings(requests)
        found: list[list[Words | Drawn]] = [[] for _ in openings]
        whole = [True] * len(openings)
        for event in self._stream(openings, decoding):
            told(event)
            if isinstance(event, Ended):
                whole[event.request] = event.whole
            elif not isinstance(event, Drawing):
                found[event.request].append(event)
        return [
            Interleaved(self._pieces(own), opening.cut, end)
            for own, opening, end in zip(found, openings, whole, strict=True)
        ]

    def answer(self, openings: Sequence[Opening], decoding: Decoding) -> list[list[int]]:
        """Text ids without EOS and codes from 0, of each; all at once, as :meth:`generate`.

        Raises:
            ConfigError: beams are asked for.
        """
        found: list[list[int]] = [[] for _ in openings]
        for event in self._stream(openings, decoding):
            if isinstance(event, Words):
                found[event.request].append(event.token)
            elif isinstance(event, Drawn):
                found[event.request] += event.codes
        return found

    def picture(self, codes: Sequence[int]) -> npt.NDArray[np.uint8]:
        """uint8 [H, W, 3] of a picture's codes."""
        return image.to_bytes(self.tokenizers.image.decode([list(codes)])[0])

    def _stream(self, openings: Sequence[Opening], decoding: Decoding) -> Iterator[Event]:
        """What answers consist of, as it comes."""
        if decoding.text.beams > 1:
            raise ConfigError(
                f"beams: found {decoding.text.beams}; a decoder-only backbone follows one text, allowed: 1"
            )
        device = next(self.model.parameters()).device
        rows = GrowingSequences(self.model, [opening.ids for opening in openings])
        standing = [self._progress(opening) for opening in openings]
        guide = self._guide(openings, decoding.image.guidance)
        open_rows = list(range(len(openings)))
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
            keys = [openings[one].key for one in open_rows]
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

    def _progress(self, opening: Opening) -> Progress:
        assert opening.target != "audio"
        empty, behind_picture = len(opening.ids) == 1, opening.ids[-1] in self.order.code_of
        state: State = "opening" if empty else "drawn" if behind_picture else "writing"
        # The first slot of a sequence is the start, which is no id of it.
        return Progress(self.order, opening.target, self.length - len(opening.ids) + 1, state)

    def _guide(self, openings: Sequence[Opening], guidance: float) -> GrowingSequences | None:
        """Sequences of pictures alone, behind what replaces captions in training; None without guidance."""
        if guidance == 1 or all(opening.target == "text" for opening in openings):
            return None
        guide = GrowingSequences(self.model, [self._negative(opening.negative) for opening in openings])
        guide.hold_start()
        return guide

    def _negative(self, written: str | None) -> list[int]:
        settings, text = self.inputs.render, self.tokenizers.text
        replaced = settings.uninformative_prompt if written is None else written
        special = replaced in text.vocabulary.layout.specials
        ids = [text.vocabulary.special(replaced)] if special else text.encode(replaced)
        return [text.vocabulary.BOS, *ids, *([self.order.turn] if ids else [])]

    def _openings(self, requests: Sequence[Request]) -> list[Opening]:
        """What comes before every answer."""
        openings = []
        for request in requests:
            if request.target == "audio" or request.clips:
                raise ConfigError("a decoder-only backbone has no sound; allowed: text, image, interleaved")
            if request.numbers:
                raise ConfigError("--numbers: a decoder-only backbone writes numbers as they come; leave it out")
            shown = self._codes(request.pictures)
            ids = [self.tokenizers.text.vocabulary.BOS]
            for codes in shown:
                ids += [*([self.order.turn] if len(ids) > 1 else []), *(self.order.code_ids[c] for c in codes)]
            # A picture, the break before it and the end.
            least = 2 if request.target == "text" else self.order.codes + 2
            room = self.length - len(ids) - least
            if room < 0:
                raise ConfigError(
                    f"--image: found {len(shown)} pictures, which leave no room for an answer in the model's "
                    f"{self.length} ids"
                )
            prompt = self.tokenizers.text.encode(request.text)
            # As in training, half of what there is.
            kept = prompt[: min(self.inputs.render.max_text, (self.length - len(ids)) // 2, room)]
            if kept:
                ids += [*([self.order.turn] if shown else []), *kept]
            openings.append(Opening(request.key, request.target, ids, request.negative, len(prompt) - len(kept)))
        return openings

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
