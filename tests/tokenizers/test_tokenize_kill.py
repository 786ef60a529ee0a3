"""A driver or an actor killed at any moment loses and doubles nothing: the end is that of an undisturbed run."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest
import yaml
from faults.commands import Run

from omnimill import rng
from omnimill.infra.dataset import Dataset
from omnimill.schema import Image
from omnimill.tokenizers import store
from omnimill.tokenizers.config import TokenizerConfig
from omnimill.tokenizers.corpus import Corpus
from omnimill.tokenizers.shards import ShardJob, ShardTokenizer, units_of
from omnimill.tokenizers.store import stored_set

UNITS, PER_UNIT = 24, 5
TOKENS = "corpus-tokens"


@pytest.fixture(scope="module")
def prepared(
    root: str, config: TokenizerConfig, samples: SimpleNamespace, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """Examples with pictures that take work to prepare, one of them broken, a set of tokenizers and a configuration."""
    folder = tmp_path_factory.mktemp("kill")
    noise = rng.generator("kill", "pictures").integers(0, 256, (4, 200, 200, 3), dtype=np.uint8)
    files = [cv2.imencode(".png", cv2.resize(one, (800, 800), interpolation=cv2.INTER_NEAREST))[1] for one in noise]
    examples = []
    for i in range(UNITS * PER_UNIT):
        data = b"broken" if i == 37 else files[i % 4].tobytes()
        picture = Image(data=data, format="png", width=800, height=800, digest=str(i % 4))
        examples.append(samples.example("photos", i, images=[picture]))
    samples.store(str(folder), "corpus", examples, shard_rows=PER_UNIT)
    stored = stored_set(root, "mini")
    made = Path(root) / "tokenizers" / "mini" / stored.digest
    parts = {part: (made / store.FILES[part]).read_bytes() for part in stored.digests}
    store.publish(str(folder), "mini", stored, parts)
    (folder / "config.yaml").write_text(yaml.safe_dump(config.model_dump(mode="json")))
    return folder


@pytest.fixture(scope="module")
def undisturbed(prepared: Path) -> str:
    """Digest of the manifest that a calm run publishes; made in this process, without Ray."""
    corpus = Corpus(str(prepared), "corpus")
    job = ShardJob.of(str(prepared), TOKENS, "mini", stored_set(str(prepared), "mini"))
    tokenizer = ShardTokenizer(job.model_copy(update={"tokens": "calm"}))
    commits = [done.commit for done in tokenizer(units_of(corpus)) if done.commit is not None]
    tokenizer.close()
    attributes = {"layout": job.layout.model_dump(mode="json"), "selections": {}}
    digest, _ = Dataset(str(prepared), TOKENS).publish_manifest(
        "tokens", commits, {"corpus": corpus.digest}, attributes, current=False
    )
    return digest


@pytest.fixture
def here(prepared: Path, tmp_path: Path) -> Path:
    """A root of its own over the same examples and tokenizers."""
    for name in ("corpus", "tokenizers", "config.yaml"):
        (tmp_path / name).symlink_to(prepared / name)
    return tmp_path


def start(here: Path) -> Run:
    return Run("tokenize", here / "config.yaml", "--root", here)


def commits(here: Path) -> int:
    return len(list((here / TOKENS / "commits").glob("*.json")))


def wait_for(run: Run, here: Path, units: int) -> None:
    """Until `units` more are committed than now."""
    goal = commits(here) + units
    while commits(here) < goal and run.process.poll() is None:
        time.sleep(0.005)
    assert run.process.poll() is None, "the run ended before it was disturbed"


def kill_driver(here: Path, units: int) -> None:
    run = start(here)
    try:
        wait_for(run, here, units)
    finally:
        run.kill()
    assert run.wait_until_gone() == []


def finish(here: Path, *moments: int) -> dict[str, Any]:
    """Run to the end; an actor is killed each time so many more units are committed."""
    run = start(here)
    try:
        for units in moments:
            wait_for(run, here, units)
            actors = run.named("ray::MapWorker")
            assert actors, "there is no actor to kill"
            os.kill(actors[0], signal.SIGKILL)
        out, err = run.process.communicate(timeout=240)
    except BaseException:
        run.kill()
        raise
    assert run.process.returncode == 0, err
    assert run.wait_until_gone() == []
    answer: dict[str, Any] = json.loads(out)
    return answer


def check(here: Path, answer: dict[str, Any], undisturbed: str) -> None:
    dataset = Dataset(str(here), TOKENS)
    digest, manifest = dataset.manifest()
    assert answer["manifest"] == digest == undisturbed
    assert len(manifest.commits) == UNITS
    rows = [row for commit in manifest.commits for ref in commit.shards for row in dataset.read(ref)["key"].to_pylist()]
    assert sorted(rows, key=int) == [str(i) for i in range(UNITS * PER_UNIT) if i != 37]
    assert answer["records"] == {
        "in": UNITS * PER_UNIT,
        "kept": UNITS * PER_UNIT - 1,
        "dropped": {},
        "quarantined": {"image_undecodable": 1},
    }
    named = {ref.digest for commit in manifest.commits for ref in commit.shards}
    assert named <= {path.stem for path in (here / TOKENS / "shards").glob("*.arrow")}


@pytest.mark.fault
@pytest.mark.ray
def test_a_driver_and_an_actor_that_are_killed_change_nothing(here: Path, undisturbed: str) -> None:
    kill_driver(here, 3)
    before = commits(here)
    answer = finish(here, 4)
    assert before >= 3
    assert answer["committed"] <= UNITS - before
    check(here, answer, undisturbed)


@pytest.mark.ray
@pytest.mark.fault
@pytest.mark.timeout(900)
@pytest.mark.parametrize("seed", range(3))
def test_kills_at_many_moments(here: Path, undisturbed: str, seed: int) -> None:
    for kill in range(4):
        if commits(here) < UNITS - 10:
            kill_driver(here, rng.digest64("tokenize-kill", seed, kill) % 5)
    left = UNITS - commits(here)
    moments = [1, 2, 1][: max(0, left - 5)]
    check(here, finish(here, *moments), undisturbed)
