"""``tokenize``: bring a token dataset up to date with an example dataset, on a pool of actors.

What is committed is not done again, and where a tokenizer has changed only its columns are.
"""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import closing, redirect_stdout
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from omnimill.errors import OmnimillError
from omnimill.infra.dataset import Dataset, Manifest, Unit, published_json
from omnimill.infra.done import Done
from omnimill.infra.index import refresh
from omnimill.infra.lineage import CommandRun, about, command_run, licence_tags, licences
from omnimill.infra.observing import Observer
from omnimill.infra.rejections import record_rejections
from omnimill.infra.watchdog import watchdog
from omnimill.progress import console, progress
from omnimill.tokenizers.columns import MADE_OF, earlier_recipes, publish_recipe
from omnimill.tokenizers.config import ActorSettings, TokenizerConfig
from omnimill.tokenizers.corpus import Corpus
from omnimill.tokenizers.shards import ShardJob, ShardTokenizer, planned, units_of
from omnimill.tokenizers.store import SET, stored_set

_FAULTS_SHOWN = 5


@dataclass(frozen=True)
class TokenizeResult:
    """A published token dataset.

    committed: units that this run did, the others were there before. taken_over: of how many of them the columns of a
    part came from an earlier shard, by part (`omnimill.tokens.PARTS`).
    """

    dataset: Dataset
    digest: str
    manifest: Manifest
    committed: int
    seconds: float
    taken_over: dict[str, int] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        """The shape that ``--json`` prints."""
        published = published_json(self.digest, self.manifest, self.committed, self.seconds)
        return {**published, "taken_over": self.taken_over}


def tokenize(config: TokenizerConfig, root: str, num_cpus: int | None = None) -> TokenizeResult:
    """Tokenize what is new in an example dataset and publish the token dataset's manifest.

    Args:
        config: names the tokenizer set, the examples and the token dataset.
        root: fsspec URL or path that holds datasets, tokenizers and the tracking store.
        num_cpus: cores of a local Ray; all when None. Ignored on a cluster and inside a session.

    Raises:
        OmnimillError: there are no examples or no tokenizers, units failed, or more examples are quarantined than
            allowed. What was committed stays, and the same command goes on from there.
    """
    started = time.monotonic()
    with command_run(root, "tokenize", config.model_dump(mode="json"), f"tokenize {config.tokens}") as run:
        examples, dataset = Corpus(root, config.dataset, config.selections), Dataset(root, config.tokens)
        job = _job(config, root, dataset)
        layout = job.layout
        examples.record(run)
        run.input(f"tokenizers-{config.name}", layout.digests[SET], f"{root}/tokenizers/{config.name}")
        units = units_of(examples)
        if not units:
            raise OmnimillError(f"dataset {config.dataset!r} under {root} has no examples to tokenize")
        stored = {(commit.unit, commit.state): commit for commit, _ in dataset.commits()}
        found = [stored.get((unit.id, planned(unit, job.recipe).state)) for unit in units]
        taken = [commit for commit in found if commit is not None]
        todo = [unit for unit, commit in zip(units, found, strict=True) if commit is None]
        told = "" if todo else ", nothing to do"
        console.print(f"{config.tokens}: {len(taken)} of {len(units)} units already committed{told}")
        done, faults = _run(todo, job, config.actors, num_cpus, Observer(run.id, "tokenize")) if todo else ([], [])
        commits = [one.commit for one in done if one.commit is not None]
        taken_over = Counter(part for one in done for part in one.observed.get("taken_over", ()))
        manifest = Manifest(dataset=config.tokens, kind="tokens", commits=(*taken, *commits))
        faults += _over_budget(manifest, config)
        digest, manifest = dataset.publish_manifest(
            "tokens",
            manifest.commits,
            parents={config.dataset: examples.digest},
            attributes={"layout": layout.model_dump(mode="json"), "selections": examples.selections},
            current=not faults,
        )
        refresh(dataset, digest, manifest)
        if faults:
            raise OmnimillError("\n".join(faults) + "\nCommitted units are kept; the same command goes on from there.")
        seconds = time.monotonic() - started
        result = TokenizeResult(dataset, digest, manifest, len(done), seconds, dict(sorted(taken_over.items())))
        _record(run, result, examples)
        return result


