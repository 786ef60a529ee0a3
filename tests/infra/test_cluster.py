"""Commands submitted to a Ray cluster as jobs; the cluster is a head of its own, with its dashboard."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests
from servers import free_port

from omnimill.cli.main import main

PROGRAM = str(Path(sys.executable).with_name("omnimill"))


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A head without authentication, ended with all its processes."""
    port = free_port()
    # Short, for the names of its sockets.
    folder = Path(f"/tmp/omnimill-ray-{port}")
    head = subprocess.Popen(
        [
            str(Path(sys.executable).with_name("ray")),
            *("start", "--head", "--block", "--num-cpus=1", "--disable-usage-stats", f"--port={free_port()}"),
            f"--dashboard-agent-listen-port={free_port()}",
            *("--dashboard-host=127.0.0.1", f"--dashboard-port={port}", f"--temp-dir={folder}"),
        ],
        env={**os.environ, "RAY_AUTH_MODE": "disabled"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    url = f"http://127.0.0.1:{port}"
    try:
        deadline = time.monotonic() + 90
        while True:
            try:
                requests.get(f"{url}/api/version", timeout=5).raise_for_status()
                break
            except requests.RequestException:
                assert time.monotonic() < deadline, "Ray's dashboard did not come up"
                time.sleep(0.5)
        yield url
    finally:
        os.killpg(head.pid, signal.SIGKILL)
        head.wait(timeout=60)
        subprocess.run(["pkill", "-KILL", "-f", str(folder)], check=False)
        subprocess.run(["rm", "-rf", str(folder)], check=True)


def cluster(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    code = main(["cluster", *arguments])
    said = capsys.readouterr()
    return code, said.out, said.err


@pytest.mark.fault
def test_a_command_is_submitted_watched_stopped_and_told_of(
    address: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    monkeypatch.setenv("RAY_API_SERVER_ADDRESS", address)
    # What the Prometheus of infra/deploy/team asks.
    (ray_nodes,) = requests.get(f"{address}/api/prometheus/sd", timeout=30).json()
    assert ray_nodes["targets"]
    (tmp_path / "settings.yaml").write_text("said: hello")
    # It works in the folder that came along, with the environment that it was given, on the cluster.
    script = (
        "import os, ray; ray.init(); print(open('settings.yaml').read(), os.environ['COLOUR'], "
        "ray.get(ray.remote(lambda: 6 * 7).remote()))"
    )
    code, out, _ = cluster(
        capsys,
        "submit",
        "--wait",
        "--working-dir",
        str(tmp_path),
        "--env",
        "COLOUR=green",
        "--",
        sys.executable,
        "-c",
        script,
    )
    assert (code, "said: hello green 42" in out) == (0, True), out

    code, out, err = cluster(capsys, "submit", "--wait", "--", PROGRAM, "plan", "nothing.yaml")
    assert (code, "nothing.yaml" in out, "failed with exit code 2" in err) == (1, True, True)

    # Ray would not wait for what takes longer than 3 s.
    tidy = (
        "import signal, time; signal.signal(signal.SIGTERM, lambda *_: (time.sleep(5), print('put away'), exit(143)))"
    )
    command = (sys.executable, "-uc", f"{tidy}; print('at work'); time.sleep(600)")
    code, out, _ = cluster(capsys, "submit", "--id", "long", "--", *command)
    assert (code, out.strip()) == (0, "long")
    deadline = time.monotonic() + 60
    while "at work" not in cluster(capsys, "logs", "long")[1]:
        assert time.monotonic() < deadline
        time.sleep(0.5)
    assert cluster(capsys, "stop", "long")[0] == 0
    while json.loads(cluster(capsys, "status", "long", "--json")[1])[0]["status"] != "STOPPED":
        assert time.monotonic() < deadline
        time.sleep(0.5)
    assert "put away" in cluster(capsys, "logs", "long")[1]
    code, out, _ = cluster(capsys, "status", "--json")
    assert [job["status"] for job in json.loads(out)] == ["SUCCEEDED", "FAILED", "STOPPED"]
    assert cluster(capsys, "logs", "nothing")[0] == 1


def test_what_is_no_cluster_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    (tmp_path / "a.yaml").write_text("name: x")
    for path, said in (
        (tmp_path / "a.yaml", "neither a file of Ray's cluster launcher"),
        (tmp_path / "b.yaml", "No such"),
    ):
        code, _, err = cluster(capsys, "up", str(path))
        assert code == 2
        assert said in " ".join(err.split())
    code, _, err = cluster(capsys, "status", "--address", "http://127.0.0.1:9")
    assert code == 1
    assert "no cluster answers" in err
