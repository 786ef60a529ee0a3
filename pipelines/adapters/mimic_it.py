"""MIMIC-IT: instructions about one or several pictures, with earlier instructions as context."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from omnimill.pipelines.base import Source
from omnimill.pipelines.decoders.images import ImageSettings


class MimicItSource(Source):
    """``<name>_instructions.json`` with instructions, and ``<name>.json`` with the pictures as base64 by their ids.

    A record is an instruction: item 0 with ``question`` (earlier instructions and answers that it is related to come
    first) and ``answer``, about its pictures in their order.

    instructions: files below `path`. pictures: their pictures; ``{name}`` is the name before ``_instructions``.
    related: how many related instructions (``rel_ins_ids``) become earlier turns; 0 for none. Related ones that show
        other pictures are no earlier turns but examples, and are left out.
    max_pictures: of an instruction with more (frames of a film), so many are taken, evenly spaced, the last among them.
    """

    selection: ClassVar[tuple[str, ...]] = ("instructions", "instructions_per_unit")

    type: Literal["mimic_it"]
    path: str
    instructions: tuple[str, ...] = ("**/*_instructions.json",)
    pictures: str = "{name}.json"
    related: int = Field(4, ge=0)
    max_pictures: int = Field(5, ge=1)
    instructions_per_unit: int = Field(500, ge=1)
    images: ImageSettings = ImageSettings()
