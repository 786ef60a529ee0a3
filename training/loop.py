"""What every worker of a run does: take up the newest checkpoint, train, publish checkpoints.

Plain PyTorch: alone, or inside an initialised ``torch.distributed`` group. Ray Train wraps it in
``omnimill.training.run``. Only worker 0 writes into the run's folder.
"""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any, TypeVar

import torch
import torch.distributed as dist

from omnimill.mixtures.ledger import Ledger, task_names
from omnimill.mixtures.online import next_horizon
from omnimill.training.checkpoint import (
    CheckpointRecord,
    load_optimizer,
    load_weights,
    newest,
    prune,
    read_record,
    run_folder,
    save,
)
from omnimill.training.evaluation import Evaluator
from omnimill.training.history import TIMING, HistoryWriter, run_lock
from omnimill.training.inputs import TrainInputs, open_loader
from omnimill.training.learner import Learner
from omnimill.training.loader import Loader, merge_states
from omnimill.training.planner import PackedSequence
from omnimill.training.records import Decisions, go_on
from omnimill.training.replay import combine_digests, sequence_digest
from omnimill.training.step import StepMetrics, sum_over_workers

T = TypeVar("T")


@dataclass(frozen=True)
class Worker:
    """One of the processes that train together.

    rank: its number; world: how many there are.
    published: told by every worker about each checkpoint, once it is published: the updates done, and the loss.
    """

    rank: int = 0
    world: int = 1
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    published: Callable[[int, float], None] | None = None


def train_worker(inputs: TrainInputs, root: str, worker: Worker, mlflow_run: str | None = None) -> None:
    """Train from the run's newest checkpoint, or from the beginning, until `inputs.config.steps` updates are done.

    Args:
        root: where the token dataset and the run lie.
        mlflow_run: recorded in checkpoints.
    """
    config = inputs.config
    torch.set_num_threads(config.threads)
    run = run_folder(root, config.name)
    with ExitStack() as stack:
        if worker.rank == 0:
            stack.enter_context(run_lock(run))
        folder = _agree(newest(run) if worker.rank == 0 else None)
        record = read_record(folder) if folder else None
        start = record.step if record else 0

        book = Ledger(run)
        entries = _agree([held.entry for held in go_on(book, inputs, record)] if worker.rank == 0 else [])
        state = record.plan if record else None
        loader = stack.enter_context(
            open_loader(inputs, root, entries, rank=worker.rank, world=worker.world, state=state)
        )
        if config.online:
            loader.expect(next_horizon(config.online, start))
        history = stack.enter_context(HistoryWriter(run, start)) if worker.rank == 0 else None
        decisions = Decisions(inputs, book, run) if history and config.online else None
        tasks = task_names(entries)
        learner = Learner(inputs, len(tasks), worker.device, resumed=record is not None)
        if folder:
            device = str(worker.device)
            learner.load({"model": load_weights(folder, device), "optimizer": load_optimizer(folder, device)})
        evaluator = (
            Evaluator(inputs, root, worker.device, rank=worker.rank, world=worker.world)
            if config.evaluation.every
            else None
        )
        examples = Counter(record.examples if record else {})
        for step in range(start, config.steps):
            line = _one_step(step, learner, loader, inputs, worker, tasks)
            examples.update(line["examples"])
            done = step + 1
            if evaluator and config.evaluation.due(done, config.steps):
                line["evaluation"] = evaluator.evaluate(learner)
            if history:
                history.append(line)
            if decisions:
                decisions.saw(line)
            if config.online and done % config.online.every == 0:
                update = _agree(decisions.decide(done) if decisions else None)
                assert update is not None
                loader.weigh(update, next_horizon(config.online, done))
            if done % config.checkpoint_every == 0 or done == config.steps or "evaluation" in line:
                plan = _gather_plan(loader, worker)
                if history and plan is not None:
                    history.to_disk()
                    record = CheckpointRecord(
                        **dict(inputs),
                        run=config.name,
                        step=done,
                        plan=plan,
                        ledger=book.held()[-1].digest,
                        examples=dict(sorted(examples.items())),
                        mlflow_run=mlflow_run,
                    )
                    weights = learner.state()
                    save(run, record, weights["model"], weights["optimizer"])
                    prune(run, config.keep_checkpoints)
                if worker.published:
                    worker.published(done, line["loss"] if line["loss"] is not None else math.nan)


def _one_step(
    step: int,
    learner: Learner,
    loader: Loader,
    inputs: TrainInputs,
    worker: Worker,
    tasks: list[str],
) -> dict[str, Any]:
    """One update; returns its line of the history. tasks: by their numbers."""
    config = inputs.config
    began = time.perf_counter()
    planned, batch, sequences = next(loader)
    assert planned == step, f"the loader gave step {planned} for step {step}"
    waited = time.perf_counter() - began
    metrics = learner.update(batch, step)
    counts, digest, waited = _share_facts(sequences, waited, len(tasks), config.streams, worker)
    seconds = time.perf_counter() - began
    return {
        "step": step,
        "plan": digest,
        **_metrics_line(metrics, tasks),
        "learning_rate": learner.learning_rate(step),
        "examples": {tasks[i]: count for i, count in enumerate(counts) if count},
        TIMING: {
            "seconds": seconds,
            "tokens_per_second": (metrics.encoder_tokens + metrics.decoder_tokens) / seconds,
            "data_wait_share": waited / seconds,
        },
    }


def _metrics_line(metrics: StepMetrics, tasks: list[str]) -> dict[str, Any]:
    def finite(value: float) -> float | None:
        return value if math.isfinite(value) else None

    return {
        "loss": finite(metrics.loss),
        "loss_by_modality": {name: finite(value) for name, value in metrics.modality_loss.items()},
        "loss_by_task": {tasks[i]: finite(value) for i, value in metrics.task_loss.items()},
        "grad_norm": finite(metrics.grad_norm),
        "skipped": metrics.skipped,
        "tokens": {"encoder": metrics.encoder_tokens, "decoder": metrics.decoder_tokens},
        "padding_share": {"encoder": metrics.encoder_padding, "decoder": metrics.decoder_padding},
    }


def _share_facts(
    sequences: list[PackedSequence], waited: float, tasks: int, streams: int, worker: Worker
) -> tuple[list[int], str, float]:
    """Over all workers: examples of every task, digest of the step's plan, mean seconds of waiting for data."""
    counts = Counter(item.task for sequence in sequences for item in sequence.items)
    # Whole numbers in one sum: every stream has one worker, which alone adds the stream's digest.
    facts = torch.zeros(tasks + streams + 1, dtype=torch.int64)
    for task, count in counts.items():
        facts[task] = count
    for sequence in sequences:
        facts[tasks + sequence.stream] = sequence_digest(sequence)
    facts[-1] = round(waited * 1e6)
    *values, microseconds = sum_over_workers(facts.to(worker.device)).tolist()
    return values[:tasks], combine_digests(values[tasks:]), microseconds / 1e6 / worker.world


def _agree(choice: T) -> T:
    """Worker 0's choice, for all workers."""
    chosen = [choice]
    if dist.is_initialized():
        dist.broadcast_object_list(chosen)
    return chosen[0]


def _gather_plan(loader: Loader, worker: Worker) -> Mapping[str, Any] | None:
    """The loader's state over all streams, on worker 0; None elsewhere."""
    states: list[Any] = [loader.state_dict()]
    if dist.is_initialized():
        states = [None] * worker.world
        dist.all_gather_object(states, loader.state_dict())
    return merge_states(states) if worker.rank == 0 else None
