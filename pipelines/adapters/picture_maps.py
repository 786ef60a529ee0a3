"""Pictures with maps of the same scene in files beside them: depth and surface normals."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from omnimill.pipelines.base import Source
from omnimill.pipelines.decoders.images import ImageSettings


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


class DepthMapsSource(PictureMaps):
    """Pictures and depth: the target ``depth``. Defaults are Taskonomy's (z-buffer, 1/512 m a level, 65535 unknown).

    A map is a PNG of 8 or 16 bits, an NPY or a PFM file of metres; in all, what is not positive is not known.

    scale: of PNG, metres per level. unknown: a level that stands for no measurement, beside 0.
    """

    type: Literal["depth_maps"]
    pictures: tuple[str, ...] = ("rgb/**/*_domain_rgb.png",)
    map_path: dict[str, str] = Field(
        default_factory=lambda: {"rgb/": "depth_zbuffer/", "_domain_rgb.": "_domain_depth_zbuffer."}
    )
    scale: float = Field(1 / 512, gt=0)
    unknown: int | None = 65535


class NormalMapsSource(PictureMaps):
    """Pictures and surface normals: the target ``normals``. Defaults are Taskonomy's layout.

    For FrameNet: pictures ``scannet-frames/**/*-color.png`` and ``{-color.: -normal.}``. A map is a PNG of colours
    (x, y, z in red, green, blue) or an NPY file of vectors [H, W, 3].

    centre: of PNG, the level that stands for zero. flip: axes whose sign is turned, so that all sets agree.
    unknown: a colour that stands for no measurement, beside black.
    """

    type: Literal["normal_maps"]
    pictures: tuple[str, ...] = ("rgb/**/*_domain_rgb.png",)
    map_path: dict[str, str] = Field(default_factory=lambda: {"rgb/": "normal/", "_domain_rgb.": "_domain_normal."})
    centre: float = Field(127.5, gt=0)
    flip: tuple[Literal["x", "y", "z"], ...] = ()
    unknown: tuple[int, int, int] | None = (128, 128, 128)
