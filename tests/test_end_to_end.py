"""The whole main job as a user runs it: `omnimill demo`, then every command's own example, then the answers checked."""

import inspect
import json
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer.main
from blake3 import blake3
from browser_checks import look, open_browser

from omnimill.cli.main import app, main
from omnimill.infra.arrow_files import read_table
from omnimill.training.checkpoints.checkpoint import list_checkpoints
from omnimill.training.lineage import audit
from omnimill.training.lineage.replay import consumed
from omnimill.training.runs.aside import set_aside

pytestmark = [pytest.mark.ray, pytest.mark.timeout(600)]

STEPS = 24


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory, ray_local: None) -> Iterator[Path]:
    """The root that `omnimill demo` leaves, with short trainings."""
    folder = tmp_path_factory.mktemp("demo") / "root"
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(Path(__file__).parents[1])
        patch.setenv("OMNIMILL_DEMO_STEPS", str(STEPS))
        patch.setenv("OMNIMILL_DEMO_FIT_STEPS", "25")
        patch.setenv("OMNIMILL_DEMO_INPUT", str(folder / "input"))
        assert main(["demo", "--root", str(folder)]) == 0
        yield folder


def checkpoint(root: Path) -> Path:
    return list_checkpoints(root / "runs" / "demo")[-1]


