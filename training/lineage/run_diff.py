"""What is different between two runs of commands: program, configuration, data, mixture and what came out."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

from mlflow.entities import Run
from mlflow.exceptions import MlflowException

from omnimill.errors import OmnimillError
from omnimill.infra import lineage
from omnimill.infra.code_version import CODE_TAG
from omnimill.infra.lineage import COMMAND_TAG
from omnimill.infra.version_diff import pairs
from omnimill.mixtures import diff as mixtures
from omnimill.mixtures.config import Mixture

_RUN_ID = re.compile(r"[0-9a-f]{32}")
# Parts of a training's configuration that are told apart from it.
_TOLD_ELSEWHERE = ("mixture", "versions")


def find_run(root: str, written: str) -> Run:
    """A run by its id in the tracking store, its name, or the folder of a training run; of several the latest.

    Raises:
        OmnimillError: there is none.
    """
    if _RUN_ID.fullmatch(written):
        with suppress(MlflowException):
            return lineage.client(root).get_run(written)
    name = Path(written).name
    if found := [run for run in lineage.runs(root) if run.info.run_name == name]:
        return found[-1]
    raise OmnimillError(f"{written}: neither a version of a dataset nor a run that is recorded under {root}")


def run_diff(root: str, first: Run, second: Run) -> dict[str, Any]:
    """The second run as seen from the first, as JSON; of what is the same nothing is told.

    Returns:
        ``{"kind": "runs", "runs": [...], "code", "config", "inputs", "outputs", "mixture", "metrics"}``; pairs are
        [of the first, of the second], metrics the last ones.
    """
    client = lineage.client(root)
    configs = [lineage.artifact_json(client, run, "config.json") for run in (first, second)]
    plain = [{key: value for key, value in one.items() if key not in _TOLD_ELSEWHERE} for one in configs]
    return {
        "kind": "runs",
        "runs": [_described(run) for run in (first, second)],
        "code": pairs(*({CODE_TAG: run.data.tags.get(CODE_TAG)} for run in (first, second))),
        "config": pairs(*plain),
        "inputs": pairs(*(_data(run, "input") for run in (first, second))),
        "outputs": pairs(*(_data(run, "output") for run in (first, second))),
        "mixture": _mixture(*(one.get("mixture") for one in configs)),
        "metrics": pairs(first.data.metrics, second.data.metrics),
    }


def _described(run: Run) -> dict[str, Any]:
    info = run.info
    seconds = None if info.end_time is None else round((info.end_time - info.start_time) / 1e3, 3)
    command = run.data.tags.get(COMMAND_TAG)
    return {"run": info.run_id, "name": info.run_name, "command": command, "status": info.status, "seconds": seconds}


def _data(run: Run, context: Literal["input", "output"]) -> dict[str, str]:
    """Digests by name; there may be several of one, such as erasures."""
    found: dict[str, set[str]] = {}
    for one in lineage.references(run, context):
        found.setdefault(one.name, set()).add(one.digest)
    return {name: ", ".join(sorted(digests)) for name, digests in found.items()}


def _mixture(was: Mapping[str, Any] | None, now: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """What is different in what trainings drew; None where one of them is none, or nothing is."""
    if was is None or now is None:
        return None
    found = mixtures.diff(Mixture.model_validate(was), Mixture.model_validate(now))
    return None if found.same else json.loads(json.dumps(asdict(found), default=str))
