"""The text side of an example: its text and its sparse structures as segments of ids, and what asks for pictures."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from omnimill.errors import BadRecord
from omnimill.schema import Annotation, Example, Image
from omnimill.tokenizers import places, sparse
from omnimill.tokenizers.places import Box, Frame
from omnimill.tokenizers.store import Tokenizers


@dataclass(frozen=True)
class Segment:
    """A text segment of a token row: ids without EOS, and the picture or clip that it belongs to.

    target: the kind of dense target that it asks for, of `omnimill.tokens.DENSE_ROLES`.
    """

    role: str
    ids: list[int]
    image: int | None = None
    audio: int | None = None
    target: str | None = None


def segments(example: Example, tokenizers: Tokenizers) -> list[Segment]:
    """Text in the example's order, then sparse structures, then what asks for dense targets.

    Raises:
        BadRecord: numbers that are not finite, vectors without ranges, pictures that are not there.
    """
    return [*_text(example, tokenizers), *_sparse(example, tokenizers), *_regions(example, tokenizers)]


def annotated(example: Example, annotation: Annotation) -> int:
    """The picture that an annotation belongs to; it need not name the only one.

    Raises:
        BadRecord: ``annotation_without_image``, ``image_index_invalid``.
    """
    if annotation.image is None and len(example.images) != 1:
        raise BadRecord("annotation_without_image", f"one of {len(example.images)} pictures, it does not say which")
    index = annotation.image or 0
    _image(example, index)
    return index


def _text(example: Example, tokenizers: Tokenizers) -> Iterator[Segment]:
    for text in example.text:
        yield Segment(text.role, tokenizers.text.encode(text.text), text.image, text.audio)


def _sparse(example: Example, tokenizers: Tokenizers) -> Iterator[Segment]:
    """Segments of numbers.

    ``state`` and ``action`` for every step of a trajectory, belonging to the step's picture; ``camera`` for every view,
    relative to the example's first; ``boxes`` and ``points`` for every picture that has some, on the input
    canvas, each followed by its label. Prompts of a region are no findings, so they are not among these.
    """
    yield from _trajectory(example, tokenizers)
    for view in example.views:
        _image(example, view.image)
        ids = sparse.encode_camera(view, example.views[0], tokenizers.numbers)
        yield Segment("camera", ids, view.image)
    for role, encode in (("boxes", _box), ("points", _points)):
        found: dict[int, list[int]] = {}
        for annotation in example.annotations:
            given = annotation.box if role == "boxes" else annotation.points
            if given is not None and annotation.kind != "region":
                index = annotated(example, annotation)
                ids = encode(annotation, example.images[index], tokenizers, annotation.label or "")
                found.setdefault(index, []).extend(ids)
        for index, ids in sorted(found.items()):
            yield Segment(role, ids, index)


def _regions(example: Example, tokenizers: Tokenizers) -> Iterator[Segment]:
    """``region`` for every mask: its box, its points and its label, as far as it has them."""
    for annotation in example.annotations:
        if annotation.mask is None:
            continue
        index = annotated(example, annotation)
        ids: list[int] = []
        if annotation.box is not None:
            ids += _box(annotation, example.images[index], tokenizers)
        if annotation.points is not None:
            ids += _points(annotation, example.images[index], tokenizers)
        ids += tokenizers.text.encode(annotation.label) if annotation.label else []
        yield Segment("region", ids, index, target="segmentation")


def _box(annotation: Annotation, picture: Image, tokenizers: Tokenizers, label: str = "") -> list[int]:
    corners = annotation.box or []
    if len(corners) != 4:
        raise BadRecord("box_invalid", f"found {len(corners)} numbers; allowed: y1, x1, y2, x2")
    return places.encode_boxes([(Box(*corners), label)], _frame(picture, tokenizers), tokenizers.numbers)


def _points(annotation: Annotation, picture: Image, tokenizers: Tokenizers, label: str = "") -> list[int]:
    return places.encode_points(annotation.points or [], _frame(picture, tokenizers), tokenizers.numbers, label)


def _frame(picture: Image, tokenizers: Tokenizers) -> Frame:
    return Frame(picture.height, picture.width, tokenizers.layout.image.input_size)


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


def _image(example: Example, index: int) -> Image:
    if not 0 <= index < len(example.images):
        raise BadRecord("image_index_invalid", f"picture {index} of {len(example.images)} is referred to")
    return example.images[index]
