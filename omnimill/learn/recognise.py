"""What a picture shows and a clip plays, by colours, outlines and frequencies alone.

Fixed rules without anything learnt, so that what a model generates can be told right from wrong. What is not clearly
one of the things that there are is not recognised at all.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from omnimill.learn.scenes import BACKGROUND, CELL, COLOURS, GRID, SHAPES, SIDE, SIZES, Pixels, Scene, Thing, outline
from omnimill.learn.tones import NOTE_SAMPLES, NOTES_PER_TUNE, PITCHES, SAMPLE_RATE, Note, Tune, Waveform

# Intersection over union of an outline with the best shape.
_LEAST_OVERLAP = 0.75
# Share of a cell's pixels that may be off the background where there is nothing.
_MOST_DIRT = 0.02
# Share of a shape's pixels that have its colour.
_LEAST_OF_COLOUR = 0.75
# Pitch: bins of the spectrum within so much of it are its own.
_TUNING = 0.08
# Power, relative to the strongest of the known frequencies, from which a frequency counts as sounding.
_SOUNDING = 0.05
# Share of a note's power that its pitch and overtones have.
_LEAST_PURE = 0.6
_OVERTONES = (2, 3)


def scene_of(picture: Pixels) -> Scene | None:
    """The things in a picture, uint8 [SIDE, SIDE, 3], in reading order; None when some place shows no known thing."""
    if picture.shape != (SIDE, SIDE, 3):
        raise ValueError(f"found a picture of shape {picture.shape}, allowed: {(SIDE, SIDE, 3)}")
    palette = np.array([BACKGROUND, *COLOURS.values()], np.int64)
    nearest = np.square(picture[:, :, None].astype(np.int64) - palette).sum(-1).argmin(-1)
    found = []
    for place in range(GRID * GRID):
        row, column = divmod(place, GRID)
        cell = nearest[row * CELL : (row + 1) * CELL, column * CELL : (column + 1) * CELL]
        if (cell > 0).mean() <= _MOST_DIRT:
            continue
        thing = _thing(place, cell)
        if thing is None:
            return None
        found.append(thing)
    return tuple(found)


def _thing(place: int, cell: npt.NDArray[np.int64]) -> Thing | None:
    """cell: number of the nearest colour of each pixel, 0 for the background."""
    covered = cell > 0
    counts = np.bincount(cell[covered], minlength=len(COLOURS) + 1)
    colour = int(counts.argmax())
    overlaps = {
        (size, shape): (covered & mask).sum() / (covered | mask).sum()
        for size in SIZES
        for shape in SHAPES
        for mask in (outline(shape, size),)
    }
    size, shape = max(overlaps, key=lambda kind: overlaps[kind])
    if overlaps[size, shape] < _LEAST_OVERLAP or counts[colour] < _LEAST_OF_COLOUR * covered.sum():
        return None
    return Thing(place, size, list(COLOURS)[colour - 1], shape)


def tune_of(waveform: Waveform) -> Tune | None:
    """The notes of a clip of at least NOTES_PER_TUNE * NOTE_SAMPLES samples, of which the middle ones count; None when
    some of it is no known note.
    """
    wanted = NOTES_PER_TUNE * NOTE_SAMPLES
    if len(waveform) < wanted:
        raise ValueError(f"found {len(waveform)} samples, allowed: at least {wanted}")
    start = (len(waveform) - wanted) // 2
    parts = waveform[start : start + wanted].reshape(NOTES_PER_TUNE, NOTE_SAMPLES)
    notes = [_note(part[NOTE_SAMPLES // 5 : -NOTE_SAMPLES // 5]) for part in parts]
    known = tuple(note for note in notes if note is not None)
    return known if len(known) == len(notes) else None


def _note(part: Waveform) -> Note | None:
    power = np.square(np.abs(np.fft.rfft(part * np.hanning(len(part)))))
    hertz = np.fft.rfftfreq(len(part), 1 / SAMPLE_RATE)

    def near(frequency: float) -> float:
        return float(power[np.abs(hertz / frequency - 1) < _TUNING].sum())

    levels = {pitch: near(frequency) for pitch, frequency in PITCHES.items()}
    # Higher ones may be its overtones.
    pitch = next((one for one in PITCHES if levels[one] >= _SOUNDING * max(levels.values())), None)
    if pitch is None or not levels[pitch]:
        return None
    overtones = sum(near(PITCHES[pitch] * number) for number in _OVERTONES)
    if levels[pitch] + overtones < _LEAST_PURE * power.sum():
        return None
    return Note("bright" if overtones >= _SOUNDING * levels[pitch] else "soft", pitch)
