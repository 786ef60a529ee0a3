"""What `omnimill plan` tells about whole sources: hours, units, storage and costs, from units that were done."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from omnimill.bench import scale
from omnimill.cli.main import main
from omnimill.config import load_config
from omnimill.errors import ConfigError
from omnimill.infra.dataset import Commit, Counts, Dataset, FileRef, InputRef
from omnimill.infra.planning.forecast import BLOCK_SECONDS, UNIT_SECONDS, Forecast, costs, forecast_training, total
from omnimill.infra.planning.forecast import forecast as forecast_stage
from omnimill.infra.planning.machines import Cluster, Egress, NodeGroup, Storage
from omnimill.infra.planning.rates import Rate, TrainRate, busy_seconds, measure, processor_seconds
from omnimill.pipelines.corpus import corpus
from omnimill.pipelines.dag import Dag
from omnimill.pipelines.process import process_unit

PROJECT = Path(__file__).parents[2]
CLUSTER = Cluster(nodes=(NodeGroup(count=10, cores=100, gpus=2, memory_gib=400),))


def rate(**values: float) -> Rate:
    stated = {"core_seconds": 0.01, "input_bytes": 1e5, "stored_bytes": 5e4, "examples_per_unit": 250.0}
    return Rate.model_validate({**stated, **values})


def forecast(source: str, examples: int, one: Rate, cluster: Cluster = CLUSTER) -> Forecast:
    return forecast_stage(source, "ingest", examples, one, cluster)


def test_the_table_is_the_corpus_and_names_every_dag() -> None:
    table = corpus()
    assert set(table) == {path.stem for path in (PROJECT / "pipelines" / "dags" / "pretrain").glob("*.yaml")}
    assert sum(row.examples for row in table.values()) == pytest.approx(8.5e9, rel=0.01)


def test_hours_units_and_bytes_follow_the_examples() -> None:
    found = forecast("s", 1_000_000_000, rate())
    assert found.units == 4_000_000
    assert (found.input_bytes, found.stored_bytes) == (10**14, 5 * 10**13)
    assert found.core_hours == pytest.approx(1e7 / 3600)
    assert found.manifest_bytes == 4_000_000 * 600
    assert (found.bound, found.fits) == ("cores", True)
    assert found.hours == pytest.approx(1e7 / 1000 / 3600)
    assert forecast("s", 10**9, rate(core_seconds=1e-6)).bound == "driver"
    assert forecast("s", 10**9, rate(gpu_seconds=0.01)).bound == "gpus"
    assert not forecast("s", 10, rate(worker_bytes=8 << 30)).fits
    both = total([found, forecast("t", 250, rate())])
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
    rates.write_text(f"ingest:\n  mc4: {values}\n")
    dags = [PROJECT / "pipelines" / "dags" / "pretrain" / f"{name}.yaml" for name in ("mc4", "webvid")]
    answer = tell(capsys, *dags, "--root", tmp_path, "--rates", rates)
    assert answer["left_out"] == ["webvid"]
    (mc4,) = answer["sources"]
    assert (mc4["units"], mc4["input_bytes"]) == (625_000, 10**13)
    assert mc4["core_hours"] == pytest.approx(5e7 / 3600)
    assert main(["plan", str(dags[1]), "--root", str(tmp_path)]) == 1
    assert "nothing to go by" in capsys.readouterr().err


def test_a_bound_is_where_the_cluster_is_narrowest_and_few_units_come_whole() -> None:
    slow = NodeGroup(count=10, cores=100, memory_gib=400, network_gbit=0.1)
    found = forecast("s", 10**9, rate(), Cluster(nodes=(slow,)))
    assert (found.bound, found.hours) == ("network", pytest.approx(1.5e5 * 1e9 / (10 * 0.1e9 / 8) / 3600))
    one = Cluster(nodes=(NodeGroup(count=1, cores=4, memory_gib=16),))
    # Five units of 2.5 s on four cores: one core does two of them.
    assert forecast("s", 5 * 250, rate(), one).hours * 3600 == pytest.approx(5.0)
    quick = forecast("s", 4 * 250, rate(core_seconds=1e-7))
    assert (quick.bound, quick.hours * 3600) == ("driver", pytest.approx(4 * (BLOCK_SECONDS + UNIT_SECONDS)))
    assert quick.unit_seconds == pytest.approx(quick.hours * 3600)


def test_units_that_one_process_did_at_once_count_once() -> None:
    def span(process: int, begun: float, seconds: float) -> dict[str, Any]:
        return {"host": "a", "process": process, "begun": begun, "seconds": seconds}

    assert busy_seconds([span(1, 0.0, 4.0), span(1, 1.0, 2.0), span(1, 3.0, 3.0), span(1, 10.0, 1.0)]) == 7.0
    # An actor of several cores: three seconds of processor time in each second.
    at_once = [{**span(1, 0.0, 4.0), "cpu_begun": 5.0, "cpu_seconds": 12.0}]
    at_once.append({**span(1, 1.0, 2.0), "cpu_begun": 8.0, "cpu_seconds": 6.0})
    assert (busy_seconds(at_once), processor_seconds(at_once)) == (4.0, 12.0)
    assert processor_seconds([*at_once, span(1, 9.0, 1.0)]) is None
    assert busy_seconds([span(1, 0.0, 4.0), span(2, 0.0, 4.0), {"seconds": 1.5}]) == 9.5


def test_costs_are_machines_for_as_long_as_their_stages_last_and_what_has_no_price_is_told_as_that() -> None:
    cheap = NodeGroup(count=10, cores=100, memory_gib=400, price_per_hour=2.0, stages=("ingest", "tokenize"))
    dear = NodeGroup(count=2, cores=10, gpus=8, memory_gib=400, price_per_hour=30.0, stages=("train",))
    cluster = Cluster(
        nodes=(cheap, dear),
        currency="EUR",
        storage=Storage(price_per_tb_month=20.0, months=3),
        egress=Egress(price_per_tb=50.0),
    )
    ingested = forecast_stage("s", "ingest", 10**9, rate(), cluster)
    trained = forecast_training(TrainRate(tokens=16e9, tokens_per_second=1000.0), 1000.0, cluster)
    assert trained.hours == pytest.approx(1e6 / 3600)
    money = costs([ingested, trained], cluster)
    assert money.compute == {"ingest": pytest.approx(20 * ingested.hours), "train": pytest.approx(60 * trained.hours)}
    stored = (ingested.stored_bytes + ingested.manifest_bytes) / 1e12
    assert (money.storage, money.egress) == (pytest.approx(60 * stored), pytest.approx(50 * 100))
    assert money.writes is None
    assert money.total == pytest.approx(sum(money.compute.values()) + 60 * stored + 5000)
    with pytest.raises(ConfigError, match="no group of nodes of the cluster has the stage dedup"):
        forecast_stage("s", "dedup", 10, rate(), cluster)
    with pytest.raises(ConfigError, match="s takes GPUs to ingest, and no node"):
        forecast_stage("s", "ingest", 10, rate(gpu_seconds=0.1), cluster)
    with pytest.raises(ConfigError, match="holds a worker of 1 cores and 16 GPUs"):
        forecast_training(TrainRate(tokens=1, tokens_per_second=1, num_gpus=16), 1.0, cluster)


def test_every_stage_is_told_with_costs_and_failures(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = {
        "cluster": "currency: EUR\nnodes:\n"
        "  - {count: 6, cores: 16, memory_gib: 256, price_per_hour: 2.5, stages: [ingest, dedup]}\n"
        "  - {count: 2, cores: 32, gpus: 8, memory_gib: 512, price_per_hour: 30, stages: [tokenize, train]}\n",
        "rates": "ingest:\n  Text: {core_seconds: 0.001, input_bytes: 2600, stored_bytes: 1500,\n"
        "    examples_per_unit: 9000}\n"
        "dedup:\n  c4: {core_seconds: 0.0005, input_bytes: 1500, stored_bytes: 60, examples_per_unit: 9000}\n"
        "tokenize:\n  c4: {core_seconds: 0.001, gpu_seconds: 0.0001, input_bytes: 1500, stored_bytes: 900,\n"
        "    examples_per_unit: 9000}\ntrain: {tokens: 1.0e+11, tokens_per_second: 20000}\n",
        "scenario": "mtbf_hours: [5]\nunit_sizes: [1, 100]\nretries: [0, 3]\ncheckpoint_minutes: [10, 60]\n",
    }
    for name, text in files.items():
        (tmp_path / f"{name}.yaml").write_text(text)
    dag = PROJECT / "pipelines" / "dags" / "pretrain" / "c4.yaml"
    options = [f"--{option}={tmp_path / name}.yaml" for option, name in (("cluster", "cluster"), ("rates", "rates"))]
    answer = tell(capsys, dag, "--root", tmp_path, *options, "--simulate", tmp_path / "scenario.yaml")
    assert [row["stage"] for row in answer["sources"]] == ["ingest", "dedup", "tokenize", "train"]
    assert answer["costs"]["compute"]["train"] == pytest.approx(60 * answer["sources"][3]["hours"])
    assert answer["costs"]["storage"] is None
    calm, given_up, tried, _, _, large = [one for one in answer["simulated"] if one["unit_size"] is not None]
    assert (calm["failures"], calm["wasted_hours"]) == (0, 0)
    assert calm["hours"] == pytest.approx(sum(row["hours"] for row in answer["sources"][:3]), rel=0.02)
    assert given_up["given_up"] > 0 == tried["given_up"]
    assert large["wasted_hours"] > 10 * tried["wasted_hours"] > 0
    training = [one for one in answer["simulated"] if one["unit_size"] is None and one["mtbf_hours"] is not None]
    assert training[0]["wasted_hours"] < training[1]["wasted_hours"]
    assert main(["plan", str(dag), "--root", str(tmp_path), *options, f"--simulate={tmp_path / 'scenario.yaml'}"]) == 0
    shown = capsys.readouterr().out
    assert all(
        text in shown for text in ("no price stated", "EUR", "object store", "training, a checkpoint every 10 min")
    )


@pytest.mark.ray
@pytest.mark.fault
def test_the_bookkeeping_is_measured() -> None:
    metrics = {one.metric: one for one in scale.run(units=300, handed_out=128, alone=32)}
    assert metrics["scale_plan"].ours > 0
    assert metrics["scale_manifest"].ours < 1
    cost = metrics["scale_driver_time_per_unit"]
    assert 0 < cost.ours < cost.peers["a_block_for_each"]
