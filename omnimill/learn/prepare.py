"""Everything that the learning proof's training needs: raw data, examples, tokenizers, tokens."""

from __future__ import annotations

import os
from pathlib import Path

from omnimill.cli.steps import Step, need_project_files, run_step
from omnimill.infra.ray_session import ray_session
from omnimill.learn.inputs import make_inputs
from omnimill.progress import console

DAG = "pipelines/dags/learn.yaml"
TOKENIZERS = "tokenizers/configs/learn.yaml"
INPUT_VARIABLE = "OMNIMILL_LEARN_INPUT"
INPUT = "learn-input"  # below the root


def prepare(root: str) -> list[Step]:
    """Make the input and run every step up to training; what was done before is not done again.

    Raises:
        OmnimillError: the current directory is not the project's, or a step failed.
    """
    need_project_files(DAG, TOKENIZERS)
    folder = Path(root) / INPUT
    made = make_inputs(folder)
    console.print(f"input: {folder}" + ("" if made else ", made before"))
    before = os.environ.get(INPUT_VARIABLE)
    os.environ[INPUT_VARIABLE] = str(folder)
    try:
        # Ray's own chatter about its helper processes would bury the steps; errors come back as exceptions.
        with ray_session(log_to_driver=False):
            return [
                run_step("ingest", DAG, root=root),
                run_step("tokenizer", "train", TOKENIZERS, root=root),
                run_step("tokenize", TOKENIZERS, root=root),
            ]
    finally:
        if before is None:
            del os.environ[INPUT_VARIABLE]
        else:
            os.environ[INPUT_VARIABLE] = before
