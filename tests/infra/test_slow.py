"""What takes the time: said from what units and steps tell of themselves, while a run goes on and when it is done."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest

from omnimill.cli.main import main
from omnimill.config import load_config
from omnimill.infra.dataset import Commit, Counts, Dataset, FileRef, InputRef
from omnimill.infra.slow import profile
from omnimill.pipelines.dag import Dag
from omnimill.pipelines.process import process_unit


def commit(dataset: Dataset, source: str, number: int, rows: int = 10, **observed: Any) -> None:
    """A unit that was done, and what it says it took."""
    unit = Commit(
        unit=f"{source}-{number}",
        source=source,
        recipe="r",
        inputs=(InputRef(uri=f"s3://bucket/{source}/{number}", digest=f"{number:x}", bytes=10),),
        shards=(FileRef(digest="e", rows=rows, bytes=10),),
        counts=Counts(records_in=rows, kept=rows, examples_written=rows),
    )
    dataset.commit(unit, observed)


def test_source_step_machine_and_unit_that_take_the_time_are_named(tmp_path: Path) -> None:
    dataset = Dataset(str(tmp_path), "web")
    for number in range(20):
        host, seconds = ("fast", 1.0) if number % 4 else ("tired", 4.0)
        steps = {"read": 0.1, "decode": 0.2, "text_language": seconds - 0.4}
        commit(dataset, "pages", number, seconds=seconds, cpu_seconds=0.3 * seconds, host=host, steps=steps)
    commit(dataset, "pages", 99, seconds=60.0, cpu_seconds=18.0, host="fast", steps={"decode": 60.0}, rows=1000)
    # Long units of another source make no machine slow.
    commit(dataset, "books", 0, seconds=2.0, cpu_seconds=2.0, host="third", rows=1)
    found = profile(dataset)
    assert found is not None
    assert [part.name for part in found.sources] == ["pages", "books"]
    assert found.sources[0].processor_share == pytest.approx(0.3)
    assert (found.steps[0].step, found.steps[1].step) == ("decode", "text_language")
    assert found.units[0].file == "s3://bucket/pages/99"
    said = "\n".join(found.findings)
    assert "source pages takes 98% of the time" in said
    assert "the step decode takes" in said
    assert "they wait" in said
    assert "machine tired takes 5" in said and "machine third" not in said
    assert "unit pages-99 took" in said


def test_a_unit_tells_its_steps_and_operators(tmp_path: Path) -> None:
    (lines := tmp_path / "in.jsonl").write_text("".join(f'{{"text": "line {i} of a text"}}\n' for i in range(500)))
    operators = "[{op: text_length, min_chars: 3}, {op: text_quality, min_words: null, min_stop_words: null}]"
    (dag := tmp_path / "dag.yaml").write_text(
        f"dataset: told\nsources: [{{name: lines, type: jsonl, path: {lines}, operators: {operators}}}]\n"
    )
    (pipeline,), dataset = load_config(dag, Dag).sources, Dataset(str(tmp_path / "root"), "told")
    (unit,) = pipeline.source.units()
    done = process_unit(pipeline.source, pipeline.operators, unit, dataset)
    observed = dataset.observed(done)
    assert set(observed["steps"]) == {"read", "decode", "text_length", "text_quality", "encode", "write"}
    assert 0 < sum(observed["steps"].values()) < 5 * observed["seconds"] + 0.1
    assert observed["cpu_seconds"] > 0 and observed["begun"] <= time.time()


def test_the_command_looks_at_datasets_and_runs_and_at_the_last_minutes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    dataset = Dataset(str(tmp_path), "web")
    commit(dataset, "old", 0, seconds=9.0, begun=time.time() - 7200)
    commit(dataset, "new", 1, seconds=1.0, begun=time.time() - 60)
    (run := tmp_path / "runs" / "long").mkdir(parents=True)
    with (run / "history.jsonl").open("w") as file:
        for step in range(10):
            timing = {"seconds": 1.0 + 9.0 * (step == 5), "tokens_per_second": 1000.0, "data_wait_share": 0.4}
            padding = {"encoder": 0.05, "decoder": 0.4}
            file.write(json.dumps({"step": step, "skipped": 0, "padding_share": padding, "timing": timing}) + "\n")

    def ask(*arguments: str) -> dict[str, Any]:
        assert main(["slow", *arguments, "--root", str(tmp_path), "--json"]) == 0
        answer: dict[str, Any] = json.loads(capsys.readouterr().out)
        return answer

    everything = ask()
    (web,), (long,) = everything["datasets"], everything["runs"]
    assert [part["name"] for part in web["sources"]] == ["old", "new"]
    assert (long["steps"], long["slowest_step"], long["data_wait_share"]) == (10, 5, pytest.approx(0.4))
    assert any("the loader is what is slow" in said for said in long["findings"])
    assert any("40% of the decoder's slots are padding" in said for said in long["findings"])
    (recent,) = ask("web", "--minutes", "10")["datasets"]
    assert [part["name"] for part in recent["sources"]] == ["new"]
    assert main(["slow", "--root", str(tmp_path)]) == 0
    assert "waits for data" in capsys.readouterr().out
    assert main(["slow", "nothing", "--root", str(tmp_path)]) == 1
    assert "no units of a dataset and no steps of a run" in capsys.readouterr().err
