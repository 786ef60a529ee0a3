"""Location tokens: points on the padded canvas, cameras, vectors."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from omnimill import locations
from omnimill.errors import BadRecord
from omnimill.locations import Range
from omnimill.tokenizers import sparse
from omnimill.tokenizers.vocabulary import TextVocabulary

VOCABULARY = TextVocabulary(32000)


@given(st.lists(st.floats(-2, 2), min_size=1, max_size=9))
def test_vectors_come_back_within_the_error(values: list[float]) -> None:
    within = [Range(low=-2.0, high=2.0 + i) for i in range(len(values))]
    ids = sparse.encode_vector(values, within, VOCABULARY)
    assert all(VOCABULARY.is_location(token) for token in ids)
    back = sparse.decode_vector(ids, within, VOCABULARY)
    assert all(abs(a - b) <= r.error + 1e-9 for a, b, r in zip(values, back, within, strict=True))


def test_vectors_need_their_ranges() -> None:
    with pytest.raises(BadRecord) as caught:
        sparse.encode_vector([1.0, 2.0], [locations.UNIT], VOCABULARY)
    assert caught.value.reason == "vector_length"


def test_boxes_are_placed_on_the_padded_canvas() -> None:
    # 60 x 100 on 384: scale 3.84, 230 rows, 77 rows of padding above.
    placed = sparse.on_canvas([0.1, 0.2, 0.6, 0.9], 60, 100, 384)
    np.testing.assert_allclose(placed, [(77 + 23.04) / 384, 0.2, (77 + 138.24) / 384, 0.9])
    ids = sparse.encode_points([0.0, 0.0, 1.0, 1.0], 60, 100, 384, VOCABULARY)
    assert [VOCABULARY.location_bin(token) for token in ids] == [200, 0, 799, 999]


def test_a_camera_is_four_locations() -> None:
    view = locations.spherical_views([(1.0, 0.0, 2.0), (1.2, 0.5, 2.5)])[1]
    back = sparse.decode_vector(sparse.encode_camera(view, VOCABULARY), locations.CAMERA, VOCABULARY)
    told = (0.2, math.sin(0.5), math.cos(0.5), 0.5)
    assert all(abs(a - b) <= r.error + 1e-9 for a, b, r in zip(told, back, locations.CAMERA, strict=True))


def test_golden_location_and_box_tokens(parity: Path) -> None:
    file = parity / "tokenizer" / "location_tokens.json"
    if not file.exists():
        return
    golden = json.loads(file.read_text())
    for value, token, back in zip(golden["values"], golden["tokens"], golden["roundtrip"], strict=True):
        found = locations.to_bin(value, locations.UNIT)
        assert VOCABULARY.surface(VOCABULARY.location(found)) == token
        assert locations.from_bin(found, locations.UNIT) == pytest.approx(back)
    pictures = np.load(parity / "12_preprocess_image.npz")
    for name in ("landscape", "portrait", "big", "square"):
        sides = pictures[f"{name}/in/image_u8"].shape[:2]
        boxes, tokens = pictures[f"{name}/in/boxes_yxyx_px"], pictures[f"{name}/out/box_tokens"]
        for box, expected in zip(boxes, tokens, strict=True):
            shares = [float(value) / sides[i % 2] for i, value in enumerate(box)]
            ids = sparse.encode_points(shares, *sides, 384, VOCABULARY)
            assert " ".join(str(VOCABULARY.surface(token)) for token in ids) == expected
