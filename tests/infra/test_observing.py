"""What a running command tells: series for Prometheus that the dashboard asks for, log lines with run and unit."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from faults.commands import answer_of

from omnimill import logs
from omnimill.errors import OmnimillError
from omnimill.infra.dataset import Commit, Counts, FileRef, InputRef, Unit
from omnimill.infra.done import Done
from omnimill.infra.observing import METRICS, Observer, logged_run

DASHBOARD = Path(__file__).parents[2] / "infra" / "deploy" / "grafana" / "omnimill.json"
UNIT = Unit(source="pages", files=("s3://bucket/part-0.jsonl",))
COMMIT = Commit(
    unit=UNIT.id,
    source="pages",
    recipe="r",
    inputs=(InputRef(uri=UNIT.files[0], digest="d", bytes=900),),
    shards=(FileRef(digest="e", rows=7, bytes=400),),
    counts=Counts(records_in=10, kept=7, quarantined={"bad_json": 3}, examples_written=7),
)


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def asked_for() -> list[tuple[str, str]]:
    """Every metric that a panel's query names, with its panel."""
    panels = json.loads(DASHBOARD.read_text())["panels"]
    return [
        (panel["title"], name)
        for panel in panels
        for target in panel["targets"]
        for name in re.findall(r"\bray_\w+", target["expr"])
    ]


def test_every_panel_asks_for_metrics_that_exist_and_every_metric_has_a_panel() -> None:
    from ray.dashboard.modules.reporter.reporter_agent import METRICS_GAUGES

    ours = {name for spec in METRICS for name in spec.exported}
    ray = {f"ray_{name}" for name in METRICS_GAUGES}
    assert [(title, name) for title, name in asked_for() if name not in ours | ray] == []
    asked = {name for _, name in asked_for()}
    assert [spec.name for spec in METRICS if not asked.intersection(spec.exported)] == []


def test_queries_use_only_labels_that_the_metric_has() -> None:
    known = {name: {*spec.labels, "run", "command"} for spec in METRICS for name in spec.exported}
    panels = json.loads(DASHBOARD.read_text())["panels"]
    wrong = [
        (name, label)
        for panel in panels
        for target in panel["targets"]
        for name, selected in re.findall(r"\b(ray_omnimill_\w+)\{([^}]*)\}", target["expr"])
        for label in re.findall(r"(\w+)\s*[=!]", selected)
        if label not in known[name]
    ]
    assert wrong == []
    assert len({panel["id"] for panel in panels}) == len(panels)
    places = [tuple(panel["gridPos"].values()) for panel in panels]
    assert len(set(places)) == len(places)


def test_logs_name_run_stage_and_unit_and_are_off_by_default(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "logs" / "omnimill.jsonl"
    monkeypatch.delenv(logs.SETTING, raising=False)
    observer = Observer("run-1", "ingest")
    observer.unit(Done(UNIT, COMMIT), 3)
    assert not file.exists()
    monkeypatch.setenv(logs.SETTING, str(file))
    observer.unit(Done(UNIT, COMMIT, observed={"seconds": 1.5, "host": "node-3", "cpu_seconds": 1.0}), 3)
    with pytest.raises(OmnimillError), logged_run("run-1", "ingest"):
        observer.unit(Done(UNIT, None, "the disk is full"), 2)
        raise OmnimillError("units failed")
    observer.unit(Done(UNIT, None), 1)
    done, started, failed, ended, crashed = lines(file)
    assert (started["event"], ended["event"], ended["run"]) == ("run_started", "run_failed", "run-1")
    assert ended["error"] == "OmnimillError: units failed"
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", done["time"])
    about = {"run": "run-1", "stage": "ingest", "source": "pages", "unit": UNIT.id}
    assert about.items() <= done.items() and about.items() <= failed.items() and about.items() <= crashed.items()
    assert (done["event"], done["rows"], done["quarantined"], done["seconds"], done["host"]) == (
        "unit_committed",
        7,
        3,
        1.5,
        "node-3",
    )
    assert (failed["event"], failed["error"], failed["command"]) == ("unit_failed", "the disk is full", "ingest")
    assert (crashed["event"], "command" in crashed) == ("unit_crashed", False)


def test_on_standard_error_everything_is_a_json_line(tmp_path: Path) -> None:
    code = (
        "import logging; from omnimill import logs; from omnimill.progress import console, progress\n"
        "logs.log_warnings()\n"
        "with progress('ingest pages', 2) as advance: advance(2, rows=5)\n"
        "console.print('[bold red]error:[/] nothing to do'); logging.getLogger('some.library').warning('look out')"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={"PATH": "/usr/bin:/bin", logs.SETTING: logs.STDERR},
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).parents[2],
    )
    said = [json.loads(line) for line in done.stderr.splitlines()]
    assert [one["event"] for one in said] == ["progress", "message", "log"]
    assert (said[0]["what"], said[0]["done"], said[0]["of"]) == ("ingest pages", 2, "units")
    assert said[1]["message"] == "error: nothing to do"
    assert (said[2]["logger"], said[2]["level"], said[2]["message"]) == ("some.library", "warning", "look out")


@pytest.mark.ray
@pytest.mark.fault
def test_prometheus_finds_every_metric_under_its_name(tmp_path: Path) -> None:
    (tmp_path / "in.jsonl").write_text('{"text": "a line"}\n{"text": "another"}\nno json\n')
    source = f"{{name: pages, type: jsonl, path: {tmp_path}/in.jsonl, max_quarantined_share: 1}}"
    (dag := tmp_path / "dag.yaml").write_text(f"dataset: told\nsources: [{source}]\n")
    series = answer_of("scraped", dag, tmp_path / "root", timeout=200)["series"]
    names = {name for name, _, _ in series}
    assert [name for _, name in asked_for() if name.startswith("ray_omnimill") and name not in names] == []

    def value(name: str, **labels: str) -> float:
        (found,) = [amount for one, told, amount in series if one == name and labels.items() <= told.items()]
        return float(found)

    assert value("ray_omnimill_units_total", source="pages", outcome="committed", command="ingest") == 1
    assert value("ray_omnimill_records_total", source="pages", verdict="kept") == 2
    assert value("ray_omnimill_records_total", source="pages", verdict="quarantined") == 1
    assert value("ray_omnimill_rows_total", source="pages") == 2
    assert value("ray_omnimill_tokens_total", side="encoder", run="run-of-training") == 100
    assert value("ray_omnimill_loss", modality="text") == 2.5
    assert not [told for name, told, _ in series if name.startswith("ray_omnimill") and "unit" in told]
