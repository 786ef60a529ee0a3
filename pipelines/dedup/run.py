"""``dedup``: step after step over the current version of a dataset, then one selection; nothing is done twice."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from omnimill.config import canonical_json, digest_json
from omnimill.errors import ConfigError, OmnimillError
from omnimill.infra import storage
from omnimill.infra.dataset import Dataset, Manifest
from omnimill.infra.lineage import command_run
from omnimill.infra.selections import LeftOut, Selection, left_out, publish_left_out, publish_selection, selection_url
from omnimill.infra.settling import settled
from omnimill.pipelines.dedup.config import Dedup
from omnimill.pipelines.dedup.view import Shard, View
from omnimill.progress import console

# Raised when the same features and settings give another selection.
DECISION_VERSION = 1


@dataclass(frozen=True)
class DedupResult:
    """A published selection of a version. steps: the name of each step and how many rows it left out."""

    dataset: Dataset
    manifest_digest: str
    manifest: Manifest
    digest: str
    selection: Selection
    steps: tuple[tuple[str, int], ...]
    seconds: float

    def as_json(self) -> dict[str, Any]:
        """The shape that ``--json`` prints."""
        return {
            "manifest": self.manifest_digest,
            "dataset": self.manifest.dataset,
            "selection": self.digest,
            "name": self.selection.name,
            "units": len(self.manifest.commits),
            "records": self.manifest.counts.as_json()["records"],
            "examples": {"written": self.selection.kept, "dropped": self.selection.dropped},
            "steps": [{"step": name, "dropped": dropped} for name, dropped in self.steps],
            "seconds": round(self.seconds, 3),
        }


def dedup(config: Dedup, root: str, num_cpus: int | None = None) -> DedupResult:
    """Judge the current version of a dataset and publish what its steps leave out as a selection.

    Args:
        root: fsspec URL or path that holds datasets, runs and the tracking store.
        num_cpus: cores of a local Ray; all when None. Ignored on a cluster and inside a session.

    Raises:
        ConfigError: a step names a source that the dataset does not have.
        OmnimillError: there is no such dataset, or it does not hold examples.
    """
    started = time.monotonic()
    dataset = Dataset(root, config.dataset)
    with command_run(root, "dedup", config.model_dump(mode="json"), name=f"dedup {config.selection}") as run:
        manifest_digest, manifest = dataset.manifest()
        if manifest.kind != "examples":
            raise OmnimillError(f"dataset {dataset.name!r} under {root} holds {manifest.kind}, not examples")
        run.input(dataset.name, manifest_digest, dataset.url)
        config = config.model_copy(update={"steps": tuple(step.resolve(root) for step in config.steps)})
        left, steps = _Run(config, dataset, manifest_digest, manifest).left_out(num_cpus)
        selection = Selection(
            name=config.selection,
            dataset=dataset.name,
            manifest=manifest_digest,
            config=config.decides(),
            kept=manifest.rows - _rows(left),
            shards=left,
        )
        digest = publish_selection(dataset, selection)
        run.output(f"{dataset.name}-{selection.name}", digest, selection_url(dataset, digest))
        result = DedupResult(
            dataset, manifest_digest, manifest, digest, selection, tuple(steps), time.monotonic() - started
        )
        dropped = {f"dropped.{reason}": n for reason, n in selection.dropped.items()}
        run.metrics({"rows": manifest.rows, "kept": selection.kept, **dropped, "seconds": result.seconds})
        run.json(result.as_json(), "accounts.json")
        return result


class _Run:
    """The steps of a configuration over one version; what each has left out is stored, under all that decided it."""

    def __init__(self, config: Dedup, dataset: Dataset, digest: str, manifest: Manifest) -> None:
        self._config, self._dataset = config, dataset
        refs = [(commit.source, ref) for commit in manifest.commits for ref in commit.shards]
        self._shards = [Shard(index=i, source=source, file=ref) for i, (source, ref) in enumerate(refs)]
        self._check_sources({commit.source for commit in manifest.commits})
        self._erased = _erased(dataset, digest, manifest)
        decides = config.decides()
        self._urls: list[str] = []
        state = digest_json([DECISION_VERSION, digest, decides["prefer"]])
        if self._erased:
            state = digest_json([state, [part.model_dump(mode="json") for part in self._erased]])
        for step in decides["steps"]:
            state = digest_json([state, step])
            self._urls.append(storage.join(dataset.url, "selected", "steps", f"{state}.json"))

    def left_out(self, num_cpus: int | None) -> tuple[tuple[LeftOut, ...], list[tuple[str, int]]]:
        """What all steps leave out, in the order of the shards, and how many rows each step does."""
        done = [self._stored(url) for url in self._urls]
        if None in done:
            # Importing and starting Ray takes seconds: not for a run that has nothing to do.
            from omnimill.infra.ray_session import ray_session  # noqa: PLC0415

            with ray_session(num_cpus):
                for i, found in enumerate(done):
                    done[i] = self._do(i, done[i - 1] or () if i else self._erased) if found is None else found
        left = [found or () for found in done]
        rows = [_rows(self._erased), *map(_rows, left)]
        names = [step.step for step in self._config.steps]
        return left[-1], [(name, now - then) for name, then, now in zip(names, rows, rows[1:], strict=False)]

    def _do(self, i: int, before: Sequence[LeftOut]) -> tuple[LeftOut, ...]:
        from omnimill.pipelines.dedup.graph import run_step  # noqa: PLC0415

        started = time.monotonic()
        step, earlier = self._config.steps[i], self._config.steps[:i]
        known = {left.shard: left for left in before}
        shards = [shard.model_copy(update={"left": known.get(shard.file.digest)}) for shard in self._shards]
        view = View(self._dataset.root, self._dataset.name, self._config.prefer, step, earlier)
        judged = [shard for shard in shards if step.sources is None or shard.source in step.sources]
        lost = run_step(view, judged, self._config.partition_bytes)
        merged = [lost.get(shard.index, shard.left) for shard in shards]
        result = tuple(left for left in merged if left is not None)
        body = [left.model_dump(mode="json") for left in result]
        storage.publish_bytes(self._urls[i], canonical_json(body))
        console.print(
            f"{self._dataset.name}: {step.step} left out {_rows(result) - _rows(before)} rows "
            f"in {time.monotonic() - started:.1f} s"
        )
        return result

    def _stored(self, url: str) -> tuple[LeftOut, ...] | None:
        try:
            return tuple(LeftOut.model_validate(item) for item in json.loads(storage.read_bytes(url)))
        except FileNotFoundError:
            return None

    def _check_sources(self, known: set[str]) -> None:
        for step in self._config.steps:
            unknown = sorted(set(step.sources or ()) - known)
            if unknown:
                raise ConfigError(
                    f"step {step.step!r} names sources that {self._dataset.name!r} does not have: "
                    f"{', '.join(unknown)}; it has {', '.join(sorted(known))}"
                )


def _erased(dataset: Dataset, digest: str, manifest: Manifest) -> tuple[LeftOut, ...]:
    """What is erased of a version by now, a file for each shard, in the order of the shards."""
    erased = settled(dataset, digest, manifest)
    found = []
    for shard in (ref.digest for commit in manifest.commits for ref in commit.shards):
        rows = {row["row"]: row for file in erased.files(shard) for row in left_out(dataset, file).to_pylist()}
        if rows:
            found.append(publish_left_out(dataset, shard, list(rows.values())))
    return tuple(found)


def _rows(left: Sequence[LeftOut]) -> int:
    return sum(part.file.rows for part in left)
