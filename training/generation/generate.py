"""Generation from a checkpoint: a prompt with pictures and sound in, text, a picture or a clip out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from omnimill.progress import progress
from omnimill.tokenizers import image
from omnimill.tokenizers.store import Tokenizers
from omnimill.tokenizers.vocabulary import CODE_OFFSET, TextVocabulary
from omnimill.training.backbone.model import Backbone
from omnimill.training.backbone.stepwise import StepwiseDecoder
from omnimill.training.generation.beams import beam_search
from omnimill.training.generation.decoding import Decoder, Sampling, decode
from omnimill.training.generation.guidance import GuidedDecoder
from omnimill.training.generation.location_rule import LocationRule
from omnimill.training.loading.batch import DecoderModality
from omnimill.training.loading.collate import collate_apart
from omnimill.training.rendering.prompt import Asked, Request, Target, render_request
from omnimill.training.runs.inputs import TrainInputs


@dataclass(frozen=True)
class Generated:
    """ids: text ids without EOS, or codes from 0. cut: tokens of the prompt that did not fit.

    One of text, picture (uint8 [H, W, 3]) and waveform (float32 [n] in -1..1), by `target`.
    """

    target: Target
    ids: list[int]
    cut: int
    text: str | None = None
    picture: npt.NDArray[np.uint8] | None = None
    waveform: npt.NDArray[np.float32] | None = None


class Generator:
    """A trained backbone with the tokenizers it was trained on.

    Args:
        model: on the device that it computes on.
        inputs: what it was trained with.
        tokenizers: those of the token dataset that it was trained on.
    """

    def __init__(self, model: Backbone, inputs: TrainInputs, tokenizers: Tokenizers) -> None:
        self.model = model
        self.inputs = inputs
        self.tokenizers = tokenizers

    def generate(self, request: Request, sampling: Sampling) -> Generated:
        """Answer a request.

        Raises:
            ConfigError: more pictures or clips than the model reads.
            BadRecord: a picture or clip cannot be decoded.
            OmnimillError: the tokenizers have no codes of the wanted kind.
        """
        if request.target in ("image", "audio"):
            getattr(self.tokenizers, request.target)  # before minutes of work, not after
        asked, cut = render_request(request, self.inputs.layout, self.tokenizers.text, self.inputs.render)
        total = len(self._places(asked))
        with progress(f"generate {request.target}", total=total, unit="tokens") as advance:
            (ids,) = self.answer([asked], sampling, request.numbers, advance)
        return self.decoded(request.target, ids, cut)

    def answer(
        self,
        asked: Sequence[Asked],
        sampling: Sampling,
        numbers: int = 0,
        advance: Callable[[int], object] = lambda _: None,
    ) -> list[list[int]]:
        """Text ids without EOS, or codes from 0, of each; all at once, so as many as the device has room for.

        An answer depends on its key and on what is asked. What else is in the batch changes sums in the last bits, no
        draw: equal batches give equal answers.

        Args:
            asked: with one target modality, at least one.
            numbers: that belong together in a text of numbers, such as 4 for boxes: then they are forced, see
                `omnimill.training.generation.location_rule`. 0: text comes as it comes.
            advance: told how many tokens there are more.
        """
        modality = asked[0].example.target.modality
        guided = sampling.guidance != 1 and modality != DecoderModality.TEXT
        examples = [one.example for one in asked]
        if guided:
            examples += [one.negative for one in asked if one.negative is not None]
            if len(examples) != 2 * len(asked):
                raise ValueError("guidance needs a negative of everything that is asked")
        batch = collate_apart(examples).to(self._device)
        with torch.inference_mode():
            steps = StepwiseDecoder(self.model, self.model.encode(batch), modality)
            places, ids = self._places(asked[0]).to(self._device), self._allowed(modality)
            rule = self._rule(numbers) if modality == DecoderModality.TEXT else None
            if modality == DecoderModality.TEXT and sampling.beams > 1:
                return beam_search(steps, places, ids, sampling.beams, sampling.length_penalty, rule, advance)
            decoder: Decoder = GuidedDecoder(steps, sampling.guidance) if guided else steps
            found = decode(decoder, places, ids, sampling, [one.key for one in asked], rule, advance)
        if modality == DecoderModality.TEXT:
            return found
        return [[token - CODE_OFFSET for token in ids] for ids in found]

    def decoded(self, target: Target, ids: list[int], cut: int = 0) -> Generated:
        """What an answer's ids stand for."""
        if target == "text":
            return Generated("text", ids, cut, text=self.tokenizers.text.decode(ids))
        if target == "image":
            return Generated("image", ids, cut, picture=image.to_bytes(self.tokenizers.image.decode([ids])[0]))
        (mel,) = self.tokenizers.audio.decode([ids])
        return Generated("audio", ids, cut, waveform=self.tokenizers.waveform(mel))

    @property
    def _device(self) -> torch.device:
        return self.model.decoder_modality.device

    def _places(self, asked: Asked) -> Tensor:
        """Positions of as many tokens as an answer may have: float32 [n, 2]."""
        target = asked.example.target
        if target.modality != DecoderModality.TEXT:
            return torch.from_numpy(target.positions)
        line = torch.arange(self.inputs.render.max_target_text, dtype=torch.float32)
        return torch.stack([line, torch.zeros_like(line)], 1)

    def _rule(self, numbers: int) -> LocationRule | None:
        vocabulary = self.tokenizers.text.vocabulary
        located = self.inputs.layout.numbers.form == "locations" and vocabulary.layout.locations
        return LocationRule(vocabulary, numbers) if numbers and located else None

    def _allowed(self, modality: DecoderModality) -> range:
        """Ids that mean something as output."""
        if modality == DecoderModality.TEXT:
            return range(TextVocabulary.EOS, self.tokenizers.text.vocabulary.size)
        layout = self.inputs.layout
        codes = layout.image.codes if modality == DecoderModality.IMAGE else layout.audio.codes
        return range(CODE_OFFSET, CODE_OFFSET + codes)
