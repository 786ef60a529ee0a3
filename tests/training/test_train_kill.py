"""SIGKILL to ``omnimill train`` or its workers at any moment: nothing goes on in the dark, and the run is the same."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
import uuid
from dataclasses import asdict
from pathlib import Path
from typing import Any

import psutil
import pytest
import ray
import yaml

from omnimill import rng
from omnimill.config import load_config
from omnimill.infra import lineage
from omnimill.training.checkpoints import checkpoint
from omnimill.training.runs.config import TrainConfig
from omnimill.training.runs.history import HistoryReader, read_history
from omnimill.training.runs.inputs import resolve
from omnimill.training.runs.run import train

pytestmark = pytest.mark.ray


class Launch:
    """``omnimill train`` in a session of its own, and all processes that descend from it.

    Args:
        address: of a Ray that is there already; None: it starts its own.
    """

    def __init__(self, config: Path, root: Path, address: str | None = None) -> None:
        # Every descendant inherits the mark, also those that outlive their parent.
        self.mark = f"OMNIMILL_KILL_TEST={uuid.uuid4().hex}"
        name, value = self.mark.split("=")
        program = Path(sys.executable).with_name("omnimill")
        environment = {key: text for key, text in os.environ.items() if key != "RAY_ADDRESS"}
        self.process = subprocess.Popen(
            [str(program), "train", str(config), "--root", str(root), "--json"],
            env={**environment, name: value, **({"RAY_ADDRESS": address} if address else {})},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def writers(self) -> dict[int, str]:
        """The launch's processes, apart from the driver, that are alive and could write into the run, by id."""
        found = {}
        for folder in Path("/proc").iterdir():
            try:
                if folder.name.isdigit() and self.mark.encode() in (folder / "environ").read_bytes().split(b"\0"):
                    found[int(folder.name)] = (folder / "cmdline").read_bytes().split(b"\0")[0].decode()
            except OSError:
                continue
        return {process: name for process, name in found.items() if "RayTrainWorker" in name or "Controller" in name}

    def answer(self) -> dict[str, Any]:
        out, err = self.process.communicate(timeout=240)
        assert self.process.returncode == 0, err
        result: dict[str, Any] = json.loads(out)
        return result


def kill_at(config: Path, root: Path, run: Path, step: int, workers_too: bool) -> None:
    """Train until the line of `step` is in the history; kill the driver, and the training processes or not.

    What is not killed must end by itself.
    """
    launch = Launch(config, root)
    reader = HistoryReader(run, first=step)
    try:
        while not reader.read() and launch.process.poll() is None:
            time.sleep(0.005)
    finally:
        for process, name in launch.writers().items() if workers_too else ():
            if "RayTrainWorker" in name:
                os.kill(process, signal.SIGKILL)
        launch.process.kill()
        _, said = launch.process.communicate()
        reader.close()
    assert launch.process.returncode == -signal.SIGKILL, f"ended before it was killed: {said}"
    end = time.monotonic() + 20
    while (left := launch.writers()) and time.monotonic() < end:
        time.sleep(0.1)
    assert left == {}


def check(run: Path, answer: dict[str, Any], ray_run: Any, root: Path) -> None:
    """Same curve, same weights as the run that nothing disturbed; told to MLflow once."""
    curve = ray_run.curve_of(run)
    assert curve == ray_run.curve
    assert answer["checkpoint_digest"] == ray_run.result.checkpoint_digest
    record = checkpoint.read_record(answer["checkpoint"])
    assert record.files == checkpoint.read_record(ray_run.result.checkpoint).files
    points = lineage.client(str(root)).get_metric_history(record.mlflow_run, "loss")
    steps = [point.step for point in sorted(points, key=lambda point: point.step)]
    assert len(steps) == len(set(steps))
    assert {point.step: point.value for point in points}.items() <= {
        line["step"]: line["loss"] for line in curve
    }.items()


@pytest.fixture
def config_file(ray_run: Any, train_root: Path, tmp_path: Path) -> Path:
    """The undisturbed run's configuration, as it was resolved, under another name."""
    config = resolve(ray_run.config, str(train_root)).config.model_copy(
        update={"name": f"killed-{uuid.uuid4().hex[:6]}"}
    )
    path = tmp_path / "train.yaml"
    path.write_text(yaml.safe_dump(config.model_dump(mode="json")))
    return path


def run_of(config_file: Path, root: Path) -> Path:
    return checkpoint.run_folder(str(root), yaml.safe_load(config_file.read_text())["name"])


