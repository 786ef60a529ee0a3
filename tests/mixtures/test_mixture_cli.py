from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from omnimill.cli.main import main
from omnimill.errors import ConfigError
from omnimill.mixtures.caps import cap_faults, expected_epochs
from omnimill.mixtures.config import Mixture
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
    shown = answer(capsys, "mixture", "show", mixture, "--root", root)
    assert shown["tasks"] == [
        {
            "name": "caption",
            "group": "pictures",
            "rate": 0.75,
            "size": 40,
            "inputs": ["text", "image"],
            "targets": ["text"],
            "objective": "generate",
        },
        {
            "name": "act",
            "group": "default",
            "rate": 0.25,
            "size": 5,
            "inputs": ["text", "sparse"],
            "targets": ["sparse"],
            "objective": "generate",
        },
    ]
    assert [(group["path"], group["rate"], group["datasets"]) for group in shown["groups"]] == [
        ("pictures", 0.75, 2),
        ("default", 0.25, 1),
    ]
    assert (shown["kinds"], shown["held_out"]) == ({"prompted": 1.0}, [])


def test_show_works_before_anything_is_tokenized(
    capsys: pytest.CaptureFixture[str], mixture: str, tmp_path: Path
) -> None:
    tasks = answer(capsys, "mixture", "show", mixture, "--root", str(tmp_path / "nothing"))["tasks"]
    assert [task["size"] for task in tasks] == [None, None]
    assert main(["mixture", "show", mixture, "--root", str(tmp_path / "nothing")]) == 0
    assert "some data do not exist yet" in " ".join(capsys.readouterr().out.split())


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
        (
            "datasets: [tokens]",
            "datasets: [tokens]\nseeds: 1",
            2,
            "seeds: unknown key; allowed: alpha, change, datasets, ",
        ),
        ("rate: 3", "rate: .inf", 6, "finite number"),
        ("{instruction} {state}", "{the order}", 15, "a slot is a role in braces"),
        ("{instruction} {state}", "{action}", 15, "the prompt shows the target"),
        ("name: act", "name: caption", 11, "task names must be unique; doubled: caption"),
    ],
)
def test_faults_name_file_line_found_and_allowed(
    capsys: pytest.CaptureFixture[str], mixture: str, root: str, old: str, new: str, line: int, message: str
) -> None:
    Path(mixture).write_text(MIXTURE.replace(old, new))
    said = fault(capsys, "mixture", "validate", mixture, "--root", root)
    assert message in said
    if "slot" not in message and "shows" not in message:
        assert f"mixture.yaml:{line}:" in said


def test_a_source_without_shards_is_named(
    capsys: pytest.CaptureFixture[str], mixture: str, tmp_path: Path, row: Maker, tokens: Maker
) -> None:
    tokens(tmp_path, {"photos": [row("p", [("caption", 4)], images=1)], "films": [], "robot": []})
    said = fault(capsys, "mixture", "validate", mixture, "--root", str(tmp_path))
    assert "tasks.0.sources.1: task 'caption': source 'films' has no shards" in said
    assert "tasks.1.sources.0: task 'act': source 'robot' has no shards" in said


def test_what_is_held_out_is_checked_and_never_drawn(
    capsys: pytest.CaptureFixture[str], mixture: str, root: str
) -> None:
    held = "  - {name: later, rate: 1, held_out: true, sources: [films], inputs: [image], target: 'text:caption'}\n"
    Path(mixture).write_text(MIXTURE + held)
    shown = answer(capsys, "mixture", "show", mixture, "--root", root)
    assert ([task["name"] for task in shown["tasks"]], shown["held_out"]) == (["caption", "act"], ["later"])
    names = [task["name"] for task in answer(capsys, "mixture", "validate", mixture, "--root", root)["tasks"]]
    assert names == ["caption", "act"]
    Path(mixture).write_text(MIXTURE + held.replace("films", "film"))
    said = fault(capsys, "mixture", "validate", mixture, "--root", root)
    assert "mixture.yaml:16: tasks.2.sources.0: task 'later': unknown source; found 'film'" in said


