"""A team's whole job: commands as Ray jobs on two nodes, datasets on S3, MLflow over PostgreSQL; then every question of
lineage, held against what is known of the corpus and against the whole order of training."""

from __future__ import annotations

import os
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import requests
import s3fs
from blake3 import blake3
from mlflow import MlflowClient

from clusters.team import (
    DOCUMENTS,
    INPUT,
    LICENCES,
    PICTURE_LICENCE,
    PICTURES,
    ROOT,
    Team,
    documents,
    picture,
    team,
    write_configs,
    write_corpus,
    write_documents,
)
from omnimill.training.checkpoints.checkpoint import list_checkpoints
from omnimill.training.lineage.replay import Consumed, combine_digests, consumed, replay, sequence_digest
from omnimill.training.runs.history import read_history

pytestmark = [pytest.mark.ray, pytest.mark.fault, pytest.mark.timeout(1800)]


@dataclass
class Truth:
    """What a run of the team learnt from, without indexes or catalogues: by the whole order of its training."""

    team: Team
    run: str

    @property
    def folder(self) -> Path:
        return self.team.runs / self.run

    @cached_property
    def checkpoint(self) -> Path:
        return list_checkpoints(self.folder)[-1]

    @cached_property
    def order(self) -> list[Consumed]:
        """Every example that was trained on; the history holds digests of what the workers really had."""
        steps: dict[int, list[int]] = defaultdict(list)
        for sequence in sorted(replay(self.checkpoint, ROOT), key=lambda one: (one.step, one.stream)):
            steps[sequence.step].append(sequence_digest(sequence))
        assert [combine_digests(steps[step]) for step in sorted(steps)] == [
            line["plan"] for line in read_history(self.folder)
        ]
        return list(consumed(self.checkpoint, root=ROOT))

    def steps(self, ids: set[str]) -> list[int]:
        """Steps that met one of the examples."""
        return sorted({one.step for one in self.order if one.example_id in ids})

    def times(self, ids: set[str], before: int) -> int:
        """How often training met them before a step."""
        return sum(one.example_id in ids and one.step < before for one in self.order)


