"""Rates that a slice gave on one node tell how long all of it takes on one node and on two."""

from __future__ import annotations

import math
import os
from pathlib import Path

import cv2
import numpy as np
import pytest
from faults.commands import answer_of

from omnimill import rng
from omnimill.infra.dataset import Dataset
from omnimill.infra.planning.forecast import forecast
from omnimill.infra.planning.machines import Cluster, NodeGroup
from omnimill.infra.planning.rates import measure
from omnimill.infra.planning.simulation import Scenario, simulate
from omnimill.infra.planning.sweep import Planned

DAG = """\
dataset: rated
decode_threads: 1
sources:
  - name: pictures
    type: image_folder
    path: {folder}
    include: ["{include}"]
    images_per_unit: 16
    operators:
      - {{op: image_size, min_side: 64}}
      - {{op: image_uniform, min_std: 4}}
      - {{op: image_resize, short_side: 128}}
"""
FOLDERS, PICTURES = 4, 320


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four folders of pictures that take a core some 45 seconds, all told; few bytes are written of them."""
    folder = tmp_path_factory.mktemp("raw")
    noise = rng.generator("rated", "pictures").integers(0, 256, (8, 100, 150, 3), dtype=np.uint8)
    drawn = [cv2.imencode(".png", cv2.resize(one, (1200, 800), interpolation=cv2.INTER_CUBIC))[1] for one in noise]
    for number, picture in enumerate(drawn):
        (folder / f"{number}.png").write_bytes(picture.tobytes())
    for part in range(FOLDERS):
        (folder / "in" / str(part)).mkdir(parents=True)
        for i in range(PICTURES):
            os.link(folder / f"{i % len(drawn)}.png", folder / "in" / str(part) / f"{i:04d}.png")
    return folder / "in"


@pytest.mark.ray
@pytest.mark.fault
@pytest.mark.timeout(1200)
def test_rates_of_a_slice_on_one_node_tell_one_node_and_two_within_a_fifth(raw: Path, tmp_path: Path) -> None:
    def run(name: str, include: str, nodes: int) -> dict[str, float]:
        (dag := tmp_path / f"{name}.yaml").write_text(DAG.format(folder=raw, include=include))
        return answer_of("rated_nodes", dag, tmp_path / name, nodes, timeout=580)

    part = run("slice", "0/*", 1)
    rate = measure(Dataset(str(tmp_path / "slice"), "rated").commits())
    assert rate is not None
    scenario = Scenario(mtbf_hours=(1.0,), worker_start_seconds=0.0)
    for nodes in (1, 2):
        cluster = Cluster(nodes=(NodeGroup(count=nodes, cores=1, memory_gib=8),))
        told = forecast("rated", "ingest", FOLDERS * PICTURES, rate, cluster)
        simulated = 3600 * simulate(Planned(told, rate).work(cluster), scenario, math.inf, 3).hours
        whole = run(f"whole-{nodes}", "**/*", nodes)
        # Workers that start are in no rate. What else runs on the machine takes processors from some of the runs and
        # not from others, so that all are told as if they had had the share of a processor that the slice had.
        seconds = (whole["seconds"] - whole["until_first"]) * whole["processor_share"] / part["processor_share"]
        print(f"{nodes} nodes: forecast {3600 * told.hours:.1f} s, simulated {simulated:.1f} s, took {seconds:.1f} s")
        print(f"  slice {part}\n  whole {whole}")
        assert told.hours * 3600 == pytest.approx(seconds, rel=0.2)
        assert simulated == pytest.approx(seconds, rel=0.2)
