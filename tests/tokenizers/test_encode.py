"""Token rows: what the length columns say is what the row holds; sparse segments; what is turned down and why."""

from __future__ import annotations

import io
from collections.abc import Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import PIL.Image
import pytest

from omnimill import locations
from omnimill.errors import OmnimillError
from omnimill.locations import spherical_views
from omnimill.rng import generator
from omnimill.schema import EXAMPLE_SCHEMA, Annotation, Example, Text
from omnimill.tokenizers import audio, image, sparse
from omnimill.tokenizers.columns import MADE_OF
from omnimill.tokenizers.encode import ALL_PARTS
from omnimill.tokenizers.encoder import Encoded, Encoder
from omnimill.tokenizers.store import Tokenizers
from omnimill.tokens import PARTS, TOKEN_SCHEMA


def encode(examples: Sequence[Example], tokenizers: Tokenizers, parts: Collection[str] = ALL_PARTS) -> Encoded:
    encoder = Encoder(tokenizers, threads=2)
    try:
        return encoder.submit(lambda: examples, len(examples), parts)()
    finally:
        encoder.close()


@pytest.fixture(scope="module")
def rows(samples: SimpleNamespace, tokenizers: Tokenizers) -> list[dict[str, Any]]:
    encoded = encode(samples.corpus(), tokenizers)
    assert encoded.rows.schema.equals(TOKEN_SCHEMA, check_metadata=True)
    assert [(item.example.key, item.bad.reason) for item in encoded.rejected] == [("1000", "image_undecodable")]
    assert encoded.kept == [index for index in range(36) if index != 24]
    return encoded.rows.to_pylist()


def of(rows: list[dict[str, Any]], source: str, number: int = 0) -> dict[str, Any]:
    return next(row for row in rows if row["source"] == source and row["key"] == str(number))


def test_length_columns_are_true(rows: list[dict[str, Any]], tokenizers: Tokenizers) -> None:
    layout = tokenizers.layout
    for row in rows:
        assert row["text_lengths"] == [len(ids) for ids in row["text_ids"]]
        assert len(row["text_roles"]) == len(row["text_images"]) == len(row["text_audio"]) == len(row["text_ids"])
        assert row["image_codes_lengths"] == [len(codes) for codes in row["image_codes"]]
        assert row["audio_codes_lengths"] == [len(codes) for codes in row["audio_codes"]]
        for i, data in enumerate(row["image_data"]):
            height, width = image.decode_rgb(data).shape[:2]
            assert max(height, width) <= layout.image.input_size
            for name, size in (("image_patches", 64), ("history_patches", 32)):
                assert row[name][i] == image.valid_patches(height, width, size, layout.image.patch).sum()
        for i, data in enumerate(row["audio_data"]):
            waveform = audio.decode_flac(data)
            assert len(waveform) <= layout.audio.segment_samples
            assert row["audio_patches"][i] == audio.valid_patches(len(waveform), layout.audio).sum() > 0
    assert sum(len(row["image_data"]) for row in rows) == 24 + 12 + 6 + 3
    assert all(row["image_codes_lengths"] == [16] * len(row["image_data"]) for row in rows)
    assert all(row["audio_codes_lengths"] == [8] * len(row["audio_data"]) for row in rows)


def test_columns_are_made_of_no_others_than_is_said(samples: SimpleNamespace, tokenizers: Tokenizers) -> None:
    assert set(MADE_OF) == set(TOKEN_SCHEMA.names)
    assert {name for columns in MADE_OF.values() for name in columns} <= set(EXAMPLE_SCHEMA.names)
    examples = [one for one in samples.corpus() if one.key in ("0", "2")]
    seen = set()
    for name in ("text", "images", "audio", "trajectory", "views", "annotations", "targets"):
        less = [replace(one, **{name: None if name == "trajectory" else []}) for one in examples]
        before, after = encode(examples, tokenizers), encode(less, tokenizers)
        pairs = [(before.kept.index(i), after.kept.index(i)) for i in before.kept if i in after.kept]
        for column in TOKEN_SCHEMA.names:
            ours, theirs = before.rows.column(column).to_pylist(), after.rows.column(column).to_pylist()
            if any(ours[i] != theirs[k] for i, k in pairs):
                assert name in MADE_OF[column], f"{column} depends on {name}"
                seen.add(name)
    assert seen >= {"text", "images", "audio", "trajectory"}


