"""The columns of one row of a token shard: its lengths alone, or all that it holds."""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
import numpy.typing as npt


@dataclass
class RowLengths:
    """How long every stream of one row is; the columns of `omnimill.tokens` of the same names.

    The lists that start with ``text_`` are parallel (one entry per segment), so are those of images, of audio clips and
    of target pictures.
    """

    text_roles: list[str]
    text_images: list[int | None]
    text_audio: list[int | None]
    text_items: list[int | None]
    text_lengths: list[int]
    image_patches: list[int]
    history_patches: list[int]
    audio_patches: list[int]
    image_codes_lengths: list[int]
    audio_codes_lengths: list[int]
    target_roles: list[str]
    target_images: list[int | None]
    target_items: list[int | None]
    target_codes_lengths: list[int]


@dataclass
class RowContent(RowLengths):
    """All columns of one row.

    text_ids: int32 arrays without EOS. image_data: JPEG or PNG, audio_data: FLAC. image_codes, audio_codes,
    target_codes: uint16 arrays, empty where a medium was not encoded. target_heights, target_widths: pixels of the
    target canvas that a target picture covers. target_known: bits, see `omnimill.tokenizers.dense.unpack_known`.
    """

    id: str
    source: str
    key: str
    text_ids: list[npt.NDArray[np.int32]]
    image_data: list[bytes]
    image_codes: list[npt.NDArray[np.uint16]]
    audio_data: list[bytes]
    audio_codes: list[npt.NDArray[np.uint16]]
    target_heights: list[int]
    target_widths: list[int]
    target_known: list[bytes | None]
    target_codes: list[npt.NDArray[np.uint16]]


# Columns that a row has as NumPy arrays, and the others.
ARRAY_COLUMNS = ("text_ids", "image_codes", "audio_codes", "target_codes")
PLAIN_COLUMNS = tuple(field.name for field in fields(RowContent) if field.name not in ARRAY_COLUMNS)
