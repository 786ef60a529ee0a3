"""Rendered examples as the packed batch that the backbone reads."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from omnimill.errors import OmnimillError
from omnimill.training.loading.batch import EncoderModality, Frames, PackedBatch
from omnimill.training.planning.lengths import Budgets
from omnimill.training.rendering.pairs import Patches, Rendered

_HISTORY = (EncoderModality.IMAGE_HISTORY, EncoderModality.AUDIO_HISTORY)
Ids = npt.NDArray[np.int64]


def collate(sequences: Sequence[Sequence[Rendered]], budgets: Budgets) -> PackedBatch:
    """Lay sequences of examples out, padded to the budgets so that every batch has the same slots.

    Examples follow each other in a sequence, each with its tokens in the order of `EncoderModality`; segment k is the
    k-th example of its sequence.

    Raises:
        OmnimillError: a sequence does not fit the budgets.
    """
    encoder = _Side("encoder", len(sequences), budgets.encoder, segment=0, modality=0, position=(0.0, 0.0))
    decoder = _Side(
        "decoder",
        len(sequences),
        budgets.decoder,
        segment=0,
        modality=0,
        position=(0.0, 0.0),
        ids=0,
        targets=0,
        loss=0.0,
        hidden=False,
        task=-1,
    )
    text_ids: list[Ids] = []
    text_slot: list[Ids] = []
    frames: dict[EncoderModality, list[_Frame]] = {stream: [] for stream in EncoderModality}
    for row, examples in enumerate(sequences):
        for number, example in enumerate(examples, start=1):
            slots = encoder.place(
                row, len(example.modality), segment=number, modality=example.modality, position=example.positions
            )
            text_ids.append(example.text)
            text_slot.append(slots[example.modality == EncoderModality.TEXT])
            for stream, patches in example.frames.items():
                frames[stream] += _place(patches, slots[example.modality == stream], stream in _HISTORY)
            for target in example.targets:
                decoder.place(
                    row,
                    len(target.ids),
                    segment=number,
                    modality=target.modality,
                    position=target.positions,
                    ids=target.ids,
                    targets=target.targets,
                    loss=target.loss,
                    hidden=target.hidden,
                    task=example.task,
                )
    return PackedBatch(
        text_ids=torch.from_numpy(np.concatenate(text_ids)),
        text_slot=torch.from_numpy(np.concatenate(text_slot)),
        image=_stack(frames[EncoderModality.IMAGE]),
        image_history=_stack(frames[EncoderModality.IMAGE_HISTORY]),
        audio=_stack(frames[EncoderModality.AUDIO]),
        audio_history=_stack(frames[EncoderModality.AUDIO_HISTORY]),
        **encoder.tensors("encoder_"),
        **decoder.tensors("decoder_"),
    )


class _Side:
    """Encoder or decoder of a batch: named arrays [sequences, budget, …], filled from the left.

    Args:
        fields: what every slot holds while it is padding; says the type and trailing shape of each array.
    """

    def __init__(self, name: str, sequences: int, budget: int, **fields: Any) -> None:
        self._name = name
        self._budget = budget
        self._used = [0] * sequences
        self._arrays = {
            field: np.full((sequences, budget, *np.shape(pad)), pad, _dtype(pad)) for field, pad in fields.items()
        }

    def place(self, row: int, count: int, **values: Any) -> Ids:
        """Fill the next `count` slots of a sequence; returns their flat numbers, int64 [count]."""
        start, stop = self._used[row], self._used[row] + count
        if stop > self._budget:
            raise OmnimillError(f"a packed sequence needs {stop} {self._name} slots, its budget is {self._budget}")
        for field, value in values.items():
            self._arrays[field][row, start:stop] = value
        self._used[row] = stop
        return np.arange(start, stop) + row * self._budget

    def tensors(self, prefix: str) -> dict[str, Tensor]:
        return {prefix + field: torch.from_numpy(array) for field, array in self._arrays.items()}


def collate_apart(examples: Sequence[Rendered]) -> PackedBatch:
    """Each example in a sequence of its own, as long as the longest."""
    lengths = [one.lengths for one in examples]
    encoder, decoder = (max(getattr(one, side) for one in lengths) for side in ("encoder", "decoder"))
    room = Budgets(encoder=max(encoder, 1), decoder=decoder)
    return collate([[one] for one in examples], room)


def _dtype(pad: Any) -> type[np.generic]:
    """Element type of an array that is padded with `pad`."""
    if isinstance(pad, bool):
        return np.bool_
    return np.int64 if isinstance(pad, int) else np.float32


@dataclass(frozen=True)
class _Frame:
    """A frame, the slots that its tokens fill, and its number within its example's history."""

    patches: Patches
    slots: Ids
    number: int


def _place(patches: Sequence[Patches], slots: Ids, history: bool) -> list[_Frame]:
    """Share the slots of an example's stream out among its frames: one per patch, or equally many latents for each."""
    if not patches:
        return []
    if history:
        parts = np.split(slots, len(patches))
    else:
        parts = np.split(slots, np.cumsum([len(frame.index) for frame in patches])[:-1])
    return [_Frame(frame, part, number) for number, (frame, part) in enumerate(zip(patches, parts, strict=True))]


def _stack(frames: Sequence[_Frame]) -> Frames | None:
    """Frames padded to the one with most patches; None when there are none."""
    if not frames:
        return None
    most = max(len(frame.patches.index) for frame in frames)
    slots = max(len(frame.slots) for frame in frames)
    patches = np.zeros((len(frames), most, frames[0].patches.values.shape[1]), np.float32)
    index = np.zeros((len(frames), most), np.int64)
    valid = np.zeros((len(frames), most), np.bool_)
    slot = np.full((len(frames), slots), -1, np.int64)
    for i, frame in enumerate(frames):
        count = len(frame.patches.index)
        patches[i, :count] = frame.patches.values
        index[i, :count] = frame.patches.index
        valid[i, :count] = True
        slot[i, : len(frame.slots)] = frame.slots
    return Frames(
        patches=torch.from_numpy(patches),
        index=torch.from_numpy(index),
        valid=torch.from_numpy(valid),
        slot=torch.from_numpy(slot),
        frame=torch.tensor([frame.number for frame in frames]),
    )
