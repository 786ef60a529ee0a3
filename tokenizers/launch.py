"""Starts the training of a code network: on Ray Train, or where one worker without a GPU is asked for, right here."""

from __future__ import annotations

import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from queue import Empty
from typing import Any

from omnimill.infra import storage
from omnimill.progress import progress
from omnimill.tokenizers.fit import FitTask, Worker, read_checkpoint, train_network, trained_network
from omnimill.tokenizers.networks import CodeNetwork

# What is told during training: the part's name, values by name, the steps done.
Tell = Callable[[str, Mapping[str, float], int], None]

_SHOWN = ("error", "perceptual", "adversarial", "discriminator", "perplexity", "codes_used")
_POLL_SECONDS = 0.5


def fit(task: FitTask, tell: Tell | None = None) -> CodeNetwork:
    """Train a network, going on from the training's newest checkpoint.

    One worker without a GPU is this process: the start of others would take longer than many a small training.

    Args:
        task: what is to be learnt.
        tell: told the losses and the use of the codebook after every `log_every` steps.

    Returns:
        The network on the CPU, in evaluation mode.
    """
    state = read_checkpoint(task)
    network = trained_network(task, state)
    if network is not None:
        return network
    settings = task.settings
    begun = state["step"] if state is not None else 0
    del state
    with progress(f"tokenizer train {task.part}", settings.steps - begun, unit="steps") as advance:
        done = begun

        def told(line: Mapping[str, float]) -> None:
            nonlocal done
            step = int(line["step"])
            if step > done:  # workers that were started again say some things twice
                advance(step - done, **{name: f"{line[name]:.4g}" for name in _SHOWN if name in line})
                done = step
                if tell is not None:
                    tell(task.part, {name: value for name, value in line.items() if name != "step"}, step)

        if settings.workers == 1 and not settings.num_gpus:
            train_network(task, Worker(told=told))
        else:
            _on_ray(task, told)
    network = trained_network(task, read_checkpoint(task))
    assert network is not None, f"{task.folder} holds no finished training"
    return network


def _on_ray(task: FitTask, told: Callable[[Mapping[str, float]], None]) -> None:
    # Here, because one worker needs no Ray.
    from ray.util.queue import Queue  # noqa: PLC0415

    from omnimill.infra.ray_session import ray_session  # noqa: PLC0415
    from omnimill.infra.ray_train import WorkerGroup, run_workers  # noqa: PLC0415
    from omnimill.tokenizers.ray_worker import on_worker  # noqa: PLC0415

    settings = task.settings
    group = WorkerGroup(settings.workers, settings.threads, settings.num_gpus)
    with ray_session(num_cpus=group.cores(), log_to_driver=False), _scratch(task) as scratch:
        queue = Queue(actor_options={"num_cpus": 0})
        try:
            with _listening(queue, told):
                told_by = {"task": task.model_dump(mode="json"), "told": queue}
                label = f"tokenizer train {task.part}"
                run_workers(on_worker, told_by, group, scratch, label, settings.max_failures)
        finally:
            queue.shutdown()


@contextmanager
def _scratch(task: FitTask) -> Iterator[Path]:
    """A folder for Ray's own files: beside the checkpoints where these are on a disk, which workers share then."""
    if storage.is_local(task.folder):
        yield Path(storage.filesystem(task.folder)[1]) / "ray"
    else:
        with tempfile.TemporaryDirectory(prefix="omnimill-ray-") as folder:
            yield Path(folder)


@contextmanager
def _listening(queue: Any, told: Callable[[Mapping[str, float]], None]) -> Iterator[None]:
    """Pass on what workers say, until the block ends and all is said."""
    stop = threading.Event()

    def listen() -> None:
        while True:
            last = stop.is_set()
            try:
                told(queue.get(timeout=_POLL_SECONDS))
            except Empty:
                if last:
                    return

    thread = threading.Thread(target=listen, name="listener", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
