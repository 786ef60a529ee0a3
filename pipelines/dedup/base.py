"""What a global step is: a typed configuration, named in YAML, that measures shards and decides about their rows.

A step works in two halves. **Features** are measured shard by shard on workers and kept beside the dataset, by shard
and recipe, so that nothing is read twice. **Decisions** look at features only, and only at rows that the steps before
have kept. Which kind of decision a step makes is its base class:

==============  ===========================================================================================
`ScoreStep`     none; its features are scores, which `threshold` and `prefer` know by name
`RowStep`       about each row by itself
`GroupStep`     among all rows that share a key
`NearStep`      between rows that share a key, by pairs; pairs are put together to connected components
==============  ===========================================================================================
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar, Self

import pyarrow as pa
from pydantic import Field

from omnimill.config import Config, digest_json
from omnimill.errors import ConfigError
from omnimill.schema import SCHEMA_VERSION

# Takes the columns `Step.reads()` of a shard's rows and gives one row of features for each, in the same order.
Featurizer = Callable[[pa.Table], pa.Table]

# Where a row lies and who it is. shard: index in the order of the manifest. prefer: smaller is kept rather than larger.
# id_hi, id_lo: the two halves of the example's id.
NODE = pa.schema(
    [
        pa.field("shard", pa.uint32(), nullable=False),
        pa.field("row", pa.uint32(), nullable=False),
        pa.field("prefer", pa.uint64(), nullable=False),
        pa.field("id_hi", pa.uint64(), nullable=False),
        pa.field("id_lo", pa.uint64(), nullable=False),
    ]
)

# What a step says about a row that it leaves out. twin_hi, twin_lo: id of the row that is kept in its place.
# score: what was held against a threshold. votes: how many verdicts a row needs to be left out; the first one counts.
VERDICTS = pa.schema(
    [
        *(NODE.field(name) for name in ("shard", "row", "id_hi", "id_lo")),
        pa.field("reason", pa.string(), nullable=False),
        ("twin_hi", pa.uint64()),
        ("twin_lo", pa.uint64()),
        ("score", pa.float64()),
        pa.field("votes", pa.uint32(), nullable=False),
    ]
)

# A pair of rows that a `NearStep` takes for the same: the columns of `NODE` twice, as ``a_…`` and ``b_…``.
EDGES = pa.schema(
    [
        *(pa.field(f"{end}_{field.name}", field.type, nullable=False) for end in "ab" for field in NODE),
        pa.field("score", pa.float64(), nullable=False),
    ]
)


@dataclass(frozen=True)
class Workers:
    """The actors that measure features, for steps that are costly to set up. count: most at once."""

    count: int
    num_cpus: float = 1.0
    num_gpus: float = 0.0


class Step(Config):
    """Base of steps; a subclass narrows `step` to ``Literal["its_name"]`` and adds its settings.

    version: raised when features come out differently for the same settings, so that shards are measured again.
    decides: settings that features do not depend on: a change of them reads no shard again.
    reasons: that its verdicts give.

    sources: look at these sources only, rows of others are neither left out nor anyone's twin; all when None.
    """

    version: ClassVar[int] = 1
    decides: ClassVar[tuple[str, ...]] = ()
    reasons: ClassVar[tuple[str, ...]] = ()

    step: str
    sources: tuple[str, ...] | None = Field(None, min_length=1)

    def resolve(self, root: str) -> Self:  # noqa: ARG002 - for those that need it
        """The step with the content of what it refers to (files, other datasets under `root`) named by digest.

        Raises:
            OmnimillError: what it refers to is not there.
        """
        return self

    def feature_recipe(self) -> str:
        """64 hex digits that change whenever features of the same shard could come out differently."""
        settings = self.model_dump(mode="json", exclude={"sources", *self.decides})
        return digest_json([SCHEMA_VERSION, self.version, settings])

    def reads(self) -> tuple[str, ...]:
        """Example columns that features are measured from; a step without needs no more than facts (`facts.FACTS`)."""
        return ()

    def featurizer(self) -> Featurizer:
        """Set up on a worker what measures features; called once per actor, or per shard without `workers`."""
        raise NotImplementedError

    def workers(self) -> Workers | None:
        """The actors to measure on; tasks of one core when None."""
        return None


class ScoreStep(Step):
    """Measures and leaves nothing out; every column of its features is a score (float64, null where there is none)."""

    def scores(self) -> tuple[str, ...]:
        """The names of its scores: its features' columns."""
        raise NotImplementedError


class RowStep(Step):
    """Decides about each row by itself."""

    def judge(self, rows: pa.Table) -> pa.Table:
        """The verdicts (`VERDICTS`) on some rows of one shard.

        Args:
            rows: `NODE`, facts and features of the rows that are left.
        """
        raise NotImplementedError

    def wanted_scores(self) -> tuple[str, ...]:
        """Scores that `rows` is to hold as columns ``score:<name>`` (float64, null where a row has none)."""
        return ()


class KeyedStep(Step):
    """Base of the steps that bring rows with the same key together."""

    @property
    def keys(self) -> int:
        """How many keys a row has: the most, or the average where that is not bounded."""
        return 1

    @property
    def row_bytes(self) -> int:
        """The size in memory of one row of `keyed`."""
        raise NotImplementedError

    def keyed(self, rows: pa.Table) -> pa.Table:
        """`NODE`, a column ``key`` (uint64) and what else the decision needs, a row for every key of each row.

        Args:
            rows: as in `RowStep.judge`.
        """
        raise NotImplementedError


class GroupStep(KeyedStep):
    """Decides among all rows that share a key."""

    def decide(self, keyed: pa.Table) -> pa.Table:
        """The verdicts (`VERDICTS`) on all rows of some keys; whatever the order of the rows, the same verdicts."""
        raise NotImplementedError


class NearStep(KeyedStep):
    """Links pairs of rows that share a key; of each connected component of links one row is kept.

    Its verdicts give one reason only.
    """

    def link(self, keyed: pa.Table) -> pa.Table:
        """Pairs (`EDGES`) among rows of the same key that are near; whatever the order of the rows, the same pairs."""
        raise NotImplementedError


def score_step(name: str, steps: Sequence[Step]) -> ScoreStep | None:
    """The step that measures a score; None when it is a score of the examples themselves.

    Raises:
        ConfigError: more than one step measures it.
    """
    found = [step for step in steps if isinstance(step, ScoreStep) and name in step.scores()]
    if len(found) > 1:
        raise ConfigError(f"score {name!r} is measured by {len(found)} steps: give them different names")
    return found[0] if found else None
