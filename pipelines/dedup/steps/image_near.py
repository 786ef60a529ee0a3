"""Pictures that are nearly the same: perceptual hashes, Hamming distance, bands, connected components."""

from __future__ import annotations

from typing import ClassVar, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from pydantic import Field

from omnimill.pipelines.dedup.base import NODE, Featurizer, NearStep
from omnimill.pipelines.dedup.columns import fixed_binary, fixed_bytes, take_table
from omnimill.pipelines.dedup.image_hash import BITS, distances, hash_bands
from omnimill.pipelines.dedup.leaders import linked
from omnimill.pipelines.dedup.pictures import picture_hashes
from omnimill.pipelines.dedup.shingles import mix

_HASH_BYTES = BITS // 8


class ImageNear(NearStep):
    """Of pictures that look the same keeps one (reason ``image_near``).

    Finds copies that were resized, stretched, encoded again, made grey, brighter or darker, mirrored, or cut by one or
    two per cent at their sides; not rotated ones and not larger cuts. Only rows with exactly one picture are compared,
    and none of one plain colour. The score of a verdict is the share of bits that agree.

    Two hashes are compared when they agree in one of `bands` choices of `band_bits` bits out of the 64 that stand for
    the lowest frequencies. When d of these 64 differ at random that is certain for d < 64 / band_bits; at the defaults
    the probability is 0.995 for d = 6, 0.9 for 8, 0.67 for 10. Encoding again and resizing change up to 4 of them,
    cutting by 2 % about 6. Random pairs of n pictures that are compared are n^2 bands / 2^band_bits: 16 bits suit up to
    a million pictures or so, 24 a hundred million and more (0.98 for d = 4, 0.73 for 6).

    max_distance: bits of 256 in which the hashes of two pictures may differ. Encoding again and resizing change up to
    10, cutting by 2 % about 40; unrelated photographs were seen to differ in 80 and more.
    mirrored: whether mirror images are copies too.
    """

    decides: ClassVar[tuple[str, ...]] = ("max_distance", "bands", "band_bits", "mirrored")
    reasons: ClassVar[tuple[str, ...]] = ("image_near",)

    step: Literal["image_near"]
    max_distance: int = Field(56, ge=0, lt=BITS // 2)
    bands: int = Field(24, ge=1, le=64)
    band_bits: int = Field(16, ge=8, le=64)
    mirrored: bool = True

    @property
    def keys(self) -> int:
        return self.bands * (2 if self.mirrored else 1)

    @property
    def row_bytes(self) -> int:
        return 40 + _HASH_BYTES

    def reads(self) -> tuple[str, ...]:
        return ("images",)

    def featurizer(self) -> Featurizer:
        return _measure

    def keyed(self, rows: pa.Table) -> pa.Table:
        rows = rows.filter(pc.is_valid(rows.column("hash")))
        hashes = fixed_bytes(rows.column("hash")).reshape(-1, 2, _HASH_BYTES)[:, : 2 if self.mirrored else 1]
        versions = hashes.shape[1]
        flat = np.ascontiguousarray(hashes.reshape(-1, _HASH_BYTES))
        keys = hash_bands(flat, self.bands, self.band_bits)
        # The same bits in another band are another key.
        keys = mix(keys + mix(np.arange(1, self.bands + 1, dtype=np.uint64)))
        each = np.repeat(np.arange(len(flat)), self.bands)
        keyed = take_table(rows.select(NODE.names), each // versions)
        keyed = keyed.append_column("key", pa.array(keys.reshape(-1)))
        return keyed.append_column("hash", fixed_binary(flat[each]))

    def link(self, keyed: pa.Table) -> pa.Table:
        return linked(keyed, "hash", _agreement, 1 - self.max_distance / BITS)


def _measure(table: pa.Table) -> pa.Table:
    """The hash of each row's only picture and of its mirror image, 64 bytes; null where there is none."""
    hashes = [row[0] if len(row) == 1 else None for row in picture_hashes(table.column("images"))]
    return pa.table({"hash": pa.array([None if pair is None else pair.tobytes() for pair in hashes], pa.binary(64))})


def _agreement(left: NDArray[np.uint8], right: NDArray[np.uint8]) -> NDArray[np.float64]:
    return 1 - distances(left, right) / BITS
