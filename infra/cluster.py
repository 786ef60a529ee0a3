"""Clusters started and ended by Ray's launcher or Kubernetes, and commands submitted to them by Ray's Jobs API.

Ray is imported where it is used: what it is told by environment variables has to be there before.
"""

from __future__ import annotations

import asyncio
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml

from omnimill.errors import ConfigError, OmnimillError

# What a working directory holds that a job does not need; Ray leaves out what .gitignore names besides.
_NOT_SENT = (".git", ".venv", "runs")
# That a job which is told to end may take for it: a training finishes its step and writes a checkpoint, for which Ray's
# own 3 s are too short.
_STOP_SECONDS = 600
_ENDED = frozenset({"SUCCEEDED", "FAILED", "STOPPED"})


@dataclass(frozen=True)
class Job:
    """A submitted command. started, ended: UTC, ISO 8601; None when not yet."""

    id: str
    status: str
    entrypoint: str
    message: str
    started: str | None
    ended: str | None

    @property
    def done(self) -> bool:
        return self.status in _ENDED


def up(path: str) -> None:
    """Start a cluster, or bring a running one to what the file says.

    Args:
        path: of a file for Ray's cluster launcher, or of a Kubernetes manifest (KubeRay).

    Raises:
        ConfigError: it is neither. OmnimillError: the cluster could not be started.
    """
    if _is_manifest(path):
        _kubectl("apply", "-f", path)
        return
    from ray.autoscaler.sdk import create_or_update_cluster  # noqa: PLC0415

    _launcher(create_or_update_cluster, path)


def down(path: str) -> None:
    """End a cluster and all its machines; errors as of :func:`up`."""
    if _is_manifest(path):
        _kubectl("delete", "--ignore-not-found", "-f", path)
        return
    from ray.autoscaler.sdk import teardown_cluster  # noqa: PLC0415

    _launcher(teardown_cluster, path)


def submit(
    command: Sequence[str],
    address: str | None = None,
    *,
    job_id: str | None = None,
    working_dir: str | None = None,
    env: Mapping[str, str] | None = None,
) -> str:
    """Run a command as a Ray job; returns the job's id at once.

    The command finds the cluster by itself, since Ray sets its address for jobs.

    Args:
        command: a program and its arguments.
        address: of the cluster's dashboard, ``http://host:8265``; ``RAY_API_SERVER_ADDRESS`` or this machine when None.
        job_id: Ray makes one when None.
        working_dir: folder that is sent along and becomes the job's current one (configuration files).
        env: environment variables of the job.

    Raises:
        OmnimillError: the cluster cannot be reached or does not take the job.
    """
    runtime: dict[str, Any] = {"env_vars": {"RAY_JOB_STOP_WAIT_TIME_S": str(_STOP_SECONDS), **(env or {})}}
    if working_dir is not None:
        runtime |= {"working_dir": str(Path(working_dir).resolve()), "excludes": list(_NOT_SENT)}
    with _jobs_api(address) as api:
        return str(api.submit_job(entrypoint=shlex.join(command), submission_id=job_id, runtime_env=runtime))


def jobs(address: str | None = None) -> list[Job]:
    """All jobs that the cluster knows, the oldest first."""
    with _jobs_api(address) as api:
        found = [_job(one) for one in api.list_jobs() if one.submission_id]
    return sorted(found, key=lambda job: (job.started or "9", job.id))


def job(job_id: str, address: str | None = None) -> Job:
    """One job."""
    with _jobs_api(address) as api:
        return _job(api.get_job_info(job_id))


def logs(job_id: str, address: str | None = None) -> str:
    """What a job has printed so far."""
    with _jobs_api(address) as api:
        return str(api.get_job_logs(job_id))


def follow(job_id: str, address: str | None = None) -> Iterator[str]:
    """What a job prints, in pieces as they come, until it has ended."""
    with _jobs_api(address) as api:
        loop = asyncio.new_event_loop()
        pieces = aiter(api.tail_job_logs(job_id))
        try:
            while True:
                try:
                    yield loop.run_until_complete(anext(pieces))
                except StopAsyncIteration:
                    return
        finally:
            loop.close()


def stop(job_id: str, address: str | None = None) -> None:
    """Ask a job to end (SIGTERM), and end it if it does not in ten minutes.

    The same command submitted again goes on where it was.
    """
    with _jobs_api(address) as api:
        api.stop_job(job_id)


class _jobs_api:  # noqa: N801 - used as a context manager
    """Ray's client of a cluster's jobs; what it raises becomes an error for people.

    Args:
        address: as of :func:`submit`.
    """

    def __init__(self, address: str | None) -> None:
        self._address = address

    def __enter__(self) -> Any:
        _show_token()
        from ray.exceptions import AuthenticationError  # noqa: PLC0415
        from ray.job_submission import JobSubmissionClient  # noqa: PLC0415

        try:
            return JobSubmissionClient(self._address)
        except (ConnectionError, RuntimeError, ValueError, AuthenticationError) as error:
            raise OmnimillError(f"no cluster answers: {error}".rstrip()) from error

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: object) -> None:
        if isinstance(error, RuntimeError | ConnectionError):
            said = next((line for line in reversed(str(error).splitlines()) if line.strip()), "")
            raise OmnimillError(f"the cluster refused: {said.strip()}") from error


def _show_token() -> None:
    """Let Ray show its clusters the token that lies here; once it is imported it no longer asks."""
    if "ray" in sys.modules:
        return
    named = {"RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"} & os.environ.keys()
    if named or (Path.home() / ".ray" / "auth_token").exists():
        os.environ.setdefault("RAY_AUTH_MODE", "token")


def _job(details: Any) -> Job:
    return Job(
        details.submission_id or details.job_id,
        str(getattr(details.status, "value", details.status)),
        details.entrypoint,
        # Ray adds the job's last lines, which `logs` gives.
        (details.message or "").partition(", last available logs")[0],
        _time(details.start_time),
        _time(details.end_time),
    )


def _time(milliseconds: int | None) -> str | None:
    return datetime.fromtimestamp(milliseconds / 1000, UTC).isoformat(timespec="seconds") if milliseconds else None


def _is_manifest(path: str) -> bool:
    """Whether a file is a Kubernetes manifest, and not one of Ray's launcher."""
    try:
        documents = [one for one in yaml.safe_load_all(Path(path).read_text(encoding="utf-8")) if one is not None]
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from None
    except yaml.YAMLError as error:
        raise ConfigError(f"{path}: not YAML: {error}") from None
    if documents and all(isinstance(one, dict) and {"apiVersion", "kind"} <= one.keys() for one in documents):
        return True
    if len(documents) == 1 and isinstance(documents[0], dict) and "provider" in documents[0]:
        return False
    raise ConfigError(
        f"{path}: neither a file of Ray's cluster launcher (with `provider`) nor a Kubernetes manifest (with "
        "`apiVersion` and `kind`); infra/deploy has examples of both"
    )


def _launcher(function: Any, path: str) -> None:
    try:
        function(path)
    except (Exception, SystemExit) as error:
        # The launcher ends the program where it has told the reason itself.
        raise OmnimillError(f"Ray's launcher failed on {path}: {error}") from error


def _kubectl(*arguments: str) -> None:
    program = shutil.which("kubectl")
    if program is None:
        raise OmnimillError("kubectl is not installed; a Kubernetes manifest needs it")
    done = subprocess.run([program, *arguments], check=False)
    if done.returncode:
        raise OmnimillError(f"kubectl {' '.join(arguments)}: exit {done.returncode}")
