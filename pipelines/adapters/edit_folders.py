"""Edited pictures in folders, as InstructPix2Pix publishes them."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from omnimill.pipelines.base import Source
from omnimill.pipelines.decoders.images import ImageSettings


class InstructPix2PixSource(Source):
    """``shard-*/<id>/prompt.json`` with pictures ``<seed>_0.jpg`` (before) and ``<seed>_1.jpg`` (after) beside it.

    A pair of pictures is a record: ``instruction`` (the prompt's ``edit``) and target ``edited``. What the two show
    (``input`` and ``output``) goes into the tags ``before`` and ``after``.

    pairs_per_prompt: of a prompt with more pairs, so many are taken, in the order of their names; None for all.
    """

    selection: ClassVar[tuple[str, ...]] = ("include", "exclude", "prompts_per_unit")

    type: Literal["instruct_pix2pix"]
    path: str
    include: tuple[str, ...] = ("**/prompt.json",)
    exclude: tuple[str, ...] = ()
    prompts_per_unit: int = Field(64, ge=1)
    pairs_per_prompt: int | None = Field(None, ge=1)
    images: ImageSettings = ImageSettings()
