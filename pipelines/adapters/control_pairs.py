"""Pictures and what steers them: edges, depth, poses, segmentations, … as ControlNet and MultiGen list them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal

import numpy as np
from pydantic import Field

from omnimill.errors import BadRecord, RecordDropped
from omnimill.infra.dataset import Unit
from omnimill.pipelines.adapters.row_files import RowFiles
from omnimill.pipelines.adapters.row_pictures import media_url, picture_path, row_bytes, row_picture
from omnimill.pipelines.decoders.fields import fact, field_value
from omnimill.pipelines.decoders.images import ImageSettings, decode_image
from omnimill.pipelines.decoders.map_files import png, read_levels
from omnimill.pipelines.sources.examples import make_example
from omnimill.pipelines.sources.list_files import ListFormat
from omnimill.schema import Example, Image, Meta, Provenance, Target, Text


class ControlPairsSource(RowFiles):
    """Rows with control pictures, a prompt and a picture: ``caption``, ``control``, target ``picture``.

    Defaults are ControlNet's ``prompt.json``, an object a line: ``source``, ``target``, ``prompt``. For MultiGen-20M
    (``json_files/aesthetics_plus_all_group_canny_all.json``): `controls` ``{control_canny: edges}``, `target_field`
    ``source``, `controls_folder` ``conditions``, `pictures` ``images``. A picture is a path, bytes, or a struct with
    ``bytes``.

    controls: from field to the kind of control in words, as prompts name it. Of several fields a row may lack some:
        those that it has are the control pictures, in this order. A row with none is dropped as ``no_control``.
    control_field: a field that says the kind, where rows differ.
    controls_folder, pictures: the folders in which the paths of control pictures and of pictures begin, where they are
        not `path`.
    colour_labels: control pictures are maps of class numbers, and each number is shown as a colour of its own
        (segmentations of COCO or LVIS as PNG).
    json_lines: ``.json`` files hold an object a line.
    """

    type: Literal["control_pairs"]
    include: tuple[str, ...] = ("**/prompt.json", "**/*.jsonl", "**/*.parquet")
    controls: dict[str, str] = Field(default_factory=lambda: {"source": "control picture"}, min_length=1)
    control_field: str | None = None
    target_field: str = "target"
    prompt_field: str = "prompt"
    controls_folder: str | None = None
    pictures: str | None = None
    colour_labels: bool = False
    json_lines: bool = True
    rows_per_unit: int = Field(200, ge=1)
    bytes_per_unit: int = Field(64 << 10, ge=1)
    images: ImageSettings = ImageSettings()

    def fields(self) -> Sequence[str]:
        kind = [] if self.control_field is None else [self.control_field]
        named = (*self.controls, self.target_field, self.prompt_field, *kind, *self.tag_fields.values())
        return list(dict.fromkeys(named))

    def lists(self) -> ListFormat:
        return replace(super().lists(), json_lines=self.json_lines)

    def media(self, row: Mapping[str, Any]) -> Sequence[str]:
        folders = [(field, self.controls_folder) for field in self.controls] + [(self.target_field, self.pictures)]
        named = [(picture_path(field_value(row, field)), folder) for field, folder in folders]
        return [media_url(self._folder(folder), path) for path, folder in named if path is not None]

    def example(self, unit: Unit, key: str, provenance: Provenance, row: Mapping[str, Any]) -> Sequence[Example]:
        prompt = (fact(row, self.prompt_field) or "").strip()
        if not prompt:
            raise RecordDropped("no_caption")
        there = [field for field in self.controls if field_value(row, field) is not None]
        if not there:
            raise RecordDropped("no_control")
        kind = fact(row, self.control_field) or ", ".join(self.controls[field] for field in there)
        images = [self._control(row, field) for field in there]
        value = field_value(row, self.target_field)
        picture = row_picture(value, self.target_field, self._folder(self.pictures), self.images)
        texts = [Text(role="caption", text=prompt), Text(role="control", text=kind)]
        target = Target(kind="picture", data=picture.data, format=picture.format, role="picture")
        meta = Meta(tags=self.tags(row))
        return [make_example(self, unit, key, provenance, text=texts, images=images, targets=[target], meta=meta)]

    def _control(self, row: Mapping[str, Any], field: str) -> Image:
        value, folder = field_value(row, field), self._folder(self.controls_folder)
        if not self.colour_labels:
            return row_picture(value, field, folder, self.images)
        data, uri = row_bytes(value, field, folder, self.images.max_bytes)
        return decode_image(png(_coloured(data, self.images.max_pixels)), self.images, uri)

    def _folder(self, folder: str | None) -> str:
        return folder or self.path


def _coloured(data: bytes, max_pixels: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """A map of class numbers in colours, uint8 [H, W, 3].

    The bits of a number are dealt out to red, green and blue, the lowest to the highest bits, as the palette of PASCAL
    VOC does it: numbers below 256 have different colours, neighbours very different ones, 0 is black.
    """
    labels = read_levels(data, max_pixels)
    if labels.ndim != 2:
        raise BadRecord("label_map_shape", f"an array of {list(labels.shape)}; a map of class numbers is [H, W]")
    colours = np.zeros((*labels.shape, 3), np.uint8)
    for bit in range(8):
        for channel in range(3):
            colours[..., channel] |= (((labels >> channel) & 1) << (7 - bit)).astype(np.uint8)
        labels = labels >> 3
    return colours
