"""Examples to token rows: text and sparse segments as ids, pictures and sound resized, encoded and as codes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa

from omnimill.errors import BadRecord
from omnimill.schema import Annotation, Example, Image
from omnimill.tokenizers import media, sparse
from omnimill.tokenizers.store import Tokenizers
from omnimill.tokenizers.vq import CodeArray
from omnimill.tokens import TOKEN_SCHEMA


@dataclass(frozen=True)
class Rejected:
    """An example that cannot be tokenized, and why."""

    example: Example
    bad: BadRecord


@dataclass
class _Row:
    """An example on its way; `columns` are all but codes."""

    columns: dict[str, Any]
    pictures: list[media.Picture] = field(default_factory=list)
    clips: list[media.Clip] = field(default_factory=list)


@dataclass(frozen=True)
class _Segment:
    role: str
    ids: list[int]
    image: int | None = None
    audio: int | None = None


def encode(
    examples: Sequence[Example], tokenizers: Tokenizers, jpeg_quality: int = 95
) -> tuple[pa.Table, list[Rejected]]:
    """Token rows of examples, in their order.

    Returns:
        A table of `TOKEN_SCHEMA`, and the examples that are not in it: those with media that cannot be decoded, numbers
        that are not finite, or vectors that the tokenizers have no ranges for.
    """
    rows: list[_Row] = []
    rejected: list[Rejected] = []
    for example in examples:
        try:
            rows.append(_prepare(example, tokenizers, jpeg_quality))
        except BadRecord as bad:
            rejected.append(Rejected(example, bad))
    canvases = [picture.canvas for row in rows for picture in row.pictures]
    mels = [clip.mel for row in rows for clip in row.clips]
    image_codes = iter(tokenizers.image.encode(np.stack(canvases)) if canvases else ())
    audio_codes = iter(tokenizers.audio.encode(np.stack(mels)) if mels else ())
    for row in rows:
        _add_codes(row.columns, "image", [next(image_codes) for _ in row.pictures])
        _add_codes(row.columns, "audio", [next(audio_codes) for _ in row.clips])
    return pa.Table.from_pylist([row.columns for row in rows], TOKEN_SCHEMA), rejected


def _prepare(example: Example, tokenizers: Tokenizers, jpeg_quality: int) -> _Row:
    layout = tokenizers.layout
    pictures = [media.picture(picture.data, layout.image, jpeg_quality) for picture in example.images]
    clips = [media.clip(clip.data, layout.audio) for clip in example.audio]
    segments = [*_text(example, tokenizers), *_sparse(example, tokenizers)]
    columns = {
        "id": example.id,
        "source": example.source,
        "key": example.key,
        "text_roles": [segment.role for segment in segments],
        "text_images": [segment.image for segment in segments],
        "text_audio": [segment.audio for segment in segments],
        "text_lengths": [len(segment.ids) for segment in segments],
        "text_ids": [segment.ids for segment in segments],
        "image_patches": [picture.patches for picture in pictures],
        "history_patches": [picture.history_patches for picture in pictures],
        "image_data": [picture.data for picture in pictures],
        "audio_patches": [clip.patches for clip in clips],
        "audio_data": [clip.data for clip in clips],
    }
    return _Row(columns, pictures, clips)


def _add_codes(columns: dict[str, Any], name: str, codes: list[CodeArray]) -> None:
    columns[f"{name}_codes_lengths"] = [len(item) for item in codes]
    columns[f"{name}_codes"] = codes


def _text(example: Example, tokenizers: Tokenizers) -> Iterator[_Segment]:
    for text in example.text:
        yield _Segment(text.role, tokenizers.text.encode(text.text), text.image, text.audio)


def _sparse(example: Example, tokenizers: Tokenizers) -> Iterator[_Segment]:
    """Segments of location tokens.

    ``state`` and ``action`` for every step of a trajectory, belonging to the step's picture; ``camera`` for every view,
    relative to the example's first; ``boxes`` and ``points`` for every picture that has some: their locations on the
    input canvas, each followed by its label.
    """
    yield from _trajectory(example, tokenizers)
    vocabulary = tokenizers.text.vocabulary
    for view in example.views:
        _image(example, view.image)
        yield _Segment("camera", sparse.encode_camera(view, vocabulary), view.image)
    for role, places in (("boxes", "box"), ("points", "points")):
        found: dict[int, list[int]] = {}
        for annotation in example.annotations:
            points = getattr(annotation, places)
            if points is not None:
                index = _annotated(example, annotation)
                picture = _image(example, index)
                size = tokenizers.layout.image.input_size
                ids = sparse.encode_points(points, picture.height, picture.width, size, vocabulary)
                found.setdefault(index, []).extend(ids + tokenizers.text.encode(annotation.label or ""))
        for index, ids in sorted(found.items()):
            yield _Segment(role, ids, index)


def _trajectory(example: Example, tokenizers: Tokenizers) -> Iterator[_Segment]:
    trajectory = example.trajectory
    if trajectory is None or not (any(trajectory.states) or any(trajectory.actions)):
        return
    ranges = tokenizers.ranges.get(example.source)
    if ranges is None:
        raise BadRecord(
            "no_vector_ranges",
            f"tokenizer set {tokenizers.layout.tokenizers!r} has no ranges for source {example.source!r}",
        )
    vocabulary = tokenizers.text.vocabulary
    for step, index in enumerate(trajectory.step_images):
        for role, vectors, within in (
            ("state", trajectory.states, ranges.state),
            ("action", trajectory.actions, ranges.action),
        ):
            if vectors and vectors[step]:
                yield _Segment(role, sparse.encode_vector(vectors[step], within, vocabulary), index)


def _annotated(example: Example, annotation: Annotation) -> int:
    """The picture that an annotation belongs to; it need not name the only one."""
    if annotation.image is None and len(example.images) != 1:
        raise BadRecord("annotation_without_image", f"one of {len(example.images)} pictures, it does not say which")
    return annotation.image or 0


def _image(example: Example, index: int) -> Image:
    if not 0 <= index < len(example.images):
        raise BadRecord("image_index_invalid", f"picture {index} of {len(example.images)} is referred to")
    return example.images[index]
