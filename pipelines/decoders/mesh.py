"""Geometry and colours of 3D assets as one list of triangles, ready to be looked at.

Needs the optional extra ``assets3d`` (trimesh).
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from omnimill.errors import BadRecord
from omnimill.pipelines.decoders.mesh_files import MeshFormat, check_gltf, gltf_tree

Floats = npt.NDArray[np.float32]

# A corner keeps the smooth normal of its vertex only where faces meet at a blunt angle (cosine).
_CREASE = 0.8
_PLAIN = (0.72, 0.72, 0.72)


@dataclass(frozen=True)
class MeshLimits:
    """faces: triangles with all instances unfolded. texture_pixels: of all textures."""

    faces: int = 2_000_000
    texture_pixels: int = 64_000_000


@dataclass(frozen=True)
class Part:
    """What triangles of one material share. colour: sRGB factor in 0..1. texture: uint8 [height, width, 3]."""

    colour: tuple[float, float, float]
    texture: npt.NDArray[np.uint8] | None


@dataclass(frozen=True)
class Surface:
    """Triangles in a sphere of radius 1 around the origin, y up; `radius` is that of the asset, in its own unit.

    corners, normals: [faces, 3 corners, 3]. uv: [faces, 3, 2], v upwards. colours: [faces, 3, 3], sRGB 0..1.
    parts: material of every face, an index into `materials`.
    """

    corners: Floats
    normals: Floats
    uv: Floats
    colours: Floats
    parts: npt.NDArray[np.int32]
    materials: tuple[Part, ...]
    radius: float


def load_surface(data: bytes, form: MeshFormat, attachments: Mapping[str, bytes], limits: MeshLimits) -> Surface:
    """Decode an asset. Call it, and what uses its result, through :func:`~omnimill.pipelines.isolation.isolated`.

    Args:
        attachments: content of the files that it refers to, by the names it uses; no other file is opened.

    Raises:
        BadRecord: ``mesh_malformed``, ``mesh_unsupported``, ``mesh_too_large``, ``mesh_empty``, ``mesh_not_finite``,
            ``texture_too_large``, ``texture_undecodable``.
        ImportError: the extra is not installed.
    """
    if form in ("glb", "gltf"):
        # Every triangle takes three indices and at most three vertices with a handful of attributes.
        check_gltf(gltf_tree(data, form), max_values=32 * limits.faces)
    scene = _load(data, form, attachments)
    pieces = list(_pieces(scene, limits))
    if not pieces:
        raise BadRecord("mesh_empty", "it has no faces")
    corners = np.concatenate([piece[0] for piece in pieces])
    if not np.isfinite(corners).all():
        raise BadRecord("mesh_not_finite", "a vertex is not finite (NaN or infinity)")
    low, high = corners.min(axis=(0, 1)), corners.max(axis=(0, 1))
    radius = float(np.linalg.norm(high - low)) / 2
    if not 0 < radius < np.inf:
        raise BadRecord("mesh_empty", "all its vertices are one point")
    return Surface(
        corners=((corners - (low + high) / 2) / radius).astype(np.float32),
        normals=np.concatenate([piece[1] for piece in pieces]).astype(np.float32),
        uv=np.concatenate([piece[2] for piece in pieces]).astype(np.float32),
        colours=np.concatenate([piece[3] for piece in pieces]).astype(np.float32),
        parts=np.repeat(np.arange(len(pieces), dtype=np.int32), [len(piece[0]) for piece in pieces]),
        materials=tuple(piece[4] for piece in pieces),
        radius=radius,
    )


def _load(data: bytes, form: MeshFormat, attachments: Mapping[str, bytes]) -> Any:
    import trimesh  # noqa: PLC0415 - optional extra

    class Attached(trimesh.resolvers.Resolver):  # type: ignore[misc]
        """Gives the attachments and nothing else."""

        def __init__(self) -> None:
            pass

        def get(self, name: str) -> bytes:
            if name.strip() in attachments:
                return attachments[name.strip()]
            raise FileNotFoundError(name)

        def namespaced(self, namespace: str) -> Attached:  # noqa: ARG002
            return self

        def keys(self) -> list[str]:
            return list(attachments)

        def write(self, name: str, data: bytes) -> None:
            raise NotImplementedError

    try:
        return trimesh.load_scene(io.BytesIO(data), file_type=form, resolver=Attached(), process=False)
    except (MemoryError, ImportError):
        raise
    except FileNotFoundError as error:
        raise BadRecord("mesh_file_missing", f"it refers to {error}, which is not there") from None
    except Exception as error:  # noqa: BLE001 - the parser meets malformed files with any exception
        raise BadRecord("mesh_malformed", f"{type(error).__name__}: {error}") from None


def _pieces(scene: Any, limits: MeshLimits) -> Iterator[tuple[Floats, Floats, Floats, Floats, Part]]:
    """Corners, normals, uv, colours and material of every mesh in the scene where its nodes put it."""
    import trimesh  # noqa: PLC0415 - optional extra

    faces = pixels = 0
    materials: dict[str, Part] = {}
    for node in sorted(scene.graph.nodes_geometry):
        transform, name = scene.graph[node]
        mesh = scene.geometry[name]
        if not isinstance(mesh, trimesh.Trimesh) or len(mesh.faces) == 0:
            continue
        faces += len(mesh.faces)
        if faces > limits.faces:
            raise BadRecord("mesh_too_large", f"more than {limits.faces} faces")
        if name not in materials:
            pixels += _texture_pixels(mesh)
            if pixels > limits.texture_pixels:
                raise BadRecord("texture_too_large", f"{pixels} pixels of texture, {limits.texture_pixels} allowed")
            materials[name] = _part(mesh)
        yield (*_geometry(mesh, np.asarray(transform)), *_paint(mesh), materials[name])


def _geometry(mesh: Any, transform: npt.NDArray[np.float64]) -> tuple[Floats, Floats]:
    """Corners and normals [faces, 3, 3] in the scene's space."""
    indices = np.asarray(mesh.faces)
    vertices = np.asarray(mesh.vertices, dtype=np.float64)
    if indices.min() < 0 or indices.max() >= len(vertices):
        raise BadRecord("mesh_malformed", "a face names a vertex that is not there")
    with np.errstate(all="ignore"):
        corners = (vertices @ transform[:3, :3].T + transform[:3, 3])[indices]
        flat = _unit(np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]))[:, None]
        # Normals transform by the inverse transpose; the adjugate is that up to scale, and exists for all matrices.
        linear = transform[:3, :3]
        adjugate = np.cross(linear[[1, 2, 0]], linear[[2, 0, 1]])
        smooth = _unit(np.asarray(mesh.vertex_normals) @ adjugate.T)[indices]
        blunt = (smooth * flat).sum(axis=2, keepdims=True) > _CREASE
        normals = np.where(blunt, smooth, flat)
    return corners.astype(np.float32), np.nan_to_num(normals).astype(np.float32)


