"""3D assets (GLB, glTF, OBJ, PLY) as views from sampled camera poses, all views of an asset in one example.

Needs the optional extra ``assets3d``.
"""

from __future__ import annotations

import importlib.util
import math
import re
from collections.abc import Iterator, Sequence
from typing import Any, Literal

from blake3 import blake3
from pydantic import Field, model_validator

from omnimill import rng
from omnimill.config import Config
from omnimill.errors import BadRecord, ConfigError
from omnimill.infra import storage
from omnimill.infra.dataset import InputRef, Unit
from omnimill.locations import spherical_views
from omnimill.pipelines import files
from omnimill.pipelines.base import Source
from omnimill.pipelines.decoders.mesh import MeshLimits
from omnimill.pipelines.decoders.mesh_files import (
    MeshFormat,
    material_references,
    mesh_format,
    references,
    resolve,
)
from omnimill.pipelines.decoders.rendering import Camera, Pose, Rendering, render_asset
from omnimill.pipelines.decoders.text import parse_json, utf8
from omnimill.pipelines.isolation import isolated
from omnimill.pipelines.sources.examples import make_example
from omnimill.pipelines.sources.sidecars import SidecarSource
from omnimill.schema import Example, Image, Meta, Provenance, Text

_MAX_LABEL_BYTES = 1 << 20


class ViewSettings(Config):
    """How assets are looked at, and what is refused before.

    views: pictures per asset. size: their sides in pixels. seed: of the camera poses.
    elevation: lowest and highest camera, degrees above the horizon; poses are uniform over that part of the sphere.
    distance: nearest and farthest camera, in object radii; at 2.4 the object always fits the field of view.
    field_of_view: degrees. background: grey level.
    max_bytes: of the asset and of the files that it refers to, together.
    """

    views: int = Field(8, ge=1, le=256)
    size: int = Field(256, ge=16, le=2048)
    seed: int = 0
    elevation: tuple[float, float] = (-20.0, 60.0)
    distance: tuple[float, float] = (2.4, 3.1)
    field_of_view: float = Field(49.1, gt=1, lt=170)
    background: int = Field(255, ge=0, le=255)
    max_bytes: int = Field(512 << 20, gt=0)
    max_faces: int = Field(2_000_000, ge=1)
    max_texture_pixels: int = Field(64_000_000, ge=1)
    timeout_seconds: float = Field(120.0, gt=0)

    @model_validator(mode="after")
    def _ranges(self) -> ViewSettings:
        if not -90 <= self.elevation[0] <= self.elevation[1] <= 90:
            raise ValueError("elevation: two angles in ascending order, -90 to 90")
        if not 1 < self.distance[0] <= self.distance[1]:
            raise ValueError("distance: two distances in ascending order, above 1")
        return self


class Assets3dSource(ViewSettings, SidecarSource):
    """Assets by globs; a unit is `files_per_unit` assets. Other files that an asset needs lie in its folder or below.

    labels: side-cars that say what an asset shows: JSON with one of `label_keys`, or plain text.
    label_from_name: without a side-car, take the words of the file's name.
    """

    type: Literal["assets3d"]
    include: tuple[str, ...] = ("**/*.glb", "**/*.gltf", "**/*.obj", "**/*.ply")
    files_per_unit: int = 16
    labels: tuple[str, ...] = ("{stem}.json", "{stem}.txt")
    label_keys: tuple[str, ...] = ("label", "caption", "name", "title")
    label_from_name: bool = True

    def units(self) -> Iterator[Unit]:
        require_extra()
        yield from super().units()

    def templates(self) -> tuple[tuple[str, ...], ...]:
        return (self.labels,)

    def read_sidecar(self, url: str) -> dict[str, Any]:
        text = utf8(files.read_file(url, _MAX_LABEL_BYTES)).strip()
        if url.lower().endswith(".json"):
            found = parse_json(text)
            values = [found.get(key) for key in self.label_keys] if isinstance(found, dict) else []
            text = next((value.strip() for value in values if isinstance(value, str)), "")
        if not text:
            raise BadRecord("label_missing", f"no text under any of {', '.join(self.label_keys)}")
        return {"label": text}

    def inputs(self, unit: Unit) -> list[InputRef]:
        refs = {ref.uri: ref for ref in super().inputs(unit)}
        for url in unit.files[: int(unit.options["files"])]:
            for ref in attachment_inputs(url, self.max_bytes):
                refs.setdefault(ref.uri, ref)
        return list(refs.values())

    def decode(
        self, unit: Unit, url: str, key: str, provenance: Provenance, sidecars: dict[str, Any]
    ) -> Sequence[Example]:
        label = sidecars.get("label") or (_words(url) if self.label_from_name else None)
        return asset_examples(url, self, unit, key, provenance, self, label)


