"""An example in a form that people can look at, of whichever backbone."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from omnimill.mixtures.row_columns import RowContent
from omnimill.tokenizers.audio import FloatArray
from omnimill.tokenizers.image import BoolArray, ByteArray
from omnimill.training.rendering.forms import AnyRecipe, AnyRecipes
from omnimill.training.showing.marks import Mark
from omnimill.training.showing.runs import Run
from omnimill.training.showing.words import divided


@dataclass(frozen=True)
class ShownPicture:
    """pixels: uint8 [H, W, 3]. patches: how many of those that show the picture the encoder gets; None: it is none of
    the encoder's. marks: boxes and points on it."""

    title: str
    pixels: ByteArray
    patches: tuple[int, int] | None = None
    marks: tuple[Mark, ...] = ()


@dataclass(frozen=True)
class ShownClip:
    """data: FLAC or, of what codes stand for, WAV. mel: float32 [frames, mels]. visible: bool, as `mel`, what the
    encoder gets of it; all of it where it is none of the encoder's. patches: as of pictures."""

    title: str
    data: bytes
    media_type: str
    mel: FloatArray
    visible: BoolArray
    patches: tuple[int, int] | None = None


@dataclass(frozen=True)
class ShownExample:
    """One example of one task.

    group, family, kind: of the task. objective: its entry in the registry; divided: what that does, and made of this
    example. prompt: the template that was drawn; None without prompts or when it was dropped.
    reads, writes: encoder text and text target, piece by piece; `writes` is empty for other targets.
    pictures, clips: of the encoder, earlier ones first. target_pictures, target_clips: what the target's codes stand
    for and, where the row has it, what they were made from. lengths: those of
    `omnimill.training.planning.lengths.Lengths` that are not 0.
    """

    task: str
    group: str
    family: str | None
    kind: str
    objective: str
    divided: str
    target: str
    id: str
    source: str
    key: str
    epoch: int
    prompt: str | None
    reads: tuple[Run, ...]
    pictures: tuple[ShownPicture, ...]
    clips: tuple[ShownClip, ...]
    writes: tuple[Run, ...]
    target_pictures: tuple[ShownPicture, ...]
    target_clips: tuple[ShownClip, ...]
    lengths: dict[str, int]

    def facts(self) -> dict[str, Any]:
        """Everything but pixels and sound, for JSON."""
        plain = {name: value for name, value in asdict(self).items() if not name.endswith(("pictures", "clips"))}
        media = {
            name: [
                {"title": one.title, "patches": one.patches}
                | ({"marks": [asdict(mark) for mark in one.marks]} if isinstance(one, ShownPicture) else {})
                for one in getattr(self, name)
            ]
            for name in ("pictures", "clips", "target_pictures", "target_clips")
        }
        return {**plain, **media}


def described(
    recipes: AnyRecipes, task_index: int, recipe: AnyRecipe, content: RowContent, epoch: int
) -> dict[str, Any]:
    """Those fields of a `ShownExample` that say what it is, by name."""
    task = recipe.task
    number = recipes.prompt_number(task_index, recipe.key)
    return {
        "task": task.name,
        "group": task.group,
        "family": task.family,
        "kind": task.kind,
        "objective": task.objective,
        "divided": divided(recipe),
        "target": task.target,
        "id": content.id,
        "source": content.source,
        "key": content.key,
        "epoch": epoch,
        "prompt": None if number is None else task.prompts[number],
        "lengths": {name: count for name, count in asdict(recipe.lengths).items() if count},
    }
