"""3D assets: views show the object as it is from where the pose says, and hostile files stay harmless."""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import trimesh
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image as Pillow

from omnimill.errors import BadRecord, ConfigError
from omnimill.infra.dataset import Unit
from omnimill.pipelines.decoders.mesh import MeshLimits, load_surface
from omnimill.pipelines.decoders.mesh_files import check_gltf, references, resolve
from omnimill.pipelines.decoders.pixels import load_rgb
from omnimill.pipelines.decoders.rendering import Camera, Pose, camera_rays, render_asset
from omnimill.pipelines.sources.assets3d import Assets3dSource, ViewSettings, asset_examples, sample_poses
from omnimill.schema import Example, Provenance

Read = Callable[[Assets3dSource], tuple[list[Example], dict[str, str]]]

RED, GREEN, BLUE = (255, 0, 0, 255), (0, 255, 0, 255), (0, 0, 255, 255)
FRONT, RIGHT, TOP = Pose(0.0, 0.0, 2.6), Pose(math.pi / 2, 0.0, 2.6), Pose(0.0, math.pi / 2, 2.6)
SMALL = Camera(size=64)


def _box() -> trimesh.Trimesh:
    """A cube whose +x faces are red, +y green and +z blue, the others grey."""
    box = trimesh.creation.box()
    box.unmerge_vertices()
    colours = np.full((len(box.faces), 4), 128, np.uint8)
    for axis, colour in enumerate((RED, GREEN, BLUE)):
        colours[box.face_normals[:, axis] > 0.9] = colour
    box.visual.face_colors = colours
    box.visual = trimesh.visual.ColorVisuals(box, vertex_colors=np.repeat(colours, 3, axis=0))
    return box


def _glb(tree: dict[str, Any], binary: bytes = b"") -> bytes:
    text = json.dumps(tree).encode()
    text += b" " * (-len(text) % 4)
    chunks = struct.pack("<I4s", len(text), b"JSON") + text
    if binary:
        chunks += struct.pack("<I4s", len(binary), b"BIN\0") + binary
    return struct.pack("<4sII", b"glTF", 2, 12 + len(chunks)) + chunks


def _view(data: bytes, form: Any, pose: Pose, attachments: dict[str, bytes] | None = None) -> np.ndarray:
    import simplejpeg

    picture = render_asset(data, form, attachments or {}, [pose], SMALL, MeshLimits()).pictures[0]
    return simplejpeg.decode_jpeg(picture)


def _reason(path: Path, **settings: Any) -> str:
    with pytest.raises(BadRecord) as caught:
        _examples(path, **settings)
    return caught.value.reason


def _examples(path: Path, **settings: Any) -> list[Example]:
    source = Assets3dSource(type="assets3d", name="things", path=str(path.parent))
    unit = Unit(source="things", files=(str(path),))
    provenance = Provenance(uri=str(path), digest="d" * 64)
    wanted = {"views": 2, "size": 64, **settings}
    return asset_examples(str(path), source, unit, "thing", provenance, ViewSettings.model_validate(wanted), "a box")


@pytest.mark.parametrize(("pose", "channel"), [(FRONT, 2), (RIGHT, 0), (TOP, 1)], ids=["front-z", "right-x", "top-y"])
@pytest.mark.parametrize("form", ["glb", "ply"])
def test_the_pose_says_which_side_is_seen(pose: Pose, channel: int, form: str) -> None:
    data = _box().export(file_type=form)
    view = _view(data, form, pose)
    centre = view[32, 32].astype(int)
    assert centre[channel] > 150
    assert centre.sum() - centre[channel] < 60
    assert view[1, 1].tolist() == [255, 255, 255]


def test_left_and_right_and_up_and_down_are_not_swapped() -> None:
    scene = trimesh.Scene([_box()])
    for place, colour in (((1.2, 0, 0), RED), ((0, 1.2, 0), GREEN)):
        ball = trimesh.creation.icosphere(radius=0.3)
        ball.visual.vertex_colors = colour
        scene.add_geometry(ball, transform=trimesh.transformations.translation_matrix(place))
    view = _view(scene.export(file_type="glb"), "glb", FRONT).astype(int)
    red = np.argwhere((view[..., 0] > 120) & (view[..., 1] < 80) & (view[..., 2] < 80)).mean(axis=0)
    green = np.argwhere((view[..., 1] > 120) & (view[..., 0] < 80) & (view[..., 2] < 80)).mean(axis=0)
    assert red[1] > 40  # +x is on the right of who stands in front
    assert green[0] < 24  # +y is up


