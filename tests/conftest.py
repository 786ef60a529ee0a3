"""Shared fixtures: one local Ray for the whole run, folders of real files and golden vectors where present."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, settings

TESTS = Path(__file__).parent
PROJECT = TESTS.parent
# What a test that uses Ray, or its file, is marked with.
MARK = "pytest.mark.ray"

os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
torch.set_num_threads(1)
# How long an example takes is no verdict: the first one of a new clone makes tables of all characters.
settings.register_profile("untimed", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("untimed")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--contact-sheet", help="Folder for the page of tests/training/test_contact_sheet.py.")


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Of several processes that share the tests file by file, one has all files that use Ray: so there is one Ray."""
    from xdist.scheduler.loadscope import LoadScopeScheduling

    with_ray = {path.relative_to(PROJECT).as_posix() for path in TESTS.rglob("*.py") if MARK in path.read_text()}

    class RayApart(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            file = nodeid.partition("::")[0]
            return MARK if file in with_ray else file

    return RayApart(config, log)


@pytest.fixture(scope="session")
def ray_local() -> Iterator[None]:
    """A local Ray of two cores that every integration test shares."""
    from omnimill.infra.ray_session import ray_session

    with ray_session(num_cpus=2):
        yield


@pytest.fixture(scope="session")
def realdata() -> Path:
    """Folder of real media ($OMNIMILL_REALDATA); it may not exist, tests must prove their point without it."""
    return Path(os.environ.get("OMNIMILL_REALDATA", PROJECT.parent / "shared" / "realdata"))


@pytest.fixture(scope="session")
def parity() -> Path:
    """Folder of golden vectors ($OMNIMILL_PARITY); it may not exist, tests must prove their point without it."""
    return Path(os.environ.get("OMNIMILL_PARITY", PROJECT.parent / "shared" / "reference" / "parity"))


@pytest.fixture(scope="session")
def empty_tracking_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tracking database with tables and no runs: making one takes longer than most tests."""
    from omnimill.infra import lineage

    folder = tmp_path_factory.mktemp("tracking")
    lineage.runs(str(folder))
    return folder / "mlflow.db"
