"""Rows that hold what evaluation sets hold: runs of their words, or their pictures."""

from __future__ import annotations

from functools import partial
from typing import ClassVar, Literal, Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from pydantic import Field, PrivateAttr

from omnimill.pipelines.dedup.base import Featurizer, RowStep
from omnimill.pipelines.dedup.columns import contains
from omnimill.pipelines.dedup.image_hash import BITS, distances, hash_bands
from omnimill.pipelines.dedup.pictures import picture_hashes
from omnimill.pipelines.dedup.references import Reference, References, build
from omnimill.pipelines.dedup.shingles import shingles
from omnimill.pipelines.dedup.texts import FlatTexts, flat_texts
from omnimill.pipelines.dedup.verdicts import verdicts

_BANDS, _BAND_BITS = 24, 16


class Decontaminate(RowStep):
    """Leaves out rows that share text (reason ``text_contaminated``) or a picture (``image_contaminated``) with
    evaluation sets.

    Text is shared when one of its segments (body, caption, transcript, …) has a run of `ngram` words in common with
    them; GPT-3 took 13 (Brown et al. 2020, arXiv 2005.14165, appendix C). An evaluation text of fewer words, but
    `min_words` at least, is found where a segment consists of just these words. A picture is shared when its file is,
    or when its perceptual hash differs in at most `max_distance` of 256 bits, mirror images included; see `image_near`.

    against: the evaluation sets. digest: of their content, found out when the step runs.
    least_runs: shared runs (distinct ones) that it takes.
    """

    decides: ClassVar[tuple[str, ...]] = ("against", "least_runs", "max_distance")

    reasons: ClassVar[tuple[str, ...]] = ("text_contaminated", "image_contaminated")

    step: Literal["decontaminate"]
    against: tuple[Reference, ...] = Field(min_length=1)
    ngram: int = Field(13, ge=1, le=64)
    min_words: int = Field(8, ge=1)
    least_runs: int = Field(1, ge=1)
    max_distance: int = Field(56, ge=0, lt=BITS // 2)
    digest: str | None = None
    # Where the references lie is nothing that a selection should remember.
    _references: str = PrivateAttr("")

    def resolve(self, root: str) -> Self:
        digest, url = build(self.against, root, self.ngram, self.min_words)
        step = self.model_copy(update={"digest": digest})
        step._references = url
        return step

    def reads(self) -> tuple[str, ...]:
        return ("text", "images")

    def featurizer(self) -> Featurizer:
        return partial(_measure, references=References.load(self._references), ngram=self.ngram)

    def judge(self, rows: pa.Table) -> pa.Table:
        shared = rows.filter(pc.greater_equal(rows.column("shared_runs"), self.least_runs))
        near = rows.filter(pc.less_equal(rows.column("distance"), self.max_distance))
        found = [
            verdicts(shared, "text_contaminated", score=shared.column("shared_runs").cast(pa.float64())),
            verdicts(
                near, "image_contaminated", score=pc.subtract(1.0, pc.divide(near.column("distance"), float(BITS)))
            ),
        ]
        return pa.concat_tables(found)


def _measure(table: pa.Table, references: References, ngram: int) -> pa.Table:
    """shared_runs: distinct runs of the references in each row. distance: of its nearest picture; 0: the same file."""
    shared = [_shared_runs(texts, references.runs, ngram) for texts in flat_texts(table.column("text"))]
    distance = _distances(table.column("images"), references)
    return pa.table({"shared_runs": pa.array(np.concatenate(shared), pa.uint32()), "distance": distance})


def _shared_runs(texts: FlatTexts, known: NDArray[np.uint64], ngram: int) -> NDArray[np.int64]:
    """How many distinct runs of each row are known, int64 [rows]."""
    # Every segment is a text of its own.
    count = len(texts.segments) - 1
    runs = shingles(FlatTexts(texts.data, texts.segments, np.arange(count + 1)), ngram)
    hit = contains(known, runs.hashes)
    row = np.searchsorted(texts.rows, runs.row_of[hit], side="right") - 1
    pairs = np.unique(np.stack([row.astype(np.uint64), runs.hashes[hit]]), axis=1)
    return np.bincount(pairs[0].astype(np.int64), minlength=len(texts.rows) - 1)


def _distances(column: pa.ChunkedArray, references: References) -> pa.Array:
    """The least distance of each row's pictures to a known one, uint16; null where none is near or there is none."""
    best = np.full(len(column), BITS, np.int64)
    if not len(references.digests):
        return pa.array(best, pa.uint16(), mask=best == BITS)
    lists = pa.chunked_array([chunk.flatten().field("digest") for chunk in column.chunks], pa.string())
    each = np.repeat(np.arange(len(column)), pc.list_value_length(column).to_numpy())
    found = [row for rows in picture_hashes(column) for row in rows]
    there = np.array([pair is not None for pair in found], np.bool_)
    if there.any():
        hashes = np.stack([pair[0] for pair in found if pair is not None])
        np.minimum.at(best, each[there], nearest(hashes, references.hashes))
    files = np.array([bytes.fromhex(digest[:32]) for digest in lists.to_pylist()], references.digests.dtype)
    best[each[np.isin(files, references.digests)]] = 0
    return pa.array(best, pa.uint16(), mask=best == BITS)


def nearest(hashes: NDArray[np.uint8], known: NDArray[np.uint8]) -> NDArray[np.int64]:
    """The distance of each hash to the nearest known one that shares a band with it; 256 where none does. int64 [rows].

    How likely it is that two hashes share a band is said in `ImageNear`, whose defaults these are.
    """
    best = np.full(len(hashes), BITS, np.int64)
    keys, known_keys = (hash_bands(some, _BANDS, _BAND_BITS) for some in (hashes, known))
    for band in range(_BANDS):
        order = np.argsort(known_keys[:, band])
        sorted_keys = known_keys[order, band]
        start = np.searchsorted(sorted_keys, keys[:, band], side="left")
        count = np.searchsorted(sorted_keys, keys[:, band], side="right") - start
        row = np.repeat(np.arange(len(hashes)), count)
        within = np.arange(len(row)) - np.repeat(np.cumsum(count) - count, count)
        np.minimum.at(best, row, distances(hashes[row], known[order[np.repeat(start, count) + within]]))
    return best
