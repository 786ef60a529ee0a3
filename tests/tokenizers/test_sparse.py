"""Location tokens: bins, ranges, points on the padded canvas, cameras, vectors."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from omnimill.errors import BadRecord
from omnimill.schema import View
from omnimill.tokenizers import sparse
from omnimill.tokenizers.sparse import Range
from omnimill.tokenizers.vocabulary import TextVocabulary

VOCABULARY = TextVocabulary(32000)
finite = st.floats(-1e6, 1e6)
ranges = st.tuples(finite, finite).map(lambda ends: Range(low=min(ends), high=max(ends)))


def test_bins_by_hand() -> None:
    assert [sparse.to_bin(v, sparse.UNIT) for v in (0.0, 0.25, 0.5, 0.99999, 1.0)] == [0, 249, 499, 998, 999]
    assert [sparse.to_bin(v, sparse.UNIT) for v in (-3.0, 7.0)] == [0, 999]
    assert sparse.from_bin(999, sparse.ANGLE) == math.pi
    assert sparse.to_bin(5.0, Range(low=5.0, high=5.0)) == 0
    with pytest.raises(BadRecord) as caught:
        sparse.to_bin(math.nan, sparse.UNIT)
    assert caught.value.reason == "number_not_finite"
    with pytest.raises(ValueError, match="low to a high"):
        Range(low=1.0, high=0.0)


@given(ranges, st.floats(0, 1))
def test_quantisation_error_is_at_most_one_999th_downwards(within: Range, share: float) -> None:
    value = min(within.low + share * (within.high - within.low), within.high)
    back = sparse.from_bin(sparse.to_bin(value, within), within)
    slack = 1e-6 * max(abs(within.low), abs(within.high), 1e-300)
    assert -slack <= value - back <= within.error + slack


@given(st.integers(0, 999), st.sampled_from([sparse.UNIT, sparse.ANGLE, sparse.SINE, Range(low=-7.25, high=1e4)]))
def test_a_decoded_value_keeps_its_bin(location_bin: int, within: Range) -> None:
    assert sparse.to_bin(sparse.from_bin(location_bin, within), within) == location_bin


@given(st.lists(st.floats(-2, 2), min_size=1, max_size=9))
def test_vectors_come_back_within_the_error(values: list[float]) -> None:
    within = [Range(low=-2.0, high=2.0 + i) for i in range(len(values))]
    ids = sparse.encode_vector(values, within, VOCABULARY)
    assert all(VOCABULARY.is_location(token) for token in ids)
    back = sparse.decode_vector(ids, within, VOCABULARY)
    assert all(abs(a - b) <= r.error + 1e-9 for a, b, r in zip(values, back, within, strict=True))


def test_vectors_need_their_ranges() -> None:
    with pytest.raises(BadRecord) as caught:
        sparse.encode_vector([1.0, 2.0], [sparse.UNIT], VOCABULARY)
    assert caught.value.reason == "vector_length"


def test_boxes_are_placed_on_the_padded_canvas() -> None:
    # 60 x 100 on 384: scale 3.84, 230 rows, 77 rows of padding above.
    placed = sparse.on_canvas([0.1, 0.2, 0.6, 0.9], 60, 100, 384)
    np.testing.assert_allclose(placed, [(77 + 23.04) / 384, 0.2, (77 + 138.24) / 384, 0.9])
    ids = sparse.encode_points([0.0, 0.0, 1.0, 1.0], 60, 100, 384, VOCABULARY)
    assert [VOCABULARY.location_bin(token) for token in ids] == [200, 0, 799, 999]


def test_camera_is_relative_and_wraps() -> None:
    first = View(image=0, theta=3.0, phi=0.2, radius=2.0)
    second = View(image=1, theta=-3.0, phi=0.7, radius=2.5)
    turn, sine, cosine, radius = sparse.camera_pose(second, first)
    np.testing.assert_allclose([turn, sine, cosine, radius], [2 * math.pi - 6, math.sin(0.5), math.cos(0.5), 0.5])
    ids = sparse.encode_camera(second, first, VOCABULARY)
    back = sparse.decode_vector(ids, sparse.CAMERA, VOCABULARY)
    assert all(abs(a - b) <= r.error for a, b, r in zip((turn, sine, cosine, radius), back, sparse.CAMERA, strict=True))


def test_golden_location_and_box_tokens(parity: Path) -> None:
    file = parity / "tokenizer" / "location_tokens.json"
    if not file.exists():
        return
    golden = json.loads(file.read_text())
    for value, token, back in zip(golden["values"], golden["tokens"], golden["roundtrip"], strict=True):
        found = sparse.to_bin(value, sparse.UNIT)
        assert VOCABULARY.surface(VOCABULARY.location(found)) == token
        assert sparse.from_bin(found, sparse.UNIT) == pytest.approx(back)
    pictures = np.load(parity / "12_preprocess_image.npz")
    for name in ("landscape", "portrait", "big", "square"):
        sides = pictures[f"{name}/in/image_u8"].shape[:2]
        boxes, tokens = pictures[f"{name}/in/boxes_yxyx_px"], pictures[f"{name}/out/box_tokens"]
        for box, expected in zip(boxes, tokens, strict=True):
            shares = [float(value) / sides[i % 2] for i, value in enumerate(box)]
            ids = sparse.encode_points(shares, *sides, 384, VOCABULARY)
            assert " ".join(str(VOCABULARY.surface(token)) for token in ids) == expected
