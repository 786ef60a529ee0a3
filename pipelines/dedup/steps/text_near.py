"""Texts that are nearly the same: MinHash signatures, locality-sensitive hashing, connected components."""

from __future__ import annotations

from typing import ClassVar, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from pydantic import Field

from omnimill.pipelines.dedup.base import NODE, Featurizer, NearStep
from omnimill.pipelines.dedup.columns import fixed_binary, fixed_bytes, take_table
from omnimill.pipelines.dedup.leaders import linked
from omnimill.pipelines.dedup.minhash import band_keys, signatures, similarity, sketch
from omnimill.pipelines.dedup.shingles import shingles
from omnimill.pipelines.dedup.texts import flat_texts


class TextNear(NearStep):
    """Of texts whose sets of word runs are similar keeps one (reason ``text_near``).

    Two texts with Jaccard similarity j are compared with probability 1 - (1 - j^rows)^bands: at the defaults 0.998 for
    0.8, 0.92 for 0.7, 0.27 for 0.5. They are linked when the similarity that their signatures estimate, with a standard
    deviation of sqrt(j (1 - j) / (bands rows)), reaches `threshold`. Rows linked directly or over others make a group,
    of which one is kept. All text of a row counts as one; see `shingles` for what a word is.

    threshold: least Jaccard similarity. ngram: words in a run.
    bands, rows: of the signature, which has bands x rows values of 2 bytes.
    min_words: texts with fewer are nobody's twins.
    """

    version: ClassVar[int] = 1
    decides: ClassVar[tuple[str, ...]] = ("threshold",)
    reasons: ClassVar[tuple[str, ...]] = ("text_near",)

    step: Literal["text_near"]
    threshold: float = Field(0.8, gt=0, le=1)
    ngram: int = Field(5, ge=1, le=32)
    bands: int = Field(20, ge=1, le=256)
    rows: int = Field(6, ge=1, le=32)
    min_words: int = Field(5, ge=1)

    @property
    def bins(self) -> int:
        """Values of a signature."""
        return self.bands * self.rows

    @property
    def keys(self) -> int:
        return self.bands

    @property
    def row_bytes(self) -> int:
        return 40 + (self.bins + 1) // 2

    def reads(self) -> tuple[str, ...]:
        return ("text",)

    def featurizer(self) -> Featurizer:
        return self._measure

    def _measure(self, table: pa.Table) -> pa.Table:
        chunks = []
        for texts in flat_texts(table.column("text")):
            found = shingles(texts, self.ngram)
            chunks.append(fixed_binary(signatures(found, self.bins), found.words >= self.min_words))
        return pa.table({"signature": pa.chunked_array(chunks, pa.binary(2 * self.bins))})

    def keyed(self, rows: pa.Table) -> pa.Table:
        rows = rows.filter(pc.is_valid(rows.column("signature")))
        signature = fixed_bytes(rows.column("signature")).view("<u2")
        each = np.repeat(np.arange(rows.num_rows), self.bands)
        keyed = take_table(rows.select(NODE.names), each)
        keyed = keyed.append_column("key", pa.array(band_keys(signature, self.bands).reshape(-1)))
        return keyed.append_column("sketch", fixed_binary(sketch(signature)[each]))

    def link(self, keyed: pa.Table) -> pa.Table:
        return linked(keyed, "sketch", self._similarity, self.threshold)

    def _similarity(self, left: NDArray[np.uint8], right: NDArray[np.uint8]) -> NDArray[np.float64]:
        return similarity(left, right, self.bins)
