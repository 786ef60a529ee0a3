"""Pairs of views that see much of the same: rendered inside of scenes, and read as they are published."""

from __future__ import annotations

import io
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import trimesh
from PIL import Image as Pillow

from omnimill import rng
from omnimill.pipelines.base import Source
from omnimill.pipelines.decoders.mesh import MeshLimits, load_surface
from omnimill.pipelines.decoders.rendering import Camera
from omnimill.pipelines.decoders.scene_pairs import Eye, PairSettings, Scene, render_pairs
from omnimill.pipelines.sources.scene_pairs import ScenePairsSource
from omnimill.pipelines.sources.view_pairs import ViewPairsSource
from omnimill.schema import Example

Read = Callable[[Source], tuple[list[Example], dict[str, str]]]

WANTED = PairSettings(Camera(size=48, field_of_view=60.0), (0.5, 1.0), valid=0.7, attempts=40, up="y")


def room(wall: bool = False, up: str = "y") -> bytes:
    """A closed room of 6 x 3 x 6 m, perhaps with a wall across at z = 0."""
    scene = trimesh.Scene([trimesh.creation.box(extents=(6, 3, 6))])
    if wall:
        scene.add_geometry(trimesh.creation.box(extents=(6, 3, 0.1)))
    if up == "z":
        scene.apply_transform(trimesh.transformations.rotation_matrix(math.pi / 2, (1, 0, 0)))
    return bytes(scene.export(file_type="glb"))


def looking(z: float, towards: float) -> Eye:
    """A level camera in the middle of the room, looking along z."""
    back = np.array([0.0, 0.0, -towards])
    up = np.array([0.0, 1.0, 0.0])
    metre = 1 / load_surface(room(), "glb", {}, MeshLimits()).radius
    return Eye(np.array([0.0, 0.0, z]) * metre, np.stack([np.cross(up, back), up, back]))


@pytest.mark.parametrize("up", ["y", "z"])
def test_pairs_stand_in_the_room_and_see_the_same(up: str) -> None:
    settings = PairSettings(WANTED.camera, WANTED.covisibility, WANTED.valid, WANTED.attempts, up)
    pairs = render_pairs(room(up=up), "glb", {}, range(6), (0,), settings, MeshLimits())
    assert len(pairs) >= 4
    assert all(pair.covisibility >= 0.5 and pair.valid == 1.0 for pair in pairs)
    assert len({picture for pair in pairs for picture in pair.pictures}) == 2 * len(pairs)


def test_a_pair_depends_on_its_number_alone() -> None:
    whole = render_pairs(room(), "glb", {}, range(4), (0,), WANTED, MeshLimits())
    parts = [
        pair for n in range(4) for pair in render_pairs(room(), "glb", {}, range(n, n + 1), (0,), WANTED, MeshLimits())
    ]
    assert parts == whole


def test_where_nobody_can_stand_there_are_no_pairs() -> None:
    ball = bytes(trimesh.Scene([trimesh.creation.icosphere(radius=0.4)]).export(file_type="glb"))
    assert render_pairs(ball, "glb", {}, range(3), (0,), WANTED, MeshLimits()) == []


def test_what_stands_behind_a_wall_or_a_back_is_not_shared() -> None:
    open_room = Scene(load_surface(room(), "glb", {}, MeshLimits()), WANTED)
    walled = Scene(load_surface(room(wall=True), "glb", {}, MeshLimits()), WANTED)
    seen, valid = open_room.seen(looking(-2, 1))
    assert valid == 1.0
    assert open_room.share(seen, looking(-2, 1)) == 1.0
    # From 2 m nearer, the middle (3/5)^2 of the picture on the far wall.
    assert open_room.share(seen, looking(0, 1)) == pytest.approx((3 / 5) ** 2, abs=0.05)
    assert open_room.share(seen, looking(2, -1)) < 0.3
    assert walled.share(seen, looking(2, 1)) > 0.0
    assert walled.share(seen, looking(-2, 1)) == 0.0


def test_a_scene_as_a_source(tmp_path: Path, read_source: Read) -> None:
    (tmp_path / "house.glb").write_bytes(room())
    settings: dict[str, Any] = {"pairs_per_scene": 4, "pairs_per_unit": 3, "size": 32, "attempts": 40}
    source = ScenePairsSource(type="scene_pairs", name="croco", path=str(tmp_path), **settings)
    assert [unit.options for unit in source.units()] == [{"first": 0, "count": 3}, {"first": 3, "count": 1}]
    examples, verdicts = read_source(source)
    assert verdicts == {"house.glb#0": "kept", "house.glb#3": "kept"}
    assert all(len(example.images) == 2 for example in examples)
    assert all(0.5 <= example.meta.scores["covisibility"] <= 1 for example in examples)
    assert len({example.id for example in examples}) == len(examples) >= 3


def picture(name: str) -> bytes:
    stream = io.BytesIO()
    noise = rng.generator("pair", name).integers(0, 255, (24, 24, 3), dtype=np.uint8)
    Pillow.fromarray(noise).save(stream, "JPEG")
    return stream.getvalue()


def test_published_pairs(tmp_path: Path, read_source: Read) -> None:
    scene = tmp_path / "hm3d" / "val" / "00800-TEEsavR23oF"
    scene.mkdir(parents=True)
    for name in ("00000000_1", "00000000_2", "00000001_1", "00000002_1", "00000002_2"):
        (scene / f"{name}.jpeg").write_bytes(picture(name))
    (scene / "00000002_2.jpeg").write_bytes(b"")
    source = ViewPairsSource(type="view_pairs", name="croco", path=str(tmp_path), pairs_per_unit=2)
    examples, verdicts = read_source(source)
    base = "hm3d/val/00800-TEEsavR23oF/"
    assert verdicts == {
        f"{base}00000000.jpeg": "kept",
        f"{base}00000001.jpeg": "pair_incomplete",
        f"{base}00000002.jpeg": "empty_file",
    }
    first, second = (np.asarray(Pillow.open(io.BytesIO(image.data))).mean() for image in examples[0].images)
    assert [image.uri for image in examples[0].images] == [str(scene / f"00000000_{n}.jpeg") for n in (1, 2)]
    assert first != second
