"""Start a local Ray or attach to a running cluster, the same way for every command."""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import ray
import ray.data
from ray._private import ray_constants


@contextmanager
def ray_session(num_cpus: int | None = None, address: str | None = None, log_to_driver: bool = True) -> Iterator[None]:
    """A Ray to work on for the length of a ``with`` block.

    Attaches to `address` or ``RAY_ADDRESS`` when given, reuses a session that this process already has, and otherwise
    starts a local one (dashboard off) that ends with the block.

    Args:
        num_cpus: cores of a local session; all cores when None. Ignored when attaching.
        address: a cluster's address, e.g. ``auto`` or ``ray://host:10001``.
        log_to_driver: show what workers print and log; it is in Ray's log files in any case.
    """
    if ray.is_initialized():
        yield
        return
    start_ray(num_cpus, address, log_to_driver)
    try:
        yield
    finally:
        ray.shutdown()


def start_ray(num_cpus: int | None = None, address: str | None = None, log_to_driver: bool = True) -> None:
    """As `ray_session`, for a session that lasts as long as the process, which must have none yet."""
    address = address or os.environ.get("RAY_ADDRESS")
    # Ray asks PyPI-style telemetry questions otherwise; nothing here needs a network.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_TRAIN_V2_ENABLED", "1")
    # A task that runs the machine out of memory would be tried again for ever.
    os.environ.setdefault("RAY_task_oom_retries", "3")
    logging.getLogger("ray._private.authentication.authentication_token_setup").setLevel(logging.ERROR)
    common: dict[str, Any] = {"logging_level": logging.WARNING, "log_to_driver": log_to_driver}
    if address:
        with _this_machine_alone() if _on_loopback(address) else nullcontext():
            ray.init(address=address, **common)
    else:
        # A local Ray has no spot node to lose: one process less to start.
        os.environ.setdefault("RAY_TRAIN_ENABLE_PREEMPTION_WATCHER", "0")
        with _this_machine_alone():
            ray.init(address="local", num_cpus=num_cpus, include_dashboard=False, **common)
    quiet_ray_data()


def _on_loopback(address: str) -> bool:
    """Whether a Ray listens on this machine's loopback address and on no other, as one that a command starts does.

    Ray itself looks for what is said to be on the loopback address on the machine's address in its network.
    """
    host, _, port = address.partition(":")
    if host not in ("127.0.0.1", "localhost") or not port.isdecimal():
        return False
    try:
        here = ray.util.get_node_ip_address()  # type: ignore[no-untyped-call]
        socket.create_connection((here, int(port)), timeout=5).close()
    except OSError:
        return True
    return False


@contextmanager
def _this_machine_alone() -> Iterator[None]:
    """Let a Ray that starts listen on the loopback address, as it does where it knows no clusters.

    Elsewhere it listens on every address of the machine, and whoever reaches its ports can run programs by it.
    """
    before = ray_constants.ENABLE_RAY_CLUSTER
    ray_constants.ENABLE_RAY_CLUSTER = False
    try:
        yield
    finally:
        ray_constants.ENABLE_RAY_CLUSTER = before


def quiet_ray_data() -> None:
    """Turn off Ray Data's own progress bars: the command's progress lines say more and survive a plain log."""
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    logging.getLogger("ray.data").setLevel(logging.WARNING)
    logging.getLogger("ray.data._internal.progress").setLevel(logging.ERROR)
