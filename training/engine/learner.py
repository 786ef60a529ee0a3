"""What learns: the model and its optimizer, alone or in an initialised ``torch.distributed`` group."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
import torch.distributed as dist
from torch.distributed.checkpoint.state_dict import get_state_dict, set_state_dict

from omnimill.training.backbone.build import AnyBackbone, build
from omnimill.training.backbone.model import TokenLosses
from omnimill.training.backbone.watch import groups_of, watch_attention
from omnimill.training.checkpoints.starting_weights import fill
from omnimill.training.engine.flops import StepFlops, step_flops
from omnimill.training.engine.optim import build_optimizer
from omnimill.training.engine.parallel import distribute, prepare_layers, whole
from omnimill.training.engine.schedules import learning_rate
from omnimill.training.engine.step import StepMetrics, StepSettings, sum_over_workers, train_step
from omnimill.training.loading.batch import PackedBatch
from omnimill.training.runs.inputs import TrainInputs


class Learner:
    """A backbone and its optimizer, and how an update changes them.

    Args:
        inputs: what decides what is learnt.
        tasks: number of tasks that batches name.
        device: where the model lies and batches are brought.
        resumed: :meth:`load` follows, so that there are no weights yet.
    """

    def __init__(self, inputs: TrainInputs, tasks: int, device: torch.device, *, resumed: bool) -> None:
        config = self._config = inputs.config
        self._before = inputs.updates_before
        self.device = device
        self._settings = StepSettings(
            tasks=tasks,
            z_loss=config.z_loss,
            gradient_clip=config.gradient_clip,
            shares=(config.loss_weights.text, config.loss_weights.image, config.loss_weights.audio),
            over_all=config.loss_weights.mean == "all",
            micro_batches=config.micro_batches(dist.get_world_size() if dist.is_initialized() else 1),
        )
        if device.type == "cuda":
            torch.set_float32_matmul_precision("high" if config.precision.tf32 else "highest")
        activations = torch.bfloat16 if config.precision.activations == "bfloat16" else torch.float32
        with torch.device("meta" if resumed else "cpu"):
            self.backbone = build(inputs.backbone, config.seed, activations)
        if config.init_from and not resumed:
            fill(self.backbone, config.init_from)
        if config.train_encoders_from is not None:
            for encoder in self.backbone.encoders:
                encoder.requires_grad_(True)
        prepare_layers(self.backbone, config.parallel)
        self._model = distribute(self.backbone, config.parallel, device)
        # What is held back for some time has a group of its own: the optimizer counts its updates apart.
        held = {parameter for encoder in self.backbone.encoders for parameter in encoder.parameters()}
        trained = [parameter for parameter in self.backbone.parameters() if parameter.requires_grad]
        self._always = [
            parameter for parameter in trained if config.train_encoders_from is None or parameter not in held
        ]
        self._later = [
            parameter for parameter in trained if config.train_encoders_from is not None and parameter in held
        ]
        groups = [group for group in (self._always, self._later) if group]
        self._optimizer = build_optimizer(config.optimizer, *groups)

    def update(self, batch: PackedBatch, step: int) -> StepMetrics:
        """The update with index `step` (from 0), on this worker's part of the global batch."""
        batch = batch.to(self.device)
        starts = self._config.train_encoders_from
        if starts is not None:
            self.backbone.hold_encoders = step < starts
        every = self._config.watch_attention
        logits = self._attention_logits(batch) if every and step % every == 0 else {}
        metrics = train_step(
            self._model,
            self._optimizer,
            batch,
            self._settings,
            self.learning_rate(step),
            self._always if self.backbone.hold_encoders else [*self._always, *self._later],
            learn=not self._config.leaves_out(step),
        )
        flops = step_flops(batch, self.backbone.config, not self.backbone.hold_encoders)
        return replace(metrics, flops=StepFlops(*sum_over_workers(flops).tolist()), attention_logit=logits)

    @torch.no_grad()
    def losses(self, batch: PackedBatch) -> TokenLosses:
        """Of a batch on `device`, without gradients; all workers have to ask for one at the same time."""
        losses: TokenLosses = self.backbone(batch)
        return losses

    @contextmanager
    def whole(self) -> Iterator[AnyBackbone]:
        """The backbone with all its weights on this worker, to be used without gradients; all workers enter and leave
        the ``with`` block together, and in it each does what it likes."""
        with whole(self.backbone):
            yield self.backbone

    def learning_rate(self, step: int) -> float:
        """The rate of the update with index `step`."""
        return learning_rate(self._config.optimizer, self._before + step)

    def state(self) -> dict[str, Any]:
        """``model`` and ``optimizer``, by the parameters' full names; the tensors are those in use, not copies."""
        model, optimizer = get_state_dict(self.backbone, self._optimizer)
        return {"model": model, "optimizer": optimizer}

    def load(self, state: dict[str, Any]) -> None:
        """Take over what :meth:`state` gave, here or in another run of the same model."""
        set_state_dict(
            self.backbone, self._optimizer, model_state_dict=state["model"], optim_state_dict=state["optimizer"]
        )

    def _attention_logits(self, batch: PackedBatch) -> dict[str, float]:
        """The largest of every group of layers, over the first sequence of every worker."""
        one = batch.split(len(batch.encoder_segment))[0]
        groups = groups_of(self.backbone)
        with watch_attention(self.backbone) as maxima:
            self.losses(one)
        nothing = torch.tensor(-torch.inf, device=self.device)
        found = torch.stack([maxima.get(group, nothing) for group in groups])
        if dist.is_initialized():
            dist.all_reduce(found, dist.ReduceOp.MAX)
        return {group: value for group, value in zip(groups, found.tolist(), strict=True) if value > -torch.inf}
