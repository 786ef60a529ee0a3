"""A run on a cluster that shrinks and grows: it goes on with the workers there is room for, on the same sequences."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest
import yaml
from faults.commands import answer_of

from omnimill.training.checkpoints import checkpoint
from omnimill.training.checkpoints.settings import CheckpointSettings
from omnimill.training.lineage.replay import combine_digests, replay, sequence_digest
from omnimill.training.runs.config import ElasticSettings, TrainConfig
from omnimill.training.runs.history import read_history
from omnimill.training.runs.inputs import resolve


def on_cluster(config: Path, root: Path, way: str) -> dict[str, Any]:
    return answer_of("shrinking", config, root, way, timeout=800)


@pytest.mark.ray
@pytest.mark.fault
@pytest.mark.timeout(900)
@pytest.mark.parametrize("way", ["kill", "drain"])
def test_a_run_goes_on_with_what_is_there(
    train_config: TrainConfig, train_root: Path, tmp_path: Path, way: str
) -> None:
    # With notice there is no other checkpoint than the one that it asks for.
    every = 2 if way == "kill" else 10_000
    config = train_config.model_copy(
        update={
            "name": f"cluster-{way}",
            "steps": 100_000,
            "workers": 2,
            "elastic": ElasticSettings(min_workers=1, look_every=2.0),
            "checkpoints": CheckpointSettings(every=every),
        }
    )
    path = tmp_path / "train.yaml"
    path.write_text(yaml.safe_dump(resolve(config, str(train_root)).config.model_dump(mode="json")))
    told = on_cluster(path, train_root, way)
    assert (told["before"], told["alone"], told["after"]) == (2, 1, 2)
    run = checkpoint.run_folder(str(train_root), config.name)
    folder = checkpoint.newest(run)
    assert folder is not None
    steps: dict[int, list[int]] = defaultdict(list)
    for sequence in sorted(replay(folder), key=lambda one: (one.step, one.stream)):
        steps[sequence.step].append(sequence_digest(sequence))
    plans = [combine_digests(digests) for _, digests in sorted(steps.items())]
    assert plans == [line["plan"] for line in read_history(run)]
    assert len(plans) == checkpoint.read_record(folder).step
