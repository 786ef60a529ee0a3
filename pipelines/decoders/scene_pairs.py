"""Pairs of views of a scene that see much of the same, from cameras that stand free inside of it.

Poses, ranges and thresholds follow CroCo (Weinzaepfel et al., 2022, arXiv 2210.10716, and its released generator for
Habitat): eyes 1.2 to 1.8 m above the floor, 60 degrees of view, the second camera a random step away and turned to what
the first one sees, orientation noise of 3, 10 and 5 degrees, surface in at least 0.7 of each picture, half of both
pictures co-visible within 5 cm. Standing room is found by ray casting, without a navigation mesh.

Needs the optional extra ``assets3d``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from omnimill import rng
from omnimill.pipelines.decoders.mesh import Floats, MeshLimits, Surface, load_surface
from omnimill.pipelines.decoders.mesh_files import MeshFormat
from omnimill.pipelines.decoders.rendering import SAMPLES, Camera, directions, ray_tracer, render_view

Vectors = npt.NDArray[np.float64]

_EYE_METRES = (1.2, 1.8)
_NOISE_DEGREES = {"pan": 3.0, "tilt": 10.0, "roll": 5.0}
_TOLERANCE_METRES = 0.05
_STEP_METRES = 2.0
_ROOM_METRES = 0.25
# The cosine of the steepest floor.
_LEVEL = 0.8
# Co-visibility is measured on a grid of so many points each way.
_GRID = 64
_SPOTS = 64
_DOWN, _UP = np.array([0.0, -1.0, 0.0]), np.array([0.0, 1.0, 0.0])


@dataclass(frozen=True)
class PairSettings:
    """What is wanted. up: the axis that points up in the file, y or z.

    covisibility: lowest and highest share of the pictures that both see. valid: lowest share of a picture that shows
        surface at all.
    attempts: to find a first view, and then a second one.
    """

    camera: Camera
    covisibility: tuple[float, float]
    valid: float
    attempts: int
    up: str


@dataclass(frozen=True)
class ViewPair:
    """number: of the pair in its scene. pictures: JPEG.

    covisibility: the smaller of the shares of each picture that the other sees. valid: the smaller of the shares that
        show surface at all.
    """

    number: int
    pictures: tuple[bytes, bytes]
    covisibility: float
    valid: float


@dataclass(frozen=True)
class Eye:
    """A camera: place [3] and axes (right, up, backwards) [3, 3]."""

    place: Vectors
    axes: Vectors


def render_pairs(
    data: bytes,
    form: MeshFormat,
    attachments: Mapping[str, bytes],
    numbers: range,
    keys: tuple[rng.Key, ...],
    settings: PairSettings,
    limits: MeshLimits,
) -> list[ViewPair]:
    """Pairs of a scene; numbers for which no pair is found are left out. Call it through `isolated`.

    Args:
        keys: of randomness; a pair depends on these, its number and the scene alone.

    Raises:
        BadRecord: see :func:`~omnimill.pipelines.decoders.mesh.load_surface`.
        ImportError: the extra is not installed.
    """
    scene = Scene(_upright(load_surface(data, form, attachments, limits), settings.up), settings)
    found = (scene.pair(number, rng.generator("scene_pair", *keys, number)) for number in numbers)
    return [pair for pair in found if pair is not None]


def _upright(surface: Surface, up: str) -> Surface:
    if up == "y":
        return surface
    turned = {
        name: getattr(surface, name)[..., [0, 2, 1]] * np.array([1, 1, -1], np.float32)
        for name in ("corners", "normals")
    }
    return replace(surface, **turned)


class Scene:
    """A surface, its tracer, and the length of a metre in it (glTF counts in metres)."""

    def __init__(self, surface: Surface, settings: PairSettings) -> None:
        self._surface = surface
        self._settings = settings
        self._tracer = ray_tracer(surface)
        self._metre = 1.0 / surface.radius
        edges = surface.corners[:, 1] - surface.corners[:, 0], surface.corners[:, 2] - surface.corners[:, 0]
        across = np.cross(*edges).astype(np.float64)
        length = np.linalg.norm(across, axis=1)
        self._level = np.abs(across[:, 1]) >= _LEVEL * np.maximum(length, 1e-12)
        self._low, self._high = surface.corners.min(axis=(0, 1)), surface.corners.max(axis=(0, 1))

    def pair(self, number: int, draws: np.random.Generator) -> ViewPair | None:
        """A pair of co-visible views, if one is found in the allowed number of attempts."""
        for _ in range(self._settings.attempts):
            first = self._first(draws)
            if first is not None:
                seen, valid = self.seen(first)
                if len(seen) and valid >= self._settings.valid:
                    return self._other(number, first, seen, valid, draws)
        return None

    def _other(
        self, number: int, first: Eye, seen: Vectors, valid: float, draws: np.random.Generator
    ) -> ViewPair | None:
        target = seen.mean(axis=0)
        low, high = self._settings.covisibility
        for _ in range(self._settings.attempts):
            second = self._second(first, target, draws)
            if second is None:
                continue
            others, other_valid = self.seen(second)
            shared = min(self.share(seen, second), self.share(others, first)) if len(others) else 0.0
            if other_valid >= self._settings.valid and low <= shared <= high:
                pictures = (self._picture(first), self._picture(second))
                return ViewPair(number, pictures, shared, min(valid, other_valid))
        return None

    def _first(self, draws: np.random.Generator) -> Eye | None:
        spots = draws.uniform(self._low, self._high, (_SPOTS, 3))
        place = self._free(spots, draws)
        return None if place is None else Eye(place, _turned(_heading(draws.uniform(0, 2 * math.pi)), draws))

    def _second(self, first: Eye, target: Vectors, draws: np.random.Generator) -> Eye | None:
        spot = first.place + draws.normal(size=3) * np.array([1.0, 0.0, 1.0]) * _STEP_METRES * self._metre
        place = self._free(spot[None], draws)
        if place is None or np.linalg.norm(target - place) < 1e-6:
            return None
        return Eye(place, _turned(_facing(target - place), draws))

    def _free(self, spots: Vectors, draws: np.random.Generator) -> Vectors | None:
        """Eye level above the floor below the first of the spots where somebody could stand."""
        height = draws.uniform(*_EYE_METRES) * self._metre
        room = _ROOM_METRES * self._metre
        depth, face = self._cast(spots, np.broadcast_to(_DOWN, spots.shape))
        floor = np.flatnonzero((face >= 0) & self._level[face])
        eyes = spots[floor] + (height - depth[floor, None]) * _UP
        # From just above the floor to above the head, and all around.
        clear = self._cast(eyes - (height - room) * _UP, np.broadcast_to(_UP, eyes.shape))[0] > height
        for angle in np.arange(8) * math.pi / 4:
            around = np.broadcast_to([math.sin(angle), 0.0, math.cos(angle)], eyes.shape)
            clear &= self._cast(eyes, around)[0] > room
        free = np.flatnonzero(clear)
        return eyes[free[0]] if len(free) else None

    def seen(self, eye: Eye) -> tuple[Vectors, float]:
        """The points [n, 3] that a grid of rays hits, and the share of rays that hit any."""
        camera = replace(self._settings.camera, size=_GRID)
        rays = directions(eye.axes, camera, 1).astype(np.float64)
        depth, face = self._cast(np.broadcast_to(eye.place, rays.shape), rays)
        hit = face >= 0
        return eye.place + rays[hit] * depth[hit, None], float(hit.mean())

    def share(self, points: Vectors, eye: Eye) -> float:
        """The share of a picture whose points another camera sees: in its field of view, and nothing in between."""
        ray = points - eye.place
        distance = np.maximum(np.linalg.norm(ray, axis=1), 1e-9)
        right, up, back = (ray @ axis for axis in eye.axes)
        reach = math.tan(math.radians(self._settings.camera.field_of_view) / 2)
        inside = (back < 0) & (np.abs(right) <= -back * reach) & (np.abs(up) <= -back * reach)
        if not inside.any():
            return 0.0
        towards = ray[inside] / distance[inside, None]
        depth, _ = self._cast(np.broadcast_to(eye.place, towards.shape), towards)
        near = depth >= distance[inside] - _TOLERANCE_METRES * self._metre
        return float(near.sum()) / _GRID**2

    def _picture(self, eye: Eye) -> bytes:
        rays = directions(eye.axes, self._settings.camera, SAMPLES)
        return render_view(self._surface, self._tracer, _single(eye.place), rays, self._settings.camera)[0]

    def _cast(self, places: Vectors, rays: Vectors) -> tuple[Vectors, npt.NDArray[np.int64]]:
        """Distance to the surface (infinity where there is none) and the face that is hit (-1)."""
        if not len(places):
            return np.empty(0), np.empty(0, np.int64)
        found: dict[str, Any] = self._tracer.run(_single(places), _single(rays), output=True)
        face = np.asarray(found["primID"], np.int64)
        return np.where(face >= 0, np.asarray(found["tfar"], np.float64), np.inf), face


def _single(values: Vectors) -> Floats:
    return np.ascontiguousarray(values, np.float32)


def _heading(angle: float) -> Vectors:
    """Axes of a level camera."""
    return _facing(np.array([math.sin(angle), 0.0, math.cos(angle)]))


def _facing(ahead: Vectors) -> Vectors:
    """Axes (right, up, backwards) of a camera that looks along a vector, its picture level."""
    back = -ahead / np.linalg.norm(ahead)
    right = np.cross(_UP, back)
    length = np.linalg.norm(right)
    right = right / length if length > 1e-9 else np.array([1.0, 0.0, 0.0])
    return np.stack([right, np.cross(back, right), back])


def _turned(axes: Vectors, draws: np.random.Generator) -> Vectors:
    """Axes with the noise of CroCo's cameras: about up, right and backwards."""
    pan, tilt, roll = (math.radians(draws.uniform(-limit, limit)) for limit in _NOISE_DEGREES.values())
    right, up, back = axes
    right, back = _spun(right, back, -pan)
    up, back = _spun(up, back, tilt)
    right, up = _spun(right, up, roll)
    return np.stack([right, up, back])


def _spun(one: Vectors, other: Vectors, angle: float) -> tuple[Vectors, Vectors]:
    cosine, sine = math.cos(angle), math.sin(angle)
    return cosine * one + sine * other, cosine * other - sine * one
