"""Co-visible pairs of views of 3D scenes (rooms, houses), rendered from cameras that stand inside.

Needs the optional extra ``assets3d``.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from typing import ClassVar, Literal

from pydantic import Field, model_validator

from omnimill.infra import storage
from omnimill.infra.dataset import InputRef, Unit
from omnimill.pipelines import files
from omnimill.pipelines.base import Record, Source
from omnimill.pipelines.decoders.mesh import MeshLimits
from omnimill.pipelines.decoders.mesh_files import mesh_format
from omnimill.pipelines.decoders.rendering import Camera
from omnimill.pipelines.decoders.scene_pairs import PairSettings, ViewPair, render_pairs
from omnimill.pipelines.isolation import isolated
from omnimill.pipelines.sources.assets3d import attachment_inputs, read_attachments, rendered_images, require_extra
from omnimill.pipelines.sources.examples import make_example
from omnimill.schema import Example, Meta, Provenance


class ScenePairsSource(Source):
    """Scenes by globs, pairs of views as in CroCo's Habitat data (arXiv 2210.10716); a unit is a run of pairs.

    The second picture of a pair is its current one. Scores: ``covisibility``, the share of each picture that the other
    sees (the smaller one), and ``view_coverage``, the share that shows surface.

    path: folder or file. up: the axis that points up in the files; glTF says y, HM3D and Gibson have z.
    pairs_per_scene: how many are tried. size: sides of the pictures in pixels. field_of_view: degrees.
    covisibility: lowest and highest share of the pictures that both see; CroCo has no upper bound.
    min_coverage: lowest share of a picture that shows surface.
    attempts: to find a first view, and then a second one; a pair for which none is found is left out.
    max_bytes: of the scene and of the files that it refers to, together.
    """

    selection: ClassVar[tuple[str, ...]] = ("include", "exclude", "pairs_per_scene", "pairs_per_unit")

    type: Literal["scene_pairs"]
    path: str
    include: tuple[str, ...] = ("**/*.glb", "**/*.gltf", "**/*.obj", "**/*.ply")
    exclude: tuple[str, ...] = ()
    pairs_per_scene: int = Field(1000, ge=1)
    pairs_per_unit: int = Field(100, ge=1)
    up: Literal["y", "z"] = "y"
    size: int = Field(256, ge=16, le=2048)
    seed: int = 0
    field_of_view: float = Field(60.0, gt=1, lt=170)
    covisibility: tuple[float, float] = (0.5, 1.0)
    min_coverage: float = Field(0.7, ge=0, le=1)
    attempts: int = Field(100, ge=1)
    max_bytes: int = Field(1 << 30, gt=0)
    max_faces: int = Field(8_000_000, ge=1)
    max_texture_pixels: int = Field(256_000_000, ge=1)
    timeout_seconds: float = Field(900.0, gt=0)

    @model_validator(mode="after")
    def _ordered(self) -> ScenePairsSource:
        if not 0 <= self.covisibility[0] <= self.covisibility[1] <= 1:
            raise ValueError("covisibility: two shares in ascending order")
        return self

    def units(self) -> Iterator[Unit]:
        require_extra()
        for url in files.find(self.path, self.include, self.exclude):
            for first in range(0, self.pairs_per_scene, self.pairs_per_unit):
                count = min(self.pairs_per_unit, self.pairs_per_scene - first)
                yield Unit(source=self.name, files=(url,), options={"first": first, "count": count})

    def inputs(self, unit: Unit) -> list[InputRef]:
        return [*super().inputs(unit), *attachment_inputs(unit.files[0], self.max_bytes)]

    def read(self, unit: Unit) -> Iterator[Record]:
        url, first = unit.files[0], int(unit.options["first"])
        provenance = Provenance(uri=url, digest=storage.digest_file(url), length=int(storage.stat(url)["bytes"]))
        key = files.relative(url, self.path)
        numbers = range(first, first + int(unit.options["count"]))
        yield Record(f"{key}#{first}", provenance, partial(self._decode, unit, url, key, provenance, numbers))

    def _decode(self, unit: Unit, url: str, key: str, provenance: Provenance, numbers: range) -> Sequence[Example]:
        require_extra()
        data = files.read_file(url, self.max_bytes)
        form = mesh_format(data, url)
        attachments = read_attachments(url, data, form, self.max_bytes)
        camera = Camera(self.size, self.field_of_view)
        settings = PairSettings(camera, self.covisibility, self.min_coverage, self.attempts, self.up)
        limits = MeshLimits(self.max_faces, self.max_texture_pixels)
        keys = (self.seed, provenance.digest)
        pairs = isolated(
            "mesh", self.timeout_seconds, render_pairs, data, form, attachments, numbers, keys, settings, limits
        )
        return [self._example(unit, key, provenance, pair) for pair in pairs]

    def _example(self, unit: Unit, key: str, provenance: Provenance, pair: ViewPair) -> Example:
        images = rendered_images(pair.pictures, self.size, provenance.uri)
        meta = Meta(scores={"covisibility": pair.covisibility, "view_coverage": pair.valid})
        return make_example(self, unit, f"{key}#{pair.number}", provenance, images=images, meta=meta)
