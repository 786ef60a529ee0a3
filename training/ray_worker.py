"""The function that runs in every one of Ray Train's workers. Imports little: each worker imports it anew."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import ray.train
import ray.train.torch

from omnimill.training.inputs import TrainInputs
from omnimill.training.loop import Worker, train_worker


def on_worker(settings: Mapping[str, Any]) -> None:
    """Train as one worker of Ray's group; `settings` are the arguments of :func:`train_worker` as JSON."""
    context = ray.train.get_context()
    worker = Worker(
        rank=context.get_world_rank(),
        world=context.get_world_size(),
        device=ray.train.torch.get_device(),
        published=lambda step, loss: ray.train.report({"step": step, "loss": loss}),
    )
    train_worker(TrainInputs.model_validate(settings["inputs"]), settings["root"], worker, settings["mlflow_run"])
