"""Use of processor, memory, disk, network and GPU while a command runs, in its MLflow run."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from mlflow.system_metrics.metrics.cpu_monitor import CPUMonitor
from mlflow.system_metrics.metrics.disk_monitor import DiskMonitor
from mlflow.system_metrics.metrics.gpu_monitor import GPUMonitor
from mlflow.system_metrics.metrics.network_monitor import NetworkMonitor

from omnimill.infra.lineage import CommandRun

SECONDS = 10.0
_INTERVAL = "MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL"


@contextmanager
def system_metrics(told: CommandRun) -> Iterator[None]:
    """Measure this machine for the length of a ``with`` block: metrics ``system/…`` every ten seconds.

    Their steps are seconds since 1970, so that they go on in order when a run does. MLflow's
    ``MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL`` sets another time. GPUs need NVIDIA's ``nvidia-ml-py``.
    """
    ended = threading.Event()
    thread = threading.Thread(target=_measure, args=(told, ended), name="system-metrics", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def _measure(told: CommandRun, ended: threading.Event) -> None:
    kinds: list[Any] = [CPUMonitor, DiskMonitor, NetworkMonitor]
    monitors = [*(kind() for kind in kinds), *_gpus()]
    while not ended.wait(float(os.environ.get(_INTERVAL) or SECONDS)):
        values: dict[str, float] = {}
        for monitor in monitors:
            monitor.collect_metrics()
            values |= monitor.aggregate_metrics()
            monitor.clear_metrics()
        told.metrics({f"system/{name}": value for name, value in values.items()}, int(time.time()))


def _gpus() -> list[Any]:
    monitor: Any = GPUMonitor
    try:
        return [monitor()]
    except Exception:  # noqa: BLE001 - without a driver or its library there is nothing to measure
        return []
