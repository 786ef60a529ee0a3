from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from omnimill.cli.main import main
from omnimill.errors import ConfigError
from omnimill.mixtures.loading import load_mixture

Maker = Callable[..., Any]

MIXTURE = """\
datasets: [tokens]
seed: 3
tasks:
  - name: caption
    group: pictures
    rate: 3
    sources: [photos, films]
    inputs: [image]
    target: text:caption
    prompts: ["Describe this."]
  - name: act
    rate: 1
    sources: [robot]
    target: text:action
    prompts: ["{instruction} {state}"]
"""


@pytest.fixture
def root(tmp_path: Path, row: Maker, tokens: Maker) -> str:
    step = [("instruction", 5), ("state", 3, 1, None), ("action", 2, 1, None)]
    tokens(
        tmp_path,
        {
            "photos": [row(f"p{i}", [("caption", 4)], images=1) for i in range(30)],
            "films": [row(f"f{i}", [("caption", 4)], images=i % 2) for i in range(20)],
            "robot": [row(f"r{i}", step, images=2) for i in range(5)],
        },
    )
    return str(tmp_path)


@pytest.fixture
def mixture(tmp_path: Path) -> str:
    path = tmp_path / "mixture.yaml"
    path.write_text(MIXTURE)
    return str(path)


def answer(capsys: pytest.CaptureFixture[str], *arguments: str) -> Any:
    code = main([*arguments, "--json"])
    out = capsys.readouterr()
    assert code == 0, out.err
    return json.loads(out.out)


def fault(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert main([*arguments]) == 2
    return " ".join(capsys.readouterr().err.split())


def test_show_lists_tasks_with_shares_sizes_and_modalities(
    capsys: pytest.CaptureFixture[str], mixture: str, root: str
) -> None:
    assert answer(capsys, "mixture", "show", mixture, "--root", root) == {
        "tasks": [
            {
                "name": "caption",
                "group": "pictures",
                "rate": 0.75,
                "size": 40,
                "inputs": ["text", "image"],
                "targets": ["text"],
            },
            {
                "name": "act",
                "group": "default",
                "rate": 0.25,
                "size": 5,
                "inputs": ["text", "sparse"],
                "targets": ["sparse"],
            },
        ]
    }


def test_show_works_before_anything_is_tokenized(
    capsys: pytest.CaptureFixture[str], mixture: str, tmp_path: Path
) -> None:
    tasks = answer(capsys, "mixture", "show", mixture, "--root", str(tmp_path / "nothing"))["tasks"]
    assert [task["size"] for task in tasks] == [None, None]
    assert main(["mixture", "show", mixture, "--root", str(tmp_path / "nothing")]) == 0
    assert "does not exist yet" in " ".join(capsys.readouterr().out.split())


def test_validate_says_which_rows_are_used(capsys: pytest.CaptureFixture[str], mixture: str, root: str) -> None:
    tasks = answer(capsys, "mixture", "validate", mixture, "--root", root)["tasks"]
    assert tasks == [
        {
            "name": "caption",
            "rows": 40,
            "sources": {"films": 10, "photos": 30},
            "not_eligible": {"films": {"no_image": 10}},
        },
        {"name": "act", "rows": 5, "sources": {"robot": 5}, "not_eligible": {}},
    ]
    assert main(["mixture", "validate", mixture, "--root", root]) == 0
    assert "no_image 10" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("old", "new", "line", "message"),
    [
        (
            "[photos, films]",
            "[photos, film]",
            7,
            "unknown source; found 'film'; allowed: films, photos, robot; did you",
        ),
        ("text:caption", "text:captoin", 7, "no text of role 'captoin'; allowed: caption; did you mean 'caption'?"),
        ("{state}", "{pose}", 13, "no text of role 'pose'; allowed: action, instruction, state"),
        ("inputs: [image]", "inputs: [audio]", 7, "no row has everything that the task needs; photos: no_audio 30"),
        ("datasets: [tokens]", "datasets: [tokens]\nseeds: 1", 2, "unknown key; allowed: datasets, "),
        ("rate: 3", "rate: .inf", 6, "finite number"),
        ("{instruction} {state}", "{the order}", 15, "a slot is a role in braces"),
        ("{instruction} {state}", "{action}", 15, "the prompt shows the target"),
        ("name: act", "name: caption", 4, "task names must be unique; doubled: caption"),
    ],
)
def test_faults_name_file_line_found_and_allowed(
    capsys: pytest.CaptureFixture[str], mixture: str, root: str, old: str, new: str, line: int, message: str
) -> None:
    Path(mixture).write_text(MIXTURE.replace(old, new))
    said = fault(capsys, "mixture", "validate", mixture, "--root", root)
    assert message in said
    if "task names" not in message and "slot" not in message and "shows" not in message:
        assert f"mixture.yaml:{line}:" in said


