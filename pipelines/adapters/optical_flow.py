"""Pairs of pictures with the optical flow from the first to the second."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar, Literal

from blake3 import blake3
from pydantic import Field

from omnimill.errors import BadRecord, ConfigError, RecordDropped
from omnimill.infra import storage
from omnimill.infra.dataset import Unit
from omnimill.pipelines import files
from omnimill.pipelines.base import Record, Source
from omnimill.pipelines.decoders.images import ImageSettings, decode_image
from omnimill.pipelines.decoders.map_files import npy, read_flo, read_kitti_flow
from omnimill.pipelines.sources.examples import make_example, refusal
from omnimill.schema import Example, Provenance, Target

_MAX_SPLIT_BYTES = 16 << 20


@dataclass(frozen=True)
class _Pair:
    """key: of the record. urls: of the first picture, the second, and the flow."""

    key: str
    urls: tuple[str, str, str]


class OpticalFlowSource(Source):
    """Pairs in one of three published layouts; a record is a pair: images [first, second], target ``flow``.

    flying_chairs: ``data/00001_img1.ppm``, ``_img2.ppm``, ``_flow.flo``.
    sintel: ``training/flow/<scene>/frame_0001.flo`` with frames 0001 and 0002 of each of `passes`,
        ``training/<pass>/<scene>/frame_0001.png``.
    kitti: ``training/flow_occ/000000_10.png`` (16 bits) with ``training/image_2/000000_10.png`` and ``_11.png``.
    The flow belongs to the first picture, and is stored as numbers: pixels to the right and downwards.

    split_file: of Flying Chairs, a number for each pair, on lines: those of `split` stay (1 train, 2 validation), the
        others are dropped as ``other_split``.
    """

    selection: ClassVar[tuple[str, ...]] = ("pairs_per_unit",)

    type: Literal["optical_flow"]
    path: str
    layout: Literal["flying_chairs", "sintel", "kitti"] = "flying_chairs"
    passes: tuple[str, ...] = ("clean", "final")
    split_file: str | None = None
    split: int = 1
    pairs_per_unit: int = Field(64, ge=1)
    images: ImageSettings = ImageSettings()

    def units(self) -> Iterator[Unit]:
        splits = self._splits()
        present = set(files.find(self.path))
        number = 0
        for group in files.groups(list(self._pairs(sorted(present))), self.pairs_per_unit):
            options: dict[str, Any] = {"keys": [pair.key for pair in group]}
            options["there"] = [[url in present for url in pair.urls] for pair in group]
            if splits is not None:
                if number + len(group) > len(splits):
                    raise ConfigError(f"source {self.name}: {self.split_file} has {len(splits)} lines for more pairs")
                options["splits"] = splits[number : number + len(group)]
            number += len(group)
            urls = tuple(url for pair in group for url in pair.urls if url in present)
            yield Unit(source=self.name, files=urls, options=options)

    def read(self, unit: Unit) -> Iterator[Record]:
        splits = unit.options.get("splits", [self.split] * len(unit.options["keys"]))
        rest = iter(unit.files)
        for key, there, split in zip(unit.options["keys"], unit.options["there"], splits, strict=True):
            urls = [next(rest) for is_there in there if is_there]
            digest = blake3("\n".join(storage.digest_files(urls)).encode()).hexdigest()
            provenance = Provenance(uri=urls[-1], digest=digest)
            if split != self.split:
                yield Record(key, provenance, refusal(RecordDropped("other_split")))
            elif not all(there):
                which = ("first picture", "second picture", "flow")[there.index(False)]
                yield Record(key, provenance, refusal(BadRecord("missing_file", f"the pair has no {which}")))
            else:
                yield Record(key, provenance, partial(self._decode, unit, key, provenance, urls))

    def _decode(self, unit: Unit, key: str, provenance: Provenance, urls: Sequence[str]) -> Sequence[Example]:
        *pictures, flow_data = (files.read_file(url, self.images.max_bytes) for url in urls)
        images = [decode_image(data, self.images, url) for data, url in zip(pictures, urls[:2], strict=True)]
        read = read_kitti_flow if self.layout == "kitti" else read_flo
        flow = read(flow_data, self.images.max_pixels)
        sizes = {(image.height, image.width) for image in images} | {flow.shape[:2]}
        if len(sizes) > 1:
            raise BadRecord("map_size_mismatch", f"pictures and flow of sizes {sorted(sizes)} (height, width)")
        target = Target(kind="flow", data=npy(flow), format="npy", image=0)
        return [make_example(self, unit, key, provenance, images=images, targets=[target])]

    def _pairs(self, present: Sequence[str]) -> Iterator[_Pair]:
        flows = {"flying_chairs": "**/*_flow.flo", "sintel": "training/flow/*/frame_*.flo"}
        belongs = files.matcher((flows.get(self.layout, "training/flow_occ/*_10.png"),), ())
        for flow in (url for url in present if belongs(files.relative(url, self.path))):
            if self.layout == "flying_chairs":
                stem = flow.removesuffix("_flow.flo")
                yield _Pair(files.relative(stem, self.path), (f"{stem}_img1.ppm", f"{stem}_img2.ppm", flow))
            elif self.layout == "sintel":
                for kind in self.passes:
                    first = flow.replace("/training/flow/", f"/training/{kind}/").removesuffix(".flo") + ".png"
                    yield _Pair(files.relative(first, self.path), (first, _next(first), flow))
            else:
                first = flow.replace("/flow_occ/", "/image_2/")
                yield _Pair(files.relative(first, self.path), (first, _next(first), flow))

    def _splits(self) -> list[int] | None:
        if self.split_file is None:
            return None
        url = storage.join(self.path, self.split_file)
        if not storage.exists(url):
            raise ConfigError(f"source {self.name}: no split file {url}")
        try:
            return [int(line) for line in files.read_file(url, _MAX_SPLIT_BYTES).split()]
        except (ValueError, BadRecord) as fault:
            raise ConfigError(f"source {self.name}: {url}: not a number on each line: {fault}") from None


def _next(url: str) -> str:
    """The URL of the frame after one whose name ends with its number."""

    def successor(match: re.Match[str]) -> str:
        return f"{int(match[1]) + 1:0{len(match[1])}}.png"

    return re.sub(r"(\d+)\.png$", successor, url)
