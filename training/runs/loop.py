"""What every worker of a run does: take up the newest checkpoint, train, publish checkpoints.

Plain PyTorch: alone, or inside an initialised ``torch.distributed`` group. Ray Train wraps it in
``omnimill.training.runs.run``. Only worker 0 writes into the run's folder.
"""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import torch
import torch.distributed as dist

from omnimill.mixtures.ledger import Ledger, task_names
from omnimill.mixtures.online import next_horizon
from omnimill.mixtures.versions import less_erased
from omnimill.training.checkpoints.checkpoint import load_state, newest, read_record, run_folder
from omnimill.training.checkpoints.starting_weights import carried, carry_on
from omnimill.training.checkpoints.writer import CheckpointWriter
from omnimill.training.engine.flops import peak_flops
from omnimill.training.engine.learner import Learner
from omnimill.training.engine.step import StepMetrics, sum_over_workers
from omnimill.training.evaluation.losses import Evaluator
from omnimill.training.lineage import waypoints
from omnimill.training.lineage.replay import combine_digests, sequence_digest
from omnimill.training.loading.loader import Loader, merge_states
from omnimill.training.planning.planner import PackedSequence
from omnimill.training.runs.history import TIMING, run_lock
from omnimill.training.runs.inputs import TrainInputs, open_loader
from omnimill.training.runs.notices import Notice
from omnimill.training.runs.records import Books, go_on

T = TypeVar("T")


@dataclass(frozen=True)
class Worker:
    """One of the processes that train together.

    rank: its number; world: how many there are.
    leaving: whether it was said, since it was asked last, that a machine will be taken away. All workers ask it after
        the same steps and get the same answer; None: nobody can say.
    """

    rank: int = 0
    world: int = 1
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    leaving: Callable[[], bool] | None = None


def train_worker(
    inputs: TrainInputs, root: str, worker: Worker, mlflow_run: str | None = None, run: Path | None = None
) -> None:
    """Train from the run's newest checkpoint, or from the beginning, until `inputs.config.steps` updates are done.

    A run that is told to stop ends earlier, with a checkpoint.

    Args:
        root: where the token dataset lies.
        mlflow_run: recorded in checkpoints.
        run: its folder; None: where `run_folder` says.
    """
    config = inputs.config
    torch.set_num_threads(config.threads)
    run = run or run_folder(root, config.name)
    with ExitStack() as stack:
        if worker.rank == 0:
            stack.enter_context(run_lock(run))
        folder = _agree(newest(run) if worker.rank == 0 else None)
        record = read_record(folder) if folder else None
        start = record.step if record else 0
        source, before = (folder, record.updates_before) if record else _taken_over(inputs, worker)
        # A worker group that is started again goes on without what was erased since.
        versions = _agree(less_erased(root, inputs.versions) if worker.rank == 0 else inputs.versions)
        inputs = inputs.model_copy(update={"updates_before": before, "versions": versions})

        book = Ledger(run)
        entries = _agree([held.entry for held in go_on(book, inputs, record)] if worker.rank == 0 else [])
        plan = record.plan if record else None
        loader = stack.enter_context(
            open_loader(inputs, root, entries, rank=worker.rank, world=worker.world, state=plan, device=worker.device)
        )
        if config.online:
            loader.expect(next_horizon(config.online, start))
        books = stack.enter_context(Books(run, inputs, book, record, mlflow_run)) if worker.rank == 0 else None
        tasks = task_names(entries)
        learner = Learner(inputs, len(tasks), worker.device, resumed=source is not None)
        writer = stack.enter_context(CheckpointWriter(run, config.checkpoints, on_gpu=worker.device.type == "cuda"))
        if source:
            state = learner.state()
            (load_state if folder else carry_on)(source, state, writer.group)
            learner.load(state)
        evaluator = (
            Evaluator(inputs, root, worker.device, rank=worker.rank, world=worker.world)
            if config.evaluation.every
            else None
        )
        peak = peak_flops(worker.device, getattr(torch, config.precision.activations))
        for step in range(start, config.steps):
            line, notice = _one_step(step, learner, loader, inputs, worker, tasks, books, peak)
            done = step + 1
            if evaluator and config.evaluation.due(done, config.steps):
                line["evaluation"] = evaluator.evaluate(learner)
            if books:
                books.saw(line)
            if config.online and done % config.online.every == 0:
                update = _agree(books.decide(done) if books else None)
                assert update is not None
                loader.weigh(update, next_horizon(config.online, done))
            stops = notice == Notice.STOP
            leaves = bool(notice) and worker.leaving is not None and worker.leaving()
            saves = config.checkpoints.due(done, config.steps) or "evaluation" in line or stops or leaves
            stands = _gather_plan(loader, worker, run, done) if saves or waypoints.due(done) else None
            if saves:
                writer.save(books.record(stands) if books and stands else None, learner.state())
                if leaves:
                    # There may be no time for another step.
                    writer.wait()
            if stops:
                break


