"""The learning proof's data and its checker: answers are known, and only right ones are taken for right."""

from __future__ import annotations

import io
import json
from itertools import pairwise, product
from pathlib import Path

import numpy as np
import pytest
import soundfile
from PIL import Image

from omnimill.learn import scenes, tones
from omnimill.learn.inputs import HELD_OUT, TRAIN, write_pictures, write_tunes
from omnimill.learn.recognise import scene_of, tune_of
from omnimill.rng import generator


def test_every_thing_is_recognised_wherever_it_is_drawn() -> None:
    for thing in scenes.ALL_THINGS:
        assert scene_of(scenes.draw((thing,))) == (thing,)
    for scene in scenes.scenes(50, held_out=False) + scenes.scenes(50, held_out=True):
        assert scene_of(scenes.draw(scene)) == scene


def test_pictures_survive_what_codes_lose_of_them() -> None:
    """Noise and the loss of a JPEG do not make a picture another one."""
    noise = generator("noise")
    for scene in scenes.scenes(30, held_out=True):
        picture = scenes.draw(scene)
        dirty = np.clip(picture + noise.normal(0, 8, picture.shape), 0, 255).astype(np.uint8)
        stream = io.BytesIO()
        Image.fromarray(dirty).save(stream, "JPEG", quality=90, subsampling=0)
        assert scene_of(np.asarray(Image.open(stream))) == scene


def test_what_is_no_scene_is_not_recognised() -> None:
    thing = scenes.ALL_THINGS[0]
    noise = generator("noise").integers(0, 256, (scenes.SIDE, scenes.SIDE, 3), np.uint8)
    assert scene_of(noise) is None
    assert scene_of(np.zeros_like(noise)) is None
    half = scenes.draw((thing,))
    half[: scenes.CELL // 2] = scenes.BACKGROUND
    assert scene_of(half) is None
    two_coloured = scenes.draw((thing,))
    drawn = (two_coloured != scenes.BACKGROUND).any(-1)
    drawn[:, : scenes.CELL // 2] = False
    two_coloured[drawn] = scenes.COLOURS["green" if thing.colour != "green" else "blue"]
    assert scene_of(two_coloured) is None
    assert scene_of(np.full_like(noise, scenes.BACKGROUND)) == ()
    with pytest.raises(ValueError, match="allowed: "):
        scene_of(noise[:10])


def test_every_note_is_recognised_in_every_place_and_neighbourhood() -> None:
    for first, second in product(tones.ALL_NOTES, repeat=2):
        tune = (first, second, tones.ALL_NOTES[0])
        assert tune_of(tones.play(tune)) == tune


def test_what_is_no_tune_is_not_recognised() -> None:
    tune = tones.tunes(1, held_out=False)[0]
    wave = tones.play(tune)
    noise = generator("hiss").normal(0, 0.2, len(wave)).astype(np.float32)
    assert tune_of(noise) is None
    assert tune_of(np.zeros_like(wave)) is None
    off_pitch = 0.4 * np.sin(2 * np.pi * 900.0 * np.arange(len(wave)) / tones.SAMPLE_RATE)
    assert tune_of(off_pitch.astype(np.float32)) is None
    assert tune_of(np.concatenate([wave[: 2 * tones.NOTE_SAMPLES], noise[: tones.NOTE_SAMPLES]])) is None
    assert tune_of(wave + 0.05 * noise) == tune
    with pytest.raises(ValueError, match="allowed: at least"):
        tune_of(wave[:100])


def test_held_out_combinations_are_in_nothing_that_is_trained_on() -> None:
    trained, unseen = scenes.scenes(2000, held_out=False), scenes.scenes(200, held_out=True)
    shown = {thing for scene in trained for thing in scene}
    assert not any(scenes.is_held_out(thing) for thing in shown)
    assert all(any(scenes.is_held_out(thing) for thing in scene) for scene in unseen)
    # Whatever a held-out thing is made of was seen apart: only the combination is new.
    for thing in scenes.ALL_THINGS:
        for part in ("place", "size", "colour", "shape"):
            assert any(getattr(one, part) == getattr(thing, part) for one in shown)
        assert any((one.size, one.label) == (thing.size, thing.label) for one in shown)
    heard, new = set(tones.tunes(1400, held_out=False)), tones.tunes(100, held_out=True)
    assert len(heard) == 1400 and len(new) == 100 and not heard & set(new)
    # Every two notes in a row were heard in their places.
    pairs = {(place, pair) for tune in heard for place, pair in enumerate(pairwise(tune))}
    assert all((place, pair) in pairs for tune in new for place, pair in enumerate(pairwise(tune)))


def test_files_say_what_is_drawn_and_played(tmp_path: Path) -> None:
    drawn, played = scenes.scenes(5, held_out=True), tones.tunes(2, held_out=False)
    write_pictures(tmp_path / "shapes", HELD_OUT, drawn)
    write_tunes(tmp_path / "tones", played)
    told = json.loads((tmp_path / "shapes/annotations/instances_held_out.json").read_text())
    names = {one["id"]: one["name"] for one in told["categories"]}
    captions = json.loads((tmp_path / "shapes/annotations/captions_held_out.json").read_text())["annotations"]
    for image, scene in zip(told["images"], drawn, strict=True):
        picture = np.asarray(Image.open(tmp_path / "shapes" / HELD_OUT / image["file_name"]))
        assert [one["caption"] for one in captions if one["image_id"] == image["id"]] == [scenes.caption(scene)]
        boxes = [one for one in told["annotations"] if one["image_id"] == image["id"]]
        assert [names[one["category_id"]] for one in boxes] == [thing.label for thing in scene]
        outside = np.ones(picture.shape[:2], np.bool_)
        for box in boxes:
            x, y, width, height = box["bbox"]
            inside = (picture[y : y + height, x : x + width] != scenes.BACKGROUND).any(-1)
            # The box is the smallest one: each of its edges touches what is drawn.
            assert inside[0].any() and inside[-1].any() and inside[:, 0].any() and inside[:, -1].any()
            outside[y : y + height, x : x + width] = False
        assert (picture[outside] == scenes.BACKGROUND).all()
    for number, tune in enumerate(played, 1):
        wave, rate = soundfile.read(tmp_path / f"tones/{number:06d}.wav", dtype="float32")
        assert rate == tones.SAMPLE_RATE and tune_of(wave) == tune
        assert (tmp_path / f"tones/{number:06d}.txt").read_text().strip() == tones.caption(tune)


def test_equal_data_every_time(tmp_path: Path) -> None:
    for name in ("one", "other"):
        write_pictures(tmp_path / name, TRAIN, scenes.scenes(3, held_out=False))
        write_tunes(tmp_path / name / "tones", tones.tunes(2, held_out=False))
    files = sorted(path.relative_to(tmp_path / "one") for path in (tmp_path / "one").rglob("*.*"))
    assert files
    assert all((tmp_path / "one" / file).read_bytes() == (tmp_path / "other" / file).read_bytes() for file in files)
