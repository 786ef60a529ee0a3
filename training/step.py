"""One training step as a plain function. Works alone or inside an initialised ``torch.distributed`` group.

Every worker computes the sums of its own packed sequences. What they are divided by is summed over the whole global
batch, so that the update does not depend on how the batch is spread over workers, but for the order of summation.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor, nn

from omnimill.training.batch import DecoderModality, PackedBatch
from omnimill.training.loss import modality_sums, task_sums, total_loss

_MODALITIES = [modality.name.lower() for modality in DecoderModality]


@dataclass(frozen=True)
class StepMetrics:
    """What one update saw, over the whole global batch; equal on all workers.

    loss: what is minimised: per modality (NLL + z-loss) / weight, added up. NaN or infinite when it was so.
    modality_loss, task_loss: mean NLL in nats a target token, by name; those without a target in the batch are absent.
    encoder_tokens, decoder_tokens: real ones. encoder_padding, decoder_padding: share of slots without one.
    grad_norm: before clipping. skipped: the update was left out because loss or gradient was not finite.
    """

    loss: float
    modality_loss: dict[str, float]
    task_loss: dict[int, float]
    encoder_tokens: int
    decoder_tokens: int
    encoder_padding: float
    decoder_padding: float
    grad_norm: float
    skipped: bool


def train_step(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    batch: PackedBatch,
    *,
    tasks: int,
    learning_rate: float,
    z_loss: float,
    gradient_clip: float,
) -> StepMetrics:
    """Forward, backward and update on this worker's part of the global batch.

    Args:
        model: maps the batch to `TokenLosses`; inside a group, wrapped so that gradients are averaged over workers.
        tasks: number of tasks in the mixture.
    """
    losses = model(batch)
    sums = modality_sums(losses, batch, z_loss)
    by_task = task_sums(losses, batch, tasks)
    parts = [*(part.detach() for part in sums), *by_task, _slots(batch.encoder_segment), _slots(batch.decoder_segment)]
    totals = sum_over_workers(torch.cat([part.double() for part in parts]))
    nll, z, weight, task_nll, task_weight, encoder, decoder = torch.split(totals, [len(part) for part in parts])

    optimizer.zero_grad(set_to_none=True)
    # Workers' gradients are averaged, not added: undo the division.
    torch.autograd.backward(total_loss(sums, weight.float()) * _workers())
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    for parameter in parameters:
        # A part of the model that no worker used still gets an update (momentum, second moments), as it would with any
        # other number of workers.
        if parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
    norm = nn.utils.clip_grad_norm_(parameters, gradient_clip).item()

    present = weight > 0
    loss = float(((nll + z)[present] / weight[present]).sum())
    finite = math.isfinite(loss) and math.isfinite(norm)
    if finite:
        for group in optimizer.param_groups:
            group["lr"] = learning_rate
        optimizer.step()
    return StepMetrics(
        loss=loss,
        modality_loss={_MODALITIES[i]: mean for i, mean in _means(nll, weight).items()},
        task_loss=_means(task_nll, task_weight),
        encoder_tokens=int(encoder[0]),
        decoder_tokens=int(decoder[0]),
        encoder_padding=1.0 - float(encoder[0] / encoder[1]),
        decoder_padding=1.0 - float(decoder[0] / decoder[1]),
        grad_norm=norm,
        skipped=not finite,
    )


def sum_over_workers(values: Tensor) -> Tensor:
    """`values` added up over all workers, in place; as they are outside a group."""
    if dist.is_initialized():
        dist.all_reduce(values)
    return values


def _workers() -> int:
    return dist.get_world_size() if dist.is_initialized() else 1


def _slots(segment: Tensor) -> Tensor:
    """[2]: real slots, all slots."""
    return torch.stack([(segment > 0).sum(), torch.tensor(segment.numel(), device=segment.device)])


def _means(sums: Tensor, weights: Tensor) -> dict[int, float]:
    pairs = zip(sums.tolist(), weights.tolist(), strict=True)
    return {i: value / weight for i, (value, weight) in enumerate(pairs) if weight > 0}