def test_every_fault_is_listed_at_once(capsys: pytest.CaptureFixture[str], mixture: str, root: str) -> None:
    Path(mixture).write_text(MIXTURE.replace("films]", "film]").replace("{state}", "{pose}"))
    said = fault(capsys, "mixture", "simulate", mixture, "--root", root)
    assert "mixture.yaml:7: tasks.0.sources.1" in said
    assert "mixture.yaml:13: tasks.1.sources.0" in said


def test_examples_are_not_tokens(capsys: pytest.CaptureFixture[str], mixture: str, tmp_path: Path) -> None:
    from omnimill.infra.dataset import Dataset

    Dataset(str(tmp_path), "tokens").publish_manifest("examples", [])
    assert "holds examples, a mixture needs tokens" in fault(
        capsys, "mixture", "validate", mixture, "--root", str(tmp_path)
    )


def test_simulate_reports_what_the_sampler_does(capsys: pytest.CaptureFixture[str], mixture: str, root: str) -> None:
    arguments = ("mixture", "simulate", mixture, "--streams", "4", "--draws", "5000", "--root", root)
    result = answer(capsys, *arguments)
    caption, act = result["tasks"]
    assert (result["streams"], result["draws"], len(result["manifests"]["tokens"])) == (4, 5000, 64)
    assert result["draws_per_second"] > 0
    assert caption["draws"] + act["draws"] == 20_000
    for task in (caption, act):
        assert task["realised"] == pytest.approx(task["planned"], abs=1e-4)
        assert task["epochs"] == task["draws"] / task["rows"]
        assert task["round_deviation"] < 1
        assert task["stream_deviation"] <= result["stream_deviation_bound"]
        assert sum(source["draws"] for source in task["sources"]) == task["draws"]
    # 15,000 draws over 40 rows: each source is seen as often as the others, to within one epoch.
    assert [source["name"] for source in caption["sources"]] == ["films", "photos"]
    assert all(abs(source["epochs"] - 375) <= 1 for source in caption["sources"])
    repeated = answer(capsys, *arguments)
    assert repeated["tasks"] == result["tasks"]
    assert main([*arguments]) == 0
    assert "draws/s" in capsys.readouterr().out


def test_simulate_without_data_says_so(capsys: pytest.CaptureFixture[str], mixture: str, tmp_path: Path) -> None:
    assert main(["mixture", "simulate", mixture, "--root", str(tmp_path / "nothing")]) == 1
    assert "no dataset 'tokens'" in capsys.readouterr().err


def test_the_demo_mixture_reads_and_writes_every_modality() -> None:
    demo = load_mixture(Path(__file__).parents[2] / "mixtures" / "demo.yaml")
    read = {modality for task in demo.tasks for modality in task.input_modalities}
    written = {modality for task in demo.tasks for modality in task.target_modalities}
    assert read == {"text", "sparse", "image", "image_history", "audio", "audio_history"}
    assert written == {"text", "sparse", "image", "audio"}
    assert all(len(task.prompts) != 1 for task in demo.tasks)


def test_a_target_among_the_inputs_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "m.yaml"
    path.write_text(MIXTURE.replace("text:caption", "image"))
    with pytest.raises(ConfigError, match="target 'image' is among the inputs"):
        load_mixture(path)
