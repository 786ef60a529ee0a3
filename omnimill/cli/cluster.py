"""``omnimill cluster``: clusters up and down, commands submitted to them."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from omnimill.cli.output import Json, print_json, print_table

File = Annotated[str, typer.Argument(help="File of Ray's launcher or Kubernetes manifest, see infra/deploy.")]
Address = Annotated[
    str | None,
    typer.Option(envvar="RAY_API_SERVER_ADDRESS", help="The cluster's dashboard, e.g. http://127.0.0.1:8265."),
]
JobId = Annotated[str, typer.Argument(help="The job's id, as `submit` and `status` print it.")]


def register(app: typer.Typer) -> None:
    """Add the commands to the program."""
    group = typer.Typer(no_args_is_help=True, help="Start clusters and run commands on them.")
    group.command("up")(up)
    group.command("submit", context_settings={"ignore_unknown_options": True})(submit)
    group.command("status")(status)
    group.command("logs")(logs)
    group.command("stop")(stop)
    group.command("down")(down)
    app.add_typer(group, name="cluster")


def up(file: File) -> None:
    """Start a cluster, or bring a running one to what the file says.

    Example: omnimill cluster up infra/deploy/aws.yaml
    """
    from omnimill.infra import cluster

    cluster.up(file)


def submit(
    command: Annotated[list[str], typer.Argument(help="The command, after --.")],
    address: Address = None,
    job_id: Annotated[str | None, typer.Option("--id", help="Of the job; made up when not given.")] = None,
    working_dir: Annotated[
        str | None, typer.Option(help="Folder that is sent along: the command's configuration files.")
    ] = None,
    env: Annotated[
        list[str] | None, typer.Option(help="NAME=VALUE, or NAME for the value here; can be repeated.")
    ] = None,
    wait: Annotated[bool, typer.Option("--wait", help="Show what it prints, and end as it ends.")] = False,
    json: Json = False,
) -> None:
    """Run a command as a Ray job.

    Example: omnimill cluster submit --wait --env MLFLOW_TRACKING_URI -- omnimill ingest dag.yaml --root s3://bucket/corpus
    """
    from dataclasses import asdict

    from omnimill.errors import OmnimillError
    from omnimill.infra import cluster

    name = cluster.submit(command, address, job_id=job_id, working_dir=working_dir, env=_variables(env or []))
    if not wait:
        print_json({"id": name}) if json else print(name)
        return
    for piece in cluster.follow(name, address):
        (sys.stderr if json else sys.stdout).write(piece)
    ended = cluster.job(name, address)
    if json:
        print_json(asdict(ended))
    if ended.status != "SUCCEEDED":
        raise OmnimillError(f"job {name} {ended.status.lower()}: {ended.message}")


def _variables(given: list[str]) -> dict[str, str]:
    import os

    from omnimill.errors import ConfigError

    found = {}
    for one in given:
        name, given_here, value = one.partition("=")
        if not given_here and name not in os.environ:
            raise ConfigError(f"--env {name}: there is no such variable here; give NAME=VALUE")
        found[name] = value if given_here else os.environ[name]
    return found


def status(
    job_id: Annotated[str | None, typer.Argument(help="One job; all when not given.")] = None,
    address: Address = None,
    json: Json = False,
) -> None:
    """The cluster's jobs, or one of them.

    Example: omnimill cluster status --address http://127.0.0.1:8265
    """
    from dataclasses import asdict

    from omnimill.infra import cluster

    found = cluster.jobs(address) if job_id is None else [cluster.job(job_id, address)]
    if json:
        print_json([asdict(one) for one in found])
        return
    rows = [[one.id, one.status, one.started or "", one.ended or "", one.entrypoint, one.message] for one in found]
    print_table("Jobs", ["job", "status", "started", "ended", "command", "message"], rows)


def logs(
    job_id: JobId,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until the job has ended.")] = False,
    address: Address = None,
) -> None:
    """What a job has printed.

    Example: omnimill cluster logs raysubmit_1234 --follow
    """
    from omnimill.infra import cluster

    if not follow:
        sys.stdout.write(cluster.logs(job_id, address))
        return
    for piece in cluster.follow(job_id, address):
        sys.stdout.write(piece)
        sys.stdout.flush()


def stop(job_id: JobId, address: Address = None) -> None:
    """End a job; the same command submitted again goes on where it was.

    Example: omnimill cluster stop raysubmit_1234
    """
    from omnimill.infra import cluster

    cluster.stop(job_id, address)


def down(file: File) -> None:
    """End a cluster and all its machines.

    Example: omnimill cluster down infra/deploy/aws.yaml
    """
    from omnimill.infra import cluster

    cluster.down(file)