def _taken_over(inputs: TrainInputs, worker: Worker) -> tuple[Path | None, int]:
    """For a run that begins: the checkpoint whose whole state it takes over, if any, and the updates done by then."""
    if not inputs.config.init_optimizer:
        return None, 0
    return _agree(carried(inputs) if worker.rank == 0 else (Path(), 0))


def _one_step(
    step: int,
    learner: Learner,
    loader: Loader,
    inputs: TrainInputs,
    worker: Worker,
    tasks: list[str],
    books: Books | None,
    peak: float | None,
) -> tuple[dict[str, Any], Notice]:
    """One update; returns its line of the history, and what the workers are told after it.

    Args:
        tasks: by their numbers.
        books: worker 0's.
        peak: operations a second that the device can do.
    """
    config = inputs.config
    began = time.perf_counter()
    planned, batch, sequences = next(loader)
    assert planned == step, f"the loader gave step {planned} for step {step}"
    waited = time.perf_counter() - began
    metrics = learner.update(batch, step)
    seen = books.notices.look() if books else Notice.NONE
    counts, digest, waited, notice = _share_facts(sequences, waited, len(tasks), config.streams, worker, seen)
    seconds = time.perf_counter() - began
    left_out = config.leaves_out(step)
    line = {
        "step": step,
        "plan": digest,
        **_metrics_line(metrics, tasks),
        "learning_rate": learner.learning_rate(step),
        **({"left_out": True} if left_out else {}),
        "examples": {} if left_out else {tasks[i]: count for i, count in enumerate(counts) if count},
        TIMING: {
            "seconds": seconds,
            "tokens_per_second": (metrics.encoder_tokens + metrics.decoder_tokens) / seconds,
            "data_wait_share": waited / seconds,
            **_use_of_devices(metrics, seconds, peak, worker.world),
        },
    }
    return line, notice


def _use_of_devices(metrics: StepMetrics, seconds: float, peak: float | None, workers: int) -> dict[str, float | None]:
    """Operations a second on every device; ``mfu``: their share of its peak, ``mfu_transformer``: of those of encoder
    and decoder alone. None where the peak is not known."""
    assert metrics.flops is not None
    done = metrics.flops.total / seconds / workers
    share = metrics.flops.transformer / metrics.flops.total
    mfu = None if peak is None else done / peak
    return {"flops_per_second": done, "mfu": mfu, "mfu_transformer": None if mfu is None else mfu * share}


def _metrics_line(metrics: StepMetrics, tasks: list[str]) -> dict[str, Any]:
    def finite(value: float) -> float | None:
        return value if math.isfinite(value) else None

    return {
        "loss": finite(metrics.loss),
        "loss_by_modality": {name: finite(value) for name, value in metrics.modality_loss.items()},
        "loss_by_task": {tasks[i]: finite(value) for i, value in metrics.task_loss.items()},
        "grad_norm": finite(metrics.grad_norm),
        "skipped": metrics.skipped,
        "attention_logit": {group: finite(value) for group, value in metrics.attention_logit.items()},
        "tokens": {"encoder": metrics.encoder_tokens, "decoder": metrics.decoder_tokens},
        "padding_share": {"encoder": metrics.encoder_padding, "decoder": metrics.decoder_padding},
    }


def _share_facts(
    sequences: list[PackedSequence], waited: float, tasks: int, streams: int, worker: Worker, seen: Notice
) -> tuple[list[int], str, float, Notice]:
    """Over all workers: examples of every task, digest of the step's plan, mean seconds of waiting for data; and what
    worker 0 has seen.
    """
    counts = Counter(item.task for sequence in sequences for item in sequence.items)
    # Whole numbers in one sum: every stream has one worker, which alone adds the stream's digest.
    facts = torch.zeros(tasks + streams + 2, dtype=torch.int64)
    for task, count in counts.items():
        facts[task] = count
    for sequence in sequences:
        facts[tasks + sequence.stream] = sequence_digest(sequence)
    facts[-2], facts[-1] = round(waited * 1e6), seen
    *values, microseconds, notice = sum_over_workers(facts.to(worker.device)).tolist()
    return values[:tasks], combine_digests(values[tasks:]), microseconds / 1e6 / worker.world, Notice(notice)


def _agree(choice: T) -> T:
    """Worker 0's choice, for all workers."""
    chosen = [choice]
    if dist.is_initialized():
        dist.broadcast_object_list(chosen)
    return chosen[0]


def _gather_plan(loader: Loader, worker: Worker, run: Path, done: int) -> Mapping[str, Any] | None:
    """The loader's state over all streams, on worker 0, which keeps it where a waypoint is due; None elsewhere."""
    states: list[Any] = [loader.state_dict()]
    if dist.is_initialized():
        states = [None] * worker.world
        dist.all_gather_object(states, loader.state_dict())
    if worker.rank:
        return None
    plan = merge_states(states)
    if waypoints.due(done):
        waypoints.keep(run, plan)
    return plan
