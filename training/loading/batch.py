"""The packed batch: what the loader makes and the backbone reads. Plain tensors, nothing of Ray or MLflow.

Shape letters: B packed sequences, E encoder slots, D decoder slots, N text tokens, F frames (pictures or clips),
P patches of a frame, L latents of a history frame, C values of a patch.

Encoder content is flat: every token or frame says which slot (``sequence * E + position``) it fills, so modality
encoders run on real frames only and an unpacked batch is simply one with one example per sequence.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from enum import IntEnum
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor


class EncoderModality(IntEnum):
    """Order of the encoder's modality embeddings; also the order of an example's tokens in its sequence."""

    TEXT = 0
    IMAGE = 1
    IMAGE_HISTORY = 2
    AUDIO = 3
    AUDIO_HISTORY = 4


class DecoderModality(IntEnum):
    """Order of the decoder's modality embeddings and tables."""

    TEXT = 0
    IMAGE = 1
    AUDIO = 2


@dataclass
class Frames:
    """Pictures or spectrograms of one encoder stream, cut into the patches that are kept.

    patches: float32 [F, P, C], normalised for the encoder.
    index: int64 [F, P], each patch's place on its grid (row * columns + column).
    valid: bool [F, P]; False marks padding of frames with fewer patches.
    slot: int64; [F, P] for current frames (-1 where not valid), [F, L] latents for history frames.
    frame: int64 [F], the frame's number within its example's history (0 for current frames).
    """

    patches: Tensor
    index: Tensor
    valid: Tensor
    slot: Tensor
    frame: Tensor


@dataclass
class PackedBatch:
    """B packed sequences.

    text_ids, text_slot: int64 [N].
    image, image_history, audio, audio_history: None when the batch holds none.
    encoder_segment: int64 [B, E]; 0 is padding, k the k-th example of the sequence.
    encoder_modality: int64 [B, E] of :class:`EncoderModality`.
    encoder_position: float32 [B, E, 2]; text (and any 1-D stream) uses the first coordinate.
    decoder_ids: int64 [B, D], inputs in the id space of their modality (targets shifted right, 0 first).
    decoder_targets: int64 [B, D]; decoder_loss: float32 [B, D], weight of every target (0: not counted).
    decoder_segment, decoder_modality, decoder_position: as for the encoder, positions restart for each example.
    decoder_hidden: bool [B, D]; target token was masked in the encoder's input (for dynamic masking).
    decoder_task: int64 [B, D]; index of the example's task, -1 on padding.
    """

    text_ids: Tensor
    text_slot: Tensor
    image: Frames | None
    image_history: Frames | None
    audio: Frames | None
    audio_history: Frames | None
    encoder_segment: Tensor
    encoder_modality: Tensor
    encoder_position: Tensor
    decoder_ids: Tensor
    decoder_targets: Tensor
    decoder_loss: Tensor
    decoder_segment: Tensor
    decoder_modality: Tensor
    decoder_position: Tensor
    decoder_hidden: Tensor
    decoder_task: Tensor

    def map(self, change: Callable[[Tensor], Tensor]) -> PackedBatch:
        """The batch with `change` of every tensor."""
        changed: dict[str, Any] = {f.name: _changed(getattr(self, f.name), change) for f in fields(self)}
        return PackedBatch(**changed)

    def to(self, device: torch.device | str) -> PackedBatch:
        """The batch with every tensor on `device`; from page-locked memory without waiting for the copy."""
        return self.map(lambda tensor: tensor.to(device, non_blocking=True))

    def split(self, parts: int) -> list[PackedBatch]:
        """The same sequences in `parts` batches, in order; the first may hold one more than the last."""
        size, more = divmod(len(self.encoder_segment), parts)
        firsts = [number * size + min(number, more) for number in range(parts + 1)]
        return [self._sequences(a, b - a) for a, b in pairwise(firsts)] if parts > 1 else [self]

    def _sequences(self, first: int, count: int) -> PackedBatch:
        slots = self.encoder_segment.shape[1]
        start, end = first * slots, (first + count) * slots
        found: dict[str, Any] = dict.fromkeys(("image", "image_history", "audio", "audio_history"))
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, Frames):
                found[field.name] = _between(value, start, end)
            elif field.name.startswith(("encoder_", "decoder_")):
                found[field.name] = value[first : first + count]
        here = (self.text_slot >= start) & (self.text_slot < end)
        found |= {"text_ids": self.text_ids[here], "text_slot": self.text_slot[here] - start}
        return PackedBatch(**found)


def _between(frames: Frames, start: int, end: int) -> Frames | None:
    """The frames that fill slots from `start` to `end`, which are counted from `start` then."""
    last = frames.slot.amax(1)
    here = (last >= start) & (last < end)
    if not here.any():
        return None
    found = Frames(**{field.name: getattr(frames, field.name)[here] for field in fields(frames)})
    return replace(found, slot=torch.where(found.slot >= 0, found.slot - start, -1))


def _changed(value: Tensor | Frames | None, change: Callable[[Tensor], Tensor]) -> Tensor | Frames | None:
    if isinstance(value, Frames):
        return Frames(**{f.name: change(getattr(value, f.name)) for f in fields(value)})
    return None if value is None else change(value)
