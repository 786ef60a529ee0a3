"""One training step as a plain function. Works alone or inside an initialised ``torch.distributed`` group.

Every worker computes the sums of its own packed sequences. What they are divided by is summed over the whole global
batch, so that the update does not depend on how the batch is spread over workers, but for the order of summation.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torch.nn.parallel import DistributedDataParallel

from omnimill.training.engine.flops import StepFlops
from omnimill.training.engine.loss import modality_sums, modality_weights, task_sums, total_loss
from omnimill.training.loading.batch import DecoderModality, PackedBatch

_MODALITIES = [modality.name.lower() for modality in DecoderModality]


@dataclass(frozen=True)
class StepMetrics:
    """What one update saw, over the whole global batch; equal on all workers.

    loss: what is minimised: per modality (NLL + z-loss) / weight, times its share, added up, or with the weight of all
        modalities. NaN or infinite when it was so.
    modality_loss, task_loss: mean NLL in nats a target token, by name; those without a target in the batch are absent.
    encoder_tokens, decoder_tokens: real ones. encoder_padding, decoder_padding: share of slots without one.
    grad_norm: before clipping. skipped: the update was left out because loss or gradient was not finite.
    flops: operations of the step that were of use. attention_logit: the largest, by group of layers; empty where not
        watched. Both are the learner's to fill in.
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
    flops: StepFlops | None = None
    attention_logit: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class StepSettings:
    """tasks: number of tasks in the mixture. z_loss: weight of (log Z)². shares: what each modality's loss counts, in
    the order of :class:`DecoderModality`. over_all: modalities are divided by the weight of all of them, not each by
    its own. gradient_clip: most that the gradient's global norm may be. micro_batches:
    parts that the batch is computed in; no more than its sequences, and equally many on all workers.
    """

    tasks: int
    z_loss: float
    gradient_clip: float
    shares: tuple[float, float, float] = (1.0, 1.0, 1.0)
    micro_batches: int = 1
    over_all: bool = False


def train_step(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    batch: PackedBatch,
    settings: StepSettings,
    learning_rate: float,
    trained: Sequence[nn.Parameter] | None = None,
    learn: bool = True,
) -> StepMetrics:
    """Forward, backward and update on this worker's part of the global batch.

    Args:
        model: maps a batch to `TokenLosses`; inside a group, wrapped so that gradients are averaged over workers.
        trained: parameters that are changed; all that the optimizer has when None.
        learn: whether there is an update; without one everything is measured all the same.
    """
    optimizer.zero_grad(set_to_none=True)
    weight = sum_over_workers(modality_weights(batch).double())
    divisor = torch.where(weight > 0, weight.sum(), 0.0) if settings.over_all else weight
    parts = batch.split(settings.micro_batches)
    sums: list[Tensor] = []
    for number, part in enumerate(parts):
        with _averaging(model, number == len(parts) - 1):
            losses = model(part)
            of_part = modality_sums(losses, part, settings.z_loss)
            # Workers' gradients are averaged, not added: undo the division.
            torch.autograd.backward(total_loss(of_part, divisor.float(), settings.shares) * _workers())
        by_task = task_sums(losses, part, settings.tasks)
        sums.append(torch.cat([value.detach().double() for value in (of_part.nll, of_part.z, *by_task)]))
    norm = _clip(optimizer, trained, settings.gradient_clip)

    counts = torch.cat([_slots(batch.encoder_segment), _slots(batch.decoder_segment)])
    totals = sum_over_workers(torch.cat([torch.stack(sums).sum(0), counts])).cpu()
    sizes = [len(weight), len(weight), settings.tasks, settings.tasks, 2, 2]
    nll, z, task_nll, task_weight, encoder, decoder = torch.split(totals, sizes)
    weight, divisor = weight.cpu(), divisor.cpu()
    present = weight > 0
    shares = torch.tensor(settings.shares, dtype=torch.float64)
    loss = float((shares * (nll + z) / divisor)[present].sum())
    finite = math.isfinite(loss) and math.isfinite(norm)
    if finite and learn:
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


@contextmanager
def _averaging(model: nn.Module, last: bool) -> Iterator[None]:
    """DDP averages what all micro-batches have added up, with the last one; FSDP averages each, as it keeps shards."""
    with nullcontext() if last or not isinstance(model, DistributedDataParallel) else model.no_sync():
        yield


def _clip(optimizer: torch.optim.Optimizer, trained: Sequence[nn.Parameter] | None, most: float) -> float:
    """Clip the gradients by their global norm, of parameters that are not `trained` drop them; the norm before."""
    every = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    parameters = every if trained is None else trained
    for parameter in set(every) - set(parameters):
        parameter.grad = None
    for parameter in parameters:
        # A part of the model that no worker used still gets an update (momentum, second moments), as it would with any
        # other number of workers.
        if parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
    norm = nn.utils.clip_grad_norm_(parameters, most)
    return float(norm.full_tensor() if isinstance(norm, DTensor) else norm)


def _workers() -> int:
    return dist.get_world_size() if dist.is_initialized() else 1


def _slots(segment: Tensor) -> Tensor:
    """[2]: real slots, all slots."""
    return torch.stack([(segment > 0).sum(), torch.tensor(segment.numel(), device=segment.device)])


def _means(sums: Tensor, weights: Tensor) -> dict[int, float]:
    pairs = zip(sums.tolist(), weights.tolist(), strict=True)
    return {i: value / weight for i, (value, weight) in enumerate(pairs) if weight > 0}
