"""One example to one token row: what can be computed without a network, and how codes complete it."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from omnimill.errors import BadRecord
from omnimill.schema import Example
from omnimill.tokenizers import image, media
from omnimill.tokenizers.audio import FloatArray
from omnimill.tokenizers.dense import pack_known
from omnimill.tokenizers.image import ByteArray
from omnimill.tokenizers.segment import Segment
from omnimill.tokenizers.segments import segments
from omnimill.tokenizers.store import Tokenizers
from omnimill.tokenizers.targets import target_pictures
from omnimill.tokenizers.vq import CodeArray
from omnimill.tokens import PARTS, ImageLayout

# The networks, and the parts whose codes each of them makes.
Network = Literal["image", "audio"]
Input = ByteArray | FloatArray
NETWORKS: dict[str, Network] = {"image_codes": "image", "audio_codes": "audio", "target_codes": "image"}

ALL_PARTS = frozenset(PARTS)


@dataclass(frozen=True)
class Rejected:
    """An example that cannot be tokenized, and why."""

    example: Example
    bad: BadRecord


@dataclass
class Prepared:
    """An example on its way: every column but codes, and what is to be encoded, by part.

    inputs: target canvases uint8 [size, size, 3] of image_codes and target_codes, log-mel spectrograms float32
        [frames, mels] of audio_codes.
    """

    columns: dict[str, Any]
    inputs: dict[str, Sequence[Input]] = field(default_factory=dict)

    def row(self, codes: Mapping[str, Sequence[CodeArray]]) -> dict[str, Any]:
        """The row, from the codes of all inputs, by part."""
        for part, found in codes.items():
            self.columns[f"{part}_lengths"] = [len(one) for one in found]
            self.columns[part] = found
        return self.columns


def prepare(
    example: Example, tokenizers: Tokenizers, jpeg_quality: int = 95, parts: Collection[str] = ALL_PARTS
) -> Prepared:
    """What some parts of a token row are made of (`omnimill.tokens.PARTS`); the others are left out.

    Raises:
        BadRecord: media that cannot be decoded, numbers that are not finite, vectors that the tokenizers have no ranges
            for, annotations of pictures that are not there.
    """
    prepared = Prepared({"id": example.id, "source": example.source, "key": example.key})
    layout = tokenizers.layout
    if "image" in parts or "image_codes" in parts:
        _add_pictures(prepared, example, layout.image, jpeg_quality, parts)
    if "audio" in parts or "audio_codes" in parts:
        clips = [media.clip(clip.data, layout.audio) for clip in example.audio]
        if "audio" in parts:
            prepared.columns["audio_data"] = [clip.data for clip in clips]
            prepared.columns["audio_patches"] = [clip.patches for clip in clips]
        if "audio_codes" in parts:
            prepared.inputs["audio_codes"] = [clip.mel for clip in clips]
    if "text" in parts:
        prepared.columns.update(_text_columns(segments(example, tokenizers)))
    if "target_codes" in parts:
        _add_targets(prepared, example, layout.image)
    return prepared


def _add_pictures(
    prepared: Prepared, example: Example, layout: ImageLayout, jpeg_quality: int, parts: Collection[str]
) -> None:
    stored: list[media.StoredPicture] = []
    canvases: list[ByteArray] = []
    for picture in example.images:
        rgb = image.decode_rgb(picture.data)
        if "image" in parts:
            stored.append(media.stored(rgb, layout, jpeg_quality))
        if "image_codes" in parts:
            canvases.append(media.target(rgb, layout).canvas)
    if "image" in parts:
        prepared.columns["image_data"] = [one.data for one in stored]
        prepared.columns["image_patches"] = [one.patches for one in stored]
        prepared.columns["history_patches"] = [one.history_patches for one in stored]
    if "image_codes" in parts:
        prepared.inputs["image_codes"] = canvases


def _text_columns(found: Sequence[Segment]) -> dict[str, Any]:
    return {
        "text_roles": [segment.role for segment in found],
        "text_images": [segment.image for segment in found],
        "text_audio": [segment.audio for segment in found],
        "text_items": [segment.item for segment in found],
        "text_lengths": [len(segment.ids) for segment in found],
        "text_ids": [segment.ids for segment in found],
    }


def _add_targets(prepared: Prepared, example: Example, layout: ImageLayout) -> None:
    found = list(target_pictures(example, layout))
    prepared.columns["target_roles"] = [target.role for target in found]
    prepared.columns["target_images"] = [target.image for target in found]
    prepared.columns["target_items"] = [target.item for target in found]
    prepared.columns["target_heights"] = [target.height for target in found]
    prepared.columns["target_widths"] = [target.width for target in found]
    prepared.columns["target_known"] = [None if one.known is None else pack_known(one.known) for one in found]
    prepared.inputs["target_codes"] = [target.canvas for target in found]
