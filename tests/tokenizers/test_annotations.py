"""Annotations as segments: what each kind writes comes back, what is joined, items, tracks, pictures in texts."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from omnimill.errors import BadRecord
from omnimill.locations import UNIT, Range
from omnimill.schema import PICTURE_MARK, Annotation, Example, Target, Text
from omnimill.tokenizers import box_variants, cuboids, keypoints, places
from omnimill.tokenizers.box_variants import BOX_FORMATS, BOX_PROPERTIES
from omnimill.tokenizers.places import Box, Frame
from omnimill.tokenizers.segment import Segment
from omnimill.tokenizers.segments import segments
from omnimill.tokenizers.store import Tokenizers
from omnimill.tokenizers.text import TextTokenizer
from omnimill.tokenizers.vocabulary import TextVocabulary
from omnimill.tokens import TokenLayout
from omnimill.vocabulary_layout import NumberLayout, VocabularyLayout

HEIGHT, WIDTH = 40, 60
FRAME = Frame(HEIGHT, WIDTH, 384)
ROUNDING = 1e-8
unit = st.floats(0, 1)
boxes = st.tuples(unit, unit, unit, unit).map(
    lambda n: [min(n[0], n[2]), min(n[1], n[3]), max(n[0], n[2]), max(n[1], n[3])]
)
labels = st.sampled_from(["", "dog", "left eye", "a [b]"])
SETTINGS = settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture(scope="session", params=["locations", "decimals"])
def words(request: pytest.FixtureRequest, text: TextTokenizer) -> Tokenizers:
    """A set without networks; both ways to write numbers."""
    numbers = NumberLayout(form=request.param, digits=4)
    return Tokenizers(TokenLayout(tokenizers="words", digests={}, numbers=numbers), text, {})


def of(samples: SimpleNamespace, *annotations: Annotation, pictures: int = 1, **content: Any) -> Example:
    shown = [samples.picture(i, HEIGHT, WIDTH) for i in range(pictures)]
    example: Example = samples.example("s", 0, images=shown, annotations=list(annotations), **content)
    return example


def only(example: Example, tokenizers: Tokenizers) -> Segment:
    (segment,) = segments(example, tokenizers)
    return segment


def near(found: Any, told: Any, error: tuple[float, float]) -> bool:
    return all(abs(a - b) <= error[i % 2] + ROUNDING for i, (a, b) in enumerate(zip(found, told, strict=True)))


@given(found=st.lists(st.tuples(boxes, labels), min_size=1, max_size=4))
@SETTINGS
def test_boxes_of_a_picture_are_one_segment_in_an_order_of_its_own(
    samples: SimpleNamespace, words: Tokenizers, found: list[tuple[list[float], str]]
) -> None:
    example = of(samples, *(Annotation(kind="box", box=box, label=label) for box, label in found))
    segment = only(example, words)
    assert (segment.role, segment.image, segment.item) == ("boxes", 0, None)
    back = places.decode_boxes(segment.ids, FRAME, words.numbers)
    drawn = places.shuffled(found, example.id, "boxes", "None", "0")
    assert [label for _, label in back] == [label for _, label in drawn]
    assert all(near(box, told, FRAME.error(words.numbers)) for (box, _), (told, _) in zip(back, drawn, strict=True))


@given(box=boxes, form=st.sampled_from([*BOX_FORMATS, *BOX_PROPERTIES]), label=labels)
@SETTINGS
def test_a_box_in_another_form(
    samples: SimpleNamespace, words: Tokenizers, box: list[float], form: str, label: str
) -> None:
    segment = only(of(samples, Annotation(kind="box", box=box, form=form, label=label, role="answer", item=2)), words)
    assert (segment.role, segment.item) == ("answer", 2)
    told = box_variants.box_property(Box(*box), form, FRAME) if form in BOX_PROPERTIES else None
    parts = words.numbers.read(segment.ids, (UNIT,) * (len(told) if told else 4))
    assert parts[1:] == ([label] if label else [])
    if told is not None:
        assert near(parts[0], told, (words.numbers.error(UNIT),) * 2)
    else:
        back = box_variants.decode_box(words.numbers.write(parts[:1], (UNIT,) * 4), form, FRAME, words.numbers)
        y, x = FRAME.error(words.numbers)
        assert near(back, box, (2 * y, 2 * x))


@given(points=st.lists(st.tuples(unit, unit), min_size=1, max_size=3), label=labels)
@SETTINGS
def test_points(samples: SimpleNamespace, words: Tokenizers, points: list[tuple[float, float]], label: str) -> None:
    flat = [value for point in points for value in point]
    segment = only(of(samples, Annotation(kind="points", points=flat, label=label)), words)
    assert segment.role == "points"
    ((back, name),) = places.decode_points(segment.ids, FRAME, words.numbers)
    assert name == label
    assert near(back, flat, FRAME.error(words.numbers))


@given(parts=st.lists(st.tuples(unit, unit, st.integers(0, 2)), min_size=17, max_size=17))
@SETTINGS
def test_keypoints(samples: SimpleNamespace, words: Tokenizers, parts: list[tuple[float, float, int]]) -> None:
    values = [float(value) for part in parts for value in part]
    segment = only(of(samples, Annotation(kind="keypoints", values=values, item=1)), words)
    assert (segment.role, segment.item) == ("keypoints", 1)
    for (y, x, seen), back in zip(parts, keypoints.decode_keypoints(segment.ids, FRAME, words.numbers), strict=True):
        assert (back.visibility > 0) == (seen > 0)
        assert not seen or near(back[:2], (y, x), FRAME.error(words.numbers))


@given(x=st.floats(-1, 1), depth=st.floats(2, 50), size=st.floats(0.1, 10), turn=st.floats(-3, 3), label=labels)
@SETTINGS
def test_cuboids(
    samples: SimpleNamespace, words: Tokenizers, x: float, depth: float, size: float, turn: float, label: str
) -> None:
    cosine, sine = math.cos(turn), math.sin(turn)
    rotation = [cosine, 0, sine, 0, 1, 0, -sine, 0, cosine]
    values = [x, 0.5, depth, size, 2.0, 3.0, *rotation, 50.0, 30.0, 20.0]
    annotation = Annotation(kind="cuboid", box=[0.1, 0.0, 0.9, 1.0], values=values, label=label)
    segment = only(of(samples, annotation, annotation), words)
    camera = cuboids.Camera(50.0, (30.0, 20.0), HEIGHT)
    found = cuboids.decode_objects(segment.ids, camera, FRAME, words.numbers)
    assert [(segment.role, name) for *_, name in found] == [("cuboids", label)] * 2
    for cuboid, box, _ in found:
        assert near(box, [0.1, 0.0, 0.9, 1.0], FRAME.error(words.numbers))
        region = cuboids.Region(*(edge * side for edge, side in zip(box, (HEIGHT, WIDTH) * 2, strict=True)))
        error = cuboids.cuboid_error(region, camera, words.numbers)
        assert abs(cuboid.centre[2] - depth) <= error.depth + 1e-7
        # Where the box's own edges moved to, its centre moves along.
        moved = (error.column + FRAME.error(words.numbers)[1] * WIDTH) * 1.2
        column = 50.0 * cuboid.centre[0] / cuboid.centre[2] + 30.0
        assert abs(column - (50.0 * x / depth + 30.0)) <= moved
        assert size / error.size / (1 + 1e-9) <= cuboid.size[0] <= size * error.size * (1 + 1e-9)


@given(values=st.lists(st.floats(-2, 2), min_size=1, max_size=5), label=labels)
@SETTINGS
def test_values_need_no_picture(samples: SimpleNamespace, words: Tokenizers, values: list[float], label: str) -> None:
    annotation = Annotation(kind="values", values=values, low=-1.5, high=2.0, label=label, role="action")
    segment = only(of(samples, annotation, pictures=2), words)
    assert (segment.role, segment.image) == ("action", None)
    within = (Range(low=-1.5, high=2.0),) * len(values)
    back, *name = words.numbers.read(segment.ids, within)
    assert name == ([label] if label else [])
    clipped = [max(value, -1.5) for value in values]
    assert near(back, clipped, (words.numbers.error(within[0]),) * 2)


def test_segments_are_joined_by_role_item_and_picture(samples: SimpleNamespace, words: Tokenizers) -> None:
    def box(image: int, **told: Any) -> Annotation:
        return Annotation(kind="box", image=image, box=[0.0, 0.0, 0.5, 0.5], **told)

    found = segments(
        of(
            samples,
            box(0, item=1, label="dog"),
            box(1, item=1),
            box(0),
            box(0, item=1),
            box(0, item=1, role="subject"),
            box(0, item=2, role="region"),
            Annotation(kind="points", image=0, points=[0.5, 0.5], item=2, role="region"),
            pictures=2,
        ),
        words,
    )
    assert [(one.role, one.item, one.image) for one in found] == [
        ("boxes", 1, 0),
        ("boxes", 1, 1),
        ("boxes", None, 0),
        ("subject", 1, 0),
        ("region", 2, 0),
    ]
    assert len(places.decode_boxes(found[0].ids, FRAME, words.numbers)) == 2


def test_only_the_order_of_findings_is_drawn(samples: SimpleNamespace, words: Tokenizers) -> None:
    def order(role: str | None, number: int) -> list[str]:
        annotations = [Annotation(kind="box", box=[0, 0, 1, 1], label=f"n{i}", role=role) for i in range(8)]
        example = samples.example("s", number, images=[samples.picture(0)], annotations=annotations)
        return [label for _, label in places.decode_boxes(only(example, words).ids, FRAME, words.numbers)]

    told = [f"n{i}" for i in range(8)]
    orders = [order(None, number) for number in range(4)]
    assert [order(None, number) for number in range(4)] == orders
    assert all(sorted(one) == told for one in orders)
    assert len({tuple(one) for one in orders}) == 4
    assert order("answer", 0) == told


def test_regions_without_an_item_have_one_of_their_own(samples: SimpleNamespace, words: Tokenizers) -> None:
    def region(**told: Any) -> Annotation:
        return Annotation(kind="region", mask=b"not looked at here", **told)

    example = of(
        samples,
        region(box=[0, 0, 1, 1]),
        region(label="sky", item=3),
        region(points=[0.5, 0.5], label="dog"),
        region(),
        text=[Text(role="caption", text="A dog.", item=5)],
        targets=[Target(kind="depth", data=b"", format="png", item=7)],
    )
    found = segments(example, words)[1:]
    # The last one has nothing that asks for it.
    assert [(one.role, one.item) for one in found] == [("region", 8), ("region", 3), ("region", 9)]
    assert words.text.decode(found[1].ids) == "sky"
    assert places.decode_boxes(found[0].ids, FRAME, words.numbers)[0][1] == ""


def test_a_track_names_its_pictures_and_leaves_the_current_one_out(samples: SimpleNamespace, words: Tokenizers) -> None:
    def box(image: int, **told: Any) -> Annotation:
        return Annotation(kind="box", image=image, item=4, box=[0.0, 0.0, 0.25 * image, 0.5], **told)

    example = of(samples, box(3), box(2, role="track"), box(0, role="track"), box(3, role="track"), pictures=4)
    boxes, track = segments(example, words)
    assert (boxes.role, boxes.image, boxes.item) == ("boxes", 3, 4)
    assert (track.role, track.image, track.item) == ("track", None, 4)
    marker = words.text.vocabulary.image_history
    assert [token for token in track.ids if token in (marker(1), marker(2), marker(3))] == [marker(1), marker(3)]
    first, second = track.ids[1 : track.ids.index(marker(3))], track.ids[track.ids.index(marker(3)) + 1 :]
    for ids, bottom in ((first, 0.0), (second, 0.5)):
        ((found, _),) = places.decode_boxes(ids, FRAME, words.numbers)
        assert near(found, (0.0, 0.0, bottom, 0.5), FRAME.error(words.numbers))
    assert not segments(of(samples, box(0, role="track")), words), "of one picture nothing was before"


@pytest.mark.parametrize(
    ("told", "read"),
    [
        (f"put {PICTURE_MARK} into {PICTURE_MARK}, now", "put <image_history_1> into <image_history_2>, now"),
        (f"{PICTURE_MARK}{PICTURE_MARK}{PICTURE_MARK}", "<image_history_1> <image_history_2> <image_input>"),
        (f"{PICTURE_MARK} <image_input>", "<image_history_1> <image_input>"),
        ("no picture", "no picture"),
    ],
)
def test_pictures_in_a_text_are_their_markers(
    samples: SimpleNamespace, words: Tokenizers, told: str, read: str
) -> None:
    segment = only(of(samples, pictures=3, text=[Text(role="question", text=told, item=2)]), words)
    assert words.text.decode(segment.ids) == read
    assert segment.item == 2
    vocabulary = words.text.vocabulary
    marks = {vocabulary.image_history(1), vocabulary.image_history(2), vocabulary.image_input}
    assert sum(token in marks for token in segment.ids) == told.count(PICTURE_MARK), "typed forms stay text"


BOX = [0.0, 0.0, 1.0, 1.0]
CUBOID = [0.0, 0.0, 5.0, 1.0, 1.0, 1.0, 1.0, 0, 0, 0, 1, 0, 0, 0, 1, 50.0, 30.0, 20.0]


@pytest.mark.parametrize(
    ("annotation", "reason"),
    [
        (Annotation(kind="circle"), "annotation_kind_unknown"),
        (Annotation(kind="box", box=BOX, mask=b""), "annotation_invalid"),
        (Annotation(kind="points", box=BOX), "annotation_invalid"),
        (Annotation(kind="points", points=[0.5, 0.5], role="track"), "annotation_invalid"),
        (Annotation(kind="values", values=[0.5], low=0, high=1, role="track"), "annotation_invalid"),
        (Annotation(kind="box"), "box_invalid"),
        (Annotation(kind="box", box=[0.0, 1.0]), "box_invalid"),
        (Annotation(kind="box", box=[0.0, 1.0, 1.0, 0.0]), "box_inverted"),
        (Annotation(kind="box", box=[0.0, 1.0, 1.0, 0.0], form="xywh"), "box_inverted"),
        (Annotation(kind="box", box=[math.nan, 0.0, 1.0, 0.0]), "number_not_finite"),
        (Annotation(kind="box", box=BOX, form="polar"), "box_form_unknown"),
        (Annotation(kind="points", points=[0.5]), "vector_length"),
        (Annotation(kind="keypoints", values=[0.5] * 50), "keypoints_invalid"),
        (Annotation(kind="keypoints", values=[math.nan] * 51), "keypoints_invalid"),
        (Annotation(kind="cuboid", box=BOX, values=CUBOID[:-1]), "cuboid_invalid"),
        (Annotation(kind="cuboid", box=BOX, values=[*CUBOID[:15], 0.0, 1.0, 1.0]), "cuboid_invalid"),
        (Annotation(kind="cuboid", values=CUBOID), "box_invalid"),
        (Annotation(kind="cuboid", box=[0.5, 0.5, 0.5, 0.5], values=CUBOID), "region_empty"),
        (Annotation(kind="values", values=[], low=0, high=1), "values_range"),
        (Annotation(kind="values", values=[1.0]), "values_range"),
        (Annotation(kind="values", values=[1.0], low=2, high=1), "values_range"),
        (Annotation(kind="values", values=[math.inf], low=0, high=1), "number_not_finite"),
        (Annotation(kind="box", box=BOX, image=1), "image_index_invalid"),
    ],
)
def test_annotations_that_are_none_have_a_reason(
    samples: SimpleNamespace, words: Tokenizers, annotation: Annotation, reason: str
) -> None:
    with pytest.raises(BadRecord) as caught:
        segments(of(samples, annotation), words)
    assert caught.value.reason == reason


def test_texts_and_tracks_name_pictures_that_are_there(samples: SimpleNamespace, words: Tokenizers) -> None:
    marks = [Text(role="question", text=PICTURE_MARK * 3)]
    with pytest.raises(BadRecord) as caught:
        segments(of(samples, pictures=2, text=marks), words)
    assert caught.value.reason == "image_index_invalid"
    with pytest.raises(BadRecord) as caught:
        segments(of(samples, pictures=11, text=[Text(role="question", text=PICTURE_MARK * 9)]), words)
    assert caught.value.reason == "picture_without_marker"
    assert caught.value.message.startswith("picture 9 of 11; the vocabulary has 8 history markers")


any_number = st.one_of(st.floats(), st.sampled_from([0.0, 1.0, -1.0, 1e308, 5e-324]))
any_cuboid = st.tuples(st.lists(any_number, min_size=6, max_size=6), st.lists(any_number, min_size=3, max_size=3)).map(
    lambda ends: [*ends[0], *CUBOID[6:15], *ends[1]]
)
any_numbers = st.one_of(
    st.none(), st.lists(any_number, max_size=20), st.lists(any_number, min_size=51, max_size=51), any_cuboid
)


@given(
    kind=st.sampled_from(["box", "points", "region", "keypoints", "cuboid", "values", "table_steps", "other"]),
    box=st.one_of(st.none(), st.lists(any_number, min_size=3, max_size=4)),
    points=any_numbers,
    values=any_numbers,
    label=st.sampled_from([None, "dog", "pick", "\ud800"]),
    role=st.sampled_from([None, "track", "boxes"]),
    form=st.sampled_from([None, "xywh", "area", "polar"]),
    ends=st.tuples(any_number, any_number),
    image=st.sampled_from([None, 0, 1, -1]),
)
@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_annotations_of_any_numbers_are_written_or_bad_records(
    samples: SimpleNamespace, words: Tokenizers, ends: tuple[float, float], **told: Any
) -> None:
    kept = {"box": ("box",), "points": ("points",), "region": ("box", "points"), "cuboid": ("box", "values")}
    for name in {"box", "points", "values"} - set(kept.get(told["kind"], ("values",))):
        told[name] = None
    annotation = Annotation(low=ends[0], high=ends[1], **told)
    try:
        found = segments(of(samples, annotation), words)
    except BadRecord:
        return
    assert all(0 <= token < words.text.vocabulary.size for one in found for token in one.ids)


def test_a_vocabulary_without_markers_cannot_name_pictures(samples: SimpleNamespace, text: TextTokenizer) -> None:
    bare = VocabularyLayout(history=0, inputs=())
    made = Tokenizers(
        TokenLayout(tokenizers="bare", digests={}, vocabulary=bare),
        TextTokenizer.of(text.model, "bare", TextVocabulary(0, bare)),
        {},
    )
    for pictures in (1, 2):
        with pytest.raises(BadRecord) as caught:
            segments(of(samples, pictures=pictures, text=[Text(role="question", text=PICTURE_MARK)]), made)
        assert caught.value.reason == "picture_without_marker"
