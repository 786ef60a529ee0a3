"""Token rows: what the length columns say is what the row holds; sparse segments; what is turned down and why."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from omnimill import locations
from omnimill.locations import spherical_views
from omnimill.rng import generator
from omnimill.schema import Annotation, Example, Text
from omnimill.tokenizers import audio, image, sparse
from omnimill.tokenizers.encode import encode
from omnimill.tokenizers.store import Tokenizers
from omnimill.tokens import TOKEN_SCHEMA


@pytest.fixture(scope="module")
def rows(samples: SimpleNamespace, tokenizers: Tokenizers) -> list[dict[str, Any]]:
    table, rejected = encode(samples.corpus(), tokenizers)
    assert table.schema.equals(TOKEN_SCHEMA, check_metadata=True)
    assert [(item.example.key, item.bad.reason) for item in rejected] == [("1000", "image_undecodable")]
    return table.to_pylist()


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
        vocabulary = tokenizers.text.vocabulary
        state = sparse.decode_vector(row["text_ids"][1 + 2 * step], ranges.state, vocabulary)
        action = sparse.decode_vector(row["text_ids"][2 + 2 * step], ranges.action, vocabulary)
        for found, told, within in (
            (state, path.states[step], ranges.state),
            (action, path.actions[step], ranges.action),
        ):
            assert all(-1e-9 <= b - a <= r.error + 1e-9 for a, b, r in zip(found, told, within, strict=True))


def test_views_are_relative_to_the_first(rows: list[dict[str, Any]], tokenizers: Tokenizers) -> None:
    row = of(rows, "shapes")
    assert (row["text_roles"], row["text_images"]) == (["camera"] * 3, [0, 1, 2])
    pose = sparse.decode_vector(row["text_ids"][2], locations.CAMERA, tokenizers.text.vocabulary)
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
    assert row["text_ids"][1] == first + second
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
    table, rejected = encode([*cases.values(), good], tokenizers)
    assert [item.bad.reason for item in rejected] == list(cases)
    assert [item.example.id for item in rejected] == [example.id for example in cases.values()]
    assert table.column("id").to_pylist() == [good.id]


def test_a_trajectory_in_words_needs_no_ranges(samples: SimpleNamespace, tokenizers: Tokenizers) -> None:
    path = replace(samples.trajectory(0), states=[], actions=[], step_images=[0, 1])
    words = [Text(role="step", text=word, image=i) for i, word in enumerate(("forward", "left"))]
    pictures = [samples.picture(1), samples.picture(2)]
    table, rejected = encode([samples.example("house", 0, text=words, trajectory=path, images=pictures)], tokenizers)
    assert rejected == []
    (row,) = table.to_pylist()
    assert (row["text_roles"], row["text_images"]) == (["step", "step"], [0, 1])


def test_the_same_example_gives_the_same_row_in_any_company(samples: SimpleNamespace, tokenizers: Tokenizers) -> None:
    examples = [item for item in samples.corpus() if item.key != "1000"]
    order = generator("order").permutation(len(examples))
    whole = encode(examples, tokenizers)[0].to_pylist()
    shuffled = encode([examples[i] for i in order], tokenizers)[0].to_pylist()
    assert [whole[i] for i in order] == shuffled
    assert encode([examples[3]], tokenizers)[0].to_pylist() == whole[3:4]
