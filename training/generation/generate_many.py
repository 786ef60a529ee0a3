"""``omnimill generate --requests``: a file of requests, answered into a dataset."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

from omnimill.config import digest_json
from omnimill.infra import storage
from omnimill.infra.dataset import Dataset
from omnimill.infra.lineage import command_run
from omnimill.infra.observing import Observer
from omnimill.training.checkpoints import checkpoint
from omnimill.training.evaluation.scoring import BATCH
from omnimill.training.generation.answer_units import AnswerJob, RequestAnswerer, request_units
from omnimill.training.generation.answering import Actors, answer_units
from omnimill.training.generation.decoding import Decoding
from omnimill.training.generation.interleaved_page import Result, results_page
from omnimill.training.generation.request_rows import read_requests
from omnimill.training.runs.follow import checkpoint_name


@dataclass(frozen=True)
class ManyResult:
    """answers: URL of the dataset of answers, whose rows are `request_rows.REQUEST_SCHEMA`. manifest: its digest."""

    checkpoint: str
    answers: str
    manifest: str
    count: int
    seconds: float


def generate_many(
    root: str,
    path: str | Path,
    requests: str,
    out: str,
    decoding: Decoding,
    *,
    batch: int = BATCH,
    actors: Actors | None = None,
    threads: int = 1,
    cpus: int | None = None,
) -> ManyResult:
    """Answer every request of a file once; the same command goes on where it was stopped.

    Args:
        root: holds tokenizers and the tracking store.
        path: a checkpoint's folder, or a run's: then its newest checkpoint.
        requests: file of JSON lines, see `omnimill.training.generation.request_rows.Line`.
        out: folder of the dataset of answers; made if need be.
        decoding: how answers are decoded.
        batch, actors, threads, cpus: as for :func:`omnimill.training.evaluation.evaluate.evaluate`.

    Raises:
        ConfigError: a line is no request.
        OmnimillError: a request cannot be answered; says which. What was answered stays.
    """
    began = time.monotonic()
    # Actors work in folders of their own.
    root, requests, out = (
        storage.filesystem(one)[1] if storage.is_local(one) else one for one in (root, requests, out)
    )
    folder = checkpoint.find(path)
    record = checkpoint.read_record(folder)
    name = checkpoint_name(folder)
    asks = read_requests(requests)
    parent, _, dataset = out.rstrip("/").rpartition("/")
    config = {"checkpoint": name, "requests": requests, "batch": batch, "decoding": decoding.model_dump(mode="json")}
    with command_run(root, "generate", config, f"generate {name}") as run:
        run.input(name, record.digest, str(folder))
        run.input(Path(requests).name, storage.digest_file(requests), requests)
        job = AnswerJob(
            root=root,
            checkpoint=str(folder.absolute()),
            folder=parent,
            name=dataset,
            recipe=digest_json([record.digest, decoding.model_dump(mode="json")]),
            decoding=decoding,
            threads=threads,
        )
        units = request_units(asks, batch)
        digest, manifest = answer_units(
            f"generate {name}",
            units,
            RequestAnswerer,
            job,
            actors or Actors(),
            Observer(run.id, "generate"),
            cpus,
            attributes={"checkpoint": record.digest},
        )
        url = Dataset(job.folder, job.name).url
        run.output(dataset, digest, url)
    return ManyResult(name, url, digest, manifest.rows, time.monotonic() - began)


def answers_page(requests: str, out: str) -> str:
    """A dataset of answers to a file of requests as a page, in the file's order: pictures and text alone.

    Args:
        requests, out: as of :func:`generate_many`, which has run.
    """
    parent, _, name = out.rstrip("/").rpartition("/")
    dataset = Dataset(parent or ".", name)
    _, manifest = dataset.manifest()
    rows = {
        row["key"]: row
        for commit in manifest.commits
        for shard in commit.shards
        for row in dataset.read(shard).select(["key", "prompt", "text", "media", "pieces", "cut"]).to_pylist()
    }
    results = []
    for ask in read_requests(requests):
        row = rows[ask.key]
        pieces = [(piece["text"], piece["picture"]) for piece in row["pieces"] or ()]
        if row["pieces"] is None and ask.target != "audio":
            pieces = [(row["text"], row["media"])]
        given = [storage.read_bytes(file.url) for file in ask.images]
        results.append(Result(ask.key, row["prompt"], given, pieces, row["cut"]))
    return results_page(Path(requests).name, results)