def test_codes_are_those_of_the_target_canvas(
    rows: list[dict[str, Any]], samples: SimpleNamespace, tokenizers: Tokenizers
) -> None:
    canvas, _ = image.to_canvas(samples.pixels(5, 35, 80), 32)
    np.testing.assert_array_equal(of(rows, "photos", 5)["image_codes"][0], tokenizers.image.encode(canvas[None])[0])
    film = of(rows, "films", 2)
    mels = np.stack([audio.log_mel(audio.decode_flac(d), tokenizers.layout.audio)[0] for d in film["audio_data"]])
    np.testing.assert_array_equal(film["audio_codes"], tokenizers.audio.encode(mels))


def test_text_keeps_order_roles_and_media(rows: list[dict[str, Any]], tokenizers: Tokenizers) -> None:
    film = of(rows, "films")
    assert (film["text_roles"], film["text_images"], film["text_audio"]) == (["transcript"], [0], [0])
    assert tokenizers.text.decode(film["text_ids"][0]) == "words that are said"


def test_clips_are_resampled_and_cut_to_a_segment(rows: list[dict[str, Any]]) -> None:
    film = of(rows, "films", 5)  # 8,000 samples at 16 kHz and 8,000 at 8 kHz, in segments of half a second
    assert [len(audio.decode_flac(data)) for data in film["audio_data"]] == [8000, 8000]
    assert [len(audio.decode_flac(data)) for data in of(rows, "films", 0)["audio_data"]] == [8000, 6000]


def test_states_and_actions_belong_to_their_steps(
    rows: list[dict[str, Any]], samples: SimpleNamespace, tokenizers: Tokenizers
) -> None:
    row, path, ranges = of(rows, "robot", 1), samples.trajectory(1), tokenizers.ranges["robot"]
    assert row["text_roles"] == ["instruction", *["state", "action"] * 3]
    assert row["text_images"][1:] == [0, 0, None, None, 1, 1]
    for step in range(3):
        state = sparse.decode_vector(row["text_ids"][1 + 2 * step], ranges.state, tokenizers.numbers)
        action = sparse.decode_vector(row["text_ids"][2 + 2 * step], ranges.action, tokenizers.numbers)
        for found, told, within in (
            (state, path.states[step], ranges.state),
            (action, path.actions[step], ranges.action),
        ):
            assert all(
                -1e-9 <= b - a <= tokenizers.numbers.error(r) + 1e-9
                for a, b, r in zip(found, told, within, strict=True)
            )


def test_views_are_relative_to_the_first(rows: list[dict[str, Any]], tokenizers: Tokenizers) -> None:
    row = of(rows, "shapes")
    assert (row["text_roles"], row["text_images"]) == (["camera"] * 3, [0, 1, 2])
    pose = sparse.decode_vector(row["text_ids"][2], locations.CAMERA, tokenizers.numbers)
    np.testing.assert_allclose(pose, [0.2, np.sin(1.0), np.cos(1.0), 0.2], atol=7e-3)


def test_boxes_and_points_with_labels(rows: list[dict[str, Any]], tokenizers: Tokenizers) -> None:
    row = of(rows, "photos", 0)
    assert row["text_roles"] == ["caption", "boxes", "points"]
    vocabulary, text = tokenizers.text.vocabulary, tokenizers.text
    # 30 x 90 on a canvas of 64: 21 rows below 21 rows of padding.
    ends = [vocabulary.location(int(999 * (21 + y * 64 / 90) / 64)) for y in (0, 15, 7.5, 30)]
    lefts = [vocabulary.location(int(999 * x)) for x in (0, 0.5, 0.25, 1)]
    first = [ends[0], lefts[0], ends[1], lefts[1], *text.encode("red block")]
    second = [ends[2], lefts[2], ends[3], lefts[3], *text.encode("blue block")]
    # The order of boxes is the example's own draw.
    assert row["text_ids"][1] in (first + second, second + first)
    assert row["text_images"][1:] == [0, 0]
    assert row["text_lengths"][2] == 2


