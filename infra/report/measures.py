"""How large, how long and how many: distributions over the rows of a version that are looked at, by source."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from omnimill.infra.report import charts
from omnimill.infra.report.charts import Chart
from omnimill.infra.report.sampled import Piece
from omnimill.rng import Int64s
from omnimill.tokens import LENGTH_COLUMNS

Values = npt.NDArray[np.float64]

# Scores that are shown: those that most examples have come first.
_SCORES = 12
# Lengths that a token row has a list of, one number for each of its texts, pictures, clips or targets.
_LENGTHS = tuple(name for name in LENGTH_COLUMNS if name.endswith(("lengths", "patches")))


class Measures:
    """Collects what is measured while pieces of a version of examples go by."""

    def __init__(self) -> None:
        self._values: dict[tuple[str, str], dict[str, list[Values]]] = {}
        self._has: dict[str, Counter[str]] = {}

    def look(self, piece: Piece) -> None:
        """Take in a piece."""
        has = self._has.setdefault(piece.source, Counter())
        has["examples"] += piece.rows.num_rows
        has.update(_modalities(piece.rows))
        for quantity, values in (*_quantities(piece.rows), *_scores(piece.rows)):
            found = values[np.isfinite(values)]
            if len(found):
                self._values.setdefault(quantity, {}).setdefault(piece.source, []).append(found)

    def charts(self) -> list[Chart]:
        """One chart for every quantity that anything has."""
        counts = {
            quantity: sum(len(part) for parts in found.values() for part in parts)
            for quantity, found in self._values.items()
        }
        scores = sorted((quantity for quantity in counts if quantity[1] == _SCORE), key=lambda one: (-counts[one], one))
        shown = [*(quantity for quantity in counts if quantity[1] != _SCORE), *scores[:_SCORES]]
        return [
            charts.boxes(
                title,
                {
                    source: charts.quantiles(np.concatenate(parts))
                    for source, parts in sorted(self._values[title, unit].items())
                },
                unit,
            )
            for title, unit in shown
        ]

    def modalities(self) -> dict[str, dict[str, float]]:
        """Share of each source's examples that have text, pictures, sound, …"""
        return {
            source: {name: has[name] / has["examples"] for name in _MODALITIES if has[name]}
            for source, has in sorted(self._has.items())
            if has["examples"]
        }


class TokenMeasures:
    """The same for a version of tokens: lengths of the streams."""

    def __init__(self) -> None:
        self._sums: dict[str, dict[str, float]] = {}
        self._whole: dict[str, list[Values]] = {}

    def look(self, piece: Piece) -> None:
        """Take in a piece."""
        sums = self._sums.setdefault(piece.source, dict.fromkeys(_LENGTHS, 0.0))
        whole = np.zeros(piece.rows.num_rows)
        for name in _LENGTHS:
            each = _sums(piece.rows.column(name))
            sums[name] += float(each.sum())
            whole += each
        self._whole.setdefault(piece.source, []).append(whole)

    def charts(self) -> list[Chart]:
        """Mean length of every stream, and how long examples are."""
        whole = {source: np.concatenate(parts) for source, parts in sorted(self._whole.items()) if parts}
        rows = {source: len(values) for source, values in whole.items() if len(values)}
        if not rows:
            return []
        means = {
            source: {
                name.removesuffix("_lengths").replace("_", " "): self._sums[source][name] / count for name in _LENGTHS
            }
            for source, count in rows.items()
        }
        return [
            charts.stacked_bars("Mean tokens an example has, by stream", means, "tokens and patches"),
            charts.boxes(
                "Tokens an example has",
                {source: charts.quantiles(whole[source]) for source in rows},
                "tokens and patches",
            ),
        ]


_SCORE = "score"
_MODALITIES = ("text", "pictures", "sound", "film", "steps", "views", "annotations", "targets")
_LISTS = {
    "text": "text",
    "images": "pictures",
    "audio": "sound",
    "views": "views",
    "annotations": "annotations",
    "targets": "targets",
}


def _modalities(rows: pa.RecordBatch) -> dict[str, int]:
    """How many rows have what."""
    found = {name: pc.greater(pc.list_value_length(rows.column(column)), 0) for column, name in _LISTS.items()}
    found |= {name: pc.is_valid(rows.column(column)) for column, name in (("video", "film"), ("trajectory", "steps"))}
    return {name: int(pc.sum(has).as_py() or 0) for name, has in found.items()}


def _quantities(rows: pa.RecordBatch) -> Iterator[tuple[tuple[str, str], Values]]:
    """(title, unit) and values, of everything that has a size or a length."""
    images = pc.list_flatten(rows.column("images"))
    width, height = (_floats(pc.struct_field(images, name)) for name in ("width", "height"))
    yield ("Pictures: shorter side", "pixels"), np.minimum(width, height)
    yield ("Pictures: width by height", "ratio"), width / height
    yield ("Pictures an example has", "pictures"), _counts(rows.column("images"))
    audio = pc.list_flatten(rows.column("audio"))
    samples, rate = (_floats(pc.struct_field(audio, name)) for name in ("samples", "sample_rate"))
    yield ("Sound: length of a clip", "seconds"), samples / rate
    yield ("Sound: sample rate", "samples a second"), rate
    video = rows.column("video").drop_null()
    yield ("Films: length of the film", "seconds"), _floats(pc.struct_field(video, "seconds"))
    segments = _floats(pc.struct_field(video, "segments")) * _floats(pc.struct_field(video, "segment_seconds"))
    yield ("Films: length of an example", "seconds"), segments
    steps = pc.list_value_length(pc.struct_field(rows.column("trajectory").drop_null(), "step_images"))
    yield ("Steps an example has", "steps"), _floats(steps)
    text = rows.column("text")
    lengths = _floats(pc.utf8_length(pc.struct_field(pc.list_flatten(text), "text")))
    owners = pc.list_parent_indices(text).to_numpy()
    whole = _binned(owners, lengths, len(text))
    yield ("Text: length of an example", "characters"), whole[_counts_all(text) > 0]


def _scores(rows: pa.RecordBatch) -> Iterator[tuple[tuple[str, str], Values]]:
    """What operators measured, by name."""
    scores = pc.struct_field(rows.column("meta"), "scores").drop_null()
    keys, values = scores.keys.dictionary_encode(), _floats(scores.items)
    numbers = keys.indices.to_numpy(zero_copy_only=False)
    for number, name in enumerate(keys.dictionary.to_pylist()):
        yield (f"Score {name}", _SCORE), values[numbers == number]


def _counts(column: pa.Array) -> Values:
    """Lengths of the lists that hold anything."""
    counts = _counts_all(column)
    return counts[counts > 0]


def _counts_all(column: pa.Array) -> Values:
    return _floats(pc.fill_null(pc.list_value_length(column), 0))


def _sums(column: pa.Array) -> Values:
    """Of every row, the sum of its list."""
    owners = pc.list_parent_indices(column).to_numpy()
    return _binned(owners, _floats(pc.list_flatten(column)), len(column))


def _binned(owners: Int64s, values: Values, count: int) -> Values:
    """Sums of values by owner."""
    return np.asarray(np.bincount(owners, weights=values, minlength=count), np.float64)


def _floats(values: pa.Array) -> Values:
    """Numbers; absent ones as NaN."""
    return np.asarray(values.cast(pa.float64()).to_numpy(zero_copy_only=False), np.float64)
