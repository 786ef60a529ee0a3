"""One unit of tokenization, in plain Python: an example shard becomes token shards and a commit."""

from __future__ import annotations

import socket
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any

import pyarrow as pa
import torch

from omnimill.config import Config, digest_json
from omnimill.errors import IntegrityError
from omnimill.infra import arrow_files, storage
from omnimill.infra.dataset import DROPS_SCHEMA, QUARANTINE_SCHEMA, Commit, Counts, Dataset, FileRef, InputRef, Unit
from omnimill.schema import SCHEMA_VERSION, Example, check_example_schema, from_row
from omnimill.tokenizers.corpus import Corpus
from omnimill.tokenizers.encode import Rejected, encode
from omnimill.tokenizers.store import SET, Tokenizers, load_tokenizers
from omnimill.tokens import TOKEN_SCHEMA_VERSION, TokenLayout

# Raised when `tokenize_shard` gives other shards for the same examples.
ENCODE_VERSION = 1
# Examples that are in memory, decoded, at a time.
CHUNK_ROWS = 32


class ShardJob(Config):
    """What all units of a run share.

    root: holds datasets and tokenizers. tokens: name of the token dataset. layout: names the tokenizer set by digest.
    batch: pictures or spectrograms that a network takes at a time. device: that the networks run on.
    """

    root: str
    tokens: str
    layout: TokenLayout
    jpeg_quality: int = 95
    batch: int = 16
    device: str = "cpu"

    @property
    def recipe(self) -> str:
        """Digest of what decides a unit's outcome besides its examples."""
        return digest_json(
            {
                "versions": [ENCODE_VERSION, TOKEN_SCHEMA_VERSION, SCHEMA_VERSION],
                "layout": self.layout.model_dump(mode="json"),
                "jpeg_quality": self.jpeg_quality,
                "batch": self.batch,
            }
        )


def units_of(corpus: Corpus) -> list[Unit]:
    """A unit for every shard of an example dataset, with the rows to leave out; files are named from the root."""
    return [
        Unit(
            source=commit.source,
            files=(
                f"{corpus.manifest.dataset}/shards/{shard.digest}.arrow",
                *(f"{corpus.manifest.dataset}/selected/{ref.digest}.arrow" for ref in left_out),
            ),
            options={"digest": shard.digest, "bytes": shard.bytes}
            | ({"left_out": [ref.model_dump() for ref in left_out]} if left_out else {}),
        )
        for commit in corpus.manifest.commits
        for shard in commit.shards
        for left_out in [corpus.left_out(shard.digest)]
    ]


def planned(unit: Unit, job: ShardJob) -> Commit:
    """The commit of a unit before it has content: names its outcome, for all inputs are known by digest."""
    refs = [unit.options, *unit.options.get("left_out", ())]
    inputs = (
        InputRef(uri=uri, digest=ref["digest"], bytes=ref["bytes"]) for uri, ref in zip(unit.files, refs, strict=True)
    )
    return Commit(unit=unit.id, source=unit.source, recipe=job.recipe, inputs=tuple(inputs))


class ShardTokenizer:
    """Tokenizes units, with the tokenizers loaded once; made on the worker that uses it."""

    def __init__(self, job: ShardJob) -> None:
        # One thread and exact convolutions, so that codes do not depend on the machine's load or number of cores.
        torch.set_num_threads(1)
        torch.backends.cudnn.deterministic = True
        torch.backends.cudnn.allow_tf32 = False
        layout = job.layout
        self.job = job
        self.tokenizers = load_tokenizers(job.root, layout.tokenizers, layout.digests[SET], job.device, job.batch)

    def __call__(self, unit: Unit) -> Commit:
        """Tokenize a shard and commit it; a unit that is committed already is left as it is."""
        return tokenize_shard(unit, self.job, self.tokenizers)


