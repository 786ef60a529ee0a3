"""The text side of an example: its text and its sparse structures as segments of ids."""

from __future__ import annotations

from collections.abc import Iterator

from omnimill.errors import BadRecord
from omnimill.schema import PICTURE_MARK, Example, Text
from omnimill.tokenizers import sparse
from omnimill.tokenizers.annotations import annotation_segments
from omnimill.tokenizers.segment import Segment, picture, picture_marker
from omnimill.tokenizers.store import Tokenizers


def segments(example: Example, tokenizers: Tokenizers) -> list[Segment]:
    """Text in the example's order, then steps of its trajectory, its views and its annotations.

    ``state`` and ``action`` for every step of a trajectory, belonging to the step's picture; ``camera`` for every view,
    relative to the example's first; for annotations see `omnimill.tokenizers.annotations`.

    Raises:
        BadRecord: numbers that are not finite, vectors without ranges, pictures that are not there, annotations that
            are not of their kind.
    """
    return [
        *(_text(example, text, tokenizers) for text in example.text),
        *_trajectory(example, tokenizers),
        *_views(example, tokenizers),
        *annotation_segments(example, tokenizers),
    ]


def _text(example: Example, text: Text, tokenizers: Tokenizers) -> Segment:
    count = text.text.count(PICTURE_MARK)
    markers = [picture_marker(example, index, tokenizers.text.vocabulary) for index in range(count)]
    ids = tokenizers.text.encode_between(text.text.split(PICTURE_MARK), markers)
    return Segment(text.role, ids, text.image, text.audio, text.item)


def _trajectory(example: Example, tokenizers: Tokenizers) -> Iterator[Segment]:
    trajectory = example.trajectory
    if trajectory is None or not (any(trajectory.states) or any(trajectory.actions)):
        return
    ranges = tokenizers.ranges.get(example.source)
    if ranges is None:
        raise BadRecord(
            "no_vector_ranges",
            f"tokenizer set {tokenizers.layout.tokenizers!r} has no ranges for source {example.source!r}",
        )
    for step, index in enumerate(trajectory.step_images):
        for role, vectors, within in (
            ("state", trajectory.states, ranges.state),
            ("action", trajectory.actions, ranges.action),
        ):
            if vectors and vectors[step]:
                yield Segment(role, sparse.encode_vector(vectors[step], within, tokenizers.numbers), index)


def _views(example: Example, tokenizers: Tokenizers) -> Iterator[Segment]:
    for view in example.views:
        picture(example, view.image)
        yield Segment("camera", sparse.encode_camera(view, example.views[0], tokenizers.numbers), view.image)
