"""A shown example in words: as plain text, and what its objective made of it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from omnimill.mixtures.objectives import OBJECTIVES
from omnimill.training.objectives.text import TextSplit
from omnimill.training.rendering.forms import AnyRecipe
from omnimill.training.rendering.frames import CODED
from omnimill.training.rendering.sequence_recipe import SequenceRecipe

if TYPE_CHECKING:
    from omnimill.training.showing.example import ShownClip, ShownExample, ShownPicture
    from omnimill.training.showing.runs import Run


def divided(recipe: AnyRecipe) -> str:
    """What the objective does, and what it made of the example, in words."""
    split = recipe.split
    said = [OBJECTIVES[recipe.task.objective].title, *(_divided_text(split) if split is not None else [])]
    if isinstance(recipe, SequenceRecipe):
        return "; ".join([*said, *([_moved(recipe.spans)] if recipe.spans else [])])
    for stream, name in CODED.items():
        valid, hidden = (
            sum(getattr(one, what) for one in recipe.frames.get(stream, ())) for what in ("valid", "hidden")
        )
        if hidden:
            said.append(f"patches of the {'picture' if name == 'image' else 'clip'} hidden: {hidden} of {valid}")
    return "; ".join(said)


def _divided_text(split: TextSplit) -> list[str]:
    if not split.spans and split.noise == split.length:
        return []
    if split.moved:
        how = _moved(split.spans)
    elif split.spans:
        how = f"hidden: {split.noise} in {split.spans} spans"
    else:
        how = f"asked for: the last {split.noise}"
    return [f"{split.paradigm}; tokens of text: {split.length}; {how}"]


def _moved(spans: int) -> str:
    return f"spans moved to the end: {spans}"


def lines(shown: ShownExample) -> list[str]:
    """An example as plain text."""

    def media(found: Sequence[ShownPicture | ShownClip]) -> Iterator[str]:
        for one in found:
            kept = "" if one.patches is None else f", {one.patches[0]} of {one.patches[1]} patches"
            yield f"    [{one.title}{kept}]"

    def words(runs: Sequence[Run]) -> str:
        return " ".join(f"⟨{run.text}⟩" if run.kind == "location" else run.text for run in runs)

    facts = ", ".join(f"{name} {count}" for name, count in shown.lengths.items())
    # A text that token budgets leave out.
    written = "codes" if shown.target.startswith("text") else shown.target
    return [
        f"{shown.task}  ({shown.source}, {shown.id}, epoch {shown.epoch}): {shown.key}",
        f"  objective {shown.objective}: {shown.divided}",
        *([f"  prompt  {shown.prompt}"] if shown.prompt else []),
        f"  reads   {words(shown.reads)}",
        *media((*shown.pictures, *shown.clips)),
        f"  writes  {words(shown.writes) if shown.writes else written}",
        *media((*shown.target_pictures, *shown.target_clips)),
        f"  lengths {facts}",
    ]