def _job(config: TokenizerConfig, root: str, dataset: Dataset) -> ShardJob:
    job = ShardJob.of(
        root,
        config.tokens,
        config.name,
        stored_set(root, config.name),
        jpeg_quality=config.jpeg_quality,
        batch=config.actors.batch,
        bf16=config.actors.bf16,
        compiled=config.actors.compile,
    )
    publish_recipe(dataset, job.parts)
    threads = max(1, round(config.actors.num_cpus))
    return job.model_copy(update={"threads": threads, "earlier": earlier_recipes(dataset, job.parts)})


def _run(
    todo: Sequence[Unit], job: ShardJob, actors: ActorSettings, num_cpus: int | None, observer: Observer
) -> tuple[list[Done], list[str]]:
    """The units that were done, and what went wrong with the others."""
    # Importing and starting Ray takes seconds: not for a run that has nothing to do.
    import ray  # noqa: PLC0415

    from omnimill.infra.ray_session import ray_session  # noqa: PLC0415
    from omnimill.infra.units import WORKER_TRIES, Pool, run_on_actors  # noqa: PLC0415

    waiting = {unit.id: unit.files[0] for unit in todo}
    unit_bytes = sum(unit.options["bytes"] for unit in todo) / len(todo)
    done: list[Done] = []
    faults: list[str] = []
    rows = bad = 0
    label = f"tokenize {job.tokens}"
    # Ray tells of lost workers on stdout, which is the answer's.
    with redirect_stdout(sys.stderr), ray_session(num_cpus):
        present = ray.cluster_resources().get("GPU", 0.0)  # type: ignore[no-untyped-call]
        gpus = actors.num_gpus if present >= actors.num_gpus else 0.0
        if gpus < actors.num_gpus:
            console.print(f"{label}: the cluster has too few GPUs ({present:g}), actors run on CPUs")
        make = partial(ShardTokenizer, job.model_copy(update={"device": "cuda" if gpus else "cpu"}))
        pool = Pool(actors.min_count, actors.count, actors.num_cpus, gpus)
        with (
            closing(run_on_actors(todo, make, pool, unit_bytes)) as units,
            progress(label, len(todo)) as advance,
            watchdog(label, lambda: list(waiting.values())) as moved,
        ):
            for item in units:
                moved()
                where = waiting.pop(item.unit.id)
                observer.unit(item, len(waiting))
                if item.commit is not None:
                    done.append(item)
                    rows += item.commit.counts.examples_written
                    bad += sum(item.commit.counts.quarantined.values())
                elif item.crashed:
                    faults.append(f"unit {item.unit.id} ({where}): its worker died on each of {WORKER_TRIES} tries")
                else:
                    faults.append(f"unit {item.unit.id} ({where}) failed: {item.error}")
                advance(1, rows=rows, quarantined=bad)
    more = len(faults) - _FAULTS_SHOWN
    return done, faults[:_FAULTS_SHOWN] + ([f"{more} more units failed"] if more > 0 else [])


def _over_budget(manifest: Manifest, config: TokenizerConfig) -> list[str]:
    counts, allowed = manifest.counts, config.max_quarantined_share
    bad = sum(counts.quarantined.values())
    if bad <= allowed * counts.records_in:
        return []
    reasons = ", ".join(f"{reason} {n}" for reason, n in sorted(counts.quarantined.items(), key=lambda item: -item[1]))
    return [
        f"{config.tokens}: {bad} of {counts.records_in} examples are quarantined ({bad / counts.records_in:.1%}), "
        f"max_quarantined_share is {allowed:.1%}: {reasons}"
    ]


def _record(run: CommandRun, result: TokenizeResult, examples: Corpus) -> None:
    known = licences(run, examples.digest)
    made_of = {column: [(examples.dataset.url, of) for of in parts] for column, parts in MADE_OF.items()}
    run.output(result.dataset.name, result.digest, result.dataset.url, about(result.manifest, known, made_of))
    run.tags(licence_tags(known))
    record_rejections(run, result.dataset, result.manifest.commits)
    counts = result.manifest.counts
    run.metrics(
        {
            "units": len(result.manifest.commits),
            "units_committed": result.committed,
            **{f"units_taken_over_{part}": count for part, count in result.taken_over.items()},
            "records_in": counts.records_in,
            "records_quarantined": sum(counts.quarantined.values()),
            "examples_written": counts.examples_written,
            "shard_bytes": sum(shard.bytes for commit in result.manifest.commits for shard in commit.shards),
            "seconds": result.seconds,
        }
    )
    run.json(result.as_json(), "accounts.json")