def rows(dataset: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Shard and content of every row that a dataset holds."""
    files = s3fs.S3FileSystem()
    for path in sorted(files.glob(f"{ROOT}/{dataset}/shards/*.arrow")):
        for row in pa.ipc.open_file(pa.py_buffer(files.cat_file(path))).read_all().to_pylist():
            yield Path(path).stem, row


def row_of(url: str) -> tuple[str, dict[str, Any]]:
    ((shard, row),) = [(shard, row) for shard, row in rows("web") if row["meta"]["url"] == url]
    return shard, row


@pytest.fixture(scope="module")
def done() -> Iterator[Team]:
    """The team, when it has ingested, tokenized and trained."""
    with team() as one:
        write_corpus()
        write_configs(one.configs)
        for command in (
            ("ingest", "web.yaml"),
            ("tokenizer", "train", "tokenizers.yaml"),
            ("tokenize", "tokenizers.yaml"),
            ("train", "train.yaml"),
        ):
            one.run(*command)
        yield one


@pytest.fixture(scope="module")
def first(done: Team) -> Truth:
    return Truth(done, "first")


def test_commands_are_runs_on_the_server_with_their_artifacts_on_s3(done: Team) -> None:
    client = MlflowClient()
    (experiment,) = [one for one in client.search_experiments() if one.name == "omnimill"]
    runs = client.search_runs([experiment.experiment_id], order_by=["attributes.start_time ASC"])
    commands = [run.data.tags["omnimill.command"] for run in runs]
    assert [commands.index(one) for one in ("ingest", "tokenizer train", "tokenize", "train")] == sorted(
        commands.index(one) for one in ("ingest", "tokenizer train", "tokenize", "train")
    )
    assert {run.info.status for run in runs} == {"FINISHED"}
    kept = s3fs.S3FileSystem().find("s3://bucket/mlflow")
    for run in runs:
        assert any(run.info.run_id in path and path.endswith("config.json") for path in kept)


def test_the_server_answers_to_its_names_alone(done: Team) -> None:
    url = f"{os.environ['MLFLOW_TRACKING_URI']}/api/2.0/mlflow/experiments/get-by-name?experiment_name=omnimill"
    for host, status in (("mlflow.team.example:5000", 200), ("elsewhere.example:5000", 403)):
        assert requests.get(url, headers={"Host": host}, timeout=10).status_code == status


def test_the_account_is_that_of_the_corpus(done: Team) -> None:
    again = done.ask("ingest", str(done.configs / "web.yaml"))
    assert again["records"]["in"] == DOCUMENTS + 1 + PICTURES + 1
    assert again["records"]["kept"] == DOCUMENTS + PICTURES + 1
    assert again["examples"]["dropped"] == {"text_too_short": 1}


def test_trace_of_a_checkpoint_reaches_every_file_of_the_bucket(done: Team, first: Truth) -> None:
    answer = done.ask("lineage", "trace", str(first.checkpoint))
    found = {Path(file["uri"]).name: file["digest"] for source in answer["sources"] for file in source["files"]}
    assert {name for name in found if name.endswith(".jpg")} >= {f"{number}.jpg" for number in range(PICTURES)}
    assert found["3.jpg"] == blake3(picture(3)).hexdigest()


@pytest.mark.parametrize("number", [0, 7, 20])
def test_impact_of_a_url_is_what_training_met(done: Team, first: Truth, number: int) -> None:
    document = documents()[number]
    shard, row = row_of(document.url)
    answer = done.ask("lineage", "impact", document.url)
    assert [one["id"] for one in answer["examples"]] == [row["id"]]
    assert shard in {one["shard"] for one in answer["shards"]}
    (run,) = answer["runs"]
    assert run["steps"] == first.steps({row["id"]})
    for one in run["checkpoints"]:
        assert one["times_seen"] == first.times({row["id"]}, one["step"])


def test_impact_of_a_file_and_of_an_example(done: Team, first: Truth) -> None:
    number = 4
    (found,) = [row for _, row in rows("web") if row["key"] == f"{number}.jpg"]
    for query in (f"{INPUT}/photos/{number}.jpg", blake3(picture(number)).hexdigest(), found["id"]):
        answer = done.ask("lineage", "impact", query)
        assert [one["id"] for one in answer["examples"]] == [found["id"]]
        assert answer["runs"][0]["steps"] == first.steps({found["id"]})
    (rejected,) = done.ask("lineage", "impact", f"{INPUT}/photos/cut_off.jpg")["rejected"]
    assert (rejected["verdict"], rejected["reason"]) == ("quarantined", "image_truncated")


@pytest.mark.parametrize("what", ["domain:birds.example", "licence:CC0-1.0", "source:photos"])
def test_impact_of_many_rows(done: Team, first: Truth, what: str) -> None:
    kind, name = what.split(":")
    meant = {
        "domain": lambda row: (row["meta"]["url"] or "").startswith(f"https://{name}/"),
        "licence": lambda row: row["meta"]["licence"] == name,
        "source": lambda row: row["source"] == name,
    }[kind]
    ids = {row["id"] for _, row in rows("web") if meant(row)}
    answer = done.ask("lineage", "impact", what)
    assert answer["examples_count"] == len(ids)
    (run,) = answer["runs"]
    for one in run["checkpoints"]:
        assert one["exact"]
        assert one["times_seen"] == first.times(ids, one["step"])


def test_licences_of_a_checkpoint_are_counted(done: Team, first: Truth) -> None:
    licence = {row["id"]: row["meta"]["licence"] for _, row in rows("web")}
    expected = Counter(licence[one.example_id] or "not stated" for one in first.order)
    assert set(expected) == {PICTURE_LICENCE, "not stated", *filter(None, LICENCES)}
    answer = done.ask("lineage", "licences", str(first.checkpoint), "--exact")
    assert {one["licence"]: one["examples"] for one in answer["licences"]} == expected


def test_damage_is_mended_by_doing_the_unit_again_and_versions_differ_by_what_came(done: Team) -> None:
    files = s3fs.S3FileSystem()
    before = done.ask("lineage", "verify")
    assert before["missing"] == before["altered"] == before["orphans"] == []
    old = done.ask("ingest", str(done.configs / "web.yaml"))["manifest"]
    shard = min(files.glob(f"{ROOT}/web/shards/*.arrow"))
    body = files.cat_file(shard)
    files.pipe_file(shard, body[:-100] + bytes(100))
    files.pipe_file(f"{ROOT}/web/shards/{'0' * 64}.arrow", b"a unit that was killed left this")
    found = done.ask("lineage", "verify", code=1)
    assert [Path(one["url"]).name for one in found["altered"]] == [Path(shard).name]
    (orphan,) = found["orphans"]

    # As docs/operations.md says: without its commit the unit is done again, to the same bytes.
    (commit,) = [
        path for path in files.glob(f"{ROOT}/web/commits/*.json") if Path(shard).stem in files.cat_file(path).decode()
    ]
    files.rm_file(commit)
    more = documents(DOCUMENTS, 16)
    write_documents(more, "more")
    done.run("ingest", "web.yaml")
    assert files.cat_file(shard) == body
    assert [one["url"] for one in done.ask("lineage", "gc", "--older-than", "0", "--delete")["files"]] == [orphan]
    after = done.ask("lineage", "verify")
    assert after["missing"] == after["altered"] == after["orphans"] == []

    new = done.ask("ingest", str(done.configs / "web.yaml"))["manifest"]
    answer = done.ask("lineage", "diff", old, new, "--rows")
    assert answer["rows"] == {"added": len(more), "removed": 0}


def test_what_is_erased_is_never_read_again(done: Team, first: Truth) -> None:
    """Last in this file: what it erases stays so."""
    document, number = documents()[6], 4
    _, row = row_of(document.url)
    (shown,) = [row for _, row in rows("web") if row["key"] == f"{number}.jpg"]
    ids = {row["id"], shown["id"]}
    everything = {row["id"] for _, row in rows("web-tokens")}
    assert {one.example_id for one in first.order} == everything

    asked = ("lineage", "erase", document.url, f"{INPUT}/photos/{number}.jpg", "--reason", "their author asked for it")
    for told in (done.ask(*asked), done.ask(*asked, "--yes")):
        times = sum(one["times_seen"] for one in told["retrain"] if one["checkpoint"] == str(first.checkpoint))
        assert times == first.times(ids, before=10_000)
    (request,) = done.ask("lineage", "erasures")["erasures"]
    assert request["reason"] == "their author asked for it"

    # The same record under another name, and the same picture elsewhere.
    write_documents([document], "again")
    s3fs.S3FileSystem().pipe_file(f"{INPUT}/photos/copy.jpg", picture(number))
    done.run("ingest", "web.yaml")
    account = done.ask("ingest", str(done.configs / "web.yaml"))
    dropped = account["records"]["dropped"].get("erased", 0) + account["examples"]["dropped"].get("erased", 0)
    assert dropped == 2

    done.run("train", "after.yaml")
    after = Truth(done, "after")
    assert {one.example_id for one in after.order} == everything - ids
    # What was learnt before is still told as it was, and nothing that erasing wrote is in the way.
    assert Truth(done, "first").order == first.order
    for run in done.ask("lineage", "impact", row["id"])["runs"]:
        assert run["steps"] == (first.steps({row["id"]}) if run["name"] == "first" else [])
    found = done.ask("lineage", "verify")
    assert found["missing"] == found["altered"] == found["orphans"] == []
    compared = done.ask("lineage", "diff", "first", "after")
    assert compared["config"] == {"config.name": ["first", "after"]}
