"""What learns: the model and its optimizer, alone or in an initialised ``torch.distributed`` group."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.checkpoint.state_dict import get_state_dict, set_state_dict
from torch.nn.parallel import DistributedDataParallel

from omnimill.training.backbone.model import Backbone, TokenLosses
from omnimill.training.batch import PackedBatch
from omnimill.training.inputs import TrainInputs
from omnimill.training.optim import build_optimizer
from omnimill.training.schedules import learning_rate
from omnimill.training.starting_weights import fill
from omnimill.training.step import StepMetrics, train_step


class Learner:
    """A backbone and its optimizer, and how an update changes them.

    Args:
        inputs: what decides what is learnt.
        tasks: number of tasks that batches name.
        device: where the model lies and batches are brought.
        resumed: :meth:`load` follows, so that weights to start from need not be read.
    """

    def __init__(self, inputs: TrainInputs, tasks: int, device: torch.device, *, resumed: bool) -> None:
        self._config, self._tasks, self.device = inputs.config, tasks, device
        self.backbone = Backbone(inputs.backbone, seed=inputs.config.seed)
        if inputs.config.init_from and not resumed:
            fill(self.backbone, inputs.config.init_from)
        self.backbone.to(device)
        self._optimizer = build_optimizer(
            inputs.config.optimizer, [parameter for parameter in self.backbone.parameters() if parameter.requires_grad]
        )
        self._model = self._wrapped()

    def update(self, batch: PackedBatch, step: int) -> StepMetrics:
        """The update with index `step` (from 0), on this worker's part of the global batch."""
        return train_step(
            self._model,
            self._optimizer,
            batch.to(self.device),
            tasks=self._tasks,
            learning_rate=self.learning_rate(step),
            z_loss=self._config.z_loss,
            gradient_clip=self._config.gradient_clip,
        )

    @torch.no_grad()
    def losses(self, batch: PackedBatch) -> TokenLosses:
        """Of a batch on `device`, without gradients; all workers have to ask for one at the same time."""
        losses: TokenLosses = self.backbone(batch)
        return losses

    def learning_rate(self, step: int) -> float:
        """The rate of the update with index `step`."""
        return learning_rate(self._config.optimizer, step)

    def state(self) -> dict[str, Any]:
        """``model`` and ``optimizer``, by the parameters' full names; the tensors are those in use, not copies."""
        model, optimizer = get_state_dict(self.backbone, self._optimizer)
        return {"model": model, "optimizer": optimizer}

    def load(self, state: dict[str, Any]) -> None:
        """Take over what :meth:`state` gave, here or in another run of the same model."""
        set_state_dict(
            self.backbone, self._optimizer, model_state_dict=state["model"], optim_state_dict=state["optimizer"]
        )

    def _wrapped(self) -> nn.Module:
        if not dist.is_initialized() or dist.get_world_size() == 1:
            return self.backbone
        # Every batch leaves other parts of the model unused. And only like this does DDP keep its buckets for good, so
        # that the first step after a resume adds gradients up in the same order as any other.
        return DistributedDataParallel(
            self.backbone,
            device_ids=[self.device] if self.device.type == "cuda" else None,
            find_unused_parameters=True,
        )
