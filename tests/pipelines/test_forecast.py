"""What `omnimill plan` tells about whole sources, from units that were done."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from omnimill.bench import scale
from omnimill.cli.main import main
from omnimill.config import load_config
from omnimill.infra.dataset import Commit, Counts, Dataset, FileRef, InputRef
from omnimill.pipelines.corpus import corpus
from omnimill.pipelines.dag import Dag
from omnimill.pipelines.forecast import Cluster, NodeGroup, Rate, forecast, measure, total
from omnimill.pipelines.process import process_unit

PROJECT = Path(__file__).parents[2]
CLUSTER = Cluster(nodes=(NodeGroup(count=10, cores=100, gpus=2, memory_gib=400),))


def rate(**values: float) -> Rate:
    stated = {"core_seconds": 0.01, "input_bytes": 1e5, "stored_bytes": 5e4, "examples_per_unit": 250.0}
    return Rate.model_validate({**stated, **values})


def test_the_table_is_the_corpus_and_names_every_dag() -> None:
    table = corpus()
    assert set(table) == {path.stem for path in (PROJECT / "pipelines" / "dags" / "pretrain").glob("*.yaml")}
    assert sum(row.examples for row in table.values()) == pytest.approx(8.5e9, rel=0.01)


def test_hours_units_and_bytes_follow_the_examples() -> None:
    found = forecast("s", 1_000_000_000, rate(), CLUSTER)
    assert found.units == 4_000_000
    assert (found.input_bytes, found.stored_bytes) == (10**14, 5 * 10**13)
    assert found.core_hours == pytest.approx(1e7 / 3600)
    assert found.manifest_bytes == 4_000_000 * 600
    assert (found.bound, found.fits) == ("cores", True)
    assert found.hours == pytest.approx(1e7 / 1000 / 3600)
    assert forecast("s", 10**9, rate(core_seconds=1e-6), CLUSTER).bound == "driver"
    assert forecast("s", 10**9, rate(gpu_seconds=0.01), CLUSTER).bound == "gpus"
    assert not forecast("s", 10, rate(worker_bytes=8 << 30), CLUSTER).fits
    both = total([found, forecast("t", 250, rate(), CLUSTER)])
    assert (both.examples, both.units) == (1_000_000_250, 4_000_001)
    assert both.driver_bytes == found.driver_bytes


def test_rates_are_what_committed_units_took() -> None:
    def unit(examples: int, seconds: float, read: bool = True) -> tuple[Commit, dict[str, Any]]:
        commit = Commit(
            unit="u",
            source="s",
            recipe="r",
            inputs=(InputRef(uri="u", digest="d", bytes=1000),) if read else (),
            shards=(FileRef(digest="d", rows=examples, bytes=300),),
            counts=Counts(examples_written=examples),
        )
        return commit, {"seconds": seconds, "peak_rss_bytes": 10}

    found = measure([unit(10, 2.0), unit(30, 2.0), unit(0, 9.0, read=False)])
    assert found is not None
    assert (found.core_seconds, found.input_bytes, found.stored_bytes) == (0.1, 50.0, 15.0)
    assert (found.examples_per_unit, found.worker_bytes) == (20.0, 10)
    assert measure([]) is None


@pytest.fixture
def done(tmp_path: Path) -> Callable[[str], Path]:
    """Ingests a text file as a dataset of a name; gives its DAG."""

    def build(name: str) -> Path:
        lines = tmp_path / "in.jsonl"
        lines.write_text("".join(f'{{"text": "line {i}"}}\n' for i in range(100)))
        path = tmp_path / f"{name}.yaml"
        path.write_text(f"dataset: {name}\nsources: [{{name: texts, type: jsonl, path: {lines}}}]\n")
        source, dataset = load_config(path, Dag).sources[0].source, Dataset(str(tmp_path / "root"), name)
        for unit in source.units():
            process_unit(source, (), unit, dataset)
        return path

    return build


def tell(capsys: pytest.CaptureFixture[str], *arguments: object) -> dict[str, Any]:
    assert main(["plan", *map(str, arguments), "--json"]) == 0
    answer: dict[str, Any] = json.loads(capsys.readouterr().out)
    return answer


def test_plan_tells_the_corpus_by_its_table_and_others_by_their_files(
    done: Callable[[str], Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cluster = tmp_path / "cluster.yaml"
    cluster.write_text(
        "nodes:\n  - {count: 4, cores: 16, memory_gib: 64}\n  - {count: 1, cores: 8, gpus: 8, memory_gib: 64}\n"
    )
    answer = tell(capsys, done("c4"), done("own"), "--root", tmp_path / "root", "--cluster", cluster)
    assert answer["cluster"] == {"cores": 72, "gpus": 8}
    c4, own = answer["sources"]
    assert (c4["source"], c4["examples"], c4["units"]) == ("c4", 266_000_000, 2_660_000)
    assert (own["source"], own["examples"], own["units"]) == ("own/texts", 100, 1)
    assert answer["total"]["examples"] == 266_000_100
    assert c4["core_hours"] > own["core_hours"] > 0
    assert main(["plan", str(done("c4")), "--root", str(tmp_path / "root")]) == 0
    assert "266,000,000" in capsys.readouterr().out


def test_stated_rates_go_before_measured_ones_and_stand_in_for_them(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rates = tmp_path / "rates.yaml"
    values = "{core_seconds: 0.01, input_bytes: 2000, stored_bytes: 1000, examples_per_unit: 8000}"
    rates.write_text(f"rates:\n  mc4: {values}\n")
    dags = [PROJECT / "pipelines" / "dags" / "pretrain" / f"{name}.yaml" for name in ("mc4", "webvid")]
    answer = tell(capsys, *dags, "--root", tmp_path, "--rates", rates)
    assert answer["left_out"] == ["webvid"]
    (mc4,) = answer["sources"]
    assert (mc4["units"], mc4["input_bytes"]) == (625_000, 10**13)
    assert mc4["core_hours"] == pytest.approx(5e7 / 3600)
    assert main(["plan", str(dags[1]), "--root", str(tmp_path)]) == 1
    assert "nothing to go by" in capsys.readouterr().err


@pytest.mark.ray
@pytest.mark.fault
def test_the_bookkeeping_is_measured() -> None:
    metrics = {one.metric: one for one in scale.run(units=300, handed_out=128, alone=32)}
    assert metrics["scale_plan"].ours > 0
    assert metrics["scale_manifest"].ours < 1
    cost = metrics["scale_driver_time_per_unit"]
    assert 0 < cost.ours < cost.peers["a_block_for_each"]
