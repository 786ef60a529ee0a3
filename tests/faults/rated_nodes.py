"""An ingestion on a Ray cluster of so many nodes of one core each; run as a program.

python -m faults.rated_nodes DAG ROOT NODES prints what it took and what its units say. Each node has a core of the
machine for itself, as long as there are enough; the driver has all of them.
"""

from __future__ import annotations

import json
import os
import sys
import time
from contextlib import redirect_stdout

# On a busy machine a node takes longer to come up than Ray waits for it.
os.environ["RAY_raylet_start_wait_time_s"] = "180"  # noqa: SIM112 - as Ray spells it

import ray
from ray.cluster_utils import Cluster

from omnimill.config import load_config
from omnimill.infra.ray_session import quiet_ray_data
from omnimill.pipelines.dag import Dag
from omnimill.pipelines.run import ingest


def main() -> None:
    dag, root, nodes = sys.argv[1:]
    cores = sorted(os.sched_getaffinity(0))
    cluster = Cluster()
    for node in range(int(nodes)):
        # Processes inherit the cores that their parent may use.
        os.sched_setaffinity(0, {cores[node % len(cores)]})
        cluster.add_node(num_cpus=1, include_dashboard=False)
    os.sched_setaffinity(0, set(cores))
    ray.init(address=cluster.address, log_to_driver=False)
    quiet_ray_data()
    began = time.time()
    result = ingest(load_config(dag, Dag), root)
    seconds = time.time() - began
    observed = [result.dataset.observed(commit) for commit in result.manifest.commits]
    with redirect_stdout(sys.stderr):
        ray.shutdown()
        cluster.shutdown()
    print(
        json.dumps(
            {
                "seconds": seconds,
                "until_first": min(one["begun"] for one in observed) - began,
                "processor_share": sum(one["cpu_seconds"] for one in observed)
                / sum(one["seconds"] for one in observed),
            }
        )
    )


if __name__ == "__main__":
    main()
