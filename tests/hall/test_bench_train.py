"""The contest of training: every way trains on the same examples, within the budgets; the loader's part adds up."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from omnimill.bench import train
from omnimill.bench.metric import OURS
from omnimill.bench.train import ways
from omnimill.bench.train.corpus import Scale, prepare
from omnimill.training.engine.settings import ParallelSettings, PrecisionSettings
from omnimill.training.runs.inputs import TrainInputs, open_streams

SCALE = Scale(
    "tiny", {"encoder_layers": 1, "decoder_layers": 1}, 0.25, 16, 2, PrecisionSettings(), ParallelSettings(), 1
)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("bench")


@pytest.fixture(scope="module")
def inputs(root: Path) -> TrainInputs:
    return prepare(root, SCALE)


def test_every_way_holds_the_same_examples_within_the_budgets(inputs: TrainInputs, root: Path) -> None:
    made = ways.batches(open_streams(inputs, str(root), [inputs.change(0)]), 3)
    targets = {
        way: sorted(int(value) for batch in batches for value in batch.decoder_targets[batch.decoder_segment > 0])
        for way, batches in made.items()
    }
    assert all(found == targets[OURS] for found in targets.values())
    most = {way: max(int(batch.encoder_segment.max()) for batch in batches) for way, batches in made.items()}
    assert most[OURS] > 2
    assert (most["pairs_from_a_pool_of_ten"], most["unpacked"], most["unpacked_to_the_longest"]) == (2, 1, 1)
    filled = {way: ways.real_share(batches) for way, batches in made.items()}
    assert filled[OURS] > filled["pairs_from_a_pool_of_ten"] > filled["unpacked"]
    assert filled["unpacked_to_the_longest"] > filled["unpacked"]


def test_a_contest_is_measured(inputs: TrainInputs, root: Path) -> None:
    setting = replace(train.settings()[0], scale=SCALE, contest=1, rounds=1, warm=0, steps=1)
    found = train._train(setting, inputs, str(root))
    assert min(found.rates.values()) > 0
    assert 0 < found.loaded.transformer < found.loaded.total < found.loaded.peak
    assert 0 <= found.loaded.waited <= 1
