"""RLDS episodes out of TFRecord files: nothing whole is lost beside what is damaged, and leaks can be found."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image as Pillow
from tfrecords import example, tfrecord

from omnimill.errors import BadRecord
from omnimill.pipelines.decoders.tf_examples import parse_example
from omnimill.pipelines.decoders.tfrecords import Frame, read_frames
from omnimill.pipelines.sources.rlds import RldsSource
from omnimill.schema import Example

Read = Callable[[RldsSource], tuple[list[Example], dict[str, str]]]

payloads = st.lists(st.binary(max_size=60) | st.just(bytes(40)), min_size=1, max_size=6)


def frames(data: bytes, **limits: Any) -> list[Frame]:
    return list(read_frames(io.BytesIO(data), len(data), limits.pop("max_bytes", 1000), **limits))


@given(payloads)
def test_records_come_back_and_tile_the_file(records: list[bytes]) -> None:
    data = tfrecord(records)
    found = frames(data)
    assert [frame.data for frame in found] == records
    assert sum(frame.length for frame in found) == len(data)


@given(payloads, st.data())
def test_a_flipped_byte_costs_one_record(records: list[bytes], draw: st.DataObject) -> None:
    data = bytearray(tfrecord(records))
    place = draw.draw(st.integers(0, len(data) - 1))
    data[place] ^= draw.draw(st.integers(1, 255))
    found = frames(bytes(data))
    assert sum(frame.length for frame in found) == len(data)
    lost = next(i for i, end in enumerate(np.cumsum([len(record) + 16 for record in records])) if place < end)
    kept = [frame.data for frame in found if frame.data is not None]
    assert kept == records[:lost] + records[lost + 1 :]
    (fault,) = [frame.fault for frame in found if frame.fault is not None]
    assert fault.reason in ("tfrecord_damaged", "tfrecord_truncated")


@given(payloads, st.data())
def test_what_stands_before_a_cut_is_kept(records: list[bytes], draw: st.DataObject) -> None:
    data = tfrecord(records)
    cut = draw.draw(st.integers(1, len(data) - 1))
    found = frames(data[:cut])
    whole = int(np.searchsorted(np.cumsum([len(record) + 16 for record in records]), cut, side="right"))
    assert [frame.data for frame in found if frame.data is not None] == records[:whole]
    assert sum(frame.length for frame in found) == cut


@given(payloads, st.data())
def test_ranges_share_a_file_out_whatever_is_damaged(records: list[bytes], draw: st.DataObject) -> None:
    data = bytearray(tfrecord(records))
    for place in draw.draw(st.lists(st.integers(0, len(data) - 1), max_size=3)):
        data[place] ^= 255
    begin, end = sorted(draw.draw(st.tuples(st.integers(0, len(data)), st.integers(0, len(data)))))
    del data[begin : min(end, begin + 9)]
    size = draw.draw(st.integers(1, 100))
    whole = [(frame.offset, frame.length, frame.data) for frame in frames(bytes(data))]
    shared = [
        frame for start in range(0, len(data), size) for frame in frames(bytes(data), start=start, stop=start + size)
    ]
    assert [(frame.offset, frame.length, frame.data) for frame in shared] == whole


def test_a_gap_inside_costs_the_records_it_touches() -> None:
    records = [bytes([65 + i]) * 50 for i in range(5)]
    data = bytearray(tfrecord(records))
    del data[66 + 20 : 66 + 30]
    assert [frame.data for frame in frames(bytes(data)) if frame.data] == [records[0], *records[2:]]


def test_records_above_the_limit_are_passed_over() -> None:
    found = frames(tfrecord([b"a", b"b" * 100, b"c"]), max_bytes=50)
    assert [frame.fault and frame.fault.reason for frame in found] == [None, "record_too_large", None]


values = (
    st.lists(st.binary(max_size=9), min_size=1, max_size=4)
    | st.lists(st.floats(width=32, allow_nan=False), min_size=1, max_size=4)
    | st.lists(st.integers(-(2**63), 2**63 - 1), min_size=1, max_size=4)
)


@given(st.dictionaries(st.text(max_size=8), values, max_size=5))
def test_examples_say_what_protobuf_wrote(features: dict[str, Any]) -> None:
    found = parse_example(example(features))
    assert {name: list(value) for name, value in found.items()} == features


def test_lists_may_be_written_unpacked() -> None:
    floats = b"\x0d\x00\x00\x80\x3f\x0d\x00\x00\x00\x40"
    entry = b"\x0a\x01x\x12" + bytes([len(floats) + 2]) + b"\x12" + bytes([len(floats)]) + floats
    features = b"\x0a" + bytes([len(entry)]) + entry
    found = parse_example(b"\x0a" + bytes([len(features)]) + features)
    assert list(found["x"]) == [1.0, 2.0]


@given(st.binary(max_size=80), st.data())
def test_malformed_examples_are_verdicts(noise: bytes, draw: st.DataObject) -> None:
    good = bytearray(example({"a": [1, 2, 300], "b": [b"x"], "c": [0.5]}))
    place = draw.draw(st.integers(0, len(good) - 1))
    good[place] ^= draw.draw(st.integers(1, 255))
    for data in (noise, bytes(good), bytes(good[:place])):
        try:
            parse_example(data)
        except BadRecord as verdict:
            assert verdict.reason == "tf_example_malformed"


def picture(level: int, form: str = "JPEG") -> bytes:
    stream = io.BytesIO()
    Pillow.new("RGB", (32, 24), (level, level, level)).save(stream, form)
    return stream.getvalue()


def episode(length: int = 6, first: int = 0, **features: Any) -> bytes:
    """An episode in the layout of BridgeData; `first` makes its content differ."""
    said: dict[str, Any] = {
        "steps/observation/state": [float(first + step + k) for step in range(length) for k in range(3)],
        "steps/observation/image_0": [picture(20 * step + first) for step in range(length)],
        "steps/observation/image_1": [picture(200) for _ in range(length)],
        "steps/action": [0.5 * step for step in range(length)],
        "steps/language_instruction": [b"lift the pot"] * length,
        "steps/is_first": [int(step == 0) for step in range(length)],
        "steps/is_last": [int(step == length - 1) for step in range(length)],
        "steps/reward": [0.0] * length,
        "episode_metadata/episode_id": [first],
        **{f"steps/{name.replace('__', '/')}": value for name, value in features.items()},
    }
    return example({name: value for name, value in said.items() if value is not None})


def source(path: Path, **settings: Any) -> RldsSource:
    return RldsSource(type="rlds", name="bridge", path=str(path), **settings)


def test_episodes_become_runs(tmp_path: Path, read_source: Read) -> None:
    (tmp_path / "bridge-train.tfrecord-00000-of-00001").write_bytes(tfrecord([episode()]))
    examples, verdicts = read_source(source(tmp_path, steps_per_example=4, frames_per_example=2, steps_per_second=5.0))
    assert set(verdicts.values()) == {"kept"}
    run = examples[0].trajectory
    assert run is not None
    assert run.states == [[0, 1, 2], [1, 2, 3], [2, 3, 4], [3, 4, 5]]
    assert run.actions == [[0.0], [0.5], [1.0], [1.5]]
    assert run.step_images == [None, 0, None, 1]
    assert run.state_names[1] == "observation/state.1"
    assert [round(float(np.asarray(Pillow.open(io.BytesIO(image.data))).mean())) for image in examples[0].images] == [
        20,
        60,
    ]
    assert [(text.role, text.text) for text in examples[0].text] == [("instruction", "lift the pot")]
    assert (examples[0].meta.tags, run.steps_per_second) == ({"split": "train"}, 5.0)
    assert [example.key.rsplit("#")[1] for example in examples] == ["0", "4"]


def test_instructions_may_be_spelled_in_numbers(tmp_path: Path, read_source: Read) -> None:
    """Language Table: the bytes of a text in 512 numbers a step."""
    spelled = [*"schieb den Würfel".encode()]
    numbers = (spelled + [0] * (512 - len(spelled))) * 6
    (tmp_path / "x.tfrecord").write_bytes(tfrecord([episode(language_instruction=numbers)]))
    examples, _ = read_source(source(tmp_path))
    assert {text.text for one in examples for text in one.text} == {"schieb den Würfel"}


def test_a_split_that_repeats_another_has_its_digests(tmp_path: Path, read_source: Read) -> None:
    records = [episode(first=i) for i in range(3)]
    (tmp_path / "bridge-train.tfrecord-00000-of-00001").write_bytes(tfrecord(records))
    (tmp_path / "bridge-val.tfrecord-00000-of-00001").write_bytes(tfrecord(records[::-1]))
    examples, _ = read_source(source(tmp_path, steps_per_example=10))
    by_split: dict[str, set[str]] = {"train": set(), "val": set()}
    for one in examples:
        by_split[one.meta.tags["split"]].add(one.provenance.digest)
    assert by_split["train"] == by_split["val"]
    assert len(by_split["train"]) == 3
    assert len({example.id for example in examples}) == 6


def test_units_are_ranges_that_give_every_episode_once(tmp_path: Path, read_source: Read) -> None:
    file = tmp_path / "x-train.tfrecord-00000-of-00001"
    file.write_bytes(tfrecord([episode(first=i) for i in range(5)]))
    whole, _ = read_source(source(tmp_path))
    ranges = source(tmp_path, bytes_per_unit=file.stat().st_size // 3)
    parts, _ = read_source(ranges)
    assert [(e.key, e.provenance) for e in parts] == [(e.key, e.provenance) for e in whole]
    units = list(ranges.units())
    assert len({ref.digest for unit in units for ref in ranges.inputs(unit)}) == len(units) > 2


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        (b"\xff\xff\xff", "tf_example_malformed"),
        (example({"other": [1]}), "rlds_steps_missing"),
        (episode(action=None), "rlds_feature_missing"),
        (episode(action=[1.0] * 7), "rlds_feature_uneven"),
        (episode(language_instruction=[b"a"] * 4), "rlds_feature_uneven"),
        (episode(language_instruction=[97] * 7), "rlds_feature_uneven"),
        (episode(language_instruction=[97, 300] * 3), "rlds_feature_uneven"),
        (episode(action=[float("nan")] * 6), "trajectory_not_finite"),
        (episode(is_first=[1, 0, 0, 1, 0, 0]), "rlds_episode_malformed"),
        (episode(is_last=[0, 1, 0, 0, 0, 0]), "rlds_episode_malformed"),
        (episode(language_instruction=[b"\xff"] * 6), "invalid_utf8"),
        (episode(observation__image_0=[picture(1)[:200]] * 6), "image_truncated"),
    ],
)
def test_faulty_episodes_get_a_reason(record: bytes, reason: str, tmp_path: Path, read_source: Read) -> None:
    (tmp_path / "x.tfrecord").write_bytes(tfrecord([record, episode()]))
    _, verdicts = read_source(source(tmp_path))
    assert list(verdicts.values()) == [reason, "kept"]


def test_an_empty_file_is_accounted_for(tmp_path: Path, read_source: Read) -> None:
    (tmp_path / "x.tfrecord").write_bytes(b"")
    assert read_source(source(tmp_path)) == ([], {"x.tfrecord": "empty_file"})
