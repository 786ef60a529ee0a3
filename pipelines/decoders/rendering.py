"""Views of a surface by ray casting on the CPU: nearest hit, texture and colour, Lambert shading.

Needs the optional extra ``assets3d`` (embreex, Intel's ray tracing kernels in a wheel).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import simplejpeg

from omnimill.pipelines.decoders.mesh import Floats, MeshLimits, Surface, load_surface
from omnimill.pipelines.decoders.mesh_files import MeshFormat

JPEG_QUALITY = 90
SAMPLES = 2  # per pixel and axis
# Shares of the colour that are seen edge-on, and that are added head-on; white stays apart from a white background.
_AMBIENT, _DIFFUSE = 0.42, 0.5


@dataclass(frozen=True)
class Pose:
    """Where the camera stands and looks to the centre from: azimuth and elevation in radians, distance in radii.

    Azimuth 0 is in front of the object (glTF: its front looks along +z), pi/2 at +x; y is up.
    """

    azimuth: float
    elevation: float
    radius: float


@dataclass(frozen=True)
class Camera:
    """size: sides of the square picture in pixels. field_of_view: degrees. background: grey level 0..255."""

    size: int = 256
    field_of_view: float = 49.1
    background: int = 255


@dataclass(frozen=True)
class Rendering:
    """pictures: one JPEG per pose. coverage: share of the pixels that show the object. faces: triangles."""

    pictures: tuple[bytes, ...]
    coverage: tuple[float, ...]
    faces: int


def render_asset(
    data: bytes,
    form: MeshFormat,
    attachments: Mapping[str, bytes],
    poses: Sequence[Pose],
    camera: Camera,
    limits: MeshLimits,
) -> Rendering:
    """Views of an asset. Call it through :func:`~omnimill.pipelines.isolation.isolated`.

    Raises:
        BadRecord: see :func:`~omnimill.pipelines.decoders.mesh.load_surface`.
        ImportError: the extra is not installed.
    """
    surface = load_surface(data, form, attachments, limits)
    tracer = ray_tracer(surface)
    pictures, coverage = [], []
    for pose in poses:
        picture, share = render_view(surface, tracer, *camera_rays(pose, camera), camera)
        pictures.append(picture)
        coverage.append(share)
    return Rendering(tuple(pictures), tuple(coverage), len(surface.corners))


def camera_rays(pose: Pose, camera: Camera) -> tuple[Floats, Floats]:
    """The eye [3] and the unit directions [rays, 3] of all samples of a picture, row by row from the top left."""
    eye = pose.radius * np.array(
        [
            math.cos(pose.elevation) * math.sin(pose.azimuth),
            math.sin(pose.elevation),
            math.cos(pose.elevation) * math.cos(pose.azimuth),
        ]
    )
    back = eye / np.linalg.norm(eye)
    # Horizontal by construction, so that straight up and down are no special case.
    right = np.array([math.cos(pose.azimuth), 0.0, -math.sin(pose.azimuth)])
    return eye.astype(np.float32), directions(np.stack([right, np.cross(back, right), back]), camera, SAMPLES)


def directions(axes: npt.NDArray[np.float64], camera: Camera, samples: int) -> Floats:
    """Unit directions [rays, 3] of the samples of a picture, row by row from the top left.

    Args:
        axes: right, up and backwards of the camera, [3, 3].
        samples: per pixel and axis.
    """
    right, up, back = axes
    count = camera.size * samples
    reach = math.tan(math.radians(camera.field_of_view) / 2)
    steps = (((np.arange(count) + 0.5) / count * 2 - 1) * reach).astype(np.float32)
    found = np.empty((count, count, 3), np.float32)
    length = np.sqrt(1 + steps[None, :] ** 2 + steps[:, None] ** 2)
    for axis in range(3):
        across, down, ahead = np.float32(right[axis]), np.float32(up[axis]), np.float32(back[axis])
        found[..., axis] = (steps[None, :] * across - steps[:, None] * down - ahead) / length
    return found.reshape(-1, 3)


def ray_tracer(surface: Surface) -> Any:
    """Embree's scene of a surface."""
    from embreex.mesh_construction import TriangleMesh  # noqa: PLC0415 - optional extra
    from embreex.rtcore_scene import EmbreeScene  # noqa: PLC0415

    scene = EmbreeScene()
    vertices = np.ascontiguousarray(surface.corners.reshape(-1, 3))
    TriangleMesh(scene, vertices, np.arange(len(vertices), dtype=np.int32).reshape(-1, 3))
    return scene


