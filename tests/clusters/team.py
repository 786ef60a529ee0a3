"""A team's cluster and servers, all on this machine, and a small corpus of which everything is known."""

from __future__ import annotations

import contextlib
import io
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import s3fs
import simplejpeg
import yaml
from faults.s3 import s3_server
from servers import mlflow_server, postgres

from omnimill.cli.main import main
from omnimill.rng import generator

ROOT, INPUT = "s3://bucket/corpus", "s3://bucket/raw"
SITES = ("birds.example", "trees.example", "rivers.example")
LICENCES = ("CC-BY-4.0", "CC0-1.0", None)
PICTURE_LICENCE = "CC-BY-SA-4.0"
DOCUMENTS, PICTURES = 48, 10
_WORDS = (
    "the",
    "red",
    "blue",
    "small",
    "tall",
    "old",
    "river",
    "stone",
    "bird",
    "tree",
    "house",
    "light",
    "stands",
    "sings",
    "near",
    "while",
    "then",
    "under",
    "over",
)


@dataclass(frozen=True)
class Team:
    """dashboard: of the cluster. runs: folder that its machines share. configs: what is sent along with commands."""

    dashboard: str
    runs: Path
    configs: Path

    def run(self, *arguments: str) -> str:
        """A command on the cluster: what it printed.

        Raises:
            AssertionError: it failed.
        """
        carried = [word for name in ("MLFLOW_TRACKING_URI", "OMNIMILL_RUNS") for word in ("--env", name)]
        options = ["--wait", "--address", self.dashboard, "--working-dir", str(self.configs), *carried]
        code, said = here("cluster", "submit", *options, "--", "omnimill", *arguments, "--root", ROOT)
        assert code == 0, said
        return said

    def ask(self, *arguments: str, code: int = 0) -> Any:
        """The answer to a question, asked from this machine."""
        found, said = here(*arguments, "--root", ROOT, "--json")
        assert found == code, said
        return json.loads(said)


def here(*arguments: str) -> tuple[int, str]:
    """A command in this process: its exit code and what it printed."""
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        code = main(list(arguments))
    return code, out.getvalue()


@contextmanager
def team() -> Iterator[Team]:
    """Two nodes, an S3 server, and an MLflow server over PostgreSQL with its artifacts on S3."""
    folder = Path(tempfile.mkdtemp(prefix="omnimill-", dir="/tmp"))
    with contextlib.ExitStack() as stack:
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        patch = stack.enter_context(pytest.MonkeyPatch.context())
        for name in ("RAY_ADDRESS", "RAY_API_SERVER_ADDRESS", "OMNIMILL_ROOT"):
            patch.delenv(name, raising=False)
        patch.setenv("RAY_AUTH_MODE", "disabled")
        patch.setenv("OMNIMILL_RUNS", str(folder / "runs"))
        stack.enter_context(s3_server())
        database = stack.enter_context(postgres())
        tracking = stack.enter_context(mlflow_server(database, "s3://bucket/mlflow", hosts="mlflow.team.example:*"))
        patch.setenv("MLFLOW_TRACKING_URI", tracking)
        cluster = stack.enter_context(_cluster(folder / "ray"))
        configs = folder / "configs"
        configs.mkdir()
        yield Team(cluster["dashboard"], folder / "runs", configs)


@contextmanager
def _cluster(folder: Path) -> Iterator[dict[str, str]]:
    programs = str(Path(sys.executable).parent)
    tests = str(Path(__file__).parents[1])
    environment = {
        **os.environ,
        "PATH": os.pathsep.join([programs, os.environ["PATH"]]),
        "PYTHONPATH": os.pathsep.join([tests, *sys.path]),
        "RAY_USAGE_STATS_ENABLED": "0",
    }
    del environment["MLFLOW_TRACKING_URI"], environment["OMNIMILL_RUNS"]  # commands bring them
    process = subprocess.Popen(
        [sys.executable, "-m", "clusters.jobs_cluster", str(folder)],
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
    )
    assert process.stdin
    assert process.stdout
    try:
        yield json.loads(process.stdout.readline())
    finally:
        process.stdin.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout=30)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        subprocess.run(["pkill", "-KILL", "-f", str(folder)], check=False)


@dataclass(frozen=True)
class Document:
    id: str
    url: str
    licence: str | None
    text: str


