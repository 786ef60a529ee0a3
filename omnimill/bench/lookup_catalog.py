"""A catalog of 100 million examples that is there as far as look-ups can tell, and a long training over it.

Manifests, indexes, runs, ledger, waypoints and checkpoint are whole, as the commands write them. Of the shards only
those are written that the questions and the replay of one stream read; the keys of all other rows are random, which is
what keys are. The states of the other streams are copies.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import yaml
from blake3 import blake3

from omnimill import rng
from omnimill.infra import lineage, storage
from omnimill.infra.dataset import Commit, Counts, Dataset, FileRef, InputRef
from omnimill.infra.index import adopt, input_file
from omnimill.infra.index_keys import FileKeys, keys_of_inputs, keys_of_table
from omnimill.infra.index_segments import Content, IndexedFile, content_of
from omnimill.mixtures import row_index
from omnimill.mixtures.config import Mixture, Task
from omnimill.mixtures.ledger import Ledger
from omnimill.mixtures.row_index import Found
from omnimill.mixtures.sampler import Sampler
from omnimill.mixtures.shares import share_of
from omnimill.schema import Example, Image, Meta, Provenance, example_id, to_table
from omnimill.tokenizers import store
from omnimill.tokenizers.text import BpeConfig, TextTokenizer, train_bpe
from omnimill.tokens import TOKEN_SCHEMA, AudioLayout, ImageLayout
from omnimill.training.checkpoints.checkpoint import (
    RECORD,
    CheckpointRecord,
    checkpoints_folder,
    folder_name,
    read_record,
    run_folder,
)
from omnimill.training.lineage import waypoints
from omnimill.training.runs.config import TrainConfig
from omnimill.training.runs.inputs import TrainInputs, open_streams, resolve

SOURCE, EXAMPLES, TOKENS, RUN = "web", "web", "web-tokens", "long"
_KEYS = 3  # of an example: its id, its picture's address and digest
_DOMAINS = 50  # of a shard, beside the one that all have
COMMON, COMMON_ROWS = "common.example", 100
_SEGMENT_SHARDS = 1000
# The one that is planned.
_STREAM = 3
# Of a row: lengths of its caption and its picture, as the model reads them.
_CAPTION, _PATCHES = 24, 400


@dataclass(frozen=True)
class Size:
    """How much of it there is. other_runs: runs that have nothing to do with it."""

    shards: int = 10_000
    rows: int = 10_000
    streams: int = 512
    steps: int = 20_000
    other_runs: int = 200


@dataclass(frozen=True)
class Written:
    """What questions are asked about."""

    id: str
    url: str
    digest: str
    shard: str
    token_shard: str
    checkpoint: str


def write(root: Path, size: Size) -> Written:
    """Write all of it."""
    made = _make_tokenizers(root)
    mixture = _mixture(root)
    place, read = _place(mixture, size)
    shown = place // size.rows
    examples, tokens = Dataset(str(root), EXAMPLES), Dataset(str(root), TOKENS)
    commits = list(_example_commits(examples, size, shown))
    parent, _ = examples.publish_manifest("examples", commits)
    adopt(examples, [parent], _segments(commits, size, "examples", examples))
    token_commits = list(_token_commits(tokens, size, read, commits))
    digest, _ = tokens.publish_manifest("tokens", token_commits, {EXAMPLES: parent}, {"layout": made})
    adopt(tokens, [digest], _segments(token_commits, size, "tokens", tokens))
    with lineage.command_run(str(root), "ingest", {}) as run:
        run.output(EXAMPLES, parent, examples.url)
    with lineage.command_run(str(root), "tokenize", {}) as run:
        run.input(EXAMPLES, parent, examples.url)
        run.output(TOKENS, digest, tokens.url)
    _other_runs(root, size.other_runs)
    checkpoint = _train(root, size, token_commits, digest)
    asked = _example(shown, place % size.rows)
    return Written(
        asked.id,
        str(asked.meta.url),
        asked.images[0].digest,
        commits[shown].shards[0].digest,
        token_commits[shown].shards[0].digest,
        str(checkpoint),
    )


def _make_tokenizers(root: Path) -> dict[str, object]:
    model = train_bpe(["the quick brown fox jumps over the lazy dog " * 20], BpeConfig(pieces=300))
    text = TextTokenizer.of(model, "the benchmark's")
    files = {"text": model}
    stored = store.StoredSet(
        text_pieces=text.vocabulary.pieces, image=ImageLayout(), audio=AudioLayout(), digests=store.file_digests(files)
    )
    store.publish(str(root), "bench", stored, files)
    return stored.layout("bench").model_dump(mode="json")


def _mixture(root: Path) -> Mixture:
    task = Task(name="caption", rate=1, sources=(SOURCE,), inputs=("image",), target="text:caption")
    mixture = Mixture(datasets=(TOKENS,), tasks=(task,), seed=1)
    (root / "mixture.yaml").write_text(yaml.safe_dump(mixture.model_dump(mode="json", exclude_defaults=True)))
    return mixture


def _place(mixture: Mixture, size: Size) -> tuple[int, range]:
    """The row that a stream draws amid the training, one draw a step at least; and the shards that the stream reads."""
    share = share_of(Sampler.of(mixture, [size.shards * size.rows], size.streams).layouts[0], _STREAM)
    (part,) = share.parts
    return share.read(size.steps)[0], range(part.first // size.rows, (part.first + part.size - 1) // size.rows + 1)


def _example(shard: int, row: int) -> Example:
    data = f"{shard}/{row}".encode()
    digest = blake3(data).hexdigest()
    url = f"https://site-{row % 997}.example/{shard}/{row}.jpg"
    return Example(
        id=example_id(SOURCE, f"{shard}/{row}", digest),
        source=SOURCE,
        unit=f"{SOURCE}-{shard:06d}",
        key=f"{shard}/{row}",
        provenance=Provenance(uri=url, digest=digest),
        images=[Image(data=data, format="jpeg", width=1, height=1, digest=digest, uri=url)],
        meta=Meta(url=url, licence="CC-BY-4.0"),
    )


def _example_commits(dataset: Dataset, size: Size, shown: int) -> Iterator[Commit]:
    for shard in range(size.shards):
        if shard == shown:
            ref = dataset.publish_shard(to_table(_example(shard, row) for row in range(size.rows)))
        else:
            ref = _unwritten("examples", shard, size)
        name = f"part-{shard:06d}.tar"
        inputs = (InputRef(uri=f"s3://bucket/{name}", digest=blake3(name.encode()).hexdigest(), bytes=1 << 28),)
        yield _commit(shard, ref, inputs)


def _token_commits(dataset: Dataset, size: Size, read: range, parents: list[Commit]) -> Iterator[Commit]:
    for shard, parent in enumerate(parents):
        if shard in read:
            ref = dataset.publish_shard(_token_table(shard, size.rows))
        else:
            ref = _unwritten("tokens", shard, size)
        inputs = (InputRef(uri=dataset.url, digest=parent.shards[0].digest, bytes=parent.shards[0].bytes),)
        yield _commit(shard, ref, inputs)


def _unwritten(kind: str, shard: int, size: Size) -> FileRef:
    return FileRef(digest=blake3(f"{kind} {shard}".encode()).hexdigest(), rows=size.rows, bytes=1 << 28)


def _commit(shard: int, ref: FileRef, inputs: tuple[InputRef, ...]) -> Commit:
    counts = Counts(records_in=ref.rows, kept=ref.rows, examples_written=ref.rows)
    return Commit(
        unit=f"{SOURCE}-{shard:06d}", source=SOURCE, recipe="bench", inputs=inputs, shards=(ref,), counts=counts
    )


def _token_table(shard: int, rows: int) -> pa.Table:
    columns = {
        "id": pa.array([_example(shard, row).id for row in range(rows)]),
        "source": pa.array([SOURCE] * rows),
        "key": pa.array([f"{shard}/{row}" for row in range(rows)]),
        "text_roles": pa.array([["caption"]] * rows),
        "text_lengths": pa.array([[_CAPTION]] * rows, pa.list_(pa.int32())),
        **{f"text_{name}": pa.array([[None]] * rows, pa.list_(pa.int32())) for name in ("images", "audio", "items")},
        "image_patches": pa.array([[_PATCHES]] * rows, pa.list_(pa.int32())),
        "history_patches": pa.array([[_PATCHES // 4]] * rows, pa.list_(pa.int32())),
        "image_codes_lengths": pa.array([[0]] * rows, pa.list_(pa.int32())),
    }
    arrays = [
        columns[field.name] if field.name in columns else pa.array([[]] * rows, field.type) for field in TOKEN_SCHEMA
    ]
    return pa.Table.from_arrays(arrays, schema=TOKEN_SCHEMA)


def _segments(commits: list[Commit], size: Size, kind: str, dataset: Dataset) -> Iterator[Content]:
    for first in range(0, len(commits), _SEGMENT_SHARDS):
        files: list[tuple[IndexedFile, int, FileKeys]] = []
        for shard, commit in enumerate(commits[first : first + _SEGMENT_SHARDS], first):
            (ref,) = commit.shards
            written = storage.exists(dataset.shard_url(ref))
            keys = keys_of_table(dataset.read(ref)) if written else _random_keys(shard, size.rows, kind)
            files.append((IndexedFile("shards", ref.digest), ref.rows, keys))
            files.append((input_file(commit), len(commit.inputs), keys_of_inputs(commit.inputs)))
        yield content_of(files)


def _random_keys(shard: int, rows: int, kind: str) -> FileKeys:
    generator = rng.generator("bench lookup", kind, shard)
    keys = _KEYS if kind == "examples" else 1
    hashes = generator.integers(0, 1 << 64, keys * rows, np.uint64)
    if kind == "tokens":
        return FileKeys(hashes, np.arange(rows))
    domains = {f"site-{number}.example": 10 for number in generator.integers(0, 1 << 20, _DOMAINS).tolist()}
    return FileKeys(hashes, np.tile(np.arange(rows), keys), {**domains, COMMON: COMMON_ROWS}, {"CC-BY-4.0": rows})


def _other_runs(root: Path, count: int) -> None:
    for number in range(count):
        with lineage.command_run(str(root), "train", {}, f"other-{number}") as run:
            run.input("other-tokens", blake3(str(number).encode()).hexdigest(), "/elsewhere/other-tokens")
            run.metrics({f"loss/{task}": 1.0 for task in range(20)})


def _train(root: Path, size: Size, commits: list[Commit], tokens: str) -> Path:
    """The ledger, waypoints and last checkpoint of a run."""
    config = TrainConfig(
        name=RUN, mixture=str(root / "mixture.yaml"), steps=size.steps, streams=size.streams, watch_attention=None
    )
    inputs = resolve(config, str(root))
    found = [Found(number, commit.shards[0].rows, None) for number, commit in enumerate(commits)]
    row_index.write(str(root), inputs.versions.without_erasures().content_digest(), inputs.mixture.tasks[0], found, {})
    run = run_folder(str(root), RUN)
    entry = Ledger(run).append(inputs.change(0))
    plan, examples = _planned(root, run, inputs, size)
    folder = checkpoints_folder(run) / folder_name(size.steps)
    with lineage.command_run(str(root), "train", {}, RUN) as told:
        record = CheckpointRecord(
            **dict(inputs), run=RUN, step=size.steps, plan=plan, ledger=entry, examples=examples, mlflow_run=told.id
        )
        storage.publish_bytes(str(folder / RECORD), record.model_dump_json().encode())
        told.input(TOKENS, tokens, str(root / TOKENS))
        told.output(f"{RUN}/{folder.name}", read_record(folder).digest, str(folder))
    return folder


def _planned(root: Path, run: Path, inputs: TrainInputs, size: Size) -> tuple[dict[str, object], dict[str, int]]:
    """Plan one stream to the end and keep waypoints; the last plan, and how many examples all streams saw."""
    streams = open_streams(inputs, str(root), [inputs.change(0)])
    planner = streams.planner([_STREAM])
    seen = 0
    for step in range(1, size.steps + 1):
        seen += sum(len(sequence.items) for sequence in next(planner))
        if waypoints.due(step) or step == size.steps:
            state = planner.snapshot()()[str(_STREAM)]
            states = {str(number): state for number in range(size.streams)}
            plan: dict[str, object] = {"order": streams.order(step), "streams": states}
            waypoints.keep(run, plan)
    return plan, {"caption": seen * size.streams}
