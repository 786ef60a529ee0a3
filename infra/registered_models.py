"""Checkpoints in MLflow's model registry: versions of a named model, and aliases that point at one of them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from omnimill.errors import ConfigError
from omnimill.infra import storage
from omnimill.infra.logged_models import DIGEST_TAG, URL_TAG, any_model, new_model
from omnimill.infra.tracking import is_server

# Tag of a version: the logged model that it is.
MODEL_TAG = "omnimill.logged_model"


def register(
    client: MlflowClient, run: str, name: str, aliases: Sequence[str], digest: str, url: str, title: str
) -> str:
    """Make a checkpoint a version of a registered model, unless it is one, and point aliases at it.

    Args:
        run: the MLflow run that registers it; it has the logged model when no earlier run of its experiment does.
        digest: of the checkpoint.
        url: of its folder.
        title: the checkpoint's name, and the logged model's, should one be made.

    Returns:
        The version, counted from 1 by MLflow.
    """
    experiment = client.get_run(run).info.experiment_id
    try:
        client.create_registered_model(name, tags={"omnimill.kind": "checkpoint"})
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    version = _version(client, name, digest)
    if version is None:
        model = any_model(client, experiment, digest, title) or new_model(
            client, run, title, digest, url, {}, whole=True
        )
        source = url
        if storage.is_local(url):
            # A server takes no path of its own disk for a model's place. The tag says where the weights lie.
            source = f"models:/{model.model_id}" if is_server(client.tracking_uri) else Path(url).absolute().as_uri()
        made = client.create_model_version(
            name,
            source,
            run_id=model.source_run_id,
            model_id=model.model_id,
            tags={DIGEST_TAG: digest, URL_TAG: url, MODEL_TAG: str(model.model_id)},
        )
        version = str(made.version)
    for alias in aliases:
        client.set_registered_model_alias(name, alias, version)
    return version


def registered_url(client: MlflowClient, uri: str) -> str:
    """Folder of a registered checkpoint, by ``models:/name@alias`` or ``models:/name/version``.

    Raises:
        ConfigError: there is none of that name, or it is no checkpoint.
    """
    name, _, chosen = re.sub("^models:/", "", uri).replace("@", "/@").partition("/")
    try:
        if chosen.startswith("@"):
            found = client.get_model_version_by_alias(name, chosen[1:])
        else:
            found = client.get_model_version(name, chosen)
    except MlflowException as error:
        raise ConfigError(f"{uri}: {error.message}") from None
    if URL_TAG not in found.tags:
        raise ConfigError(f"{uri}: version {found.version} of {name!r} is no checkpoint of omnimill's")
    return str(found.tags[URL_TAG])


def send_registration(
    client: MlflowClient, run: str, name: str, aliases: list[str], digest: str, url: str, title: str
) -> None:
    """:func:`register`, as an outbox sends it."""
    register(client, run, name, aliases, digest, url, title)


def _version(client: MlflowClient, name: str, digest: str) -> str | None:
    """The version of a registered model that a checkpoint is."""
    found = client.search_model_versions(f"name = '{name}' AND tags.`{DIGEST_TAG}` = '{digest}'", max_results=1)
    return str(found[0].version) if found else None
