"""A simulation counts what a training would see, over data and over what the catalog says of datasets to come."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from omnimill.cli.main import main
from omnimill.mixtures.config import Mixture
from omnimill.mixtures.course import new_course
from omnimill.mixtures.loading import load_mixture
from omnimill.tokens import TokenLayout
from omnimill.training.planning.block_planner import BlockPlanner
from omnimill.training.planning.corpus_reads import SourceSize, count_reads
from omnimill.training.planning.lengths import Budgets
from omnimill.training.planning.planner import VirtualStreams
from omnimill.training.planning.simulate import Setting, simulate
from omnimill.training.planning.simulated_corpus import RenderFor, open_corpus
from omnimill.training.planning.virtual_rows import VirtualRows, entries_by_source
from omnimill.training.rendering.settings import RenderSettings
from omnimill.training.runs.config import TrainConfig
from omnimill.training.runs.inputs import TrainInputs, resolve

PRETRAIN = Path(__file__).parents[2] / "mixtures" / "pretrain.yaml"


@pytest.fixture(scope="module")
def setting(train_config: TrainConfig, train_root: Path, mixture: Mixture) -> Setting:
    config = train_config
    return Setting(mixture, str(train_root), 120, 4, config.packing, config.render, config.backbone)


def test_it_counts_what_the_planner_plans(setting: Setting, token_data: Any, inputs: TrainInputs) -> None:
    found = simulate(setting, processes=1)
    streams = VirtualStreams(
        new_course(setting.root, setting.mixture, 4), token_data.text, packing=setting.packing, render=inputs.render
    )
    planner = streams.planner(range(4))
    sequences = [sequence for step in islice(planner, 30) for sequence in step]
    items = [item for sequence in sequences for item in sequence.items]
    assert (found.virtual, found.steps, found.sequences) == (False, 30, 120)
    assert found.packed == dict(sorted(Counter(len(sequence.items) for sequence in sequences).items()))
    names = [task.name for task in setting.mixture.tasks]
    assert {task.name: task.examples for task in found.tasks} == {
        name: sum(item.task == number for item in items) for number, name in enumerate(names)
    }
    assert found.input_tokens["text"] == sum(item.lengths.text for item in items)
    assert sum(found.target_tokens.values()) == sum(item.lengths.decoder for item in items)
    assert found.cut == sum(item.lengths.cut for item in items)
    encoder = sum(item.lengths.encoder for item in items)
    assert found.padding["encoder"] == pytest.approx(1 - encoder / (120 * setting.packing.budgets.encoder))
    states = planner.snapshot()().values()
    assert found.draws == sum(state["draws"] for state in states)
    for number, task in enumerate(found.tasks):
        assert task.draws == sum(state["taken"][number] for state in states)
        assert task.stream_deviation is not None
        assert task.stream_deviation <= found.stream_deviation_bound
        assert task.epochs == task.draws / task.rows
        assert sum(source.examples for source in task.sources) == task.examples


def test_the_published_mixture_before_there_are_data(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    arguments = ["mixture", "simulate", str(PRETRAIN), "--sequences", "20000", "--streams", "100"]
    assert main([*arguments, "--nodes", "10", "--root", str(tmp_path), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["virtual"]
    assert len(found["tasks"]) == 81
    assert sum(task["rows"] for task in found["tasks"]) > 8_500_000_000
    assert found["off"] < 0.05
    assert all(task["stream_deviation"] <= found["stream_deviation_bound"] for task in found["tasks"])
    assert found["estimated"] == []
    assert sum(found["packed"].values()) == 20_000
    assert 0 < found["padding"]["encoder"] < 0.4
    assert found["reads"]["nodes"] == 10
    assert main([*arguments, "--root", str(tmp_path)]) == 0
    assert "Furthest from a planned rate" in capsys.readouterr().out


def test_what_goes_beyond_its_cap_is_said(setting: Setting) -> None:
    tasks = tuple(task.model_copy(update={"max_epochs": 1.0}) for task in setting.mixture.tasks)
    capped = replace(setting, mixture=setting.mixture.model_copy(update={"tasks": tasks}))
    for task in simulate(capped, processes=1).tasks:
        assert (task.cap_step is not None) == (task.epochs > 1)
        if task.cap_step is not None:
            assert task.cap_step == int(30 / task.epochs)


def test_rates_of_tokens_hold(setting: Setting, train_config: TrainConfig, train_root: Path, tmp_path: Path) -> None:
    by_tokens = setting.mixture.model_copy(update={"rate_unit": "tokens"})
    found = simulate(replace(setting, mixture=by_tokens, sequences=6000, streams=8), processes=1)
    shares = np.array([task.token_share for task in found.tasks])
    assert np.abs(shares - np.array(setting.mixture.rates)).max() < 0.003
    assert [task.planned for task in found.tasks] == setting.mixture.rates
    # A training draws by the same rates.
    path = tmp_path / "mixture.yaml"
    path.write_text((train_root / "mixture.yaml").read_text() + "rate_unit: tokens\n")
    corpus = open_corpus(
        by_tokens,
        str(train_root),
        8,
        train_config.packing.budgets,
        RenderFor(train_config.render, train_config.backbone),
    )
    assert resolve(
        train_config.model_copy(update={"mixture": str(path)}), str(train_root)
    ).mixture.rates == pytest.approx(corpus.mixture.rates, rel=1e-12)


def test_memory_does_not_grow_with_the_corpus() -> None:
    """Rows are computed from their numbers: a plan over 10^18 of them holds nothing of their size."""
    mixture = load_mixture(PRETRAIN)
    huge = mixture.model_copy(
        update={"tasks": tuple(task.model_copy(update={"size": 10**18}) for task in mixture.tasks)}
    )
    corpus = open_corpus(huge, "nowhere", 64, Budgets(), RenderFor(RenderSettings(), None))
    block = BlockPlanner(corpus.timeline, corpus.measure, Setting(huge, "", 1, 64).packing, range(3)).next_block()
    assert block.examples().nbytes < 1_000_000


def test_virtual_rows_are_as_the_catalog_says() -> None:
    task = next(task for task in load_mixture(PRETRAIN).tasks if task.name == "obelics-text-denoise")
    entries = entries_by_source()
    rows = VirtualRows(task, entries, TokenLayout(tokenizers="none", digests={}))
    assert len(rows) == 131_000_000
    batch = rows.batch(np.arange(40_000) * 3000)
    lengths = batch.texts.columns["lengths"]
    stated = entries["obelics"].lengths
    assert stated is not None
    for percent, tokens in stated.text["body"].items():
        if 0 < percent < 99:
            assert np.percentile(lengths, percent) == pytest.approx(tokens, rel=0.05)
    again = rows.batch(np.array([3000, 0]))
    assert again.texts.columns["lengths"].tolist() == lengths[[1, 0]].tolist()


def test_reads_by_hand() -> None:
    # Two streams share 40 rows of 1 kB; windows of 8 rows make three in a share of 20.
    source = SourceSize("photos", 40, 4, 40_000)
    reads = count_reads(np.array([[9], [45]]), [[source]], 8, 2)
    assert reads.sources[0].windows == 2 + (3 + 3 + 1)
    assert reads.sources[0].per_shard == 9 / 4
    assert reads.cache_bytes == 3 * 8 * 1000
    assert reads.open_bytes == 8 * 1000
