"""The function that runs in every one of Ray Train's workers. Imports little: each worker imports it anew."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import ray.train
import ray.train.torch

from omnimill.tokenizers.fit import FitTask, Worker, train_network


def on_worker(settings: Mapping[str, Any]) -> None:
    """Train as one worker of Ray's group.

    Args:
        settings: `task`, a :class:`FitTask` as JSON, and `told`, a queue for what worker 0 has to say.
    """
    context = ray.train.get_context()
    worker = Worker(
        rank=context.get_world_rank(),
        world=context.get_world_size(),
        device=ray.train.torch.get_device(),
        wrap=ray.train.torch.prepare_model,
        told=settings["told"].put,
    )
    train_network(FitTask.model_validate(settings["task"]), worker)
