"""A small ingestion on a Ray of its own whose metrics are fetched as Prometheus would; run as a program.

python -m faults.scraped DAG ROOT prints, as JSON, every series of the node: its name, labels and value.
"""

from __future__ import annotations

import json
import os
import sys
import time
from contextlib import redirect_stdout

os.environ["RAY_metrics_report_interval_ms"] = "500"  # noqa: SIM112 - as Ray spells it

import ray
import requests
from prometheus_client.parser import text_string_to_metric_families

from omnimill.config import load_config
from omnimill.infra.observing import METRICS, Observer
from omnimill.infra.ray_session import ray_session
from omnimill.pipelines.dag import Dag
from omnimill.pipelines.run import ingest

STEP = {
    "step": 0,
    "loss": 2.5,
    "loss_by_modality": {"text": 2.5},
    "grad_norm": 1.0,
    "skipped": 0,
    "tokens": {"encoder": 100, "decoder": 50},
    "padding_share": {"encoder": 0.1, "decoder": 0.2},
    "timing": {"seconds": 0.1, "tokens_per_second": 1500.0, "data_wait_share": 0.05},
}
PATIENCE_SECONDS = 60


def scrape() -> list[tuple[str, dict[str, str], float]]:
    """Every series that the node's agent serves now."""
    (node,) = ray.nodes()
    text = requests.get(f"http://{node['NodeManagerAddress']}:{node['MetricsExportPort']}/metrics", timeout=10).text
    return [
        (sample.name, sample.labels, sample.value)
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    ]


def main() -> None:
    dag, root = sys.argv[1:]
    with redirect_stdout(sys.stderr), ray_session(num_cpus=1, log_to_driver=False):
        ingest(load_config(dag, Dag), root)
        Observer("run-of-training", "train").step(STEP)
        wanted = {name for spec in METRICS for name in spec.exported}
        end = time.monotonic() + PATIENCE_SECONDS
        found = scrape()
        while wanted - {name for name, _, _ in found} and time.monotonic() < end:
            time.sleep(0.5)
            found = scrape()
    print(json.dumps({"series": found}))


if __name__ == "__main__":
    main()
