"""``omnimill train`` over the stages of a file: one run after the other, each from where the one before it ended."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from omnimill.errors import ConfigError, OmnimillError
from omnimill.infra import lineage
from omnimill.progress import console
from omnimill.training.checkpoints.checkpoint import CheckpointRecord, folder_name, newest, read_record, run_folder
from omnimill.training.runs.aside import go_back, set_aside
from omnimill.training.runs.config import TrainConfig
from omnimill.training.runs.run import TrainResult, train
from omnimill.training.runs.stages import Stage, choose


def train_stages(
    stages: Sequence[Stage],
    root: str,
    *,
    only: str | None = None,
    restart: bool = False,
    back_to: int | None = None,
    cpus: int | None = None,
) -> list[TrainResult]:
    """Train the stages in their order; each goes on from its own newest checkpoint, those that are done stay.

    Args:
        root: as for `omnimill.training.runs.run.train`.
        only: the one stage to train.
        restart: set the runs of the stages to train aside and begin anew, with all stages that come after them, which
            have started from what is set aside.
        back_to: go on from the checkpoint after so many updates of the one stage's run, and set aside what came after
            it, with all stages that come after the one.
        cpus: as there.

    Raises:
        ConfigError: as there; or there is no stage `only`, or `back_to` without one where there are several.
        OmnimillError: as there; or the stage before the one to begin is not done.
    """
    chosen = list(stages) if only is None else [choose(list(stages), only, "the training")]
    if restart and back_to is not None:
        raise ConfigError("--restart, --back-to: a run begins anew or goes back; give one of them")
    if back_to is not None and len(chosen) > 1:
        raise ConfigError(
            f"--back-to: is of one run; --stage says of which: {', '.join(str(one.name) for one in stages)}"
        )
    first, *after = [run_folder(root, stage.config.name) for stage in stages[list(stages).index(chosen[0]) :]]
    if back_to is not None:
        go_back(first, root, back_to)
    if restart:
        set_aside(first, root)
    if restart or back_to is not None:
        for run in after:
            set_aside(run, root)
    results = []
    with _whole(stages, chosen, root):
        for stage in chosen:
            if len(stages) > 1:
                console.print(f"stage {stage.name}: run {stage.config.name}", style="dim")
            results.append(train(_started(stage, root), root, cpus=cpus, stage=stage.name))
    return results


@contextmanager
def _whole(stages: Sequence[Stage], chosen: Sequence[Stage], root: str) -> Iterator[None]:
    """The MLflow run of a training of several stages, whose runs are its children; that of earlier launches."""
    records = {stage.config.name: _newest_record(stage, root) for stage in stages}
    done = {name: record.step if record else 0 for name, record in records.items()}
    if len(stages) == 1 or all(done[stage.config.name] >= stage.config.steps for stage in chosen):
        yield
        return
    told = [record.mlflow_run for record in records.values() if record and record.mlflow_run]
    name = stages[0].config.name.removesuffix(f"-{stages[0].name}")
    config = {"stages": [{"name": stage.name, "run": stage.config.name} for stage in stages]}
    with lineage.command_run(root, "train stages", config, name, resume=lineage.parent_of(root, told)):
        yield


def _newest_record(stage: Stage, root: str) -> CheckpointRecord | None:
    folder = newest(run_folder(root, stage.config.name))
    return read_record(folder) if folder else None


def _started(stage: Stage, root: str) -> TrainConfig:
    """The stage's configuration with the checkpoint that it starts from.

    Raises:
        OmnimillError: there is no such checkpoint, and the stage has none of its own to go on from.
    """
    before = stage.after
    if before is None:
        return stage.config
    run = run_folder(root, before.name)
    folder = run / "checkpoints" / folder_name(before.steps)
    if newest(run_folder(root, stage.config.name)) is None and not folder.exists():
        last = newest(run)
        done = read_record(last).step if last else 0
        raise OmnimillError(
            f"stage {stage.name!r} starts from the end of run {before.name!r}, which has done {done} of "
            f"{before.steps} steps: train that first"
        )
    return stage.config.model_copy(update={"init_from": str(folder)})
