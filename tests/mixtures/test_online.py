"""Online mixing: the rules by hand, and what they make of tasks that were not seen."""

from __future__ import annotations

import math

import pytest
from pydantic import ValidationError

from omnimill.errors import ConfigError
from omnimill.mixtures.config import Mixture
from omnimill.mixtures.online import check_online, decide, next_horizon, weights_of
from omnimill.mixtures.online_config import OnlineConfig

RATES = {"a": 0.5, "b": 0.3, "c": 0.2}
MIXTURE = Mixture.model_validate(
    {
        "datasets": ["tokens"],
        "tasks": [{"name": name, "rate": rate, "sources": ["s"], "target": "image"} for name, rate in RATES.items()],
    }
)


def shares(weights: dict[str, float]) -> dict[str, float]:
    whole = sum(RATES[name] * weights[name] for name in RATES)
    return {name: RATES[name] * weights[name] / whole for name in RATES}


def test_skill_it_adds_up_the_losses_of_a_window_through_the_skills_graph() -> None:
    config = OnlineConfig(rule="skill_it", eta=0.5, window=2, skills={"a": {"a": 1, "b": 0.5}, "b": {"b": 1}})
    losses = [{"a": 9.0, "b": 9.0, "c": 9.0}, {"a": 2.0, "b": 1.0, "c": 4.0}, {"a": 1.0, "b": 3.0, "c": 5.0}]
    raw = {
        "a": 0.5 * math.exp(0.5 * (2 + 0.5 * 1 + 1 + 0.5 * 3)),
        "b": 0.3 * math.exp(0.5 * (1 + 3)),
        "c": 0.2,  # helps nobody, itself included
    }
    expected = {name: value / sum(raw.values()) for name, value in raw.items()}
    weights = weights_of(config, MIXTURE, losses)
    assert shares(weights) == pytest.approx(expected)
    # Rates keep their sum, so that a task that comes in later with weight 1 has the share that it asks for.
    assert sum(RATES[name] * weight for name, weight in weights.items()) == pytest.approx(1)


def test_without_a_graph_each_task_helps_itself() -> None:
    weights = weights_of(OnlineConfig(eta=1.0, window=1), MIXTURE, [{"a": 1.0, "b": 1.0, "c": 1.0 + math.log(3)}])
    assert weights["a"] == weights["b"]
    assert weights["c"] / weights["a"] == pytest.approx(3)


def test_loss_ratio_gives_more_to_what_has_been_learnt_least() -> None:
    config = OnlineConfig(rule="loss_ratio", eta=2.0)
    weights = weights_of(config, MIXTURE, [{"a": 4.0, "b": 2.0, "c": 5.0}, {"a": 1.0, "b": 2.0, "c": 2.5}])
    assert weights["b"] / weights["a"] == pytest.approx((1 / 0.25) ** 2)
    assert weights["c"] / weights["a"] == pytest.approx((0.5 / 0.25) ** 2)


def test_a_task_that_was_not_seen_counts_with_its_last_loss_or_the_others_mean() -> None:
    config = OnlineConfig(eta=1.0, window=1)
    assert weights_of(config, MIXTURE, [{}]) == {}
    unseen = weights_of(config, MIXTURE, [{"a": 1.0, "b": 3.0}])
    assert unseen == weights_of(config, MIXTURE, [{"a": 1.0, "b": 3.0, "c": 2.0}])
    kept = weights_of(config, MIXTURE, [{"a": 1.0, "b": 3.0, "c": 7.0}, {"a": 2.0, "b": 2.0}])
    assert kept == weights_of(config, MIXTURE, [{"a": 2.0, "b": 2.0, "c": 7.0}])


def test_a_decision_holds_what_it_was_made_of() -> None:
    config = OnlineConfig(every=4, lag=10, eta=1.0)
    steps = [{"a": 1.0, "b": 2.0}, {"a": 3.0, "c": float("nan")}]
    update = decide(config, MIXTURE, [], steps, 8)
    assert (update.decided, update.step, update.losses) == (8, 18, {"a": 2.0, "b": 2.0})
    later = decide(config, MIXTURE, [update], [{"c": 5.0}], 12)
    assert later.weights == weights_of(config, MIXTURE, [update.losses, {"c": 5.0}])
    assert [next_horizon(config, done) for done in (0, 3, 4, 9)] == [14, 14, 18, 22]


def test_no_loss_makes_a_task_vanish_for_good() -> None:
    weights = weights_of(OnlineConfig(eta=100.0), MIXTURE, [{"a": 0.0, "b": 50.0, "c": 1.0}])
    assert weights["b"] / weights["a"] == pytest.approx(1e6)


def test_settings_that_make_no_sense_are_refused() -> None:
    with pytest.raises(ConfigError, match="unknown task 'd'; allowed: a, b, c"):
        check_online(OnlineConfig(skills={"a": {"d": 1.0}}), MIXTURE)
    with pytest.raises(ValidationError, match="greater than or equal to 8"):
        OnlineConfig(lag=7)
    with pytest.raises(ValidationError, match="skill_it"):
        OnlineConfig.model_validate({"rule": "gradient"})
