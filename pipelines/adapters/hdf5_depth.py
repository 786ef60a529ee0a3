"""Pictures and depth in HDF5 files, as NYU Depth v2 comes. Needs the optional extra ``hdf5``."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from omnimill.pipelines.base import Source


class Hdf5DepthSource(Source):
    """HDF5 files with a picture and its depth in metres, or many of both: the target ``depth``. A record is a picture.

    Defaults are NYU Depth v2's in files of one frame (``train/<scene>/00001.h5`` with ``rgb`` [3, H, W] and ``depth``
    [H, W]). For its labelled file (``nyu_depth_v2_labeled.mat``, MATLAB 7.3): include ``**/*.mat``, picture ``images``
    of axes ``ncwh``, depth ``depths`` of axes ``nwh``.

    picture_axes, depth_axes: the axes as h5py shows them: n number, c channel, h height, w width.
    frames_per_unit: files, or frames of a file of many.
    max_pixels: of a frame.
    """

    selection: ClassVar[tuple[str, ...]] = ("include", "exclude", "frames_per_unit")

    type: Literal["hdf5_depth"]
    path: str
    include: tuple[str, ...] = ("**/*.h5",)
    exclude: tuple[str, ...] = ()
    picture: str = "rgb"
    depth: str = "depth"
    picture_axes: str = "chw"
    depth_axes: str = "hw"
    frames_per_unit: int = Field(64, ge=1)
    max_pixels: int = Field(16_000_000, ge=1)
