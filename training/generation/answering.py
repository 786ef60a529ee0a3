"""Answers of a model as a dataset: units are done in this process or on a pool of actors, each of them once."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, redirect_stdout
from functools import partial
from typing import Any, TypeVar

import torch

from omnimill.config import Config
from omnimill.errors import ConfigError, OmnimillError
from omnimill.infra.dataset import Dataset, Manifest, Unit
from omnimill.infra.done import Done
from omnimill.infra.observing import Observer
from omnimill.infra.watchdog import watchdog
from omnimill.progress import console, progress
from omnimill.training.generation.answer_units import Answerer, AnswerJob, planned

_FAULTS_SHOWN = 5

Job = TypeVar("Job", bound=AnswerJob)


class Actors(Config):
    """count: actors on Ray; 0: this process does the work. num_cpus, num_gpus: of each; GPUs may be shared, and without
    actors any number above 0 means this machine's.
    """

    count: int = 0
    num_cpus: float = 1.0
    num_gpus: float = 0.0


def answer_units(
    label: str,
    units: Sequence[Unit],
    make: Callable[[Job], Answerer],
    job: Job,
    actors: Actors,
    observer: Observer,
    cpus: int | None = None,
    parents: Mapping[str, str] | None = None,
    attributes: Mapping[str, Any] | None = None,
) -> tuple[str, Manifest]:
    """Do the units that are not committed yet, and publish the version of the dataset that holds them all.

    Args:
        label: for progress.
        make: what answers, made once for every process that does.
        job: names the dataset.
        observer: of the run.
        cpus: cores of a local Ray.
        parents, attributes: of the manifest.

    Returns:
        The manifest's digest and the manifest.

    Raises:
        ConfigError: a GPU is asked for without actors, and this machine has none.
        OmnimillError: units failed. What was committed stays, and the same command goes on from there.
    """
    if actors.num_gpus and not actors.count and not torch.cuda.is_available():
        raise ConfigError("--gpus: this machine has no CUDA device; leave it out, or let --actors find one")
    dataset = Dataset(job.folder, job.name)
    stored = {(commit.unit, commit.state): commit for commit, _ in dataset.commits()}
    found = [stored.get((unit.id, planned(unit, job.recipe).state)) for unit in units]
    commits = [commit for commit in found if commit is not None]
    todo = [unit for unit, commit in zip(units, found, strict=True) if commit is None]
    if commits:
        console.print(f"{label}: {len(commits)} of {len(units)} units already committed", style="dim")
    faults: list[str] = []
    waiting = {unit.id: unit for unit in todo}
    job = job.model_copy(update={"device": "cuda" if actors.num_gpus else "cpu"})
    if todo:
        work = _on_actors(todo, make, job, actors, cpus) if actors.count else iter(make(job)(todo))
        with progress(label, len(todo), "units") as advance, watchdog(label, lambda: list(waiting)) as moved:
            for done in work:
                moved()
                waiting.pop(done.unit.id, None)
                observer.unit(done, len(waiting))
                if done.commit is not None:
                    commits.append(done.commit)
                else:
                    faults.append(_fault(done))
                advance(1)
    if faults:
        more = [f"{len(faults) - _FAULTS_SHOWN} more units failed"] if len(faults) > _FAULTS_SHOWN else []
        listed = "\n".join(faults[:_FAULTS_SHOWN] + more)
        raise OmnimillError(f"{listed}\nCommitted units are kept; the same command goes on from there.")
    return dataset.publish_manifest("answers", commits, parents, attributes)


def _on_actors(
    units: Sequence[Unit], make: Callable[[Job], Answerer], job: Job, actors: Actors, cpus: int | None
) -> Iterator[Done]:
    # Importing and starting Ray takes seconds.
    from omnimill.infra.ray_session import ray_session  # noqa: PLC0415
    from omnimill.infra.units import Pool, run_on_actors  # noqa: PLC0415

    pool = Pool(1, actors.count, actors.num_cpus, actors.num_gpus)
    # Ray tells of lost workers on stdout, which is the answer's.
    with (
        redirect_stdout(sys.stderr),
        ray_session(cpus),
        closing(run_on_actors(units, partial(make, job), pool)) as done,
    ):
        yield from done


def _fault(done: Done) -> str:
    what = "its worker died on each try" if done.crashed else f"failed: {done.error}"
    return f"unit {done.unit.id}: {what}"
