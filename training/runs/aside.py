"""Runs, and ends of runs, that make way for others: nothing of them is lost, and lineage learns where they are."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

from omnimill.config import allowed, canonical_json
from omnimill.errors import ConfigError
from omnimill.infra import lineage, storage
from omnimill.infra.logged_models import LoggedModels
from omnimill.progress import console
from omnimill.training.checkpoints.checkpoint import RECORD, checkpoints_folder, list_checkpoints, read_record
from omnimill.training.runs.follow import checkpoint_name
from omnimill.training.runs.history import run_lock


def set_aside(run: Path, root: str) -> None:
    """Rename a run's folder to the first free ``<run>.1``, ``<run>.2``, …; lineage learns where its checkpoints are."""
    if not run.exists():
        return
    aside = _free(run)
    with run_lock(run):
        run.rename(aside)
    _tell(run, list_checkpoints(aside), root)
    console.print(f"the run that was there is now {aside}", style="dim")


def go_back(run: Path, root: str, step: int) -> None:
    """Make the checkpoint after `step` updates the newest of a run.

    Later ones move to the first free ``<run>.1``, ``<run>.2``, …, with the history and the ledger as they are. What
    goes on from here is another run to MLflow.

    Raises:
        ConfigError: the run has no such checkpoint.
    """
    folders = {read_record(folder).step: folder for folder in list_checkpoints(run)}
    if step not in folders:
        raise ConfigError(f"--back-to: found {step}; {allowed(str(step), [str(one) for one in folders])}")
    later = [folder for done, folder in folders.items() if done > step]
    if not later:
        return
    aside = _free(run)
    with run_lock(run):
        shutil.copytree(run, aside, ignore=shutil.ignore_patterns("checkpoints", "ray", "lock", "stop"))
        checkpoints_folder(aside).mkdir()
        moved = [folder.rename(checkpoints_folder(aside) / folder.name) for folder in reversed(later)]
        again = read_record(folders[step]).model_copy(update={"mlflow_run": None})
        storage.publish_bytes(str(folders[step] / RECORD), canonical_json(again.model_dump(mode="json")))
    _tell(run, moved, root)
    console.print(f"what came after step {step} is now in {aside}", style="dim")


def _free(run: Path) -> Path:
    number = 1
    while (aside := run.with_name(f"{run.name}.{number}")).exists():
        number += 1
    return aside


def _tell(run: Path, folders: Sequence[Path], root: str) -> None:
    """Where the run's checkpoints are now."""
    for folder in folders:
        record = read_record(folder)
        if record.mlflow_run:
            with lineage.past_run(root, record.mlflow_run) as earlier:
                earlier.output(checkpoint_name(folder), record.digest, str(folder))
                LoggedModels(earlier).move(f"{run.name}/{folder.name}", str(folder))
