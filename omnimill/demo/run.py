"""``omnimill demo``: the whole main job on small real input, by the same commands a user would type."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

from omnimill.cli.output import print_table
from omnimill.cli.steps import Step, need_project_files, run_step
from omnimill.demo.inputs import make_inputs
from omnimill.infra.lineage import command_run
from omnimill.infra.ray_session import ray_session
from omnimill.progress import console

DAG = "pipelines/dags/demo.yaml"
TOKENIZERS = "tokenizers/configs/demo.yaml"
MIXTURE = "mixtures/demo.yaml"
TRAINING = "training/configs/demo.yaml"
INPUT_VARIABLE = "OMNIMILL_DEMO_INPUT"
PHOTO = "photos/coffee.png"
WORKERS = 2  # of the demo's training; a machine of one core runs them in turn


def run_demo(root: str) -> None:
    """Make the input, run every step, print what went in and came out.

    Raises:
        OmnimillError: the current directory is not the project's, or a step failed.
    """
    need_project_files(DAG, TOKENIZERS, MIXTURE, TRAINING)
    # The steps' MLflow runs are children of this one.
    with command_run(root, "demo", {"dag": DAG, "tokenizers": TOKENIZERS, "mixture": MIXTURE, "training": TRAINING}):
        _run(root)


def _run(root: str) -> None:
    started = time.monotonic()
    folder = Path(root) / "input"
    os.environ[INPUT_VARIABLE] = str(folder)
    made = make_inputs(folder)
    files = [path for path in folder.rglob("*") if path.is_file()]
    console.print(f"input: {len(files)} files in {folder}" + ("" if made else ", made before"))
    # Ray's own chatter about its helper processes would bury the demo's lines; errors come back as exceptions.
    with ray_session(num_cpus=max(os.cpu_count() or 1, WORKERS), log_to_driver=False):
        ingest = run_step("ingest", DAG, root=root)
        tokenizer = run_step("tokenizer", "train", TOKENIZERS, root=root)
        tokens = run_step("tokenize", TOKENIZERS, root=root)
        simulation = run_step("mixture", "simulate", MIXTURE, root=root)
        training = run_step("train", TRAINING, root=root)
    checkpoint = training.answer["checkpoint"]
    _generate(root, checkpoint, folder)
    impact = run_step("lineage", "impact", str(folder / PHOTO), root=root)
    trace = run_step("lineage", "trace", checkpoint, root=root)
    report = run_step("report", root=root)
    _summary(len(files), [ingest, tokenizer, tokens, simulation, training, impact, trace])
    console.print(f"look at {report.answer['report']}; the whole demo took {time.monotonic() - started:.0f} s")
    console.print(f"run history: mlflow ui --backend-store-uri sqlite:///{Path(root).resolve()}/mlflow.db")


def _generate(root: str, checkpoint: str, folder: Path) -> None:
    out = Path(root) / "generated" / Path(checkpoint).name
    out.mkdir(parents=True, exist_ok=True)
    wanted = {
        "text.txt": ["--target", "text", "--image", str(folder / PHOTO), "--prompt", "Describe this picture."],
        "image.png": ["--target", "image", "--prompt", "Draw a cup of coffee with a spoon on a wooden table."],
        "audio.wav": ["--target", "audio", "--prompt", "Continue the tune of the flute."],
    }
    for name, options in wanted.items():
        if (out / name).exists():
            console.print(f"{out / name}: generated before")
        else:
            run_step("generate", checkpoint, *options, "--out", str(out / name), root=root)


def _summary(files: int, steps: list[Step]) -> None:
    ingest, tokenizer, tokens, simulation, training, impact, trace = steps
    rows = [
        ["input", f"{files} files", "photographs, code, docs, films, robot episodes, 3-D assets", ""],
        ["ingest", *_accounts(ingest.answer), _seconds(ingest)],
        ["tokenizer train", "examples", _quality(tokenizer.answer), _seconds(tokenizer)],
        ["tokenize", *_accounts(tokens.answer), _seconds(tokens)],
        [
            "mixture",
            f"{len(simulation.answer['tasks'])} tasks",
            "rates as planned, see the report",
            _seconds(simulation),
        ],
        ["train", f"{training.answer['steps']} steps", f"loss {training.answer['loss']:.3f}", _seconds(training)],
        ["lineage impact", PHOTO, _impact(impact.answer), _seconds(impact)],
        ["lineage trace", "the checkpoint", f"{_files(trace.answer)} source files with digests", _seconds(trace)],
    ]
    print_table("What went in and came out", ["step", "in", "out", "time"], rows)


def _accounts(answer: dict[str, Any]) -> tuple[str, str]:
    records, examples = answer["records"], answer["examples"]
    lost = sum(records["dropped"].values()) + sum(examples["dropped"].values())
    bad = sum(records["quarantined"].values())
    return f"{records['in']} records", f"{examples['written']} examples; {lost} dropped, {bad} quarantined"


def _quality(answer: dict[str, Any]) -> str:
    quality = answer["quality"]
    return f"pictures {quality['image_psnr_db']:.1f} dB PSNR, log-mel error {quality['audio_mel_error']:.2f}, held out"


def _impact(answer: dict[str, Any]) -> str:
    steps = [step for run in answer["runs"] for step in run["steps"]]
    return f"in {len(answer['shards'])} shards, seen at steps {', '.join(str(step) for step in sorted(set(steps)))}"


def _files(answer: dict[str, Any]) -> int:
    return sum(len(source["files"]) for source in answer["sources"])


def _seconds(step: Step) -> str:
    return f"{step.seconds:.1f} s"
