"""Pairs of pictures with the optical flow from the first to the second."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from omnimill.pipelines.base import Source
from omnimill.pipelines.decoders.images import ImageSettings


class OpticalFlowSource(Source):
    """Pairs in one of three published layouts; a record is a pair: images [first, second], target ``flow``.

    flying_chairs: ``data/00001_img1.ppm``, ``_img2.ppm``, ``_flow.flo``.
    sintel: ``training/flow/<scene>/frame_0001.flo`` with frames 0001 and 0002 of each of `passes`,
        ``training/<pass>/<scene>/frame_0001.png``.
    kitti: ``training/flow_occ/000000_10.png`` (16 bits) with ``training/image_2/000000_10.png`` and ``_11.png``.

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
