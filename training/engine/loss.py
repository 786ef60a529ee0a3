"""The training loss: per target modality, numerators and denominators apart.

A worker adds up its own tokens; the sums over all workers are divided afterwards, so the loss does not depend on how
the global batch is spread.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from omnimill.training.backbone.model import TokenLosses
from omnimill.training.loading.batch import DecoderModality, PackedBatch

Z_LOSS = 1e-4


class ModalitySums(NamedTuple):
    """float32 [3] each, in the order of :class:`DecoderModality`.

    nll: sum of weight * -log p(target). z: sum of weight * z_loss * (log Z)². weight: sum of weights.
    """

    nll: Tensor
    z: Tensor
    weight: Tensor


class TaskSums(NamedTuple):
    """float32 [tasks] each: sum of weight * -log p(target), and sum of weights."""

    nll: Tensor
    weight: Tensor


def modality_sums(losses: TokenLosses, batch: PackedBatch, z_loss: float = Z_LOSS) -> ModalitySums:
    """Loss sums of this batch per target modality; `nll` and `z` carry gradients.

    Args:
        z_loss: weight of (log Z)², which keeps logits from drifting.
    """
    weight = batch.decoder_loss
    parts = (weight * losses.nll, weight * z_loss * losses.log_z.square())
    of_modality = [batch.decoder_modality == modality for modality in DecoderModality]
    nll, z = (torch.stack([(part * of).sum() for of in of_modality]) for part in parts)
    return ModalitySums(nll, z, modality_weights(batch))


def total_loss(sums: ModalitySums, weight: Tensor, shares: Sequence[float] = (1.0, 1.0, 1.0)) -> Tensor:
    """The scalar to minimise: each modality's sums over its weight, times its share, added up.

    Args:
        sums: of one worker (or of all).
        weight: float32 [3], each modality's weight in the whole global batch; a modality of weight 0 adds nothing.
        shares: what each modality's mean counts.
    """
    means = (sums.nll + sums.z) / torch.where(weight > 0, weight, 1.0)
    return (means * torch.tensor(shares, device=means.device, dtype=means.dtype)).sum()


def modality_weights(batch: PackedBatch) -> Tensor:
    """float32 [3]: sums of targets' weights, in the order of :class:`DecoderModality`."""
    of_modality = [batch.decoder_modality == modality for modality in DecoderModality]
    return torch.stack([(batch.decoder_loss * of).sum() for of in of_modality])


def task_sums(losses: TokenLosses, batch: PackedBatch, tasks: int) -> TaskSums:
    """Loss sums of this batch per task, without gradients, for metrics.

    Args:
        tasks: number of tasks in the mixture.
    """
    task = batch.decoder_task.flatten()
    real = task >= 0
    weight = batch.decoder_loss.flatten()[real]
    empty = torch.zeros(tasks, device=weight.device)
    nll = weight * losses.nll.detach().flatten()[real]
    return TaskSums(empty.index_add(0, task[real], nll), empty.index_add(0, task[real], weight))