def test_what_cannot_be_tokenized_has_a_reason(samples: SimpleNamespace, tokenizers: Tokenizers) -> None:
    path = samples.trajectory(0)
    odd = samples.trajectory(1)
    odd.states[0] = [1.0]
    infinite = samples.trajectory(2)
    infinite.actions[0][0] = float("inf")
    silent = samples.sound(1)
    silent.data = silent.data[:44]
    pictures = [samples.picture(1), samples.picture(2)]
    cases: dict[str, Example] = {
        "no_vector_ranges": samples.example("other-robot", 0, trajectory=path, images=pictures),
        "vector_length": samples.example("robot", 1, trajectory=odd, images=pictures),
        "number_not_finite": samples.example("robot", 2, trajectory=infinite, images=pictures),
        "audio_empty": samples.example("films", 3, audio=[silent]),
        "image_index_invalid": samples.example(
            "shapes", 4, views=[replace(spherical_views([(1.0, 0.0, 1.0)])[0], image=3)]
        ),
        "annotation_without_image": samples.example(
            "photos", 5, images=pictures, annotations=[Annotation(kind="box", box=[0, 0, 1, 1])]
        ),
    }
    good = samples.example("photos", 6, images=pictures)
    encoded = encode([*cases.values(), good], tokenizers)
    assert [item.bad.reason for item in encoded.rejected] == list(cases)
    assert [item.example.id for item in encoded.rejected] == [example.id for example in cases.values()]
    assert encoded.rows.column("id").to_pylist() == [good.id]


def test_a_trajectory_in_words_needs_no_ranges(samples: SimpleNamespace, tokenizers: Tokenizers) -> None:
    path = replace(samples.trajectory(0), states=[], actions=[], step_images=[0, 1])
    words = [Text(role="step", text=word, image=i) for i, word in enumerate(("forward", "left"))]
    pictures = [samples.picture(1), samples.picture(2)]
    encoded = encode([samples.example("house", 0, text=words, trajectory=path, images=pictures)], tokenizers)
    assert encoded.rejected == []
    (row,) = encoded.rows.to_pylist()
    assert (row["text_roles"], row["text_images"]) == (["step", "step"], [0, 1])


def test_the_same_example_gives_the_same_row_in_any_company(samples: SimpleNamespace, tokenizers: Tokenizers) -> None:
    examples = [item for item in samples.corpus() if item.key != "1000"]
    order = generator("order").permutation(len(examples))
    whole = encode(examples, tokenizers).rows.to_pylist()
    shuffled = encode([examples[i] for i in order], tokenizers).rows.to_pylist()
    assert [whole[i] for i in order] == shuffled
    assert encode([examples[3]], tokenizers).rows.to_pylist() == whole[3:4]


def region(samples: SimpleNamespace) -> Example:
    """Two pictures; the second has two regions (one of them with a label) and a box that is a finding."""
    mask = np.zeros((80, 120, 3), np.uint8)
    mask[:40, :60] = 255
    left, whole = (dense_png(one) for one in (mask, np.full_like(mask, 255)))
    annotations = [
        Annotation(kind="region", image=1, box=[0.0, 0.0, 0.5, 0.5], points=[0.25, 0.25], mask=left),
        Annotation(kind="region", image=1, box=[0.0, 0.0, 1.0, 1.0], label="all", mask=whole, item=3),
        Annotation(kind="box", image=1, box=[0.0, 0.0, 1.0, 1.0], label="all"),
    ]
    pictures = [samples.picture(1), samples.picture(2)]
    text = [Text(role="caption", text="Two.")]
    return samples.example("photos", 77, text=text, images=pictures, annotations=annotations)