def documents(first: int = 0, count: int = DOCUMENTS) -> list[Document]:
    """Documents of several sites under several licences."""
    made = []
    for number in range(first, first + count):
        draw = random.Random(number)
        text = " ".join(draw.choice(_WORDS) for _ in range(40)) + f" {number}."
        site = SITES[number % len(SITES)]
        made.append(Document(f"doc-{number:03d}", f"https://{site}/{number}", LICENCES[number // 3 % 3], text))
    return made


def picture(number: int) -> bytes:
    pixels = generator("team", number).integers(0, 255, (48, 64, 3), dtype=np.uint8)
    return simplejpeg.encode_jpeg(pixels, colorspace="RGB")


def write_documents(made: list[Document], name: str) -> None:
    lines = "".join(json.dumps(vars(one)) + "\n" for one in made)
    s3fs.S3FileSystem().pipe_file(f"{INPUT}/pages/{name}.jsonl", lines.encode())


def write_corpus() -> None:
    """Documents and captioned pictures in the bucket; one document is too short, one picture is cut off."""
    files = s3fs.S3FileSystem()
    for number, start in enumerate(range(0, DOCUMENTS, 16)):
        write_documents(documents(start, 16), f"part-{number}")
    write_documents([Document("short", "https://birds.example/short", "CC0-1.0", "Too short.")], "short")
    captions = []
    for number in range(PICTURES):
        files.pipe_file(f"{INPUT}/photos/{number}.jpg", picture(number))
        captions.append({"image": f"{number}.jpg", "caption": f"Coloured dots, number {number}."})
    files.pipe_file(f"{INPUT}/photos/cut_off.jpg", picture(99)[:600])
    lines = "".join(json.dumps(one) + "\n" for one in captions)
    files.pipe_file(f"{INPUT}/photos/captions.jsonl", lines.encode())


CONFIGS: Mapping[str, Any] = {
    "web.yaml": {
        "dataset": "web",
        "sources": [
            {
                "name": "pages",
                "type": "jsonl",
                "path": f"{INPUT}/pages",
                "id_field": "id",
                "url_field": "url",
                "licence_field": "licence",
                "operators": [{"op": "text_length", "min_chars": 20}],
            },
            {
                "name": "photos",
                "type": "image_folder",
                "path": f"{INPUT}/photos",
                "captions": "captions.jsonl",
                "licence": PICTURE_LICENCE,
                "images_per_unit": 4,
            },
        ],
    },
    "tokenizers.yaml": {
        "name": "small",
        "dataset": "web",
        "tokens": "web-tokens",
        "layout": {
            "image": {
                "input_size": 32,
                "history_size": 32,
                "target_size": 32,
                "patch": 16,
                "code_stride": 8,
                "codes": 64,
            }
        },
        "text": {"pieces": 320},
        "image": {
            "network": {"type": "patches", "stem": 4, "channels": 8, "multipliers": [1, 1], "blocks": 1},
            "training": {"steps": 0, "batch": 4},
        },
        "actors": {"count": 2},
    },
    "mixture.yaml": {
        "datasets": ["web-tokens"],
        "seed": 3,
        "tasks": [
            {
                "name": "read",
                "rate": 1,
                "sources": ["pages"],
                "objective": "text_denoising",
                "target": "text:body",
            },
            {
                "name": "caption",
                "rate": 1,
                "sources": ["photos"],
                "inputs": ["image"],
                "target": "text:caption",
                "prompts": ["What is this?"],
            },
        ],
    },
    "train.yaml": {
        "name": "first",
        "mixture": "mixture.yaml",
        "steps": 12,
        "streams": 4,
        "workers": 2,
        "backbone": {"size": "tiny"},
        "checkpoints": {"every": 4},
        "packing": {"budgets": {"encoder": 128, "decoder": 96}, "pool": 2},
        "render": {"max_text": 64, "max_target_text": 64},
        "optimizer": {"name": "adafactor", "peak_learning_rate": 0.03, "warmup_steps": 4},
    },
}


def write_configs(folder: Path) -> None:
    for name, content in CONFIGS.items():
        (folder / name).write_text(yaml.safe_dump(content))
    (folder / "after.yaml").write_text(yaml.safe_dump({**CONFIGS["train.yaml"], "name": "after"}))