def tokenize_shard(unit: Unit, job: ShardJob, tokenizers: Tokenizers) -> Commit:
    """One example shard to one token shard, published and committed.

    Raises:
        IntegrityError: the shard's content is not what its name says, or of another schema version.
        OmnimillError: the tokenizer set lacks a network that the examples need.
    """
    started = time.monotonic()
    dataset, commit = Dataset(job.root, job.tokens), planned(unit, job)
    stored = dataset.committed(commit)
    if stored is not None:
        return stored
    table = _read(storage.join(job.root, unit.files[0]), unit.options["digest"])
    check_example_schema(table.schema, unit.files[0])
    left_out = _left_out(unit, job.root)
    drops = list(_drops(unit, table, left_out))
    if left_out:
        table = table.filter([row not in left_out for row in range(table.num_rows)])
    tables: list[pa.Table] = []
    rejected: list[Rejected] = []
    for chunk in _chunks(table):
        encoded, bad = encode(chunk, tokenizers, job.jpeg_quality)
        tables.append(encoded)
        rejected.extend(bad)
    rows = sum(encoded.num_rows for encoded in tables)
    reasons = Counter(item.bad.reason for item in rejected)
    commit = commit.model_copy(
        update={
            "shards": _publish(dataset, tables),
            "quarantine": dataset.publish_rejected(
                pa.Table.from_pylist(list(_quarantine(unit, rejected)), QUARANTINE_SCHEMA), "quarantine"
            ),
            "drops": dataset.publish_rejected(pa.Table.from_pylist(drops, DROPS_SCHEMA), "drops"),
            "counts": Counts(
                records_in=table.num_rows + len(drops),
                kept=rows,
                records_dropped=dict(sorted(Counter(drop["reason"] for drop in drops).items())),
                quarantined=dict(sorted(reasons.items())),
                examples_written=rows,
            ),
        }
    )
    dataset.commit(commit, {"seconds": round(time.monotonic() - started, 3), "host": socket.gethostname()})
    return commit


def _read(url: str, digest: str) -> pa.Table:
    found = storage.digest_file(url)
    if found != digest:
        raise IntegrityError(f"{url}: content hashes to {found}")
    return arrow_files.read_table(url)


def _left_out(unit: Unit, root: str) -> dict[int, dict[str, Any]]:
    """Rows that selections leave out, with what they say about them; the first selection's word counts."""
    rows: dict[int, dict[str, Any]] = {}
    for uri, ref in zip(unit.files[1:], unit.options.get("left_out", ()), strict=True):
        for verdict in _read(storage.join(root, uri), ref["digest"]).to_pylist():
            rows.setdefault(verdict["row"], verdict)
    return rows


def _drops(unit: Unit, table: pa.Table, left_out: dict[int, dict[str, Any]]) -> Iterator[dict[str, Any]]:
    for row, verdict in sorted(left_out.items()):
        yield {
            "source": unit.source,
            "unit": unit.id,
            "key": table.column("key")[row].as_py(),
            "uri": table.column("provenance")[row]["uri"].as_py(),
            "level": "record",
            "operator": verdict["step"],
            "reason": verdict["reason"],
        }


def _chunks(table: pa.Table) -> Iterator[list[Example]]:
    for start in range(0, table.num_rows, CHUNK_ROWS):
        yield [from_row(row) for row in table.slice(start, CHUNK_ROWS).to_pylist()]


def _publish(dataset: Dataset, tables: list[pa.Table]) -> tuple[FileRef, ...]:
    whole = pa.concat_tables(tables) if tables else None
    return (dataset.publish_shard(whole),) if whole is not None and whole.num_rows else ()


def _quarantine(unit: Unit, rejected: Iterable[Rejected]) -> Iterator[dict[str, Any]]:
    for item in rejected:
        yield {
            "source": unit.source,
            "unit": unit.id,
            "key": item.example.key,
            "uri": item.example.provenance.uri,
            "offset": item.example.provenance.offset,
            "length": item.example.provenance.length,
            "operator": "tokenize",
            "reason": item.bad.reason,
            "message": item.bad.message,
            "tries": 1,
            "data": None,
        }
