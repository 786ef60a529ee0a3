"""Checkpoints as MLflow's logged models: which run wrote one, from which data, and how good it is.

The weights stay where they are; the model names them by URL and digest.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from mlflow import MlflowClient
from mlflow.entities import LoggedModel, LoggedModelOutput, LoggedModelStatus, Metric
from mlflow.exceptions import MlflowException
from mlflow.utils.mlflow_tags import MLFLOW_MODEL_IS_EXTERNAL

from omnimill.infra.tracking import DIGEST_CHARACTERS, Reference

if TYPE_CHECKING:
    from omnimill.infra.lineage import CommandRun

MODEL_TYPE = "checkpoint"
DIGEST_TAG, URL_TAG, DELETED_TAG = "omnimill.digest", "omnimill.url", "omnimill.deleted"


class LoggedModels:
    """The logged models of one run.

    Args:
        told: the run. What an earlier launch of the same run has logged is known.
    """

    def __init__(self, told: CommandRun) -> None:
        self._told = told
        # Names of those that are whole, and of those whose files are still there.
        self._whole: set[str] = set()
        self._live: set[str] = set()
        for model in () if told.unseen else _models(told.client, told.id):
            if model.status == LoggedModelStatus.READY:
                self._whole.add(model.name)
                if DELETED_TAG not in model.tags:
                    self._live.add(model.name)

    def log(
        self,
        weights: Reference,
        step: int,
        params: Mapping[str, str],
        data: Sequence[Reference],
        measured: Mapping[str, float],
    ) -> None:
        """Tell MLflow of a checkpoint, unless it knows it.

        Args:
            weights: its name, digest and folder.
            step: updates done.
            params: what it was made with, to compare models by.
            data: versions of datasets that it learnt from; each is linked by the metric ``updates/<dataset>``.
            measured: metrics of the model.
        """
        name = model_name(weights.name)
        if name in self._whole:
            return
        self._told.put(
            "model",
            name=name,
            digest=weights.digest,
            url=weights.url,
            step=step,
            params=dict(params),
            data=[[one.name, one.digest] for one in data],
            measured=dict(measured),
            at=int(time.time() * 1000),
        )
        self._whole.add(name)
        self._live.add(name)

    def present(self, names: Collection[str]) -> None:
        """Mark those as deleted whose files are not among the `names` any more; their metrics stay."""
        for gone in sorted(self._live - set(map(model_name, names))):
            self._told.put("model_tags", name=gone, tags={DELETED_TAG: "true"})
            self._live.remove(gone)

    def move(self, name: str, url: str) -> None:
        """Tell where the files of a checkpoint are now, if MLflow knows it."""
        if model_name(name) in self._whole:
            self._told.put("model_tags", name=model_name(name), tags={URL_TAG: url})


def send_model(
    client: MlflowClient,
    run: str,
    name: str,
    digest: str,
    url: str,
    step: int,
    params: dict[str, str],
    data: list[list[str]],
    measured: dict[str, float],
    at: int,
) -> None:
    """Log a checkpoint, or the rest of one whose logging broke off. at: milliseconds since 1970."""
    model = next(_models(client, run, name), None) or new_model(client, run, name, digest, url, params)
    if model.status == LoggedModelStatus.READY:
        return
    client.log_outputs(run, [LoggedModelOutput(model.model_id, step)])
    metrics = [
        Metric(
            f"updates/{dataset}",
            step,
            at,
            step,
            model_id=model.model_id,
            dataset_name=dataset,
            dataset_digest=version[:DIGEST_CHARACTERS],
        )
        for dataset, version in data
    ]
    metrics += [Metric(key, value, at, step, model_id=model.model_id) for key, value in measured.items()]
    for start in range(0, len(metrics), 1000):
        client.log_batch(run, metrics=metrics[start : start + 1000])
    client.finalize_logged_model(model.model_id, LoggedModelStatus.READY)


def send_tags(client: MlflowClient, run: str, name: str, tags: dict[str, str]) -> None:
    """Set tags of a run's logged model."""
    for model in _models(client, run, name):
        client.set_logged_model_tags(model.model_id, tags)


def new_model(
    client: MlflowClient, run: str, name: str, digest: str, url: str, params: dict[str, str], *, whole: bool = False
) -> LoggedModel:
    """A logged model of a run, for a checkpoint whose weights stay at `url`. whole: nothing more will be told of it."""
    model = client.create_logged_model(
        client.get_run(run).info.experiment_id,
        name=model_name(name),
        source_run_id=run,
        model_type=MODEL_TYPE,
        params=params,
        tags={MLFLOW_MODEL_IS_EXTERNAL: "true", DIGEST_TAG: digest, URL_TAG: url},
    )
    return client.finalize_logged_model(model.model_id, LoggedModelStatus.READY) if whole else model


def any_model(client: MlflowClient, experiment: str, digest: str, checkpoint: str) -> LoggedModel | None:
    """The logged model of a checkpoint in an experiment; None for none.

    Args:
        digest: of the checkpoint. Runs that learnt the same from the same have models of the same digest.
        checkpoint: its name, which decides between these.
    """
    found = client.search_logged_models([experiment], f"tags.`{DIGEST_TAG}` = '{digest}'")
    return min(found, key=lambda model: model.name != model_name(checkpoint), default=None)


def find_model(told: CommandRun, digest: str, checkpoint: str) -> str | None:
    """Id of :func:`any_model` in the experiment of a run; None for none, or when nobody answers."""
    try:
        found = any_model(told.client, told.client.get_run(told.id).info.experiment_id, digest, checkpoint)
    except MlflowException:
        return None
    return str(found.model_id) if found else None


def _models(client: MlflowClient, run: str, name: str | None = None) -> Iterator[LoggedModel]:
    """The logged models of a run; those of one name alone when it is given."""
    experiment = client.get_run(run).info.experiment_id
    query = f"source_run_id = '{run}'" + (f" AND name = '{name}'" if name else "")
    token = None
    while True:
        page = client.search_logged_models([experiment], query, page_token=token)
        yield from page
        token = page.token
        if not token:
            return


def model_name(checkpoint: str) -> str:
    """MLflow allows no slash."""
    return checkpoint.replace("/", "-")
