"""Answers as rows of Arrow shards, and back."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pyarrow as pa
from pydantic import TypeAdapter

from omnimill.training.evaluation.scoring import Answer
from omnimill.training.metrics.evaluate import Case
from omnimill.training.metrics.reading import Shown

ANSWER_SCHEMA = pa.schema(
    [
        pa.field("key", pa.string(), nullable=False),
        pa.field("task", pa.string(), nullable=False),
        ("family", pa.string()),
        pa.field("target", pa.string(), nullable=False),  # such as text:caption
        pa.field("seen", pa.bool_(), nullable=False),
        pa.field("generated", pa.bool_(), nullable=False),
        # Text ids without EOS, or codes from 0.
        pa.field("output", pa.list_(pa.int32()), nullable=False),
        pa.field("wanted", pa.list_(pa.int32()), nullable=False),
        pa.field("texts", pa.list_(pa.string()), nullable=False),
        # Of the right target: sum over its tokens in nats, sum of their weights.
        pa.field("loss", pa.float64(), nullable=False),
        pa.field("weight", pa.float64(), nullable=False),
        pa.field("shown", pa.string(), nullable=False),  # `metrics.reading.Shown` as JSON
    ]
)
_SHOWN = TypeAdapter(Shown)


def to_table(answers: Sequence[Answer]) -> pa.Table:
    """Answers as rows of `ANSWER_SCHEMA`."""
    return pa.Table.from_pylist(
        [
            {
                "key": one.key,
                "task": one.task,
                "family": one.family,
                "target": one.target,
                "seen": one.seen,
                "generated": one.generated,
                "output": list(one.case.output),
                "wanted": list(one.case.wanted),
                "texts": list(one.case.texts),
                "loss": one.loss[0],
                "weight": one.loss[1],
                "shown": _SHOWN.dump_json(one.case.shown).decode(),
            }
            for one in answers
        ],
        ANSWER_SCHEMA,
    )


def from_table(table: pa.Table) -> Iterator[Answer]:
    """Inverse of :func:`to_table`."""
    for row in table.to_pylist():
        case = Case(
            output=row["output"],
            wanted=row["wanted"],
            shown=_SHOWN.validate_json(row["shown"]),
            texts=tuple(row["texts"]),
            loss=(row["loss"], row["weight"]),
        )
        yield Answer(row["task"], row["family"], row["target"], row["key"], row["seen"], case, row["generated"])
