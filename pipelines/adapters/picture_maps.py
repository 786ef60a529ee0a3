"""Pictures with maps of the same scene in files beside them: depth and surface normals."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from typing import ClassVar, Literal

import numpy as np
import numpy.typing as npt
from blake3 import blake3
from pydantic import Field

from omnimill.errors import BadRecord, RecordDropped
from omnimill.infra import storage
from omnimill.infra.dataset import Unit
from omnimill.pipelines import files
from omnimill.pipelines.base import Record, Source
from omnimill.pipelines.decoders.images import ImageSettings, decode_image
from omnimill.pipelines.decoders.map_files import npy, png, read_map
from omnimill.pipelines.sources.examples import make_example, refusal
from omnimill.schema import Example, Provenance, Target


class PictureMaps(Source):
    """Base of adapters of pictures and maps; a record is a picture.

    pictures: globs below `path`. map_path: what is replaced in a picture's path below `path` to get its map's.
        A picture without map is dropped as ``no_map``.
    """

    selection: ClassVar[tuple[str, ...]] = ("pictures", "exclude", "pictures_per_unit")

    path: str
    pictures: tuple[str, ...]
    exclude: tuple[str, ...] = ()
    map_path: dict[str, str]
    pictures_per_unit: int = Field(64, ge=1)
    images: ImageSettings = ImageSettings()

    def target(self, data: bytes) -> Target:
        """The target of a map file; raises BadRecord."""
        raise NotImplementedError

    def units(self) -> Iterator[Unit]:
        listed = files.find(self.path)
        present, belongs = set(listed), files.matcher(self.pictures, self.exclude)
        wanted = [url for url in listed if belongs(files.relative(url, self.path))]
        for group in files.groups(wanted, self.pictures_per_unit):
            pairs = [(url, self._map(url)) for url in group]
            urls = [one for url, beside in pairs for one in (url, beside) if one in present]
            yield Unit(
                source=self.name, files=tuple(urls), options={"maps": [beside in present for _, beside in pairs]}
            )

    def read(self, unit: Unit) -> Iterator[Record]:
        rest = iter(unit.files)
        for has_map in unit.options["maps"]:
            url = next(rest)
            key = files.relative(url, self.path)
            if not has_map:
                provenance = Provenance(uri=url, digest=storage.digest_file(url))
                yield Record(key, provenance, refusal(RecordDropped("no_map")))
                continue
            beside = next(rest)
            digest = blake3("\n".join(storage.digest_files([url, beside])).encode()).hexdigest()
            provenance = Provenance(uri=url, digest=digest)
            yield Record(key, provenance, partial(self._decode, unit, key, provenance, beside))

    def _decode(self, unit: Unit, key: str, provenance: Provenance, beside: str) -> Sequence[Example]:
        picture = decode_image(files.read_file(provenance.uri, self.images.max_bytes), self.images, provenance.uri)
        target = self.target(files.read_file(beside, self.images.max_bytes))
        return [make_example(self, unit, key, provenance, images=[picture], targets=[target])]

    def _map(self, url: str) -> str:
        name = files.relative(url, self.path)
        for old, new in self.map_path.items():
            name = name.replace(old, new)
        return storage.join(self.path, name)


class DepthMapsSource(PictureMaps):
    """Pictures and depth: the target ``depth``. Defaults are Taskonomy's (z-buffer, 1/512 m a level, 65535 unknown).

    A map is a PNG of 8 or 16 bits, an NPY or a PFM file of metres; in all, what is not positive is not known.
    For BlendedMVS: pictures ``*/blended_images/*.jpg``, map_path ``{blended_images/: rendered_depth_maps/, .jpg:
    .pfm}``, without those that end in ``_masked.jpg``.

    scale: of PNG, metres per level. unknown: a level that stands for no measurement, beside 0.
    """

    type: Literal["depth_maps"]
    pictures: tuple[str, ...] = ("rgb/**/*_domain_rgb.png",)
    map_path: dict[str, str] = Field(
        default_factory=lambda: {"rgb/": "depth_zbuffer/", "_domain_rgb.": "_domain_depth_zbuffer."}
    )
    scale: float = Field(1 / 512, gt=0)
    unknown: int | None = 65535

    def target(self, data: bytes) -> Target:
        depth, levels = read_map(data, self.images.max_pixels)
        if depth.ndim != 2:
            raise BadRecord("depth_shape", f"an array of {list(depth.shape)}; depth is [H, W]")
        if not levels:
            return Target(kind="depth", data=npy(depth), format="npy", image=0)
        if self.unknown is not None:
            depth = np.where(depth == self.unknown, 0, depth).astype(depth.dtype)
        return Target(kind="depth", data=png(depth), format="png", image=0, scale=self.scale)


