"""Batches on their way to the device that trains, copied while the step before is computed."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from omnimill.training.loading.batch import PackedBatch


@dataclass(frozen=True)
class Arriving:
    """A batch whose copy was begun. copied: when it is done; None: there was nothing to copy."""

    batch: PackedBatch
    copied: torch.cuda.Event | None = None

    def take(self) -> PackedBatch:
        """The batch, for work that is queued from now on on the current stream."""
        if self.copied is not None:
            stream = torch.cuda.current_stream(self.batch.decoder_ids.device)
            stream.wait_event(self.copied)
            # The allocator may not give the memory to the copies of later batches before the step has read it.
            self.batch.map(lambda tensor: _recorded(tensor, stream))
        return self.batch


class Transfer:
    """Copies batches to `device`: to a CPU not at all, to a GPU from page-locked memory on a stream of its own."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._stream = torch.cuda.Stream(device) if device.type == "cuda" else None  # type: ignore[no-untyped-call]

    def begin(self, batch: PackedBatch) -> Arriving:
        """Begin to copy; may be called in another thread than the one that trains."""
        if self._stream is None:
            return Arriving(batch.to(self._device))
        with torch.cuda.stream(self._stream):
            moved = batch.map(Tensor.pin_memory).to(self._device)
            return Arriving(moved, self._stream.record_event())


def _recorded(tensor: Tensor, stream: torch.cuda.Stream) -> Tensor:
    tensor.record_stream(stream)
    return tensor