def render_view(surface: Surface, tracer: Any, eye: Floats, rays_from: Floats, camera: Camera) -> tuple[bytes, float]:
    """One picture as JPEG, and the share of it that the surface covers.

    Args:
        eye: [3]. rays_from: what :func:`camera_rays` gives with it, [rays, 3].
    """
    found = tracer.run(np.broadcast_to(eye, rays_from.shape).copy(), rays_from, output=True)
    rays = np.flatnonzero(found["primID"] >= 0)
    face = found["primID"][rays]
    u, v = found["u"][rays], found["v"][rays]
    weights = np.stack([1 - u - v, u, v], axis=1).astype(np.float32)
    colour = _colour(surface, face, weights)
    normal = _blend(surface.normals[face], weights)
    length = np.sqrt(np.einsum("hi,hi->h", normal, normal))
    # The lamp stands at the camera; surfaces are seen from both sides, as open meshes are common.
    light = np.abs(np.einsum("hi,hi->h", normal, rays_from[rays])) / np.maximum(length, 1e-9)
    samples = np.full((len(rays_from), 3), camera.background, np.float32)
    samples[rays] = 255 * np.clip(colour * (_AMBIENT + _DIFFUSE * light)[:, None], 0, 1)
    grid = samples.reshape(camera.size, SAMPLES, camera.size, SAMPLES, 3)
    corners = [grid[:, row, :, column] for row in range(SAMPLES) for column in range(SAMPLES)]
    rgb = np.rint(sum(corners[1:], corners[0]) / len(corners)).astype(np.uint8)
    data = simplejpeg.encode_jpeg(
        np.ascontiguousarray(rgb), quality=JPEG_QUALITY, colorspace="RGB", colorsubsampling="444"
    )
    return data, len(rays) / len(rays_from)


def _blend(corners: Floats, weights: Floats) -> Floats:
    """What lies at the hits, from values [hits, 3 corners, n] and weights [hits, 3]."""
    return np.asarray(np.einsum("hcn,hc->hn", corners, weights), np.float32)


def _colour(surface: Surface, face: npt.NDArray[np.int32], weights: Floats) -> Floats:
    """Colour of every hit before shading, [hits, 3] in 0..1."""
    colour = _blend(surface.colours[face], weights)
    part = surface.parts[face]
    for index in np.unique(part):
        hits = np.flatnonzero(part == index)
        material = surface.materials[index]
        colour[hits] *= np.array(material.colour, np.float32)
        if material.texture is not None:
            uv = _blend(surface.uv[face[hits]], weights[hits])
            colour[hits] *= _sample(material.texture, uv)
    return np.asarray(colour, np.float32)


def _sample(texture: npt.NDArray[np.uint8], uv: Floats) -> Floats:
    """Bilinear texture look-up with repetition, [n, 3] in 0..1."""
    height, width = texture.shape[:2]
    x = (uv[:, 0] % 1.0) * width - 0.5
    y = ((1.0 - uv[:, 1]) % 1.0) * height - 0.5
    left, top = np.floor(x).astype(np.int64), np.floor(y).astype(np.int64)
    across, down = (x - left)[:, None], (y - top)[:, None]
    columns, rows = (left % width, (left + 1) % width), (top % height, (top + 1) % height)
    above = texture[rows[0], columns[0]] * (1 - across) + texture[rows[0], columns[1]] * across
    below = texture[rows[1], columns[0]] * (1 - across) + texture[rows[1], columns[1]] * across
    return np.asarray((above * (1 - down) + below * down) / 255.0, np.float32)
