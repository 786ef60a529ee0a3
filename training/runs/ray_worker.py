"""The function that runs in every one of Ray Train's workers. Imports little: each worker imports it anew."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import ray.train
import ray.train.torch

from omnimill.training.runs.inputs import TrainInputs
from omnimill.training.runs.loop import Worker, train_worker


def on_worker(settings: Mapping[str, Any]) -> None:
    """Train as one worker of Ray's group; `settings` are the arguments of :func:`train_worker` as JSON.

    ``cluster``: whether machines can be taken away, of which Ray is asked then.
    """
    context = ray.train.get_context()
    worker = Worker(
        rank=context.get_world_rank(),
        world=context.get_world_size(),
        device=ray.train.torch.get_device(),
        leaving=_leaving() if settings["cluster"] else None,
    )
    inputs = TrainInputs.model_validate(settings["inputs"])
    train_worker(inputs, settings["root"], worker, settings["mlflow_run"], Path(settings["run"]))


def _leaving() -> Callable[[], bool]:
    """Whether Ray has said something new of machines that will be taken away; waits for all workers to ask."""
    before = None

    def leaving() -> bool:
        nonlocal before
        now = ray.train.get_preemption_info()
        new, before = now is not None and now != before, now
        return new

    return leaving
