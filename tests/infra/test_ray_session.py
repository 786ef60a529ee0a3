"""The Ray that a command starts for itself is this machine's alone."""

from __future__ import annotations

import ipaddress

import psutil
import pytest
import ray


@pytest.mark.ray
@pytest.mark.usefixtures("ray_local")
def test_a_local_ray_cannot_be_reached_from_elsewhere() -> None:
    assert ray.get(ray.remote(lambda: 42).remote()) == 42
    listening = []
    for process in psutil.Process().children(recursive=True):
        try:
            if process.name().startswith(("gcs_server", "raylet", "ray::")):
                found = [one.laddr.ip for one in process.net_connections() if one.status == psutil.CONN_LISTEN]
                listening += [(process.name(), ipaddress.ip_address(ip)) for ip in found]
        except psutil.Error:
            continue
    assert {name for name, _ in listening} >= {"gcs_server", "raylet"}
    for name, ip in listening:
        inner = getattr(ip, "ipv4_mapped", None) or ip
        assert inner.is_loopback, (name, ip)
