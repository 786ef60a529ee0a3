"""A training on a Ray cluster of two nodes that loses a node on the way and gets another; run as a program.

python -m faults.shrinking CONFIG ROOT drain|kill prints how many workers there were at each stage.

The second node goes away when the run has made some steps: with notice first (drain), or without (kill). When one
worker has gone on alone for some steps, another node comes, and when two have gone on the run is told to stop.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
import traceback
from contextlib import redirect_stdout, suppress
from pathlib import Path
from typing import Any

import psutil
import ray
from ray.cluster_utils import Cluster

from omnimill.config import load_config
from omnimill.errors import Stopped
from omnimill.training.checkpoints import checkpoint
from omnimill.training.runs.config import TrainConfig
from omnimill.training.runs.history import read_history
from omnimill.training.runs.notices import STOP
from omnimill.training.runs.run import train


def workers() -> int:
    """Training processes that are alive."""
    found = 0
    for process in psutil.Process().children(recursive=True):
        try:
            found += process.name().startswith("ray::RayTrainW") and process.status() != psutil.STATUS_ZOMBIE
        except psutil.Error:
            continue
    return found


def steps(run: Path) -> int:
    return len(read_history(run))


def wait(what: Any) -> None:
    while not what():
        time.sleep(0.02)


def main() -> None:
    path, root, way = sys.argv[1:]
    # Nodes of this cluster can be taken away with notice.
    os.environ["RAY_TRAIN_ENABLE_PREEMPTION_WATCHER"] = "1"
    # Right after a loss Ray may still count the node in, and then waits so long for workers on it.
    os.environ["RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S"] = "20"
    # Only the main thread could promise to end nodes at exit, and a node comes from another one.
    head = {"num_cpus": 1, "include_dashboard": False}
    cluster = Cluster(initialize_head=True, shutdown_at_exit=False, head_node_args=head)
    node = cluster.add_node(num_cpus=1)
    os.environ["RAY_ADDRESS"] = cluster.address
    ray.init(address=cluster.address, log_to_driver=False)
    config = load_config(path, TrainConfig)
    run = checkpoint.run_folder(root, config.name)
    told: dict[str, Any] = {}

    def disturb() -> None:
        wait(lambda: steps(run) >= 3)
        told["before"] = workers()
        if way == "drain":
            before = {folder.name for folder in checkpoint.list_checkpoints(run)}
            drain(cluster.address, node.node_id)
            wait(lambda: {folder.name for folder in checkpoint.list_checkpoints(run)} - before)
            told["at notice"] = checkpoint.list_checkpoints(run)[-1].name
        cluster.remove_node(node, allow_graceful=False)
        wait(lambda: workers() == 1)
        alone = steps(run)
        wait(lambda: steps(run) > alone + 3)
        told["alone"] = workers()
        cluster.add_node(num_cpus=1)
        wait(lambda: workers() == 2)
        told["after"] = workers()
        again = steps(run)
        wait(lambda: steps(run) > again + 3)
        (run / STOP).touch()

    def end_if_it_fails() -> None:
        try:
            disturb()
        except BaseException:  # noqa: BLE001 - nothing else would end the program
            traceback.print_exc()
            os._exit(1)

    thread = threading.Thread(target=end_if_it_fails, daemon=True)
    thread.start()
    with suppress(Stopped):
        train(config, root)
    with redirect_stdout(sys.stderr):
        ray.shutdown()
        cluster.shutdown()
    print(json.dumps(told))


def drain(address: str, node_id: str) -> None:
    """As a provider's notice does: the node is to go in half a minute."""
    ray_program = Path(sys.executable).with_name("ray")
    reason = ["--reason", "DRAIN_NODE_REASON_PREEMPTION", "--reason-message", "test"]
    command = [ray_program, "drain-node", "--address", address, "--node-id", node_id, *reason]
    subprocess.run([*command, "--deadline-remaining-seconds", "30"], check=True, capture_output=True)


if __name__ == "__main__":
    main()
