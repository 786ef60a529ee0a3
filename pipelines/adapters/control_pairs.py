"""Pictures and what steers them: edges, depth, poses, segmentations, … as ControlNet and MultiGen list them."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from omnimill.pipelines.adapters.row_files import RowFiles
from omnimill.pipelines.decoders.images import ImageSettings


class ControlPairsSource(RowFiles):
    """Rows with a control picture, a prompt and a picture: ``caption``, ``control``, target ``picture``.

    Defaults are ControlNet's ``prompt.json`` (JSON Lines): ``source``, ``target``, ``prompt``. A picture is a path below
    `controls` or `pictures`, bytes or a struct with ``bytes`` (Parquet).

    control: the kind of control in words, as prompts name it. control_field: a field that says it, where rows differ.
    controls, pictures: folders below `path` in which the paths of control pictures and of pictures begin.
    colour_labels: control pictures are maps of class numbers, and each number is shown as a colour of its own
        (segmentations of COCO or LVIS as PNG).
    lines: `.json` files hold an object a line.
    """

    type: Literal["control_pairs"]
    include: tuple[str, ...] = ("**/prompt.json", "**/*.jsonl", "**/*.parquet")
    source_field: str = "source"
    target_field: str = "target"
    prompt_field: str = "prompt"
    control: str = "control picture"
    control_field: str | None = None
    controls: str = ""
    pictures: str = ""
    colour_labels: bool = False
    lines: bool = True
    rows_per_unit: int = Field(200, ge=1)
    bytes_per_unit: int = Field(64 << 10, ge=1)
    images: ImageSettings = ImageSettings()
