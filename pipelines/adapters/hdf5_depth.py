"""Pictures and depth in HDF5 files, as NYU Depth v2 comes. Needs the optional extra ``hdf5``."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt
from blake3 import blake3
from pydantic import Field, model_validator

from omnimill.errors import BadRecord
from omnimill.infra.dataset import InputRef, Unit
from omnimill.pipelines import files
from omnimill.pipelines.base import Record, Source
from omnimill.pipelines.decoders.hdf5 import dataset, open_hdf5, read_frame, require_h5py
from omnimill.pipelines.decoders.images import ImageSettings, decode_image
from omnimill.pipelines.decoders.map_files import npy, png
from omnimill.pipelines.isolation import isolated
from omnimill.pipelines.sources.examples import make_example, refusal
from omnimill.schema import Example, Provenance, Target

_SECONDS = 60.0
_Frame = tuple[npt.NDArray[Any], npt.NDArray[Any]]


class Hdf5DepthSource(Source):
    """HDF5 files with a picture and its depth in metres, or many of both: the target ``depth``. A record is a picture.

    Defaults are NYU Depth v2's in files of one frame (``train/<scene>/00001.h5`` with ``rgb`` [3, H, W] and ``depth``
    [H, W]). For its labelled file (``nyu_depth_v2_labeled.mat``, MATLAB 7.3): include ``**/*.mat``, picture ``images``
    of axes ``ncwh``, depth ``depths`` of axes ``nwh``. Files are read in a child process: HDF5 is a C library that
    follows what a file tells it.

    picture_axes, depth_axes: the axes as h5py shows them: n number, c channel, h height, w width.
    frames_per_unit: files, or frames of a file of many.
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
    images: ImageSettings = ImageSettings()

    @model_validator(mode="after")
    def _axes_fit(self) -> Hdf5DepthSource:
        picture, depth = sorted(self.picture_axes), sorted(self.depth_axes)
        if picture not in (list("chw"), list("chnw")) or depth != [axis for axis in picture if axis != "c"]:
            raise ValueError("axes: pictures have c, h, w and perhaps n, depth the same without c, each once")
        return self

    def units(self) -> Iterator[Unit]:
        require_h5py()
        urls = files.find(self.path, self.include, self.exclude)
        if "n" not in self.picture_axes:
            for group in files.groups(urls, self.frames_per_unit):
                yield Unit(source=self.name, files=group)
            return
        for url in urls:
            count = self._count(url)
            for first in range(0, max(count, 1), self.frames_per_unit):
                frames = min(self.frames_per_unit, count - first)
                yield Unit(source=self.name, files=(url,), options={"first": first, "frames": frames})

    def inputs(self, unit: Unit) -> list[InputRef]:
        """The files; of a file of many frames those that the unit reads."""
        if not unit.options:
            return super().inputs(unit)
        hasher, size = blake3(), 0
        for _, frame in self._frames(unit):
            if isinstance(frame, BadRecord):
                return super().inputs(unit)
            hasher.update(_digest(frame).encode())
            size += sum(values.nbytes for values in frame)
        return [InputRef(uri=unit.files[0], digest=hasher.hexdigest(), bytes=size)]

    def read(self, unit: Unit) -> Iterator[Record]:
        for (url, number), frame in self._frames(unit):
            name = files.relative(url, self.path)
            key = f"{name}:{number}" if unit.options else name
            if isinstance(frame, BadRecord):
                yield Record(key, Provenance(uri=url, digest=""), refusal(frame))
                continue
            provenance = Provenance(uri=url, digest=_digest(frame))
            yield Record(key, provenance, partial(self._decode, unit, key, provenance, frame))

    def _frames(self, unit: Unit) -> Iterator[tuple[tuple[str, int], _Frame | BadRecord]]:
        """URL and number of every frame of a unit, and the frame or why it cannot be read."""
        first = int(unit.options.get("first", 0))
        for url in unit.files:
            with files.local_copy(url) as path:
                for number in range(first, first + max(int(unit.options.get("frames", 1)), 1)):
                    try:
                        yield (url, number), isolated("hdf5", _SECONDS, _read_pair, str(path), number, self)
                    except BadRecord as fault:
                        yield (url, number), BadRecord(fault.reason, fault.message)

    def _decode(self, unit: Unit, key: str, provenance: Provenance, frame: _Frame) -> Sequence[Example]:
        pixels, depth = frame
        picture = decode_image(png(pixels), self.images, provenance.uri)
        target = Target(kind="depth", data=npy(depth), format="npy", image=0)
        return [make_example(self, unit, key, provenance, images=[picture], targets=[target])]

    def _count(self, url: str) -> int:
        try:
            with files.local_copy(url) as path:
                return isolated("hdf5", _SECONDS, _count, str(path), self)
        except BadRecord:
            return 0  # reading the unit will say what is wrong


def _digest(frame: _Frame) -> str:
    return blake3(b"".join(values.tobytes() for values in frame)).hexdigest()


def _count(path: str, source: Hdf5DepthSource) -> int:
    with open_hdf5(Path(path)) as file:
        depths = dataset(file, source.depth, source.depth_axes)
        return int(depths.shape[source.depth_axes.index("n")])


def _read_pair(path: str, number: int, source: Hdf5DepthSource) -> _Frame:
    """The pixels, uint8 [H, W, 3], and depth, float32 [H, W], of a frame."""
    with open_hdf5(Path(path)) as file:
        limit = source.images.max_pixels
        shown = dataset(file, source.picture, source.picture_axes)
        pixels = read_frame(shown, source.picture_axes, number, "hwc", limit)
        depths = dataset(file, source.depth, source.depth_axes)
        depth = read_frame(depths, source.depth_axes, number, "hw", limit)
    if pixels.dtype != np.uint8 or pixels.shape[:2] != depth.shape:
        found = f"{pixels.dtype} {list(pixels.shape)} and depth {list(depth.shape)}"
        raise BadRecord("hdf5_shape", f"a picture {found}; wanted are bytes of the same size")
    return np.repeat(pixels, 3, axis=2) if pixels.shape[2] == 1 else pixels, depth.astype(np.float32)
