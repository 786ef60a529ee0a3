"""Near-duplicate texts by MinHash, from committed shards to a published selection, against datatrove.

Every contestant gets 20,000 documents of about 2.5 kB, a quarter of them copies of others with 0 to 30 % of their
words changed, and looks for Jaccard similarity 0.8 of runs of five words with 20 bands of 6 hashes. Ours runs in a Ray
session that is up, as on a cluster; datatrove runs its three stages up to the list of what to remove, with a process
per core, and splits words at white space, the cheapest it can be given. Neither writes the documents that are left.

Found groups are compared with brute force over exact sets: recall is the share of all pairs of similarity 0.8 and more
that are in one group, precision the share of removed documents that have such a pair in their group.
"""

from __future__ import annotations

import json
import os
import struct
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pyarrow as pa
from scipy.sparse import csr_array

from omnimill.bench.contest import run_alone
from omnimill.bench.metric import Metric
from omnimill.infra.dataset import Commit, Counts, Dataset
from omnimill.rng import generator
from omnimill.schema import Example, Provenance, Text, example_id, to_table

DOCUMENTS = 20_000
COPIES = DOCUMENTS // 4
SHARDS = 8
THRESHOLD, NGRAM, BANDS, ROWS = 0.8, 5, 20, 6
SEED = 11
_WARM = "warm"

# The group of every document; a document that is like no other is alone in its group.
Groups = dict[str, str]


def run() -> list[Metric]:
    """Time all contestants on the same documents, compare what they find with brute force, time exact hashing."""
    texts = list(documents())
    truth = similar_pairs(texts)
    with tempfile.TemporaryDirectory() as folder:
        _write(folder, texts)
        contests: dict[str, Callable[[], Callable[[], Groups]]] = {"omnimill": partial(_ours, folder)}
        if find_spec("datatrove") is None:
            sys.stderr.write("datatrove is not installed (the `bench` extra): no peer for near-duplicate texts\n")
        else:
            contests["datatrove"] = partial(_datatrove, folder)
        runs = {name: run_alone(prepare) for name, prepare in contests.items()}
        exact = run_alone(partial(_exact, folder)).value
    recalls = {name: recall(truth, done.value) for name, done in runs.items()}
    precisions = {name: precision(truth, done.value) for name, done in runs.items()}
    memory = {name: done.peak_bytes / 1e6 for name, done in runs.items()}
    speed = {name: DOCUMENTS / done.seconds for name, done in runs.items()}
    return [
        Metric.of("text_near_documents_per_second", "1/s", speed, best="largest"),
        Metric.of("text_near_peak_memory", "MB", memory, best="smallest"),
        Metric.of("text_near_recall", "share", recalls, best="largest"),
        Metric.of("text_near_precision", "share", precisions, best="largest"),
        Metric.of("text_exact_hashing_per_core", "GB/s", {"omnimill": exact}, best="largest"),
    ]


def documents() -> Iterator[str]:
    """Documents of about 2.5 kB, words by Zipf's frequencies; the last `COPIES` repeat the first ones."""
    letters = np.array(list("etaoinshrdlucmfwygpbvk"))
    draw = generator(SEED, "vocabulary")
    vocabulary = ["".join(letters[draw.integers(0, len(letters), size)]) for size in draw.integers(2, 10, 30_000)]
    weights = 1 / (np.arange(30_000) + 20)
    weights /= weights.sum()
    originals = []
    for i in range(DOCUMENTS - COPIES):
        words = [vocabulary[j] for j in generator(SEED, "document", i).choice(30_000, 390, p=weights)]
        originals.append(words)
        yield " ".join(words)
    for i in range(COPIES):
        draw = generator(SEED, "copy", i)
        words = list(originals[i])
        share = 0.3 * (i / COPIES) ** 3
        for place in np.flatnonzero(draw.random(len(words)) < share):
            words[place] = vocabulary[int(draw.integers(0, 30_000))]
        yield " ".join(words)