def training_processes() -> list[psutil.Process]:
    """Ray Train's processes of the Ray that all tests share."""
    names = ("ray::RayTrainW", "ray::TrainContr")
    return [one for one in psutil.Process().children(recursive=True) if one.name().startswith(names)]


@pytest.mark.timeout(600)
def test_a_killed_run_goes_on_to_the_same_losses(config_file: Path, train_root: Path, ray_run: Any) -> None:
    """A worker is killed, and Ray starts the group again; then the driver is killed, and another launch goes on."""
    run = run_of(config_file, train_root)
    launch = Launch(config_file, train_root, ray.get_runtime_context().gcs_address)

    def reach(step: int) -> None:
        reader = HistoryReader(run, first=step)
        while not reader.read():
            assert launch.process.poll() is None, launch.process.communicate()
            time.sleep(0.005)
        reader.close()

    reach(1 + rng.digest64("kill", "worker") % 6)
    [one for one in training_processes() if "TrainW" in one.name()][rng.digest64("victim") % 2].kill()
    reach(8 + rng.digest64("kill", "driver") % 3)
    launch.process.kill()
    launch.process.communicate()
    assert launch.process.returncode == -signal.SIGKILL
    end = time.monotonic() + 20
    while training_processes() and time.monotonic() < end:
        time.sleep(0.1)
    assert training_processes() == []

    result = train(load_config(config_file, TrainConfig), str(train_root))
    assert 4 <= result.started_at < 12
    check(run, asdict(result), ray_run, train_root)
    told = lineage.client(str(train_root)).get_metric_history(result.mlflow_run, "loss")
    assert {point.step for point in told} == set(range(12)), "the curve goes on in the same MLflow run"


@pytest.mark.fault
@pytest.mark.timeout(600)
@pytest.mark.parametrize("seed", range(2))
def test_lost_workers_are_started_again(ray_run: Any, train_root: Path, seed: int) -> None:
    """SIGKILL to one of the two training processes at a random moment, also before the first checkpoint."""
    config = ray_run.config.model_copy(update={"name": f"lost-{seed}"})
    run = checkpoint.run_folder(str(train_root), config.name)
    after, victim = rng.digest64("lost", seed) % 10, rng.digest64("victim", seed) % 2

    def kill_one() -> None:
        while not (run / "history.jsonl").exists() or len(read_history(run)) <= after:
            time.sleep(0.01)
        [one for one in training_processes() if "TrainW" in one.name()][victim].kill()

    killer = threading.Thread(target=kill_one)
    killer.start()
    result = train(config, str(train_root))
    killer.join()
    assert result.checkpoint_digest == ray_run.result.checkpoint_digest
    assert ray_run.curve_of(run) == ray_run.curve


@pytest.mark.fault
@pytest.mark.timeout(900)
@pytest.mark.parametrize(("seed", "workers_too"), [(0, True), (1, False)])
def test_killed_again_and_again(
    config_file: Path, train_root: Path, ray_run: Any, seed: int, workers_too: bool
) -> None:
    """Also before the first checkpoint and right after a resume; a driver killed alone leaves workers for seconds."""
    run = run_of(config_file, train_root)
    for number in range(3):
        done = checkpoint.newest(run)
        first = int(done.name[5:]) if done else 0
        if first < 12:
            step = first + rng.digest64("kill", "train", seed, number) % min(5, 12 - first)
            kill_at(config_file, train_root, run, step, workers_too)
    check(run, Launch(config_file, train_root).answer(), ray_run, train_root)


@pytest.mark.fault
@pytest.mark.timeout(600)
@pytest.mark.parametrize(("told", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupted_run_says_so_and_goes_on(
    config_file: Path, train_root: Path, ray_run: Any, told: signal.Signals, code: int
) -> None:
    """Ctrl-C ends it at once; SIGTERM after the step, with a checkpoint."""
    run = run_of(config_file, train_root)
    launch = Launch(config_file, train_root)
    reader = HistoryReader(run, first=4)
    while not reader.read() and launch.process.poll() is None:
        time.sleep(0.005)
    launch.process.send_signal(told)
    _, said = launch.process.communicate(timeout=60)
    assert launch.process.returncode == code
    assert launch.writers() == {}
    assert lineage.runs(str(train_root), "train")[-1].info.status == "KILLED"
    if told == signal.SIGTERM:
        newest = checkpoint.newest(run)
        assert newest is not None
        assert len(read_history(run)) == checkpoint.read_record(newest).step
        assert "started again, it goes on from" in said
    check(run, Launch(config_file, train_root).answer(), ray_run, train_root)
