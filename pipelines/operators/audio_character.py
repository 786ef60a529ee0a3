"""Whether sound is more like speech or like music, by measures of its energy over time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field

from omnimill.pipelines.base import Operator
from omnimill.pipelines.decoders.audio import Waveform, decode_clip
from omnimill.pipelines.decoders.sound import SAMPLE_RATE
from omnimill.schema import Example

_FRAME = SAMPLE_RATE // 50  # 20 ms
_FRAMES_PER_SECOND = 50
# Syllables come at about four per second.
_SYLLABLES_HZ = (2.0, 6.0)
_SILENT_RMS = 1e-4

Values = npt.NDArray[np.float64]


class AudioCharacter(Operator):
    """Measures by which speech and music are told apart; drops an example when one is out of bounds.

    After Scheirer and Slaney (1997), "Construction and evaluation of a robust multifeature speech/music
    discriminator", on 20 ms frames, each the mean over the example's clips that are not silent:

    * ``audio_low_energy``: share of frames whose root mean square is below half the mean of the second around them.
      Speech has pauses: it is higher than in music.
    * ``audio_4hz``: share of the loudness envelope's power at 2 to 6 Hz, the rate of syllables; higher in speech.
    * ``audio_zcr_std``: standard deviation of the share of samples that cross zero; consonants make it high in speech.
    * ``audio_flux``: mean distance between the magnitude spectra of neighbouring frames, each scaled to length 1.

    All bounds are None at first: what is a good one depends on the corpus.
    """

    per_example: ClassVar[bool] = True
    reads: ClassVar[tuple[str, ...]] = ("audio",)
    writes: ClassVar[tuple[str, ...]] = ("meta",)

    op: Literal["audio_character"]
    min_low_energy: float | None = Field(None, ge=0, le=1)
    max_low_energy: float | None = Field(None, ge=0, le=1)
    min_4hz: float | None = Field(None, ge=0, le=1)
    max_4hz: float | None = Field(None, ge=0, le=1)
    min_zcr_std: float | None = Field(None, ge=0, le=1)
    max_zcr_std: float | None = Field(None, ge=0, le=1)
    min_flux: float | None = Field(None, ge=0)
    max_flux: float | None = Field(None, ge=0)

    def __call__(self, examples: Sequence[Example]) -> list[str | None]:
        return [self._judge(example) for example in examples]

    def _judge(self, example: Example) -> str | None:
        waves = (decode_clip(clip) for clip in example.audio)
        measured = [found for wave in waves if (found := measure(wave)) is not None]
        if not measured:
            return None
        means = {name: float(np.mean([found[name] for found in measured])) for name in measured[0]}
        example.meta.scores.update({f"audio_{name}": value for name, value in means.items()})
        for name, value in means.items():
            least, most = getattr(self, f"min_{name}"), getattr(self, f"max_{name}")
            if (least is not None and value < least) or (most is not None and value > most):
                return "audio_character"
        return None


def measure(wave: Waveform) -> dict[str, float] | None:
    """The four measures of a clip, see :class:`AudioCharacter`; None of silence or less than a second.

    Args:
        wave: float32 [samples], 16 kHz.
    """
    count = len(wave) // _FRAME
    if count < _FRAMES_PER_SECOND or float(np.sqrt(np.mean(np.square(wave, dtype=np.float64)))) < _SILENT_RMS:
        return None
    frames = wave[: count * _FRAME].reshape(count, _FRAME).astype(np.float64)
    rms = np.sqrt((frames**2).mean(axis=1))
    crossings = (np.diff(np.signbit(frames), axis=1) != 0).mean(axis=1)
    return {
        "low_energy": float((rms < 0.5 * _around(rms)).mean()),
        "4hz": _syllabic(rms),
        "zcr_std": float(crossings.std()),
        "flux": _flux(frames),
    }


def _around(rms: Values) -> Values:
    """Mean over the second around each frame, less at the ends."""
    window = np.ones(_FRAMES_PER_SECOND)
    return np.convolve(rms, window, "same") / np.convolve(np.ones_like(rms), window, "same")


def _syllabic(rms: Values) -> float:
    """Share of the envelope's power, without its mean, that lies in the band of syllables."""
    power = np.abs(np.fft.rfft((rms - rms.mean()) * np.hanning(len(rms)))) ** 2
    rates = np.fft.rfftfreq(len(rms), 1 / _FRAMES_PER_SECOND)
    whole = float(power.sum())
    low, high = _SYLLABLES_HZ
    return float(power[(rates >= low) & (rates <= high)].sum()) / whole if whole > 0 else 0.0


def _flux(frames: Values) -> float:
    spectra = np.abs(np.fft.rfft(frames * np.hanning(_FRAME), axis=1))
    length = np.linalg.norm(spectra, axis=1, keepdims=True)
    spectra /= np.maximum(length, 1e-9)
    return float(np.linalg.norm(np.diff(spectra, axis=0), axis=1).mean())
