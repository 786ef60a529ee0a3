"""A Ray cluster of two nodes that takes jobs, until nothing more comes on stdin; run as a program.

python -m clusters.jobs_cluster FOLDER prints where its dashboard listens. Each node has one core and an object store of
its own. Ray's files lie in FOLDER, whose path has to be short for the names of sockets.
"""

from __future__ import annotations

import json
import os
import sys

from ray._private.utils import write_ray_address
from ray.cluster_utils import Cluster
from servers import free_port

_STORE = 150 << 20


def main() -> None:
    (folder,) = sys.argv[1:]
    common = {"num_cpus": 1, "object_store_memory": _STORE, "temp_dir": folder}
    head = {
        **common,
        "include_dashboard": True,
        "dashboard_host": "127.0.0.1",
        "dashboard_port": free_port(),
        "dashboard_agent_listen_port": free_port(),
    }
    # What is printed on the way is not the answer.
    answer = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    cluster = Cluster(initialize_head=True, head_node_args=head)
    # Both lie in one session's folder; what jobs bring with them is each node's own.
    cluster.add_node(**common, runtime_env_dir_name="runtime_resources_2")
    # By this a job finds its cluster; without a word of it, it takes any that runs on this machine.
    write_ray_address(cluster.address, folder)
    answer.write(json.dumps({"dashboard": f"http://{cluster.webui_url}", "address": cluster.address}) + "\n")
    answer.flush()
    sys.stdin.read()
    cluster.shutdown()


if __name__ == "__main__":
    main()