class NormalMapsSource(PictureMaps):
    """Pictures and surface normals: the target ``normals``, x, y, z as red, green, blue. Defaults are Taskonomy's.

    A map is a PNG of colours or an NPY file of vectors [H, W, 3] of any length; a vector of length 0 is not known. In
    examples x points to the right, y up and z towards the camera. Sets differ in this: in Taskonomy, and in Omnidata
    with its BlendedMVS, y points down (as in 2D-3D-S, arXiv 1702.01105). For FrameNet: pictures
    ``scannet-frames/*/*-color.png``, map_path ``{-color.: -normal.}``, flip ``[y, z]`` (its axes are the camera's: y
    down, z into the picture).

    centre: of PNG, the level that stands for zero. flip: axes that point the other way in the files.
    unknown: a colour that stands for no measurement, beside black.
    """

    type: Literal["normal_maps"]
    pictures: tuple[str, ...] = ("rgb/**/*_domain_rgb.png",)
    map_path: dict[str, str] = Field(default_factory=lambda: {"rgb/": "normal/", "_domain_rgb.": "_domain_normal."})
    centre: float = Field(127.5, gt=0)
    flip: tuple[Literal["x", "y", "z"], ...] = ("y",)
    unknown: tuple[int, int, int] | None = (128, 128, 128)

    def target(self, data: bytes) -> Target:
        found, levels = read_map(data, self.images.max_pixels)
        if found.ndim != 3 or found.shape[2] not in (3, 4) or (levels and found.dtype != np.uint8):
            raise BadRecord("normals_shape", f"{found.dtype} {list(found.shape)}; normals are [H, W, 3]")
        found = found[..., :3]
        if levels:
            missing = np.asarray(~found.any(axis=-1), np.bool_)
            if self.unknown is not None:
                missing |= np.asarray((found == np.array(self.unknown, np.uint8)).all(axis=-1), np.bool_)
            vectors = found.astype(np.float32) - np.float32(self.centre)
        else:
            vectors = np.nan_to_num(found, posinf=0.0, neginf=0.0)
            missing = np.asarray(~np.isfinite(found).all(axis=-1), np.bool_)
        signs = np.array([-1.0 if axis in self.flip else 1.0 for axis in "xyz"], np.float32)
        return Target(kind="normals", data=png(_colours(vectors * signs, missing)), format="png", image=0)


def _colours(vectors: npt.NDArray[np.float32], missing: npt.NDArray[np.bool_]) -> npt.NDArray[np.uint8]:
    """Vectors [H, W, 3] as the schema's picture of normals: (n + 1) / 2 * 255 of the unit vector, black if unknown."""
    lengths = np.linalg.norm(vectors, axis=-1, keepdims=True)
    unit = vectors / np.where(lengths > 0, lengths, 1.0)
    known = ~missing[..., None] & (lengths > 0)
    levels: npt.NDArray[np.uint8] = np.where(known, np.rint((unit + 1.0) * 127.5), 0.0).astype(np.uint8)
    return levels