def _paint(mesh: Any) -> tuple[Floats, Floats]:
    """Texture coordinates [faces, 3, 2] and colours [faces, 3, 3] of the corners; white where the file gives none."""
    indices = np.asarray(mesh.faces)
    uv = np.zeros((len(indices), 3, 2), np.float32)
    colours = np.ones((len(indices), 3, 3), np.float32)
    visual = mesh.visual
    coordinates = getattr(visual, "uv", None)
    if coordinates is not None and len(coordinates) == len(mesh.vertices):
        uv = np.nan_to_num(np.asarray(coordinates, np.float32)[:, :2])[indices]
    own = getattr(visual, "vertex_attributes", {}).get("color") if visual.kind == "texture" else None
    if own is not None and len(own) == len(mesh.vertices):
        colours = _display(_shares(own))[indices]
    elif visual.kind == "face":
        colours = np.repeat(_shares(visual.face_colors)[:, None], 3, axis=1)
    elif visual.kind == "vertex":
        colours = _shares(visual.vertex_colors)[indices]
    return uv, colours


def _part(mesh: Any) -> Part:
    """The colour and the texture of a mesh's material."""
    visual = mesh.visual
    if visual.kind in ("vertex", "face"):
        return Part((1.0, 1.0, 1.0), None)
    material: Any = getattr(visual, "material", None)
    picture = _picture(mesh)
    texture = None if picture is None else _pixels(picture)
    if hasattr(material, "baseColorFactor"):
        factor = material.baseColorFactor
        # glTF states colours in linear light; the product of a texture and a factor is taken after encoding both.
        colour = np.ones(3, np.float32) if factor is None else _display(_shares(factor))
        return Part(_triple(colour), texture)
    if texture is None and getattr(material, "diffuse", None) is not None:
        return Part(_triple(_shares(material.diffuse)), None)
    return Part((1.0, 1.0, 1.0) if texture is not None else _PLAIN, texture)


def _picture(mesh: Any) -> Any:
    material = getattr(mesh.visual, "material", None)
    return getattr(material, "baseColorTexture", None) or getattr(material, "image", None)


def _pixels(picture: Any) -> npt.NDArray[np.uint8]:
    try:
        return np.asarray(picture.convert("RGB"), np.uint8)
    except MemoryError:
        raise
    except Exception as error:  # noqa: BLE001 - decoders meet malformed pictures with any exception
        raise BadRecord("texture_undecodable", f"{type(error).__name__}: {error}") from None


def _texture_pixels(mesh: Any) -> int:
    picture = _picture(mesh)
    return 0 if picture is None else int(picture.width * picture.height)


def _shares(colours: Any) -> Floats:
    """RGB in 0..1 of colours given as bytes or as shares."""
    values = np.asarray(colours)[..., :3]
    scale = 255.0 if values.dtype == np.uint8 else 65535.0 if values.dtype == np.uint16 else 1.0
    return np.asarray(np.clip(np.nan_to_num(values.astype(np.float32) / scale), 0.0, 1.0), np.float32)


def _display(linear: Floats) -> Floats:
    """Linear light as sRGB (IEC 61966-2-1)."""
    encoded = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * np.maximum(linear, 1e-9) ** (1 / 2.4) - 0.055)
    return encoded.astype(np.float32)


def _unit(vectors: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    length = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return np.asarray(vectors / np.where(length > 0, length, 1.0))


def _triple(colour: Floats) -> tuple[float, float, float]:
    return float(colour[0]), float(colour[1]), float(colour[2])