@settings(max_examples=20)
@given(theta=st.floats(-math.pi, math.pi), phi=st.floats(-math.pi / 2, math.pi / 2), radius=st.floats(1.5, 10))
def test_the_middle_of_every_picture_looks_at_the_origin(theta: float, phi: float, radius: float) -> None:
    eye, directions = camera_rays(Pose(theta, phi, radius), SMALL)
    assert np.linalg.norm(eye) == pytest.approx(radius, rel=1e-5)
    middle = directions.mean(axis=0)
    assert middle / np.linalg.norm(middle) == pytest.approx(-eye / radius, abs=1e-5)
    assert np.linalg.norm(directions, axis=1) == pytest.approx(1.0, abs=1e-5)


def _textured(texture: Pillow.Image) -> trimesh.Trimesh:
    """A square in the plane z = 0 that looks along +z, its texture upright."""
    vertices = [[-1, -1, 0], [1, -1, 0], [1, 1, 0], [-1, 1, 0]]
    square = trimesh.Trimesh(vertices, [[0, 1, 2], [0, 2, 3]], process=False)
    uv = [[0, 0], [1, 0], [1, 1], [0, 1]]
    material = trimesh.visual.material.PBRMaterial(baseColorTexture=texture)
    square.visual = trimesh.visual.TextureVisuals(uv=uv, material=material)
    return square


def test_textures_are_upright() -> None:
    texture = Pillow.new("RGB", (64, 64), (255, 255, 255))
    texture.paste((255, 0, 0), (0, 0, 32, 32))
    texture.paste((0, 0, 255), (32, 32, 64, 64))
    view = _view(_textured(texture).export(file_type="glb"), "glb", FRONT).astype(int)
    upper_left, lower_right = view[26, 26], view[38, 38]
    assert upper_left[0] > 150 > upper_left[2] + 100
    assert lower_right[2] > 150 > lower_right[0] + 100


def test_an_obj_brings_its_material_and_texture(tmp_path: Path) -> None:
    Pillow.new("RGB", (8, 8), (0, 200, 0)).save(tmp_path / "green skin.png")
    (tmp_path / "thing.mtl").write_text("newmtl skin\nmap_Kd green skin.png\n")
    (tmp_path / "thing.obj").write_text(
        "mtllib thing.mtl\nv -1 -1 0\nv 1 -1 0\nv 1 1 0\nvt 0 0\nvt 1 0\nvt 1 1\nusemtl skin\nf 1/1 2/2 3/3\n"
    )
    (example,) = _examples(tmp_path / "thing.obj", views=1, elevation=(0.0, 0.0))
    rgb = load_rgb(example.images[0]).astype(int)
    shown = rgb[rgb.sum(axis=2) < 700]
    assert len(shown) > 0
    assert (shown[:, 1] > shown[:, 0]).mean() > 0.9
    assert example.meta.scores["mesh_files_missing"] == 0


def test_views_of_an_object_stand_together_with_their_poses(tmp_path: Path) -> None:
    (tmp_path / "box.glb").write_bytes(_box().export(file_type="glb"))
    (example,) = _examples(tmp_path / "box.glb", views=5)
    assert [view.image for view in example.views] == [0, 1, 2, 3, 4]
    assert {(image.width, image.height, image.format) for image in example.images} == {(64, 64, "jpeg")}
    assert len({image.digest for image in example.images}) == 5
    assert [(text.role, text.text) for text in example.text] == [("label", "a box")]
    assert example.meta.scores["mesh_faces"] == 12
    assert 0.1 < example.meta.scores["view_coverage"] < 0.6


def test_the_same_asset_gives_the_same_bytes(tmp_path: Path) -> None:
    (tmp_path / "box.glb").write_bytes(_box().export(file_type="glb"))
    assert _examples(tmp_path / "box.glb") == _examples(tmp_path / "box.glb")


def test_poses_depend_on_content_and_seed_and_stay_in_their_ranges() -> None:
    settings = ViewSettings(views=200, elevation=(-10.0, 40.0), distance=(2.0, 3.0))
    poses = sample_poses(settings, "a")
    assert poses == sample_poses(settings, "a")
    assert poses != sample_poses(settings, "b")
    assert poses != sample_poses(settings.model_copy(update={"seed": 1}), "a")
    assert sample_poses(settings.model_copy(update={"views": 3}), "a") == poses[:3]
    assert all(-math.pi <= pose.azimuth <= math.pi for pose in poses)
    assert all(-10 <= math.degrees(pose.elevation) <= 40 for pose in poses)
    assert all(2.0 <= pose.radius <= 3.0 for pose in poses)
    assert np.std([pose.azimuth for pose in poses]) > 1.5


