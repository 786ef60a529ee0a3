"""Units of tokenization, in plain Python: an example shard becomes a token shard and a commit.

Where an earlier commit of the same unit was made with a recipe that decides some parts alike, the columns of these
parts are taken over from its shard, and only the others are made. The outcome is that of a run without it.
"""

from __future__ import annotations

import os
import resource
import socket
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any

import pyarrow as pa
import torch

from omnimill.config import Config
from omnimill.errors import IntegrityError
from omnimill.infra import arrow_files, storage
from omnimill.infra.dataset import DROPS_SCHEMA, QUARANTINE_SCHEMA, Commit, Counts, Dataset, InputRef, Unit
from omnimill.infra.done import Done
from omnimill.infra.erasures import erased_rows
from omnimill.infra.index_pieces import publish_shard
from omnimill.infra.selections import left_out as stored_left_out
from omnimill.schema import check_example_schema
from omnimill.tokenizers.chunks import Chunk, chunks, examples
from omnimill.tokenizers.columns import Parts, part_digests, recipe_of, shared
from omnimill.tokenizers.corpus import Corpus
from omnimill.tokenizers.encode import ALL_PARTS, Rejected
from omnimill.tokenizers.encoder import Encoded, Encoder
from omnimill.tokenizers.store import SET, StoredSet, load_tokenizers
from omnimill.tokenizers.vq import BATCH
from omnimill.tokens import TOKEN_SCHEMA, TokenLayout

# Units of a call whose rows wait to be written while the next one is read.
_UNITS_AHEAD = 2


class ShardJob(Config):
    """What all units of a run share.

    root: holds datasets and tokenizers. tokens: name of the token dataset. layout: names the tokenizer set by digest.
    parts: digest of what decides each part, see `omnimill.tokenizers.columns`. earlier: other recipes of the dataset
        that share parts with it, those first that share the costliest.
    batch, bf16, compiled: how networks run, see `omnimill.tokenizers.vq.Batches`. device: that they run on.
    threads: that prepare examples.
    """

    root: str
    tokens: str
    layout: TokenLayout
    parts: Parts
    earlier: tuple[Parts, ...] = ()
    jpeg_quality: int = 95
    batch: int = BATCH
    bf16: bool = False
    compiled: bool = False
    device: str = "cpu"
    threads: int = 1

    @classmethod
    def of(
        cls,
        root: str,
        tokens: str,
        name: str,
        stored: StoredSet,
        jpeg_quality: int = 95,
        batch: int = BATCH,
        bf16: bool = False,
        compiled: bool = False,
    ) -> ShardJob:
        """The job of tokenizing with a set; `name` is the set's."""
        execution = {"batch": batch, "bf16": bf16, "compiled": compiled}
        return cls(
            root=root,
            tokens=tokens,
            layout=stored.layout(name),
            parts=part_digests(stored, jpeg_quality, execution),
            jpeg_quality=jpeg_quality,
            batch=batch,
            bf16=bf16,
            compiled=compiled,
        )

    @property
    def recipe(self) -> str:
        """Digest of what decides a unit's outcome besides its examples."""
        return recipe_of(self.parts)


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


def planned(unit: Unit, recipe: str) -> Commit:
    """The commit of a unit before it has content: names its outcome, for all inputs are known by digest."""
    refs = [unit.options, *unit.options.get("left_out", ())]
    inputs = (
        InputRef(uri=uri, digest=ref["digest"], bytes=ref["bytes"]) for uri, ref in zip(unit.files, refs, strict=True)
    )
    return Commit(unit=unit.id, source=unit.source, recipe=recipe, inputs=tuple(inputs))


@dataclass
class _Reading:
    """A unit whose examples are on their way.

    begun: when, in seconds since the epoch; cpu_begun: processor seconds that this process had used by then. taken:
    parts that come from an earlier shard.
    """

    unit: Unit
    commit: Commit
    begun: float
    cpu_begun: float
    records: int
    drops: list[dict[str, Any]]
    chunks: list[tuple[Chunk, Callable[[], Encoded]]]
    taken: frozenset[str]


