"""Generation from a checkpoint: a prompt with pictures and sound in, text, a picture or a clip out."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from omnimill.progress import progress
from omnimill.tokenizers import image
from omnimill.tokenizers.store import SET, Tokenizers, load_tokenizers
from omnimill.tokenizers.vocabulary import CODE_OFFSET, TextVocabulary
from omnimill.training import checkpoint
from omnimill.training.backbone.model import Backbone
from omnimill.training.backbone.stepwise import StepwiseDecoder
from omnimill.training.batch import DecoderModality
from omnimill.training.checkpoint import CheckpointRecord
from omnimill.training.collate import collate
from omnimill.training.decoding import Sampling, decode
from omnimill.training.lengths import Budgets
from omnimill.training.prompt import Request, Target, render_request


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
        model: in evaluation mode.
        record: of the checkpoint that it comes from.
        tokenizers: those of the token dataset that it was trained on.
    """

    def __init__(self, model: Backbone, record: CheckpointRecord, tokenizers: Tokenizers) -> None:
        self.model = model
        self.record = record
        self.tokenizers = tokenizers

    def generate(self, request: Request, sampling: Sampling) -> Generated:
        """Answer a request.

        Raises:
            ConfigError: more pictures or clips than the model reads.
            BadRecord: a picture or clip cannot be decoded.
            OmnimillError: the tokenizers have no codes of the wanted kind.
        """
        layout, render = self.record.layout, self.record.render
        codec = None if request.target == "text" else getattr(self.tokenizers, request.target)
        example, cut = render_request(request, layout, self.tokenizers.text, render)
        batch = collate([[example]], Budgets(encoder=len(example.modality), decoder=len(example.target.ids)))
        modality = DecoderModality[request.target.upper()]
        with torch.inference_mode():
            decoder = StepwiseDecoder(self.model, self.model.encode(batch), modality)
        places = torch.from_numpy(example.target.positions)
        with progress(f"generate {request.target}", total=len(places), unit="tokens") as advance:
            ids = []
            for token in decode(decoder, places, self._allowed(modality), sampling):
                ids.append(token)
                advance()
        if codec is None:
            return Generated("text", ids, cut, text=self.tokenizers.text.decode(ids))
        codes = [token - CODE_OFFSET for token in ids]
        (decoded,) = codec.decode([codes])
        if request.target == "image":
            return Generated("image", codes, cut, picture=image.to_bytes(decoded))
        return Generated("audio", codes, cut, waveform=self.tokenizers.waveform(decoded))

    def _allowed(self, modality: DecoderModality) -> range:
        """Ids that mean something as output."""
        if modality == DecoderModality.TEXT:
            return range(TextVocabulary.EOS, self.tokenizers.text.vocabulary.size)
        layout = self.record.layout
        codes = layout.image.codes if modality == DecoderModality.IMAGE else layout.audio.codes
        return range(CODE_OFFSET, CODE_OFFSET + codes)


def load_generator(root: str, path: str | Path) -> Generator:
    """The generator of a checkpoint.

    Args:
        root: holds the tokenizers.
        path: a checkpoint's folder, or a run's: then its newest checkpoint.

    Raises:
        OmnimillError: there is no checkpoint, or the root does not have the tokenizers that it was trained with.
        IntegrityError: the checkpoint or the tokenizers are damaged.
    """
    folder = checkpoint.find(path)
    record = checkpoint.read_record(folder)
    layout = record.layout
    tokenizers = load_tokenizers(root, layout.tokenizers, layout.digests.get(SET), batch=1)
    with torch.device("meta"):
        model = Backbone(record.backbone)
    model.load_state_dict(checkpoint.load_weights(folder), assign=True)
    return Generator(model.eval(), record, tokenizers)