def test_size_and_place_of_an_asset_do_not_matter() -> None:
    plain, moved = _box(), _box()
    moved.apply_scale(1000.0)
    moved.apply_translation([5e4, -3e4, 1e4])
    one = _view(plain.export(file_type="glb"), "glb", Pose(0.5, 0.4, 2.6)).astype(int)
    other = _view(moved.export(file_type="glb"), "glb", Pose(0.5, 0.4, 2.6)).astype(int)
    assert np.abs(one - other).mean() < 1.0


@pytest.mark.parametrize(
    ("name", "inside"),
    [
        ("a.png", "folder/a.png"),
        ("sub/a%20b.png", "folder/sub/a b.png"),
        ("sub/../a.png", "folder/a.png"),
        ("sub\\a.png", "folder/sub/a.png"),
        ("../a.png", None),
        ("sub/../../a.png", None),
        ("%2e%2e/a.png", None),
        ("/etc/passwd", None),
        ("file:///etc/passwd", None),
        ("http://host/a.png", None),
        ("C:\\a.png", None),
    ],
)
def test_references_stay_below_the_asset_s_folder(name: str, inside: str | None) -> None:
    assert resolve("folder", name) == inside


def test_an_asset_that_points_elsewhere_is_refused(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "secret.bin").write_bytes(b"0" * 64)
    tree = {"asset": {"version": "2.0"}, "buffers": [{"uri": "../secret.bin", "byteLength": 64}]}
    (tmp_path / "in/a.gltf").write_text(json.dumps(tree))
    assert _reason(tmp_path / "in/a.gltf") == "mesh_outside_reference"
    (tmp_path / "in/a.obj").write_text("mtllib /etc/passwd\nv 0 0 0\nv 1 0 0\nv 0 1 0\nf 1 2 3\n")
    assert _reason(tmp_path / "in/a.obj") == "mesh_outside_reference"


def test_a_missing_texture_is_noted_and_missing_geometry_refused(tmp_path: Path) -> None:
    (tmp_path / "a.obj").write_text("mtllib gone.mtl\nv 0 0 0\nv 1 0 0\nv 0 1 0\nf 1 2 3\n")
    assert _examples(tmp_path / "a.obj")[0].meta.scores["mesh_files_missing"] == 1
    tree = {"asset": {"version": "2.0"}, "buffers": [{"uri": "gone.bin", "byteLength": 64}]}
    (tmp_path / "a.gltf").write_text(json.dumps(tree))
    assert _reason(tmp_path / "a.gltf") == "mesh_file_missing"


CYCLE = [{"children": [1]}, {"children": [0]}]
DIAMOND = [{"children": [1, 2]}, {"children": [3]}, {"children": [3]}, {}]
CHAIN = [{"children": [index + 1]} for index in range(500)] + [{}]


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "empty_file"),
        (b"glTF", "mesh_malformed"),
        (b"\0" * 40, "mesh_malformed"),
        (_glb({})[:-1], "mesh_malformed"),
        (_glb({}) + b"x", "mesh_malformed"),
        (b"glTF" + struct.pack("<II", 1, 12), "mesh_unsupported"),
        (_glb({"asset": {"version": "2.0"}}), "mesh_empty"),
        (_glb({"extensionsRequired": ["KHR_draco_mesh_compression"]}), "mesh_unsupported"),
        (_glb({"accessors": [{"count": 10**12}]}), "mesh_too_large"),
        (_glb({"accessors": [{"count": -1}]}), "mesh_malformed"),
        (_glb({"nodes": CYCLE}), "mesh_malformed"),
        (_glb({"nodes": DIAMOND}), "mesh_malformed"),
        (_glb({"nodes": CHAIN}), "mesh_malformed"),
        (_glb({"nodes": [{"children": [9]}]}), "mesh_malformed"),
        (_glb({"nodes": "none"}), "mesh_malformed"),
        (b'{"a":' + b"[" * 100_000, "mesh_malformed"),
    ],
    ids=[
        "empty", "cut-header", "zeros", "cut", "longer", "version-1", "nothing", "draco", "count", "negative", "cycle",
        "diamond", "deep", "child", "nodes", "nested-json",
    ],
)  # fmt: skip
def test_malformed_files_get_a_reason(data: bytes, reason: str, tmp_path: Path) -> None:
    (tmp_path / "bad.glb").write_bytes(data)
    assert _reason(tmp_path / "bad.glb") == reason


def test_limits_hold(tmp_path: Path) -> None:
    path = tmp_path / "box.glb"
    path.write_bytes(_textured(Pillow.new("RGB", (64, 64))).export(file_type="glb"))
    assert _reason(path, max_faces=1) == "mesh_too_large"
    assert _reason(path, max_texture_pixels=64 * 64 - 1) == "texture_too_large"
    assert _reason(path, max_bytes=100) == "file_too_large"
    (tmp_path / "a.dae").write_text("<COLLADA/>")
    assert _reason(tmp_path / "a.dae") == "mesh_unsupported"