STAGE = """\
name: small
mixture: other.yaml
steps: 100
streams: 4
packing: {budgets: {encoder: 864, decoder: 1280}}
"""


def test_caps_are_checked_for_a_number_of_steps(
    capsys: pytest.CaptureFixture[str], mixture: str, root: str, tmp_path: Path
) -> None:
    Path(mixture).write_text(MIXTURE.replace("rate: 1\n", "rate: 1\n    max_epochs: 4\n"))
    few = ("mixture", "validate", mixture, "--root", root, "--streams", "4", "--per-sequence", "2")
    tasks = answer(capsys, *few, "--steps", "10")["tasks"]
    # 80 draws, a quarter of them of five rows.
    assert [task["epochs"] for task in tasks] == [60 / 40, 20 / 5]
    said = fault(capsys, *few, "--steps", "11")
    assert "mixture.yaml:13: tasks.1.max_epochs: task 'act': found 4.40 epochs in 11 steps, allowed: 4" in said
    stated = ("mixture", "validate", mixture, "--root", str(tmp_path / "nothing"), "--without-data")
    assert "number of its examples is not known" in fault(capsys, *stated, *few[5:], "--steps", "11")
    assert "--steps needs --streams" in fault(capsys, *few[:5], "--steps", "11")


def test_epochs_follow_a_schedule() -> None:
    tasks = [
        {"name": name, "rate": rate, "sources": ["s"], "target": "image", "size": 100, "max_epochs": 2}
        for name, rate in (("a", 1), ("b", 3))
    ]
    schedule = [{"first_step": 10, "rates": [1, 0]}]
    mixture = Mixture.model_validate({"datasets": ["d"], "tasks": tasks, "schedule": schedule})
    assert expected_epochs(mixture, [100, 100], 8, 10) == pytest.approx([0.2, 0.6])
    epochs = expected_epochs(mixture, [100, 100], 8, 40)
    assert epochs == pytest.approx([2.6, 0.6])
    assert [fault.where for fault in cap_faults(mixture, epochs, 40)] == [("tasks", 0, "max_epochs")]


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("encoder: 864", "encoder: 300", "budget 'encoder' is too small for task 'caption'"),
        ("decoder: 1280", "decoder: 4", "budget 'decoder' is too small for task 'caption'"),
        ("decoder: 1280", "images: 0", "tasks.0: budget 'images' is too small for task 'caption'"),
    ],
)
def test_a_stage_has_to_hold_every_task(
    capsys: pytest.CaptureFixture[str], mixture: str, root: str, tmp_path: Path, old: str, new: str, says: str
) -> None:
    stage = tmp_path / "stage.yaml"
    stage.write_text(STAGE)
    arguments = ("mixture", "validate", mixture, "--root", root, "--stage", str(stage))
    answer(capsys, *arguments)
    answer(capsys, *arguments, "--without-data")
    stage.write_text(STAGE.replace(old, new))
    said = fault(capsys, *arguments)
    assert says in said
    assert "mixture.yaml:4: " in said
    assert says in fault(capsys, *arguments, "--without-data")


def test_diff_of_two_files(capsys: pytest.CaptureFixture[str], mixture: str, tmp_path: Path) -> None:
    assert answer(capsys, "mixture", "diff", mixture, mixture)["same"]
    variant = tmp_path / "variant.yaml"
    variant.write_text("extends: mixture.yaml\nchange: {act: {rate: 2, prompts: ['{state}']}}\n")
    found = answer(capsys, "mixture", "diff", mixture, str(variant))
    assert found["rates"] == {"caption": {"was": 0.75, "now": 0.6}, "act": {"was": 0.25, "now": 0.4}}
    assert found["changed"] == [
        {
            "name": "act",
            "fields": {},
            "prompts_added": ["{state}"],
            "prompts_removed": ["{instruction} {state}"],
        }
    ]
    assert found["inputs"]["image"] == {"was": 0.75, "now": 0.6}
    assert main(["mixture", "diff", mixture, str(variant)]) == 0
    assert "75.000%" in capsys.readouterr().out


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