def dense_png(mask: Any) -> bytes:
    stream = io.BytesIO()
    PIL.Image.fromarray(mask[..., 0] > 0).save(stream, "PNG")
    return stream.getvalue()


def test_masks_are_encoded_as_target_pictures_of_the_item_that_asks_for_them(
    samples: SimpleNamespace, tokenizers: Tokenizers
) -> None:
    (row,) = encode([region(samples)], tokenizers).rows.to_pylist()
    assert row["text_roles"] == ["caption", "region", "region", "boxes"]
    assert row["text_items"] == [None, 4, 3, None], "a region without an item is one of its own"
    assert (row["target_roles"], row["target_images"]) == (["segmentation"] * 2, [1, 1])
    assert row["target_items"] == [4, 3]
    assert (row["target_heights"], row["target_widths"]) == ([21, 21], [32, 32])
    # A box and a point; a box and a label.
    assert row["text_lengths"][1] == 4 + 2
    assert row["text_ids"][2] == row["text_ids"][3]
    canvas = np.zeros((2, 32, 32, 3), np.uint8)  # 40 x 60 becomes 21 x 32, six rows below the top
    rows, columns = image.placement(40, 60, 32)
    canvas[1, rows, columns] = 255
    height, width = rows.stop - rows.start, columns.stop - columns.start
    canvas[0, rows.start : rows.start + round(height / 2), : width // 2] = 255
    assert row["target_codes_lengths"] == [16, 16]
    np.testing.assert_array_equal(row["target_codes"], tokenizers.image.encode(canvas))


def test_a_mask_that_cannot_be_drawn_rejects_its_example(samples: SimpleNamespace, tokenizers: Tokenizers) -> None:
    broken = region(samples)
    broken.annotations[0].mask = b"\x89PNG"
    (rejected,) = encode([broken], tokenizers).rejected
    assert rejected.bad.reason == "mask_undecodable"


@pytest.mark.parametrize("part", PARTS)
def test_a_part_alone_is_what_it_is_among_all(
    part: str, rows: list[dict[str, Any]], samples: SimpleNamespace, tokenizers: Tokenizers
) -> None:
    table = encode(samples.corpus(), tokenizers, {part}).rows
    assert set(table.column_names) == {"id", "source", "key", *PARTS[part]}
    by_id = {row["id"]: row for row in rows}
    for row in table.to_pylist():
        if row["id"] in by_id:
            assert row == {name: by_id[row["id"]][name] for name in row}


def test_every_column_belongs_to_one_part() -> None:
    columns = [column for columns in PARTS.values() for column in columns]
    assert sorted([*columns, "id", "source", "key"]) == sorted(TOKEN_SCHEMA.names)


def test_chunks_of_many_threads_come_back_whole(samples: SimpleNamespace, tokenizers: Tokenizers) -> None:
    """More in flight than there is room for, batches that span chunks, and some that are never full."""
    examples = [item for item in samples.corpus() if item.key != "1000"]
    encoder = Encoder(tokenizers, threads=3)
    alone = [encoder.submit(lambda one=one: [one], 2)().rows for one in examples]
    with ThreadPoolExecutor(4) as pool:
        waits = pool.map(lambda i: encoder.submit(lambda: [examples[i % len(examples)]], 40), range(4 * len(examples)))
        tables = [wait().rows for wait in waits]
    encoder.close()
    assert len(tables) == 4 * len(examples)
    assert all(table.equals(alone[i % len(examples)]) for i, table in enumerate(tables))


def test_a_network_that_fails_is_told_to_those_who_wait(samples: SimpleNamespace, tokenizers: Tokenizers) -> None:
    encoder = Encoder(replace(tokenizers, image_codes=None))
    with pytest.raises(OmnimillError, match="has no image tokenizer"):
        encoder.submit(lambda: [samples.example("photos", 1, images=[samples.picture(1)])], 1)()
    # The others go on.
    words = samples.example("pages", 1, text=[Text(role="body", text="words")])
    assert encoder.submit(lambda: [words], 0)().rows.num_rows == 1
    encoder.close()
