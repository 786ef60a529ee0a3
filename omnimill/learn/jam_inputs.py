"""The raw data of the toy replication of JAM: stories, captioned pictures, and answers that write and draw."""

from __future__ import annotations

import io
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from omnimill.learn.inputs import HELD_OUT, TRAIN, write_pictures
from omnimill.learn.scenes import Scene, caption, draw, scenes
from omnimill.learn.stories import stories
from omnimill.written_once import written_once


@dataclass(frozen=True)
class Scale:
    """How much of everything there is.

    stories, pictures, answers: to train on. held_out: stories and captioned pictures besides. asked: scenes that the
    tuned model is asked for. parent_steps, continued_steps, tuned_steps: updates, the first `warmup_steps` of each with
    a rising rate.
    """

    stories: int
    pictures: int
    answers: int
    held_out: int
    asked: int
    parent_steps: int
    continued_steps: int
    tuned_steps: int
    warmup_steps: int

    def settings(self) -> dict[str, str]:
        """Environment variables that the configurations read."""
        return {
            "OMNIMILL_JAM_PARENT_STEPS": str(self.parent_steps),
            "OMNIMILL_JAM_CONTINUED_STEPS": str(self.continued_steps),
            "OMNIMILL_JAM_TUNED_STEPS": str(self.tuned_steps),
            "OMNIMILL_JAM_WARMUP_STEPS": str(self.warmup_steps),
        }


FULL = Scale(
    stories=6000,
    pictures=3000,
    answers=800,
    held_out=200,
    asked=100,
    parent_steps=1200,
    continued_steps=100,
    tuned_steps=300,
    warmup_steps=50,
)
SMALL = Scale(
    stories=60,
    pictures=24,
    answers=8,
    held_out=8,
    asked=4,
    parent_steps=6,
    continued_steps=4,
    tuned_steps=4,
    warmup_steps=1,
)
SCALES = {"full": FULL, "small": SMALL}


def asked_scenes(scale: Scale) -> list[Scene]:
    """Scenes that are in nothing else; their things are those of the others."""
    return _scenes(scale)[scale.pictures + scale.held_out + scale.answers :]


def prompt(scene: Scene) -> str:
    """What the model is asked for a scene."""
    return caption(scene)


def make_jam_inputs(folder: Path, scale: Scale) -> bool:
    """Write all input files below `folder`, unless they are there already; whether anything was written."""
    return written_once(folder, lambda work: _write(work, scale))


def _scenes(scale: Scale) -> list[Scene]:
    return scenes(scale.pictures + scale.held_out + scale.answers + scale.asked, held_out=False)


def _write(work: Path, scale: Scale) -> None:
    drawn = _scenes(scale)
    bounds = {TRAIN: (0, scale.pictures), HELD_OUT: (scale.pictures, scale.pictures + scale.held_out)}
    for part, (first, last) in bounds.items():
        write_pictures(work / "shapes", part, drawn[first:last])
    told = {TRAIN: stories(scale.stories), HELD_OUT: stories(scale.held_out, skip=scale.stories)}
    for part, texts in told.items():
        folder = work / "stories" / part
        folder.mkdir(parents=True)
        (folder / "stories.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    last = scale.pictures + scale.held_out
    _write_answers(work / "answers", drawn[last : last + scale.answers])


def _write_answers(folder: Path, drawn: Sequence[Scene]) -> None:
    """Documents as OBELICS has them: text, a picture, text; the picture's alternative text is what is asked for."""
    folder.mkdir(parents=True)
    rows = []
    for scene in drawn:
        stream = io.BytesIO()
        Image.fromarray(draw(scene)).save(stream, "PNG")
        first, second = scene
        before = f"Here is the {first.label} with the {second.label}."
        after = f"The {first.shape} is {first.size}, the {second.shape} is {second.size}."
        picture = {"bytes": stream.getvalue()}
        details = json.dumps([None, {"alt_text": prompt(scene)}, None])
        rows.append({"images": [None, picture, None], "texts": [before, None, after], "metadata": details})
    pq.write_table(pa.Table.from_pylist(rows), folder / "answers.parquet")


def set_environment(root: str, scale: Scale, **more: str) -> dict[str, str | None]:
    """Set what the configurations read; returns what was there, for :func:`restore_environment`."""
    values = {
        "OMNIMILL_JAM_ROOT": root,
        "OMNIMILL_JAM_INPUT": str(Path(root) / "jam-input"),
        **scale.settings(),
        **more,
    }
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    return before


def restore_environment(before: dict[str, str | None]) -> None:
    """As it was."""
    for name, value in before.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value