def similar_pairs(texts: Sequence[str]) -> set[tuple[int, int]]:
    """All pairs of documents whose sets of word runs have at least the similarity `THRESHOLD`: brute force."""
    places: dict[tuple[str, ...], int] = {}
    columns, ends = [], [0]
    for text in texts:
        words = text.split()
        runs = {tuple(words[i : i + NGRAM]) for i in range(len(words) - NGRAM + 1)}
        columns += [places.setdefault(run, len(places)) for run in runs]
        ends.append(len(columns))
    sets = csr_array((np.ones(len(columns), np.int32), columns, ends), shape=(len(texts), len(places)))
    shared = (sets @ sets.T).tocoo()
    sizes = np.diff(ends)
    left, right = shared.coords
    similarity = shared.data / (sizes[left] + sizes[right] - shared.data)
    near = (similarity >= THRESHOLD) & (left < right)
    return set(zip(left[near].tolist(), right[near].tolist(), strict=True))


def recall(truth: set[tuple[int, int]], groups: Groups) -> float:
    """The share of similar pairs that are in one group."""
    return sum(groups[str(a)] == groups[str(b)] for a, b in truth) / len(truth)


def precision(truth: set[tuple[int, int]], groups: Groups) -> float:
    """The share of documents with company, but for one of each group, that have a similar document in their group."""
    linked = {str(end) for a, b in truth if groups[str(a)] == groups[str(b)] for end in (a, b)}
    members = defaultdict(list)
    for key, group in groups.items():
        members[group].append(key)
    found = [(len(keys) - 1, sum(key in linked for key in keys)) for keys in members.values() if len(keys) > 1]
    removed = sum(count for count, _ in found)
    return sum(min(count, max(true - 1, 0)) for count, true in found) / removed if removed else 1.0


def _write(folder: str, texts: Sequence[str]) -> None:
    """The documents as a dataset (with a small one to warm up on) and as JSON lines, a file per shard."""
    for name, size in (("texts", len(texts)), (_WARM, 64 * SHARDS)):
        dataset = Dataset(folder, name)
        commits = []
        for part in range(SHARDS):
            rows = [_example(i, texts[i]) for i in range(part, size, SHARDS)]
            counts = Counts(records_in=len(rows), kept=len(rows), examples_written=len(rows))
            shards = (dataset.publish_shard(to_table(rows)),)
            commit = Commit(
                unit=f"texts-{part}", source="texts", recipe="bench", inputs=(), shards=shards, counts=counts
            )
            commits.append(commit)
            lines = [json.dumps({"id": row.key, "text": row.text[0].text}) for row in rows]
            path = Path(folder) / f"{name}-jsonl" / f"{part}.jsonl"
            path.parent.mkdir(exist_ok=True)
            path.write_text("\n".join(lines))
        dataset.publish_manifest("examples", commits)


def _example(i: int, text: str) -> Example:
    where = Provenance(uri="texts.jsonl", digest="0" * 64, offset=i)
    key = str(i)
    body = [Text(role="body", text=text)]
    return Example(
        id=example_id("texts", key, where.digest), source="texts", unit="texts", key=key, provenance=where, text=body
    )


def _ours(folder: str) -> Callable[[], Groups]:
    from omnimill.infra.ray_session import start_ray  # noqa: PLC0415 - in the contestant's process
    from omnimill.infra.selections import left_out  # noqa: PLC0415
    from omnimill.pipelines.dedup.config import Dedup  # noqa: PLC0415
    from omnimill.pipelines.dedup.run import dedup  # noqa: PLC0415

    step = {"step": "text_near", "threshold": THRESHOLD, "ngram": NGRAM, "bands": BANDS, "rows": ROWS}
    configs = {
        name: Dedup.model_validate({"dataset": name, "selection": "near", "steps": [step]}) for name in ("texts", _WARM)
    }
    start_ray(num_cpus=os.cpu_count())
    dedup(configs[_WARM], folder)

    def work() -> Groups:
        result = dedup(configs["texts"], folder)
        keys = {example_id("texts", str(i), "0" * 64): str(i) for i in range(DOCUMENTS)}
        groups = {key: key for key in keys.values()}
        for part in result.selection.shards:
            for row in left_out(result.dataset, part.file).select(["id", "twin"]).to_pylist():
                groups[keys[row["id"]]] = keys[row["twin"]]
        return groups

    return work


