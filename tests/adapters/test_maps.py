"""Pictures that belong to pictures come out of their published layouts as examples, and back from rendered tasks."""

from __future__ import annotations

import io
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from adapters.fixtures_map import FORMATS, flo, magicbrush_rows, moving
from adapters.made_pictures import HEIGHT, WIDTH, encoded, put, put_lines, put_table, scene
from adapters.round_trip import Shown, read, render, tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image as Pillow

from omnimill.errors import BadRecord, ConfigError
from omnimill.pipelines.decoders import map_files
from omnimill.schema import Example
from omnimill.tokenizers import cuboids
from omnimill.tokenizers.dense import decode_depth, decode_normals
from omnimill.tokenizers.optical_flow import decode_flow

# Colours of the round trip are this far off at most, in levels; blue twice as far.
LEVELS = 8
Made = Callable[[str], tuple[list[Example], dict[str, str]]]


@pytest.fixture
def made(tmp_path: Path) -> Made:
    return lambda name: read(FORMATS[name](tmp_path / name))


@pytest.fixture(autouse=True)
def _own_indexes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Indexes of annotation files are made anew."""
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "tmp"))


def pixels(data: bytes) -> Any:
    return np.asarray(Pillow.open(io.BytesIO(data)))


def middle(shown: Shown) -> Any:
    """The right half of a target picture, where everything is known."""
    content = shown.content()
    return content[:, content.shape[1] // 2 :]


def close(found: Any, wanted: Any) -> None:
    """Whether pictures differ by no more than codes do, but at edges, which lie within a patch."""
    difference = np.abs(found.astype(int) - wanted.astype(int))
    assert (difference <= (LEVELS, LEVELS, 2 * LEVELS)).all(axis=-1).mean() > 0.8


@pytest.mark.parametrize("name", ["taskonomy_depth", "blended_mvs_depth", "nyu_h5", "nyu_labelled"])
def test_depth_comes_back_in_metres(made: Made, name: str) -> None:
    examples, verdicts = made(name)
    assert {"kept"} <= set(verdicts.values()) <= {"kept", "no_map"}
    for example in examples:
        depth = decode_depth(middle(render(example, "depth-estimation")))
        if name == "blended_mvs_depth":  # from 0.5 m at the top to 4.5 m at the bottom
            wanted = np.linspace(0.5, 4.5, len(depth))[:, None]
        else:
            start = {"taskonomy_depth": 2.0, "nyu_h5": 1.5, "nyu_labelled": 2.0}[name]
            wanted = start + examples.index(example)
        # A level is 10 m / 255; a patch covers 4 of about 100 rows.
        assert np.abs(depth - wanted).max() < LEVELS * 2 * 10 / 255


def test_what_is_not_measured_is_not_measured(made: Made) -> None:
    examples, verdicts = made("taskonomy_depth")
    assert list(verdicts.values()) == ["kept", "kept", "no_map"]
    levels = pixels(examples[0].targets[0].data)
    assert (levels[:, :16] == 0).all()  # 65535 and 0 both stand for nothing
    assert (levels[:, 16:] == 1024).all()
    assert examples[0].targets[0].scale == 1 / 512


def test_frames_of_a_labelled_file_are_upright_and_in_their_units(made: Made) -> None:
    examples, verdicts = made("nyu_labelled")
    assert list(verdicts) == [f"nyu_depth_v2_labeled.mat:{number}" for number in range(3)]
    assert len({example.unit for example in examples}) == 2
    for number, example in enumerate(examples):
        assert np.array_equal(pixels(example.images[0].data), scene(number))


def test_hdf5_that_leads_elsewhere_is_refused(tmp_path: Path) -> None:
    h5py = pytest.importorskip("h5py")
    config = FORMATS["nyu_h5"](tmp_path / "set")
    bad = tmp_path / "set/train/basement_0001a"
    with h5py.File(tmp_path / "secret.h5", "w") as file:
        file["rgb"] = scene(0).transpose(2, 0, 1)
    with h5py.File(bad / "00002.h5", "w") as file:
        file["rgb"] = h5py.ExternalLink(str(tmp_path / "secret.h5"), "/rgb")
        file["depth"] = np.ones((HEIGHT, WIDTH), np.float32)
    with h5py.File(bad / "00003.h5", "w") as file:
        file.create_dataset("rgb", (3, 100_000, 100_000), np.uint8, chunks=(1, 1000, 1000))
        file.create_dataset("depth", (100_000, 100_000), np.float32, chunks=(1000, 1000))
    with h5py.File(bad / "00004.h5", "w") as file:
        raw = tmp_path / "raw"
        raw.write_bytes(bytes(3 * HEIGHT * WIDTH))
        file.create_dataset("rgb", (3, HEIGHT, WIDTH), np.uint8, external=[(str(raw), 0, 3 * HEIGHT * WIDTH)])
        file["depth"] = np.ones((HEIGHT, WIDTH), np.float32)
    (bad / "00005.h5").write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(64))
    with h5py.File(bad / "00006.h5", "w") as file:
        file["depth"] = np.ones((HEIGHT, WIDTH), np.float32)
    _, verdicts = read(config)
    assert [verdicts[f"train/basement_0001a/0000{number}.h5"] for number in range(1, 7)] == [
        "kept",
        "hdf5_refused",
        "map_too_large",
        "hdf5_refused",
        "hdf5_unreadable",
        "missing_field",
    ]


@pytest.mark.parametrize(("name", "wanted"), [("frame_net", (0.6, 0.0, 0.8)), ("taskonomy_normals", (0.0, -0.6, 0.8))])
def test_normals_come_back_as_directions(made: Made, name: str, wanted: tuple[float, ...]) -> None:
    (example,), verdicts = made(name)
    assert list(verdicts.values()) == ["kept"]
    stored = pixels(example.targets[0].data)
    assert (stored[:, :8] == 0).all()
    if name == "taskonomy_normals":
        assert (stored[:, 8:16] == 0).all()  # grey stands for what was not measured
    normals = decode_normals(middle(render(example, "surface-normal-estimation")))
    assert (normals @ np.array(wanted)).min() > np.cos(np.radians(6))


@pytest.mark.parametrize(
    ("name", "count", "wanted"),
    [("flying_chairs", 2, (4.0, 0.0)), ("sintel", 4, (4.0, -1.5)), ("kitti_flow", 1, (4.0, -1.5))],
)
def test_flow_comes_back_as_motion(made: Made, name: str, count: int, wanted: tuple[float, float]) -> None:
    examples, verdicts = made(name)
    assert (len(examples), set(verdicts.values()) - {"kept"}) == (
        count,
        {"other_split"} if name == "flying_chairs" else set(),
    )
    example = examples[0]
    first, second = (pixels(image.data) for image in example.images)
    assert np.array_equal(first, scene(1)) and np.array_equal(second, scene(2))
    flow = map_files.read_npy(example.targets[0].data, 1 << 20)
    assert np.isnan(flow[:, :8]).all()
    assert np.allclose(flow[:, 8:], wanted)
    # Without a stated scale the fastest motion of a field has full saturation.
    back = decode_flow(middle(render(example, "optical-flow")), float(np.hypot(*wanted)))
    assert np.abs(back - wanted).max() < 0.12 * np.hypot(*wanted)


def test_pairs_without_all_of_their_files_are_quarantined(tmp_path: Path) -> None:
    config = FORMATS["sintel"](tmp_path / "set")
    (tmp_path / "set/training/clean/alley_1/frame_0003.png").unlink()
    put(tmp_path / "set/training/flow/alley_1/frame_0001.flo", flo(moving(1, 1))[:-40])
    _, verdicts = read(config)
    assert verdicts == {
        "training/clean/alley_1/frame_0001.png": "map_truncated",
        "training/final/alley_1/frame_0001.png": "map_truncated",
        "training/clean/alley_1/frame_0002.png": "missing_file",
        "training/final/alley_1/frame_0002.png": "kept",
    }


def test_a_split_file_that_is_too_short_is_a_fault_of_the_settings(tmp_path: Path) -> None:
    config = FORMATS["flying_chairs"](tmp_path / "set")
    put(tmp_path / "set/FlyingChairs_train_val.txt", b"1\n2\n")
    with pytest.raises(ConfigError, match="2 lines for more pairs"):
        read(config)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (
            b"\x89PNG\r\n\x1a\n" + struct.pack(">I4sIIBBBBB", 13, b"IHDR", 1 << 20, 1 << 20, 16, 0, 0, 0, 0),
            "map_too_large",
        ),
        (encoded(np.zeros((9, 9), np.uint16))[:45], "map_undecodable"),
        (b"\x93NUMPY\x01\x00\x46\x00{'descr': '|O', 'fortran_order': False, 'shape': (2, 2), }", "map_undecodable"),
        (map_files.npy(np.zeros((9, 9)))[:-4], "map_truncated"),
        (map_files.npy(np.zeros((2000, 2000))), "map_too_large"),
        (map_files.npy(np.zeros((4, 4, 9))), "map_undecodable"),
        (b"Pf\n99999 99999\n-1\n", "map_too_large"),
        (b"Pf\n3 x\n-1\n", "map_undecodable"),
        (b"Pf\n3 3\n-1\n1234", "map_truncated"),
        (b"GIF89a", "unsupported_map_format"),
    ],
)
def test_hostile_maps_are_refused_before_they_are_held(data: bytes, reason: str) -> None:
    with pytest.raises(BadRecord) as found:
        map_files.read_map(data, 1 << 20)
    assert found.value.reason == reason


VALID = [
    encoded(np.arange(35, dtype=np.uint16).reshape(5, 7)),
    encoded(scene(1)),
    map_files.npy(np.ones((5, 7, 3))),
    b"Pf\n7 5\n-1.0\n" + bytes(4 * 35),
    flo(moving(1, 2)),
]


@settings(max_examples=300)
@given(
    st.sampled_from(VALID),
    st.lists(st.tuples(st.integers(0, 120), st.integers(0, 255)), max_size=4),
    st.integers(0, 99),
)
def test_whatever_is_damaged_in_a_map_it_is_within_its_limit_or_refused(
    data: bytes, flips: list[tuple[int, int]], cut: int
) -> None:
    damaged = bytearray(data)
    for place, value in flips:
        damaged[place % len(damaged)] = value
    short = bytes(damaged[: len(damaged) - cut])
    read_one = map_files.read_flo if data == VALID[-1] else lambda *args: map_files.read_map(*args)[0]
    try:
        values = read_one(short, 10_000)
    except BadRecord:
        return
    assert values.shape[0] * values.shape[1] <= 10_000


@pytest.mark.parametrize("endian", ["<", ">"])
def test_pfm_rows_go_up_whatever_their_byte_order(endian: str) -> None:
    depth = np.arange(6, dtype=np.float32).reshape(2, 3)
    header = f"Pf\n3 2\n{-1.0 if endian == '<' else 1.0}\n".encode()
    found = map_files.read_pfm(header + depth[::-1].astype(f"{endian}f4").tobytes(), 100)
    assert np.array_equal(found, depth)


@pytest.mark.parametrize(
    ("name", "count", "others"),
    [
        ("instruct_pix2pix", 2, ["no_pictures"]),
        ("pix2pix_parquet", 2, []),
        ("magicbrush", 4, []),
        ("magicbrush_history", 2, ["no_history", "no_history"]),
    ],
)
def test_edits_come_back(made: Made, name: str, count: int, others: list[str]) -> None:
    examples, verdicts = made(name)
    assert len(examples) == count
    assert sorted(verdict for verdict in verdicts.values() if verdict != "kept") == others
    for example in examples:
        (instruction,) = (text for text in example.text if text.role == "instruction")
        shown = render(example, "image-editing")
        assert " ".join(instruction.text.split()) in " ".join(shown.prompt.split())
        wanted = pixels(example.targets[0].data)
        assert not np.array_equal(wanted, pixels(example.images[-1].data))
        found = shown.content()
        rows = np.arange(len(found)) * HEIGHT // len(found)
        columns = np.arange(found.shape[1]) * WIDTH // found.shape[1]
        close(found, wanted[rows][:, columns])


def test_earlier_turns_are_found_across_row_groups_and_files(tmp_path: Path) -> None:
    config = FORMATS["magicbrush_history"](tmp_path / "set")
    data = tmp_path / "set/data"
    (data / "train-00000-of-00051.parquet").unlink()
    rows = magicbrush_rows()
    put_table(data / "train-00000-of-00002.parquet", rows[:2], row_group_size=1)
    put_table(data / "train-00001-of-00002.parquet", rows[2:], row_group_size=1)
    examples, verdicts = read(config)
    assert list(verdicts.values()) == ["no_history", "kept", "kept", "no_history"]
    assert [len(example.images) for example in examples] == [2, 3]
    assert examples[1].text[0].text.splitlines() == [
        "Before: push the box, turn 1",
        "Before: push the box, turn 2",
        "Now: push the box, turn 3",
    ]
    for number, image in enumerate(examples[1].images):
        assert np.array_equal(pixels(image.data), scene(number + 1))


def test_an_edit_of_a_damaged_picture_is_quarantined_alone(tmp_path: Path) -> None:
    config = FORMATS["pix2pix_parquet"](tmp_path / "set")
    path = tmp_path / "set/data/train-00000-of-00001.parquet"
    rows = pq.read_table(path).to_pylist()
    rows += [{**rows[0], "edited_image": {"bytes": b"no picture", "path": None}}, {**rows[0], "edit_prompt": " "}]
    rows += [{**rows[0], "original_image": {"bytes": None, "path": "../../etc/passwd"}}]
    put_table(path, rows)
    _, verdicts = read(config)
    assert list(verdicts.values()) == ["kept", "kept", "not_an_image", "no_instruction", "path_outside"]


@pytest.mark.parametrize("name", ["control_net", "multi_gen", "coco_stuff_control"])
def test_pictures_are_made_from_what_steers_them(made: Made, name: str) -> None:
    examples, verdicts = made(name)
    assert set(verdicts.values()) == {"kept"}
    for example in examples:
        shown = render(example, "controllable-image-editing")
        caption, control = (text.text for text in example.text)
        assert caption in shown.prompt
        assert control in shown.prompt
        assert shown.picture is not None
        assert shown.rendered.lengths.image > 0


def test_several_controls_are_shown_together(tmp_path: Path) -> None:
    config = FORMATS["multi_gen"](tmp_path / "set")
    rows = [
        {"source": "group_0_3/a.png", "prompt": "a box", "control_canny": "group_0_3_canny/a.png", **more}
        for more in ({"control_depth": "group_0_3_canny/a.png"}, {}, {"control_canny": None}, {"prompt": ""})
    ]
    put_lines(tmp_path / "set/json_files/aesthetics_plus_all_group_canny_all.json", rows)
    config["controls"] = {"control_canny": "edges", "control_depth": "depth"}
    examples, verdicts = read(config)
    assert list(verdicts.values()) == ["kept", "kept", "no_control", "no_caption"]
    assert [(len(example.images), example.text[1].text) for example in examples] == [(2, "edges, depth"), (1, "edges")]
    lengths = [render(example, "controllable-image-editing").rendered.lengths for example in examples]
    assert [(found.images, found.earlier_images) for found in lengths] == [(1, 1), (1, 0)]


def test_class_numbers_become_colours_of_their_own(made: Made) -> None:
    (example,), _ = made("coco_stuff_control")
    colours = pixels(example.images[0].data)
    assert (colours[:10] == 0).all()
    assert (colours[10:30] == (128, 0, 0)).all()
    assert (colours[30:] == (128, 96, 192)).all()


@pytest.mark.parametrize("name", ["omni3d", "objectron"])
def test_cuboids_come_back(made: Made, name: str) -> None:
    (example,), verdicts = made(name)
    assert set(verdicts.values()) <= {"kept", "no_annotations"}
    (told,) = example.annotations
    wanted, camera = cuboids.from_values(told.values or [], example.images[0].height)
    shown = render(example, "3d")
    numbers = tokenizers().numbers
    ((found, box, label),) = cuboids.decode_objects(shown.ids, camera, shown.frame(), numbers)
    assert label == told.label
    down, across = shown.error()
    assert told.box is not None
    assert np.abs(np.array(box) - told.box).max() < max(down, across)
    # A step of the depth's and the sizes' ranges, and the box's edges that moved.
    assert np.abs(np.array(found.centre) - wanted.centre).max() < 0.1
    assert np.allclose(found.size, wanted.size, rtol=0.02)
    assert np.abs(found.rotation - wanted.rotation).max() < 0.1


def test_a_cuboid_of_objectron_projects_where_its_keypoints_are(made: Made) -> None:
    (example,), _ = made("objectron")
    (told,) = example.annotations
    image = example.images[0]
    cuboid, camera = cuboids.from_values(told.values or [], image.height)
    length_height_width = np.array(cuboid.size)[::-1]
    corners = np.array([[x, y, z] for x in (-0.5, 0.5) for y in (-0.5, 0.5) for z in (-0.5, 0.5)]) * length_height_width
    points = corners @ cuboid.rotation.T + cuboid.centre
    columns = (camera.focal * points[:, 0] / points[:, 2] + camera.centre[0]) / image.width
    rows = (camera.focal * points[:, 1] / points[:, 2] + camera.centre[1]) / image.height
    assert np.allclose(told.box, [rows.min(), columns.min(), rows.max(), columns.max()])


def test_a_camera_that_is_none_costs_its_picture_alone(tmp_path: Path) -> None:
    config = FORMATS["omni3d"](tmp_path / "set")
    path = tmp_path / "set/Omni3D/SUNRGBD_train.json"
    text = path.read_text()
    path.write_text(
        text.replace('"valid3D": false', '"valid3D": true').replace("[[70.0, 0.0, 40.0]", "[[7.0, 0.0, 40.0]", 1)
    )
    _, verdicts = read(config)
    assert verdicts == {"SUNRGBD_train/7": "camera_invalid", "SUNRGBD_train/8": "kept"}
