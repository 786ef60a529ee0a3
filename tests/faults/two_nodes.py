"""An ingestion on a Ray cluster of two nodes that loses workers or a node on the way; run as a program.

python -m faults.two_nodes DAG ROOT worker|node COMMITS... prints the manifest's digest and what was killed. A victim is
killed with SIGKILL when there are so many commits.
"""

from __future__ import annotations

import json
import sys
import threading
import time
from contextlib import redirect_stdout
from pathlib import Path

import psutil
import ray
from ray.cluster_utils import Cluster

from omnimill.config import load_config
from omnimill.infra.ray_session import quiet_ray_data
from omnimill.pipelines.dag import Dag
from omnimill.pipelines.run import ingest


def busy_workers() -> list[psutil.Process]:
    """Worker processes of both nodes that are at a task."""
    found = []
    for process in psutil.Process().children(recursive=True):
        try:
            title = " ".join(process.cmdline())
        except psutil.Error:
            continue
        if title.startswith("ray::") and "Map" in title:
            found.append(process)
    return found


def main() -> None:
    dag, root, victim, *moments = sys.argv[1:]
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    node = cluster.add_node(num_cpus=1)
    ray.init(address=cluster.address, log_to_driver=False)
    quiet_ray_data()
    config = load_config(dag, Dag)
    commits = Path(root, config.dataset, "commits")
    killed: list[str] = []

    def kill() -> None:
        for moment in map(int, moments):
            while len(list(commits.glob("*.json"))) < moment or (victim == "worker" and not busy_workers()):
                time.sleep(0.01)
            if victim == "node":
                cluster.remove_node(node, allow_graceful=False)
                killed.append("node")
            else:
                for process in busy_workers()[:1]:
                    killed.append(process.name())
                    process.kill()

    thread = threading.Thread(target=kill, daemon=True)
    thread.start()
    result = ingest(config, root)
    thread.join(timeout=5)
    with redirect_stdout(sys.stderr):
        ray.shutdown()
        cluster.shutdown()
    print(json.dumps({"manifest": result.digest, "killed": killed}))


if __name__ == "__main__":
    main()