def _datatrove(folder: str) -> Callable[[], Groups]:
    os.environ["HF_HUB_OFFLINE"] = "1"
    from datatrove.executor import LocalPipelineExecutor  # noqa: PLC0415 - in the contestant's process
    from datatrove.pipeline.dedup import minhash  # noqa: PLC0415
    from datatrove.utils.word_tokenizers import WhitespaceTokenizer  # noqa: PLC0415
    from loguru import logger  # noqa: PLC0415

    logger.remove()
    config = minhash.MinhashConfig(n_grams=NGRAM, num_buckets=BANDS, hashes_per_bucket=ROWS)
    cores = os.cpu_count() or 1
    out = Path(folder) / "datatrove"

    def stage(name: str, tasks: int, *blocks: object) -> None:
        LocalPipelineExecutor(
            pipeline=list(blocks),
            tasks=tasks,
            workers=cores,
            logging_dir=str(out / "logs" / name),
            start_method="fork",
        ).run()

    class WhiteSpace(WhitespaceTokenizer):  # type: ignore[misc, unused-ignore]
        def word_tokenize(self, text: str) -> list[str]:
            return text.split()

    def work() -> Groups:
        signatures = minhash.MinhashDedupSignature(str(out / "signatures"), config=config, language=WhiteSpace())
        # Its own hash of strings fails with xxhash 4, which takes bytes only.
        signatures._hash_func = _xxh64
        stage("signatures", SHARDS, partial(_read, folder=folder), signatures)
        buckets = minhash.MinhashDedupBuckets(str(out / "signatures"), str(out / "buckets"), config=config)
        stage("buckets", BANDS, buckets)
        clusters = minhash.MinhashDedupCluster(
            str(out / "buckets"), str(out / "removed"), config=config, save_cluster_id=True
        )
        stage("clusters", 1, clusters)
        return _datatrove_groups(out / "removed")

    return work


def _xxh64(text: str) -> int:
    import xxhash  # noqa: PLC0415 - comes with datatrove

    return int(xxhash.xxh64_intdigest(text.encode()))


def _read(_: object, rank: int, __: int, folder: str) -> Iterator[object]:
    """The documents of one shard, for datatrove."""
    from datatrove.data import Document  # noqa: PLC0415

    for line in (Path(folder) / "texts-jsonl" / f"{rank}.jsonl").read_text().splitlines():
        yield Document(**json.loads(line))


def _datatrove_groups(folder: Path) -> Groups:
    """Groups from the files of cluster numbers: records of the document's place in its shard and its cluster."""
    groups = {str(i): str(i) for i in range(DOCUMENTS)}
    for path in sorted(folder.glob("*.clusters")):
        for place, cluster in struct.iter_unpack("<II", path.read_bytes()):
            groups[str(int(path.stem) + place * SHARDS)] = f"cluster {cluster}"
    return groups


def _exact(folder: str) -> Callable[[], float]:
    from omnimill.pipelines.dedup.steps.exact import Exact  # noqa: PLC0415 - in the contestant's process

    dataset = Dataset(folder, "texts")
    shards = [shard for commit in dataset.manifest()[1].commits for shard in commit.shards]
    table = pa.concat_tables(dataset.read(shard).select(["text"]) for shard in shards).combine_chunks()
    size = sum(len(segment["text"].encode()) for row in table.column("text").to_pylist() for segment in row)
    featurize = Exact(step="exact", of="text", fold=False).featurizer()

    def work() -> float:
        """Bytes hashed per second of processor time, in GB: the median of seven passes."""
        seconds = []
        for _ in range(7):
            started = time.process_time()
            featurize(table)
            seconds.append(time.process_time() - started)
        return size / float(np.median(seconds)) / 1e9

    return work
