"""``omnimill dedup``: steps in order, accounts, resuming, thresholds that read nothing again."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from made_rows import make_row, publish, verdicts

from omnimill.cli.main import main
from omnimill.errors import IntegrityError, OmnimillError
from omnimill.infra import lineage
from omnimill.infra.dataset import Dataset
from omnimill.infra.erasures import Erasure
from omnimill.infra.erasures import publish as erase
from omnimill.infra.selections import load_selection
from omnimill.pipelines.dedup.config import Dedup
from omnimill.pipelines.dedup.run import DedupResult, dedup
from omnimill.rng import generator
from omnimill.schema import Example

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("ray_local")]


def run(root: str, steps: list[dict[str, Any]], **settings: Any) -> DedupResult:
    return dedup(Dedup.model_validate({"dataset": "made", "selection": "clean", "steps": steps, **settings}), root)


def test_steps_see_what_earlier_ones_kept(root: str) -> None:
    rows = [
        make_row("a", "good", "one text", scores={"s": 0.9}),
        make_row("a", "bad", "ONE  TEXT", scores={"s": 0.1}),
        make_row("b", "other", "two texts", scores={"s": 0.8}),
        make_row("b", "bare", "one\ntext"),
        make_row("b", "silent", scores={"s": 0.5}),
    ]
    publish(root, rows)
    result = run(
        root, [{"step": "threshold", "score": "s", "min": 0.3}, {"step": "exact", "of": "text"}], prefer={"score": "s"}
    )
    keys = {row.id: row.key for row in rows}
    found = {keys[key]: row for key, row in verdicts(result.dataset, result.digest).items()}
    assert {key: (row["step"], row["reason"], row["score"]) for key, row in found.items()} == {
        "bad": ("threshold", "score_low", 0.1),
        "bare": ("exact", "exact_text", None),
    }
    assert keys[found["bare"]["twin"]] == "good" and found["bad"]["twin"] is None
    answer = result.as_json()
    assert answer["examples"] == {"written": 3, "dropped": {"exact_text": 1, "score_low": 1}}
    assert answer["records"]["in"] == 5 and answer["units"] == 2
    assert load_selection(result.dataset, "clean", result.manifest_digest)[0] == answer["selection"] == result.digest


def test_a_changed_threshold_reads_no_shard_again(root: str) -> None:
    rows = [make_row("a", f"{i}", f"text {i % 4}", scores={"s": i / 10}) for i in range(10)]
    dataset = publish(root, rows)
    run(root, [{"step": "threshold", "score": "s", "min": 0.3}, {"step": "exact", "of": "text"}])
    shutil.rmtree(Path(dataset.url) / "shards")
    result = run(root, [{"step": "threshold", "score": "s", "max": 0.6}, {"step": "exact", "of": "text"}])
    assert result.selection.dropped == {"exact_text": 3, "score_high": 3}


def same_groups(result: DedupResult) -> list[dict[str, Any]]:
    """What is left out, without the places of rows."""
    found = [
        {key: value for key, value in row.items() if key != "row"}
        for row in verdicts(result.dataset, result.digest).values()
    ]
    return sorted(found, key=lambda row: row["id"])


@pytest.fixture(scope="module")
def rows() -> list[Example]:
    """Rows of two sources with texts that repeat each other exactly, nearly, over a third text, and not at all."""
    random = generator("rows")
    texts = [" ".join(f"w{i}" for i in random.integers(0, 500, 80)) for _ in range(12)]
    near = [f"{text} and more" for text in texts[1:5]]
    chain = texts[0]
    made = [*texts, *near, texts[5].upper(), texts[6]]
    for i in range(4):
        chain = " ".join(word if place % 20 != 5 * i else f"x{i}" for place, word in enumerate(chain.split()))
        made.append(chain)
    return [make_row("ab"[i % 2], f"{i}", text, scores={"s": random.random()}) for i, text in enumerate(made)]


STEPS = [{"step": "exact", "of": "text"}, {"step": "text_near", "threshold": 0.6}]


def test_the_result_does_not_depend_on_shards_or_partitions(root: str, tmp_path: Path, rows: list[Example]) -> None:
    publish(root, rows)
    first = run(root, STEPS, prefer={"sources": ["b"], "score": "s"})
    assert first.selection.dropped["exact_text"] == 2 and first.selection.dropped["text_near"] >= 6
    publish(str(tmp_path / "other"), list(reversed(rows)), shard_rows=7)
    second = run(str(tmp_path / "other"), STEPS, prefer={"sources": ["b"], "score": "s"})
    assert same_groups(first) == same_groups(second)


def test_rows_that_do_not_fit_in_one_place_are_decided_in_partitions(
    root: str, tmp_path: Path, rows: list[Example]
) -> None:
    publish(root, rows)
    publish(str(tmp_path), rows, shard_rows=9)
    assert same_groups(run(root, STEPS[1:])) == same_groups(run(str(tmp_path), STEPS[1:], partition_bytes=25_000))


@pytest.mark.fault
def test_so_are_links_and_verdicts(root: str, tmp_path: Path, rows: list[Example]) -> None:
    publish(root, rows)
    publish(str(tmp_path), rows, shard_rows=9)
    assert same_groups(run(root, STEPS)) == same_groups(run(str(tmp_path), STEPS, partition_bytes=1100))


def files_below(folder: str) -> dict[str, float]:
    return {str(path): path.stat().st_mtime for path in Path(folder).rglob("*") if path.is_file()}


def test_a_run_goes_on_where_one_was_stopped_and_a_second_one_does_nothing(root: str, rows: list[Example]) -> None:
    dataset = publish(root, rows)
    whole = run(root, STEPS)
    before = files_below(dataset.url)
    again = run(root, STEPS)
    fresh = {path for path, changed in files_below(dataset.url).items() if before.get(path) != changed}
    assert again.digest == whole.digest
    # Published once more, under the same names.
    assert fresh == {f"{dataset.url}/selections/{name}.json" for name in (whole.digest, "clean")}
    # What a run leaves that is stopped in its second step: no outcome of it, features of some shards, stray files.
    steps = sorted(Path(dataset.url, "selected", "steps").glob("*.json"), key=lambda path: path.stat().st_mtime)
    steps[-1].unlink()
    for path in list(Path(dataset.url, "features").rglob("*.arrow"))[::2]:
        path.unlink()
    for path in Path(dataset.url, "selections").glob("*.json"):
        path.unlink()
    (Path(dataset.url) / "selected" / ".partial").mkdir(exist_ok=True)
    (Path(dataset.url) / "selected" / ".partial" / "0123").write_bytes(b"half")
    assert run(root, STEPS).digest == whole.digest


def test_the_command_prints_its_account(root: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    publish(root, [make_row("a", "1", "same"), make_row("a", "2", "same")])
    config = tmp_path / "dedup.yaml"
    config.write_text("dataset: made\nselection: clean\nsteps:\n  - step: exact\n    of: text\n")
    assert main(["dedup", str(config), "--root", root, "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["units"] == 1 and answer["records"] == {"in": 2, "kept": 2, "dropped": {}, "quarantined": {}}
    assert answer["examples"] == {"written": 1, "dropped": {"exact_text": 1}}
    found, selection = load_selection(Dataset(root, "made"), "clean", answer["manifest"])
    assert found == answer["selection"] and selection.kept == 1
    (recorded,) = lineage.runs(root, "dedup")
    assert [one.digest for one in lineage.references(recorded, "input")] == [answer["manifest"]]
    assert [one.digest for one in lineage.references(recorded, "output")] == [answer["selection"]]


def test_what_cannot_be_judged_is_said(root: str) -> None:
    dataset = publish(root, [make_row("a", "1", "same")])
    with pytest.raises(OmnimillError, match="no dataset 'made' under /nowhere"):
        run("/nowhere", STEPS)
    dataset.publish_manifest("tokens", [])
    with pytest.raises(OmnimillError, match="holds tokens, not examples"):
        run(root, STEPS)


def test_a_fault_on_a_worker_is_told_in_its_own_words(root: str) -> None:
    row = make_row("a", "1", "same")
    row.id = "not hexadecimal digits, though long enough"
    publish(root, [row])
    with pytest.raises(IntegrityError, match="column id holds a value that is not hexadecimal"):
        run(root, STEPS)


@pytest.mark.fault
def test_killed_runs_end_in_the_undisturbed_selection(root: str, tmp_path: Path) -> None:
    many = [
        make_row("ab"[i % 2], f"{i}", " ".join(f"w{j}" for j in generator(i // 2).integers(0, 900, 300)))
        for i in range(600)
    ]
    publish(root, many, shard_rows=30)
    undisturbed = run(root, STEPS).digest
    publish(str(tmp_path), many, shard_rows=30)
    config = tmp_path / "dedup.yaml"
    config.write_text(json.dumps({"dataset": "made", "selection": "clean", "steps": STEPS}))
    program = Path(sys.executable).with_name("omnimill")
    killed = 0
    for moment in ("facts", "features", "selected"):
        with subprocess.Popen(
            [program, "dedup", config, "--root", tmp_path, "--cpus", "1"], start_new_session=True
        ) as process:
            while process.poll() is None and not has_files(tmp_path / "made", moment):
                time.sleep(0.01)
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                killed += 1
    assert killed
    assert run(str(tmp_path), STEPS).digest == undisturbed


def has_files(dataset: Path, moment: str) -> bool:
    """Whether a run has come to the first file of features, to some of them, to the outcome of its first step."""
    features = len(list(dataset.glob("features/*/*.arrow")))
    return {"facts": features > 0, "features": features > 8, "selected": any(dataset.glob("selected/steps/*.json"))}[
        moment
    ]


def test_an_erased_row_is_nobodys_twin(root: str) -> None:
    """The row that would be kept of a group is erased: the next one is, and the selection accounts for both."""
    rows = [make_row("a", "good", "one text"), make_row("b", "other", "one text"), make_row("b", "third", "one text")]
    publish(root, rows)
    steps = [{"step": "exact", "of": "text"}]
    result = run(root, steps)
    keys = {row.id: row.key for row in rows}
    (kept,) = {row.id for row in rows} - verdicts(result.dataset, result.digest).keys()
    rules: Any = {"id": (kept,)}
    erase(root, Erasure(queries=(kept,), by="me", at="2026-01-01", reason="asked", rules=rules))
    result = run(root, steps)
    found = {keys[key]: row["reason"] for key, row in verdicts(result.dataset, result.digest).items()}
    assert found.pop(keys[kept]) == "erased"
    assert list(found.values()) == ["exact_text"]
    assert result.selection.kept == 1
    assert dict(result.steps) == {"exact": 1}
