"""Use of processor, memory, disk, network and GPU while a command runs, in its MLflow run."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor

from omnimill.infra.lineage import tracking_uri

# MLflow tells that it starts and stops.
logging.getLogger("mlflow.system_metrics").setLevel(logging.WARNING)


@contextmanager
def system_metrics(root: str, run_id: str) -> Iterator[None]:
    """Measure this machine for the length of a ``with`` block: metrics ``system/…`` every ten seconds.

    MLflow's ``MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL`` sets another time. GPUs need NVIDIA's ``nvidia-ml-py``.

    Args:
        root: whose tracking store has the run.
    """
    store = tracking_uri(root)
    monitor = SystemMetricsMonitor(run_id, resume_logging=True, tracking_uri=store)  # type: ignore[no-untyped-call]
    monitor.start()  # type: ignore[no-untyped-call]
    try:
        yield
    finally:
        monitor.finish()  # type: ignore[no-untyped-call]
