"""Stages on machines that fail: nothing is lost, failures cost what theory says, and billions take a breath."""

from __future__ import annotations

import math
import time
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from omnimill.config import load_config
from omnimill.errors import ConfigError
from omnimill.infra.planning.simulation import Scenario, Work, simulate, simulate_training

CALM = Scenario(mtbf_hours=(1.0,), worker_start_seconds=0.0)
WORK = Work(units=4000, unit_seconds=30.0, spread=0.0, machines=5, slots=8)


def test_without_failures_slots_are_busy_from_start_to_end() -> None:
    found = simulate(WORK, CALM, math.inf, 3)
    assert found.hours == pytest.approx(4000 * 30 / 40 / 3600)
    assert (found.failures, found.wasted_hours, found.again, found.given_up) == (0, 0, 0, 0)
    slow_start = CALM.model_copy(update={"worker_start_seconds": 36.0})
    assert simulate(WORK, slow_start, math.inf, 3).hours == pytest.approx(found.hours + 0.01)


def test_units_that_differ_take_as_long_together() -> None:
    spread = simulate(replace(WORK, spread=1.5), CALM, math.inf, 3)
    assert spread.hours == pytest.approx(4000 * 30 / 40 / 3600, rel=0.1)


@settings(max_examples=25)
@given(
    units=st.integers(1, 300),
    seconds=st.floats(0.5, 1000),
    spread=st.sampled_from([0.0, 0.5]),
    machines=st.integers(1, 6),
    mtbf=st.floats(0.1, 100),
    retries=st.integers(0, 3),
)
def test_every_unit_ends_done_or_given_up_and_no_time_is_unaccounted_for(
    units: int, seconds: float, spread: float, machines: int, mtbf: float, retries: int
) -> None:
    work = Work(units, seconds, spread, machines, 4)
    scenario = Scenario(mtbf_hours=(mtbf,), worker_start_seconds=5.0)
    found = simulate(work, scenario, mtbf, retries)
    assert found == simulate(work, scenario, mtbf, retries)
    assert 0 <= found.given_up <= units
    assert found.failures or not (found.wasted_hours or found.again or found.given_up)
    slot_hours = found.hours * machines * 4
    if not spread:
        useful = (units - found.given_up) * seconds / 3600
        assert useful + found.wasted_hours <= slot_hours + 1e-6


def test_a_failure_costs_half_a_unit_of_every_slot() -> None:
    work = Work(units=80_000, unit_seconds=600.0, spread=0.0, machines=20, slots=8)
    found = simulate(work, CALM, 10.0, 50)
    assert found.failures > 100
    assert found.wasted_hours == pytest.approx(found.failures * 8 * 300 / 3600, rel=0.1)
    # 20 machines at 10 hours each lose one twice an hour.
    assert found.failures == pytest.approx(found.hours * 2, rel=0.25)


def test_larger_units_lose_more_and_without_retries_are_given_up() -> None:
    day = replace(WORK, units=40_000)
    units_of_half_an_hour = replace(day, units=day.units // 64, unit_seconds=day.unit_seconds * 64)
    small, large = (simulate(work, CALM, 5.0, 3) for work in (day, units_of_half_an_hour))
    assert large.wasted_hours > 20 * small.wasted_hours
    assert large.hours > small.hours
    once = simulate(units_of_half_an_hour, CALM, 5.0, 0)
    assert once.given_up > 0 == once.again


def test_training_loses_half_the_time_between_checkpoints() -> None:
    scenario = Scenario(mtbf_hours=(100.0,), repair_minutes=6, restart_minutes=0)
    calm = simulate_training(1000.0, 10, scenario, math.inf, 30)
    assert (calm.hours, calm.failures) == (1000.0, 0)
    found = simulate_training(1000.0, 10, scenario, 100.0, 30)
    assert found.wasted_hours == pytest.approx(found.failures * 10 * 0.25, rel=0.25)
    assert found.hours == pytest.approx(1000 + found.failures * 0.1 + found.wasted_hours / 10)
    assert simulate_training(1000.0, 1000, scenario, 1.0, 600).hours == math.inf


def test_billions_of_examples_are_simulated_in_a_breath() -> None:
    work = Work(units=4_000_000, unit_seconds=20.0, spread=0.6, machines=32, slots=64)
    began = time.process_time()
    found = simulate(work, Scenario(mtbf_hours=(200.0,)), 200.0, 3)
    assert time.process_time() - began < 5
    assert found.failures > 0
    assert found.hours == pytest.approx(4e6 * 20 / 2048 / 3600, rel=0.05)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("mtbf_hours: [0]\n", "mtbf_hours must be above 0"),
        ("mtbf_hours: [0.001]\n", "never get workers started"),
        ("mtbf_hours: [10]\nretries: [-1]\n", "retries must be 0 or more"),
        ("mtbf_hours: []\n", "mtbf_hours"),
    ],
)
def test_what_cannot_be_simulated_is_refused(text: str, said: str, tmp_path: Path) -> None:
    (file := tmp_path / "scenario.yaml").write_text(text)
    with pytest.raises(ConfigError, match=said):
        load_config(file, Scenario)
