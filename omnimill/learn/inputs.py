"""The raw data of the learning proof: pictures in COCO's published layout, sounds with captions beside them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import soundfile
from PIL import Image

from omnimill.learn import scenes, tones
from omnimill.written_once import written_once

TRAIN, HELD_OUT = "train", "held_out"
# Pictures and tunes of each part.
PICTURES = {TRAIN: 3000, HELD_OUT: 200}
TUNES = {TRAIN: 1400, HELD_OUT: 100}


def make_inputs(folder: Path) -> bool:
    """Write all input files below `folder`, unless they are there already; whether anything was written."""
    return written_once(folder, _write)


def _write(work: Path) -> None:
    for part in (TRAIN, HELD_OUT):
        write_pictures(work / "shapes", part, scenes.scenes(PICTURES[part], held_out=part == HELD_OUT))
        write_tunes(work / "tones" / part, tones.tunes(TUNES[part], held_out=part == HELD_OUT))


def write_pictures(folder: Path, part: str, drawn: list[scenes.Scene]) -> None:
    """``<part>/*.png``, with captions and boxes in ``annotations/``, as COCO has them."""
    (folder / part).mkdir(parents=True)
    (folder / "annotations").mkdir(exist_ok=True)
    labels = sorted({thing.label for thing in scenes.ALL_THINGS})
    images: list[dict[str, Any]] = []
    captions: list[dict[str, Any]] = []
    objects: list[dict[str, Any]] = []
    for number, scene in enumerate(drawn, 1):
        name = f"{number:06d}.png"
        Image.fromarray(scenes.draw(scene)).save(folder / part / name)
        images.append({"id": number, "file_name": name, "height": scenes.SIDE, "width": scenes.SIDE})
        captions.append({"id": number, "image_id": number, "caption": scenes.caption(scene)})
        for thing in scene:
            top, left = thing.corner
            side = scenes.SIZES[thing.size]
            box = {"bbox": [left, top, side, side], "area": side * side, "iscrowd": 0}
            category = labels.index(thing.label) + 1
            objects.append({"id": len(objects) + 1, "image_id": number, "category_id": category, **box})
    categories = [{"id": number, "name": label} for number, label in enumerate(labels, 1)]
    told = {
        "captions": {"images": images, "annotations": captions},
        "instances": {"images": images, "annotations": objects, "categories": categories},
    }
    for kind, content in told.items():
        (folder / "annotations" / f"{kind}_{part}.json").write_text(json.dumps(content))


def write_tunes(folder: Path, played: list[tones.Tune]) -> None:
    """One WAV file with a caption beside it for each tune."""
    folder.mkdir(parents=True)
    for number, tune in enumerate(played, 1):
        stem = folder / f"{number:06d}"
        soundfile.write(stem.with_suffix(".wav"), tones.play(tune), tones.SAMPLE_RATE, subtype="PCM_16")
        stem.with_suffix(".txt").write_text(tones.caption(tune) + "\n")