def asset_examples(
    url: str,
    source: Source,
    unit: Unit,
    key: str,
    provenance: Provenance,
    settings: ViewSettings,
    label: str | None = None,
) -> list[Example]:
    """One example with all views of an asset; `url` may be a plain path. The label is a text of role ``label``.

    Scores: ``mesh_faces``, ``mesh_files_missing`` (textures and the like that it names but that are not there) and
    ``view_coverage`` (the smallest share of a picture that shows the object).

    Raises:
        BadRecord: ``mesh_*``, ``texture_*``, ``empty_file``, ``file_too_large``.
        ConfigError: the extra is not installed.
    """
    require_extra()
    data = files.read_file(url, settings.max_bytes)
    form = mesh_format(data, url)
    attachments = read_attachments(url, data, form, settings.max_bytes)
    poses = sample_poses(settings, provenance.digest)
    rendering = _render(data, form, attachments, poses, settings)
    images = rendered_images(rendering.pictures, settings.size, provenance.uri)
    named = set(references(data, form))
    scores = {
        "mesh_faces": float(rendering.faces),
        "mesh_files_missing": float(len(named - set(attachments))),
        "view_coverage": min(rendering.coverage),
    }
    example = make_example(
        source,
        unit,
        key,
        provenance,
        text=[Text(role="label", text=label)] if label else [],
        images=images,
        views=spherical_views([(math.pi / 2 - pose.elevation, pose.azimuth, pose.radius) for pose in poses]),
        meta=Meta(scores=scores),
    )
    return [example]


def sample_poses(settings: ViewSettings, digest: str) -> list[Pose]:
    """Camera poses of an asset: uniform over the allowed part of the sphere, a function of seed and content alone."""
    low, high = (math.sin(math.radians(angle)) for angle in settings.elevation)
    near, far = settings.distance
    poses = []
    for view in range(settings.views):
        axes = ("azimuth", "elevation", "radius")
        draws = [rng.uniform("camera_pose", settings.seed, digest, view, axis) for axis in axes]
        poses.append(
            Pose(
                azimuth=math.pi * (2 * draws[0] - 1),
                elevation=math.asin(low + (high - low) * draws[1]),
                radius=near + (far - near) * draws[2],
            )
        )
    return poses


def read_attachments(url: str, data: bytes, form: MeshFormat, max_bytes: int) -> dict[str, bytes]:
    """Content of the files that an asset refers to, by the names it uses; only what lies in its folder or below.

    Raises:
        BadRecord: ``mesh_outside_reference`` for a name that leads elsewhere, ``file_too_large``, ``mesh_malformed``.
    """
    folder = url.rsplit("/", 1)[0] if "/" in url else "."
    found: dict[str, bytes] = {}
    left = max_bytes - len(data)
    names = references(data, form)
    while names:
        name = names.pop(0)
        place = resolve(folder, name)
        if place is None:
            raise BadRecord("mesh_outside_reference", f"it refers to {name!r}, outside its own folder")
        if name in found or not storage.exists(place):
            continue
        found[name] = files.read_file(place, max(left, 0))
        left -= len(found[name])
        if form == "obj":
            names.extend(material_references(found[name]))
    return found


def attachment_inputs(url: str, max_bytes: int) -> list[InputRef]:
    """The files that an asset depends on, by content; none where it cannot be read, which decoding it will say."""
    try:
        data = files.read_file(url, max_bytes)
        attachments = read_attachments(url, data, mesh_format(data, url), max_bytes)
    except BadRecord:
        return []
    folder = url.rsplit("/", 1)[0]
    return [
        InputRef(uri=resolve(folder, name) or name, digest=blake3(content).hexdigest(), bytes=len(content))
        for name, content in attachments.items()
    ]


def _render(
    data: bytes, form: MeshFormat, attachments: dict[str, bytes], poses: Sequence[Pose], settings: ViewSettings
) -> Rendering:
    camera = Camera(settings.size, settings.field_of_view, settings.background)
    limits = MeshLimits(settings.max_faces, settings.max_texture_pixels)
    return isolated("mesh", settings.timeout_seconds, render_asset, data, form, attachments, poses, camera, limits)


def rendered_images(pictures: Sequence[bytes], size: int, uri: str) -> list[Image]:
    """JPEG files of `size` by `size` pixels, rendered from the asset at `uri`."""
    return [
        Image(data=data, format="jpeg", width=size, height=size, digest=blake3(data).hexdigest(), uri=uri)
        for data in pictures
    ]


def require_extra() -> None:
    missing = [name for name in ("trimesh", "embreex") if importlib.util.find_spec(name) is None]
    if missing:
        raise ConfigError(f"3D assets need {' and '.join(missing)}: pip install 'omnimill[assets3d]'")


def _words(url: str) -> str:
    """The words of a file's name."""
    stem = url.rsplit("/", 1)[-1].rsplit(".", 1)[0]
    return " ".join(re.sub(r"(?<=[a-z])(?=[A-Z])", " ", re.sub(r"[\W_]+", " ", stem)).split())
