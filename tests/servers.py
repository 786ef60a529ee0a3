"""Servers that tests start and end: PostgreSQL, and MLflow's tracking server as a team's Compose file starts it."""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pgserver
import requests
import yaml

COMPOSE = Path(__file__).parents[1] / "infra" / "deploy" / "team" / "compose.yaml"


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


@contextmanager
def postgres() -> Iterator[str]:
    """A PostgreSQL server that listens on a socket alone; gives the URL of its empty database ``mlflow``."""
    # Not below pytest's folder: that is this user's, and a server that root starts runs as another one.
    folder = Path(tempfile.mkdtemp(prefix="omnimill-postgres-"))
    server = pgserver.get_server(folder / "data", cleanup_mode="delete")
    try:
        server.psql("create database mlflow")
        scheme = _mlflow_service()["environment"]["MLFLOW_BACKEND_STORE_URI"].partition(":")[0]
        yield server.get_uri("mlflow").replace("postgresql:", f"{scheme}:", 1)
    finally:
        server.cleanup()
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def mlflow_server(store: str, artifacts: str, hosts: str = "", port: int | None = None) -> Iterator[str]:
    """An MLflow server by the Compose file's command and environment; gives its URL.

    Args:
        store: URL of its database. artifacts: where it keeps them (path or URL); S3 as the environment says.
        hosts: names that it may be called by, beside this machine's.
        port: a free one when None.
    """
    service = _mlflow_service()
    settings = {
        "MLFLOW_BACKEND_STORE_URI": store,
        "MLFLOW_ARTIFACTS_DESTINATION": artifacts,
        "MLFLOW_S3_ENDPOINT_URL": os.environ.get("AWS_ENDPOINT_URL", ""),
        "MLFLOW_SERVER_ALLOWED_HOSTS": ",".join(filter(None, ["localhost:*,127.0.0.1:*", hosts])),
    }
    given = {name: value for name, value in service["environment"].items() if "$" not in value}
    port = port or free_port()
    _, *arguments = shlex.split(service["command"])
    here = ["--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    with tempfile.TemporaryFile("w+") as said:
        server = subprocess.Popen(
            [sys.executable, "-m", "mlflow", *arguments, *here],
            env={**os.environ, **given, **settings},
            stdout=said,
            stderr=said,
            start_new_session=True,
        )
        url = f"http://127.0.0.1:{port}"
        try:
            _wait(f"{url}/health", server)
            yield url
        except BaseException:
            said.seek(0)
            sys.stderr.write(said.read()[-5000:])
            raise
        finally:
            with suppress(ProcessLookupError):
                os.killpg(server.pid, signal.SIGKILL)
            server.wait(timeout=60)


def _mlflow_service() -> dict[str, Any]:
    service: dict[str, Any] = yaml.safe_load(COMPOSE.read_text())["services"]["mlflow"]
    return service


def _wait(url: str, server: subprocess.Popen[bytes], seconds: float = 300.0) -> None:
    deadline = time.monotonic() + seconds
    while True:
        try:
            requests.get(url, timeout=5).raise_for_status()
            return
        except requests.RequestException:
            assert server.poll() is None, f"the server of {url} ended"
            assert time.monotonic() < deadline, f"nothing answers at {url}"
            time.sleep(0.3)