class ShardTokenizer:
    """Tokenizes units, with the tokenizers loaded once; made on the worker that uses it, where any thread may call it.

    Unit after unit is read, encoded and written at once: while one is written, the next ones are encoded.
    """

    def __init__(self, job: ShardJob) -> None:
        # One thread and exact convolutions, so that codes do not depend on the machine's load or number of cores.
        torch.set_num_threads(1)
        torch.backends.cudnn.deterministic = True
        torch.backends.cudnn.allow_tf32 = False
        layout = job.layout
        tokenizers = load_tokenizers(
            job.root, layout.tokenizers, layout.digests[SET], job.device, job.batch, job.bf16, job.compiled
        )
        self._job = job
        self._dataset = Dataset(job.root, job.tokens)
        self._encoder = Encoder(tokenizers, job.jpeg_quality, job.threads)

    def __call__(self, units: Sequence[Unit]) -> Iterator[Done]:
        """Tokenize shards and commit them, in their order; what is committed already is left as it is."""
        with ThreadPoolExecutor(1, "write") as writer:
            waiting: deque[Future[Done]] = deque()
            for unit in units:
                waiting.append(self._begin(unit, writer))
                if len(waiting) > _UNITS_AHEAD:
                    yield waiting.popleft().result()
            for done in waiting:
                yield done.result()

    def close(self) -> None:
        """End the threads."""
        self._encoder.close()

    def _begin(self, unit: Unit, writer: ThreadPoolExecutor) -> Future[Done]:
        try:
            commit = planned(unit, self._job.recipe)
            stored = self._dataset.committed(commit)
            if stored is None:
                return writer.submit(self._finish, self._read(unit, commit))
            done = Done(unit, stored, observed=self._dataset.observed(stored))
        except Exception as fault:  # noqa: BLE001 - a unit's fault is its own
            done = Done.failed(unit, fault)
        settled: Future[Done] = Future()
        settled.set_result(done)
        return settled

    def _read(self, unit: Unit, commit: Commit) -> _Reading:
        """Have a unit's examples encoded; returns once the last of them are on their way."""
        begun, cpu_begun = time.time(), time.process_time()
        url = storage.join(self._job.root, unit.files[0])
        table = _verified(url, unit.options["digest"])
        check_example_schema(table.schema, url)
        left_out = _left_out(unit, self._job.root)
        rows = [row for row in range(table.num_rows) if row not in left_out]
        ids = table.column("id").take(pa.array(rows, pa.int64())).to_pylist()
        earlier, same = self._earlier(unit, ids)
        drops = list(_drops(unit, table, left_out))
        reading = _Reading(unit, commit, begun, cpu_begun, table.num_rows, drops, [], same)
        for chunk in chunks(table, rows, ids, earlier):
            parts = ALL_PARTS if chunk.earlier is None else ALL_PARTS - same
            wait = self._encoder.submit(partial(examples, table, chunk.rows), chunk.media, parts)
            reading.chunks.append((chunk, wait))
        return reading

    def _earlier(self, unit: Unit, ids: Sequence[str]) -> tuple[pa.Table | None, frozenset[str]]:
        """The token shard of an earlier commit of the unit, and the parts of it that still hold."""
        if len(set(ids)) < len(ids):  # rows could not be told apart
            return None, frozenset()
        for parts in self._job.earlier:
            commit = self._dataset.committed(planned(unit, recipe_of(parts)))
            try:
                (shard,) = commit.shards if commit is not None else ()
                return _verified(self._dataset.shard_url(shard), shard.digest), shared(parts, self._job.parts)
            except (ValueError, FileNotFoundError, IntegrityError):
                continue  # not done then, nothing kept, or no longer there: another one, or all anew
        return None, frozenset()

    def _finish(self, reading: _Reading) -> Done:
        try:
            return self._publish(reading)
        except Exception as fault:  # noqa: BLE001 - a unit's fault is its own
            return Done.failed(reading.unit, fault)

    def _publish(self, reading: _Reading) -> Done:
        unit, drops = reading.unit, reading.drops
        tables: list[pa.Table] = []
        rejected: list[Rejected] = []
        for chunk, wait in reading.chunks:
            encoded = wait()
            tables.append(_whole(encoded, chunk.earlier))
            rejected += encoded.rejected
        kept = sum(table.num_rows for table in tables)
        reasons = Counter(item.bad.reason for item in rejected)
        commit = reading.commit.model_copy(
            update={
                "shards": (publish_shard(self._dataset, pa.concat_tables(tables)),) if kept else (),
                "quarantine": self._dataset.publish_rejected(
                    pa.Table.from_pylist(list(_quarantine(unit, rejected)), QUARANTINE_SCHEMA), "quarantine"
                ),
                "drops": self._dataset.publish_rejected(pa.Table.from_pylist(drops, DROPS_SCHEMA), "drops"),
                "counts": Counts(
                    records_in=reading.records,
                    kept=kept,
                    records_dropped=dict(sorted(Counter(drop["reason"] for drop in drops).items())),
                    quarantined=dict(sorted(reasons.items())),
                    examples_written=kept,
                ),
            }
        )
        observed = _observed(reading)
        self._dataset.commit(commit, observed)
        return Done(unit, commit, observed=observed)


def _whole(encoded: Encoded, earlier: pa.Table | None) -> pa.Table:
    """Token rows: encoded columns, and those of an earlier shard for the rest."""
    if earlier is None:
        return encoded.rows
    if len(encoded.kept) < earlier.num_rows:
        earlier = earlier.take(pa.array(encoded.kept, pa.int64()))
    made = set(encoded.rows.column_names)
    columns = [(encoded.rows if name in made else earlier).column(name) for name in TOKEN_SCHEMA.names]
    return pa.Table.from_arrays(columns, schema=TOKEN_SCHEMA)


def _observed(reading: _Reading) -> dict[str, Any]:
    """What is worth knowing about this one execution; kept beside the commit, outside its digest."""
    told: dict[str, Any] = {
        "begun": round(reading.begun, 3),
        "seconds": round(time.time() - reading.begun, 3),
        "cpu_begun": round(reading.cpu_begun, 3),
        "cpu_seconds": round(time.process_time() - reading.cpu_begun, 3),
        "host": socket.gethostname(),
        "process": os.getpid(),
        "peak_rss_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        "taken_over": sorted(reading.taken),
    }
    if torch.cuda.is_available():
        told["peak_gpu_bytes"] = torch.cuda.max_memory_allocated()
    return told


def _verified(url: str, digest: str) -> pa.Table:
    found = storage.digest_file(url)
    if found != digest:
        raise IntegrityError(f"{url}: content hashes to {found}")
    return arrow_files.read_table(url)


def _left_out(unit: Unit, root: str) -> dict[int, dict[str, Any]]:
    """Rows that are erased or that selections leave out, with what is said about them; the first word counts."""
    dataset = Dataset(root, unit.files[0].split("/")[0])
    tables = [stored_left_out(dataset, file) for file in erased_rows(dataset).files(unit.options["digest"])]
    for uri, ref in zip(unit.files[1:], unit.options.get("left_out", ()), strict=True):
        tables.append(_verified(storage.join(root, uri), ref["digest"]))
    rows: dict[int, dict[str, Any]] = {}
    for table in tables:
        for verdict in table.to_pylist():
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
