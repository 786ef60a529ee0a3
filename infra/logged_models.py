"""Checkpoints as MLflow's logged models: which run wrote one, from which data, and how good it is.

The weights stay where they are; the model names them by URL and digest.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from mlflow.entities import LoggedModelOutput, LoggedModelStatus
from mlflow.utils.mlflow_tags import MLFLOW_MODEL_IS_EXTERNAL

from omnimill.infra.lineage import CommandRun, Reference

MODEL_TYPE = "checkpoint"
DIGEST_TAG, URL_TAG, DELETED_TAG = "omnimill.digest", "omnimill.url", "omnimill.deleted"


class LoggedModels:
    """The logged models of one run.

    Args:
        told: the run. What an earlier launch of the same run has logged is known.
    """

    def __init__(self, told: CommandRun) -> None:
        self._told, self._client = told, told.client
        self._experiment = self._client.get_run(told.id).info.experiment_id
        # Ids by name: of those that are whole, begun, and whole with files that are still there.
        self._whole: dict[str, str] = {}
        self._begun: dict[str, str] = {}
        self._live: dict[str, str] = {}
        token = None
        while True:
            page = self._client.search_logged_models(
                [self._experiment], f"source_run_id = '{told.id}'", page_token=token
            )
            for model in page:
                whole = model.status == LoggedModelStatus.READY
                (self._whole if whole else self._begun)[model.name] = model.model_id
                if whole and DELETED_TAG not in model.tags:
                    self._live[model.name] = model.model_id
            token = page.token
            if not token:
                break

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
        name = _model_name(weights.name)
        if name in self._whole:
            return
        model = self._begun.get(name) or self._create(name, weights, params)
        self._client.log_outputs(self._told.id, [LoggedModelOutput(model, step)])
        for one in data:
            self._told.metrics({f"updates/{one.name}": step}, step, model=model, data=one)
        self._told.metrics(measured, step, model=model)
        self._client.finalize_logged_model(model, LoggedModelStatus.READY)
        self._whole[name] = self._live[name] = model

    def present(self, names: Collection[str]) -> None:
        """Mark those as deleted whose files are not among the `names` any more; their metrics stay."""
        for gone in self._live.keys() - set(map(_model_name, names)):
            self._client.set_logged_model_tags(self._live.pop(gone), {DELETED_TAG: "true"})

    def move(self, name: str, url: str) -> None:
        """Tell where the files of a checkpoint are now, if MLflow knows it."""
        if model := self._whole.get(_model_name(name)):
            self._client.set_logged_model_tags(model, {URL_TAG: url})

    def _create(self, name: str, weights: Reference, params: Mapping[str, str]) -> str:
        tags = {MLFLOW_MODEL_IS_EXTERNAL: "true", DIGEST_TAG: weights.digest, URL_TAG: weights.url}
        model = self._client.create_logged_model(
            self._experiment,
            name=name,
            source_run_id=self._told.id,
            model_type=MODEL_TYPE,
            params=dict(params),
            tags=tags,
        )
        return str(model.model_id)


def find_model(told: CommandRun, digest: str) -> str | None:
    """Id of the logged model of a checkpoint, by the checkpoint's digest, in the experiment of a run; None for none."""
    experiment = told.client.get_run(told.id).info.experiment_id
    found = told.client.search_logged_models([experiment], f"tags.`{DIGEST_TAG}` = '{digest}'", max_results=1)
    return str(found[0].model_id) if found else None


def _model_name(checkpoint: str) -> str:
    """MLflow allows no slash."""
    return checkpoint.replace("/", "-")
