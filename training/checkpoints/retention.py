"""Which of a run's checkpoints are kept."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

from omnimill.training.checkpoints.checkpoint import PARTIAL, RECORD, checkpoints_folder, list_checkpoints, read_record
from omnimill.training.checkpoints.settings import CheckpointSettings


def kept(evaluations: Mapping[int, Mapping[str, float | None]], settings: CheckpointSettings) -> set[int]:
    """The steps whose checkpoints are kept.

    Args:
        evaluations: of each step that has a checkpoint, what its evaluation measured; empty where there was none.
    """
    steps = sorted(evaluations)
    chosen = set(steps[-settings.keep :])
    if settings.keep_every is not None:
        chosen |= {step for step in steps if step % settings.keep_every == 0}
    if (best := settings.keep_best) is not None:
        sign = 1 if best.better == "lower" else -1
        measured = [(value, step) for step in steps if (value := evaluations[step].get(best.metric)) is not None]
        chosen |= {step for _, step in sorted((sign * value, step) for value, step in measured)[: best.count]}
    return chosen


def prune(run: Path, settings: CheckpointSettings) -> None:
    """Delete the checkpoints that are not kept, and what a killed writer left half written or half deleted."""
    records = {folder: read_record(folder) for folder in list_checkpoints(run)}
    keep = kept({record.step: record.evaluation for record in records.values()}, settings)
    for folder, record in records.items():
        if record.step not in keep:
            # Without its record it is no checkpoint any more, whatever happens before all of it is gone.
            (folder / RECORD).unlink()
    folder = checkpoints_folder(run)
    leftovers: Sequence[Path] = [path for path in folder.glob("step-*") if not (path / RECORD).exists()]
    for path in [*folder.glob(f"{PARTIAL}*"), *leftovers]:
        shutil.rmtree(path, ignore_errors=True)