def answer(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict:
    capsys.readouterr()
    assert main([*arguments, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def examples() -> list[str]:
    """The example in the help of every command, but for those that are run elsewhere.

    Those that need a cluster are in tests/infra/test_cluster.py, those of the learning proof, which takes minutes, in
    tests/training/test_learn.py.
    """
    found = []
    commands = [typer.main.get_command(app)]
    while commands:
        command = commands.pop()
        if hasattr(command, "commands"):
            commands += command.commands.values()
        else:
            text = " ".join(inspect.getdoc(command.callback).split())
            match = re.search(r"Example: (omnimill .*)", text)
            assert match, f"{command.name} shows no example"
            found.append(match[1])
    return sorted(one for one in found if not one.startswith(("omnimill cluster ", "omnimill learn ")))


@pytest.mark.parametrize("example", examples())
def test_the_example_of_every_command_runs(
    root: Path, tmp_path: Path, example: str, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [re.sub(r"^runs/demo(?=/|$)", str(root), word) for word in shlex.split(example)[1:]]
    words = [re.sub(r"step-\d+", checkpoint(root).name, word) for word in words]
    if "--out" in words:
        words[words.index("--out") + 1] = str(tmp_path / words[words.index("--out") + 1])
    assert main(words) == 0
    assert capsys.readouterr().out


def test_running_again_does_nothing(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = {path: path.stat().st_mtime_ns for path in root.rglob("*.arrow")}
    first = answer(capsys, "ingest", "pipelines/dags/demo.yaml", "--root", str(root))
    assert first["records"]["in"] == (
        first["records"]["kept"]
        + sum(first["records"]["dropped"].values())
        + sum(first["records"]["quarantined"].values())
    )
    second = answer(capsys, "tokenize", "tokenizers/configs/demo.yaml", "--root", str(root))
    assert second["records"]["in"] == first["examples"]["written"]
    assert {path: path.stat().st_mtime_ns for path in root.rglob("*.arrow")} == before


def test_impact_of_a_photograph_names_shards_run_checkpoint_and_the_very_steps(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    photo = root / "input" / "photos" / "coffee.png"
    found = answer(capsys, "lineage", "impact", str(photo), "--root", str(root))
    assert {one["dataset"] for one in found["shards"]} == {"demo", "demo-tokens"}
    (run,) = found["runs"]
    assert run["name"] == "demo"
    ids = {one["id"] for one in found["examples"]}
    expected = sorted({seen.step for seen in consumed(checkpoint(root)) if seen.example_id in ids})
    assert run["steps"] == expected
    assert run["checkpoints"][-1]["step"] == STEPS


def test_of_many_rows_it_is_told_what_is_expected(
    root: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    exact = answer(capsys, "lineage", "impact", "source:photos", "--root", str(root))
    monkeypatch.setattr(audit, "_MOST_SHARDS", 0)
    expected = answer(capsys, "lineage", "impact", "source:photos", "--root", str(root))
    assert (exact["exact"], expected["exact"]) == (True, False)
    assert expected["examples_count"] == exact["examples_count"]
    assert {one["shard"] for one in expected["shards"]} == {one["shard"] for one in exact["shards"]}
    times = [found["runs"][0]["checkpoints"][-1]["times_seen"] for found in (exact, expected)]
    # Of so few draws as many more or less are from one source as chance has it.
    assert 0 < times[0] == pytest.approx(times[1], abs=4 * times[1] ** 0.5)
    assert expected["runs"][0]["steps"] is None
    # Every one and every step, when that is what is wanted.
    assert answer(capsys, "lineage", "impact", "source:photos", "--steps", "--root", str(root)) == exact


def test_a_row_of_tokens_traces_to_its_example(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shard = min((root / "demo-tokens" / "shards").glob("*.arrow"))
    found = answer(capsys, "lineage", "trace", f"{shard}#1", "--root", str(root))
    (id_,) = read_table(str(shard)).column("id").slice(1, 1).to_pylist()
    assert (found["kind"], found["example"]) == ("example", id_)
    assert found["sources"][0]["files"]


def test_trace_of_the_checkpoint_reaches_the_source_files(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = answer(capsys, "lineage", "trace", str(checkpoint(root)), "--root", str(root))
    sources = {one["source"]: one["files"] for one in found["sources"]}
    assert set(sources) == {"photos", "details", "docs", "docstrings", "code", "films", "robot", "shapes3d"}
    digests = {Path(file["uri"]).name: file["digest"] for file in sources["photos"]}
    coffee = root / "input" / "photos" / "coffee.png"
    assert digests["coffee.png"] == blake3(coffee.read_bytes()).hexdigest()


def test_every_shard_traces_to_its_unit(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for dataset in ("demo", "demo-tokens"):
        shard = min((root / dataset / "shards").glob("*.arrow"))
        found = answer(capsys, "lineage", "trace", str(shard), "--root", str(root))
        assert found["shard"] == shard.stem
        assert found["sources"][0]["files"]


def test_what_was_turned_down_says_why(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = answer(
        capsys, "lineage", "impact", str(root / "input" / "photos" / "rocket_cut_off.jpg"), "--root", str(root)
    )
    assert [one["reason"] for one in found["rejected"]] == ["image_truncated"]
    assert found["examples"] == found["runs"] == []


def test_generated_files_are_what_they_are_called(root: Path) -> None:
    folder = root / "generated" / checkpoint(root).name
    assert (folder / "image.png").read_bytes().startswith(b"\x89PNG")
    assert (folder / "audio.wav").read_bytes().startswith(b"RIFF")
    assert (folder / "text.txt").exists()


def test_the_report_is_one_page_that_needs_no_other(root: Path) -> None:
    page = (root / "report.html").read_text()
    assert "demo-tokens" in page
    assert "image_truncated" in page
    assert page.count("<audio") >= 3
    assert page.count("<video") >= 3
    for task in ("docs-denoise", "film-transcript", "shapes-view"):
        assert f"<h4>{task}</h4>" in page, "an example of each task as the model reads and writes it"
    assert re.findall(r"""(?:src|href)=["'](?!data:|#)([^"']+)""", page) == []
    assert (root / "report.html").stat().st_size < 20_000_000


def test_the_report_stands_in_a_browser(root: Path) -> None:
    with open_browser() as browser, look(browser, root / "report.html", 360, "dark") as seen:
        assert seen.overflowing() == []
        assert seen.broken_pictures() == []
        assert seen.play(most=6)["faults"] == []
        assert seen.faults == []


def test_a_run_that_was_set_aside_still_answers(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Last in this file: it moves the run's folder, as `omnimill train --restart` does."""
    photo = str(root / "input" / "photos" / "coffee.png")
    (before,) = answer(capsys, "lineage", "impact", photo, "--root", str(root))["runs"]
    set_aside(root / "runs" / "demo", str(root))
    (after,) = answer(capsys, "lineage", "impact", photo, "--root", str(root))["runs"]
    assert after["steps"] == before["steps"]
    assert [Path(one["checkpoint"]).parts[-3] for one in after["checkpoints"]] == ["demo.1"] * len(
        before["checkpoints"]
    )
