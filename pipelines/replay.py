"""Doing units again that hold quarantined records: a decoder was mended, a limit raised, a site is back."""

from __future__ import annotations

from omnimill.errors import ConfigError
from omnimill.infra.dataset import Commit, Dataset
from omnimill.pipelines.dag import Dag
from omnimill.pipelines.run import ingest
from omnimill.pipelines.summary import IngestResult


def replay(
    dag: Dag, root: str, reason: str | None = None, source: str | None = None, num_cpus: int | None = None
) -> IngestResult | None:
    """Do the units again that hold quarantined records, beside their commits, and publish what comes of it.

    The rest is as in `ingest`. A replay that was stopped goes on when it is given again: attempts are counted from
    the published version.

    Args:
        reason, source: only units with records of this reason code, of this source.

    Returns:
        None when no record fits.

    Raises:
        ConfigError: the DAG has no such source.
        OmnimillError: as `ingest`; there is no published version.
    """
    if source is not None and source not in (names := [pipeline.name for pipeline in dag.sources]):
        raise ConfigError(f"the DAG has no source {source!r}; it has {', '.join(names)}")
    _, version = Dataset(root, dag.dataset).manifest()
    again = {commit.unit: commit.attempt + 1 for commit in version.commits if _fits(commit, reason, source)}
    return ingest(dag, root, num_cpus, again=again) if again else None


def _fits(commit: Commit, reason: str | None, source: str | None) -> bool:
    reasons = commit.counts.quarantined
    return source in (None, commit.source) and (reason in reasons if reason else bool(reasons))
