"""``omnimill train``: a run on Ray Train, started anew or gone on with from its newest checkpoint.

Where to go on from is decided by the run's own checkpoint folders alone, the same way after a lost worker, a killed
driver or a planned stop.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omnimill.errors import ConfigError, Stopped
from omnimill.infra import lineage, storage
from omnimill.infra.dataset import Dataset
from omnimill.infra.erasures import REGISTER, request_url
from omnimill.infra.lineage import CommandRun
from omnimill.infra.observing import Observer
from omnimill.infra.ray_session import ray_session
from omnimill.infra.ray_train import WorkerGroup, run_workers
from omnimill.infra.selections import selection_url
from omnimill.infra.system_metrics import system_metrics
from omnimill.mixtures.course import open_course
from omnimill.mixtures.ledger import Ledger
from omnimill.progress import console, progress
from omnimill.training.checkpoints.checkpoint import (
    CheckpointRecord,
    keep_root,
    newest,
    read_record,
    run_folder,
)
from omnimill.training.checkpoints.starting_weights import INIT_FROM, source_digest
from omnimill.training.evaluation.forgetting import check_remembered, measure_parents
from omnimill.training.runs.aside import set_aside
from omnimill.training.runs.config import ElasticSettings, TrainConfig
from omnimill.training.runs.follow import Follower, checkpoint_name
from omnimill.training.runs.history import TIMING, read_history
from omnimill.training.runs.inputs import TrainInputs, resolve, through_the_ledger
from omnimill.training.runs.notices import stopped_by_signal
from omnimill.training.runs.ray_worker import on_worker

STAGE_TAG = "omnimill.stage"
# How a change begins that is told of erasures.
_ERASURES = "versions.erasures"


@dataclass(frozen=True)
class TrainResult:
    """How a run stands.

    started_at: updates that had been done before this launch. steps: done by now; skipped: those of them that were left
    out because loss or gradient was not finite. loss, loss_by_modality: of the last one.
    """

    run: str
    started_at: int
    steps: int
    skipped: int
    loss: float | None
    loss_by_modality: dict[str, float]
    checkpoint: str
    checkpoint_digest: str
    mlflow_run: str | None
    seconds: float


def train(
    config: TrainConfig, root: str, *, restart: bool = False, cpus: int | None = None, stage: str | None = None
) -> TrainResult:
    """Train until ``config.steps`` updates are done, going on from the run's newest checkpoint.

    Args:
        root: where the token dataset lies and the run is kept; relative paths are taken from here on as absolute.
        restart: set an existing run of that name aside and begin anew.
        cpus: cores of a local Ray; as many as there are, or as the workers need, when None.
        stage: that the run is of a training of several.

    Raises:
        ConfigError: the configuration does not fit its inputs, or not the checkpoint that it would go on from.
        OmnimillError: training failed; says on which worker and why. Or it forgot what its parents knew.
        Stopped: the run was told to stop, by SIGTERM or by a file `stop` in its folder.
    """
    began = time.monotonic()
    root = _absolute(root)
    inputs = resolve(config, root)
    run = run_folder(root, config.name)
    if restart:
        set_aside(run, root)
    folder = newest(run)
    record = read_record(folder) if folder else None
    keep_root(run, root)
    if record and record.merged is not None:
        raise ConfigError(
            f"name: {config.name!r} is a merged model under {run}, which a run cannot go on with as if it had trained "
            f"it; choose another name, and start from it: `init_from: {run}`"
        )
    if record:
        _check_changes(record, inputs, run, root)
    started_at = record.step if record else 0
    if started_at < config.steps:
        with lineage.command_run(
            root,
            "train",
            inputs.model_dump(mode="json"),
            config.name,
            resume=record.mlflow_run if record else None,
            tags={STAGE_TAG: stage} if stage else None,
        ) as told:
            record_inputs(inputs, root, run, told, started_at)
            if config.forgetting is not None:
                # Before the training, so that a parent that cannot be measured costs none.
                measure_parents(inputs, root, run)
            _launch(inputs, root, run, told, cpus, started_at, stage)
            if config.forgetting is not None:
                check_remembered(inputs, run, told)
            _register(inputs, run, told)
    else:
        console.print(f"run {config.name} has done {started_at} of {config.steps} steps: nothing to do", style="dim")
        if config.forgetting is not None:
            measure_parents(inputs, root, run)
            check_remembered(inputs, run)
    return _result(run, started_at, time.monotonic() - began)


def _absolute(root: str) -> str:
    return storage.filesystem(root)[1] if storage.is_local(root) else root


def _check_changes(record: CheckpointRecord, inputs: TrainInputs, run: Path, root: str) -> None:
    """Refuse to go on with anything that a run cannot go on through, or was not told to."""
    changed = [line for line in record.changes(inputs) if not _only_to_come(line, record, inputs)]
    later = [line for line in changed if through_the_ledger(line)]
    told = inputs.config.on_change == "continue"
    # What was erased is not drawn from here on, whatever the configuration says.
    if refused := [line for line in changed if line not in later or not (told or line.startswith(_ERASURES))]:
        cure = "Set it back, give the run another name, or begin anew with --restart"
        if refused == later:
            cure += ", or let the run go on with it from here: `on_change: continue`"
        listed = "\n".join(f"  {line}" for line in refused)
        raise ConfigError(
            f"run {inputs.config.name!r} cannot go on from its checkpoint at step {record.step} under {run}: what "
            f"decides its learning has changed\n{listed}\n{cure}."
        )
    if later:
        # Whether it is a change that the sampler can go through shows here, not in the workers.
        held = [one.entry for one in Ledger(run).held(record.ledger)]
        open_course(root, [*held, inputs.change(record.step)], inputs.config.streams)
        listed = "\n".join(f"  {line}" for line in later)
        console.print(f"run {inputs.config.name} goes on from step {record.step} with\n{listed}", style="dim")


def _only_to_come(change: str, record: CheckpointRecord, inputs: TrainInputs) -> bool:
    """Whether a change is one of steps that are left out, and none of them has been done."""
    if not change.startswith("config.leave_out"):
        return False
    before, now = (
        {step for first, past in one.config.leave_out for step in range(first, min(past, record.step))}
        for one in (record, inputs)
    )
    return before == now


def record_inputs(inputs: TrainInputs, root: str, run: Path, told: CommandRun, started_at: int) -> None:
    """Tell MLflow what a run reads: data, selections, and weights that it starts from."""
    for version in inputs.versions.datasets:
        told.input(version.name, version.manifest, Dataset(root, version.name).url)
    for one in inputs.versions.selections:
        url = selection_url(Dataset(root, one.dataset), one.digest)
        told.input(f"{one.dataset}-{one.name}", one.digest, url)
    for request in inputs.versions.erasures:
        told.input(REGISTER, request, request_url(root, request))
    if (source := inputs.config.init_from) and not started_at:
        told.input(INIT_FROM, source_digest(source), source)
    known = [lineage.licences(told, version.manifest) for version in inputs.versions.datasets]
    told.tags({name: value for one in known for name, value in lineage.licence_tags(one).items()})
    told.json(inputs.mixture.model_dump(mode="json"), "mixture.json")
    told.tags({"omnimill.run_folder": str(run), "omnimill.mixture": inputs.mixture.content_digest()})
    rates = zip(inputs.mixture.tasks, inputs.mixture.rates, strict=True)
    told.metrics({f"planned_rate/{task.name}": rate for task, rate in rates}, started_at)


def _launch(
    inputs: TrainInputs,
    root: str,
    run: Path,
    told: CommandRun,
    cpus: int | None,
    started_at: int,
    stage: str | None,
) -> None:
    config = inputs.config
    elastic = config.elastic or ElasticSettings(min_workers=config.workers)
    group = WorkerGroup(
        config.workers,
        config.threads,
        1.0 if config.use_gpu else 0.0,
        fewest=elastic.min_workers if elastic.min_workers < config.workers else None,
        look_every=elastic.look_every,
    )
    with (
        # What matters of a worker's failure comes back as an exception; the rest is Ray's own chatter.
        ray_session(num_cpus=group.cores(cpus), log_to_driver=False),
        progress(f"train {config.name}", config.steps - started_at, "steps") as advance,
    ):
        observer = Observer(told.id, "train")

        def show(line: dict[str, Any]) -> None:
            if line["step"] >= started_at:
                observer.step(line)
                loss = "not finite" if line["loss"] is None else f"{line['loss']:.4f}"
                advance(1, step=line["step"], loss=loss, tokens_per_second=round(line[TIMING]["tokens_per_second"]))

        follower = Follower(run, told, config.log_every, show, stage)
        with stopped_by_signal(run), system_metrics(told), follower:
            settings = {
                "inputs": inputs.model_dump(mode="json"),
                "root": root,
                "run": str(run),
                "mlflow_run": told.id,
                "cluster": bool(os.environ.get("RAY_ADDRESS")),
            }
            run_workers(on_worker, settings, group, run / "ray", f"run {config.name}", config.max_failures)
    if (last := newest(run)) is None or read_record(last).step < config.steps:
        raise Stopped(f"run {config.name} was told to stop; started again, it goes on from {last}")


def _register(inputs: TrainInputs, run: Path, told: CommandRun) -> None:
    """Make the last checkpoint a version of the registered model that the configuration names, if it names one."""
    if (settings := inputs.config.checkpoints.registry) and (folder := newest(run)):
        told.put(
            "register",
            name=settings.model,
            aliases=list(settings.aliases),
            digest=read_record(folder).digest,
            url=str(folder),
            title=checkpoint_name(folder),
        )


def _result(run: Path, started_at: int, seconds: float) -> TrainResult:
    folder = newest(run)
    assert folder is not None, f"{run} holds no checkpoint after training"
    record = read_record(folder)
    history = read_history(run)
    return TrainResult(
        run=run.name,
        started_at=started_at,
        steps=record.step,
        skipped=sum(line["skipped"] for line in history),
        loss=history[-1]["loss"],
        loss_by_modality=history[-1]["loss_by_modality"],
        checkpoint=str(folder),
        checkpoint_digest=record.digest,
        mlflow_run=record.mlflow_run,
        seconds=seconds,
    )