def test_instances_count_against_the_limit_of_faces() -> None:
    scene = trimesh.Scene()
    for place in range(10):
        scene.add_geometry(
            _box(), geom_name="box", transform=trimesh.transformations.translation_matrix([place * 2, 0, 0])
        )
    data = scene.export(file_type="glb")
    assert len(load_surface(data, "glb", {}, MeshLimits(faces=120)).corners) == 120
    with pytest.raises(BadRecord, match="more than 119 faces"):
        load_surface(data, "glb", {}, MeshLimits(faces=119))


def test_a_damaged_texture_gets_a_reason(tmp_path: Path) -> None:
    texture = Pillow.fromarray(np.random.default_rng(0).integers(0, 255, (32, 32, 3)).astype(np.uint8))
    data = bytearray(_textured(texture).export(file_type="glb"))
    middle = data.index(b"IDAT") + 200
    data[middle : middle + 200] = bytes(200)
    (tmp_path / "a.glb").write_bytes(data)
    assert _reason(tmp_path / "a.glb") == "texture_undecodable"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("v 0 0 0\nv 1 0 0\nv 0 nan 0\nf 1 2 3\n", "mesh_not_finite"),
        ("v 0 0 0\nv 0 0 0\nv 0 0 0\nf 1 2 3\n", "mesh_empty"),
        ("v 0 0 0\nv 1 0 0\nv 0 1 0\n", "mesh_empty"),
        ("v 0 0 0\nv 1 0 0\nv 0 1 0\nf 1 2 9\n", "mesh_malformed"),
        ("just words\n", "mesh_malformed"),
    ],
    ids=["nan", "point", "no-faces", "no-vertex", "no-obj"],
)
def test_geometry_that_is_none_gets_a_reason(text: str, reason: str, tmp_path: Path) -> None:
    (tmp_path / "a.obj").write_text(text)
    assert _reason(tmp_path / "a.obj") == reason


@given(st.recursive(st.none() | st.integers() | st.text(max_size=3), lambda x: st.lists(x, max_size=3)))
def test_any_json_in_place_of_tables_is_a_verdict(value: Any) -> None:
    for key in ("accessors", "nodes", "extensionsRequired"):
        try:
            check_gltf({key: value}, 100)
        except BadRecord as fault:
            assert fault.reason.startswith("mesh_")


def test_embedded_data_are_no_references() -> None:
    tree = {"images": [{"uri": "data:image/png;base64,AA=="}, {"uri": "a.png"}, {"bufferView": 1}, 7], "buffers": []}
    assert references(_glb(tree), "glb") == ["a.png"]


def test_the_source_labels_assets_and_accounts_for_every_file(tmp_path: Path, read_source: Read) -> None:
    folder = tmp_path / "things"
    folder.mkdir()
    box = _box().export(file_type="glb")
    for name in ("redBox_one.glb", "with label.glb", "bad label.glb"):
        (folder / name).write_bytes(box)
    (folder / "with label.json").write_text('{"name": "a coloured cube"}')
    (folder / "bad label.json").write_text("{")
    (folder / "broken.glb").write_bytes(box[:-4])
    source = Assets3dSource(type="assets3d", name="things", path=str(folder), views=1, size=32, files_per_unit=3)
    examples, verdicts = read_source(source)
    assert verdicts == {
        "bad label.glb": "kept",
        "bad label.json": "invalid_json",
        "broken.glb": "mesh_malformed",
        "redBox_one.glb": "kept",
        "with label.glb": "kept",
        "with label.json": "sidecar",
    }
    labels = {example.key: example.text[0].text for example in examples}
    assert labels == {
        "bad label.glb": "bad label",
        "redBox_one.glb": "red Box one",
        "with label.glb": "a coloured cube",
    }


def test_a_unit_depends_on_the_files_that_its_assets_refer_to(tmp_path: Path) -> None:
    (tmp_path / "a.obj").write_text("mtllib a.mtl\nv 0 0 0\nv 1 0 0\nv 0 1 0\nf 1 2 3\n")
    (tmp_path / "a.mtl").write_text("newmtl m\nmap_Kd skin.png\n")
    (tmp_path / "skin.png").write_bytes(b"1")
    source = Assets3dSource(type="assets3d", name="things", path=str(tmp_path))
    (unit,) = source.units()
    before = source.inputs(unit)
    assert sorted(Path(ref.uri).name for ref in before) == ["a.mtl", "a.obj", "skin.png"]
    (tmp_path / "skin.png").write_bytes(b"2")
    assert source.inputs(unit) != before


def test_without_the_extra_the_message_names_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"omnimill\[assets3d\]"):
        list(Assets3dSource(type="assets3d", name="things", path=str(tmp_path)).units())
