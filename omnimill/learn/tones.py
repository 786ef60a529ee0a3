"""Sounds with a known answer: three notes one after the other, each of one of two timbres."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

import numpy as np
import numpy.typing as npt

from omnimill import rng
from omnimill.learn.scenes import SEED

Waveform = npt.NDArray[np.float32]

SAMPLE_RATE = 16000
NOTE_SAMPLES = 8320  # 0.52 s: two columns of codes
NOTES_PER_TUNE = 3
SECONDS = NOTE_SAMPLES * NOTES_PER_TUNE / SAMPLE_RATE
# Hertz, equal temperament.
PITCHES = {
    "low do": 523.25,
    "low mi": 659.26,
    "low sol": 783.99,
    "high do": 1046.50,
    "high mi": 1318.51,
    "high sol": 1567.98,
}
# Amplitudes of a note and of its overtones.
TIMBRES = {"soft": (1.0,), "bright": (1.0, 0.6, 0.4)}
_LOUDNESS = 0.4
# Long enough that no window of the spectrogram hears two notes at once.
_FADE_SAMPLES = 640
_HELD_OUT_SHARE = 0.125


@dataclass(frozen=True)
class Note:
    timbre: str
    pitch: str

    @property
    def words(self) -> str:
        return f"{self.timbre} {self.pitch}"


Tune = tuple[Note, ...]

ALL_NOTES = tuple(Note(*values) for values in product(TIMBRES, PITCHES))


def caption(tune: Tune) -> str:
    """The notes in their order."""
    return ", ".join(note.words for note in tune)


def is_held_out(tune: Tune) -> bool:
    """Whether this combination of three notes is never trained on."""
    return rng.uniform("held out", SEED, caption(tune)) < _HELD_OUT_SHARE


def tunes(count: int, *, held_out: bool) -> list[Tune]:
    """So many different tunes, all of them held out or none."""
    every = [tune for tune in product(ALL_NOTES, repeat=NOTES_PER_TUNE) if is_held_out(tune) == held_out]
    order = rng.generator("tunes", SEED, int(held_out)).permutation(len(every))
    return [every[number] for number in order[:count]]


def play(tune: Tune) -> Waveform:
    """float32 [NOTES_PER_TUNE * NOTE_SAMPLES] in -1..1, at `SAMPLE_RATE`."""
    return np.concatenate([_note(note) for note in tune])


def _note(note: Note) -> Waveform:
    turns = 2 * np.pi * PITCHES[note.pitch] * np.arange(NOTE_SAMPLES) / SAMPLE_RATE
    levels = np.array(TIMBRES[note.timbre])
    wave = levels @ np.sin(turns * np.arange(1, len(levels) + 1)[:, None]) / levels.sum()
    fade = 0.5 - 0.5 * np.cos(np.pi * np.arange(_FADE_SAMPLES) / _FADE_SAMPLES)
    wave[:_FADE_SAMPLES] *= fade
    wave[-_FADE_SAMPLES:] *= fade[::-1]
    return np.asarray(_LOUDNESS * wave, np.float32)
