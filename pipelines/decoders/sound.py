"""The sound of a film's stretch as 16 kHz mono, silence where there is none."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import av
import numpy as np
import numpy.typing as npt

from omnimill.errors import BadRecord

SAMPLE_RATE = 16_000
MIN_SAMPLE_RATE, MAX_SAMPLE_RATE = 1_000, 768_000
# A jump in time that is shorter is the rounding of timestamps, not a gap (as in ffmpeg's aresample).
_GAP_SECONDS = 0.1
_BLOCK_SAMPLES = 1 << 14

Samples = npt.NDArray[np.int16]


@dataclass(frozen=True)
class Sound:
    """start: of the first sample, in samples from the start of the file. pieces: int16 [samples], one after another."""

    start: int
    pieces: tuple[Samples, ...]

    def cut(self, begin: int, end: int) -> Samples:
        """Samples `begin` to `end`, counted from the start of the file; fewer where the sound ends before."""
        found: list[Samples] = []
        position = self.start
        for piece in self.pieces:
            if position >= end:
                break
            found.append(piece[max(begin - position, 0) : max(end - position, 0)])
            position += len(piece)
        return np.concatenate(found) if found else np.zeros(0, np.int16)


class Recorder:
    """Puts decoded sound in its place between two times.

    origin: start of the file on the clock of its timestamps, in seconds. tick: seconds per tick of them.
    """

    def __init__(self, start: float, end: float, origin: float, tick: float) -> None:
        self._start = round(start * SAMPLE_RATE)
        self._end = round(end * SAMPLE_RATE)
        self._origin = origin
        self._tick = tick
        self._pieces: list[Samples] = []
        self._at = self._start  # of the next sample to keep
        self._resampler: Any = None
        self._waiting: Any = None  # sound that is not resampled yet: one large frame takes less time than many small
        self._form: tuple[Any, ...] | None = None
        self._begin = 0  # where the resampler's output began
        self._given = 0  # how much of it came
        self._due = 0.0  # when the next frame should begin, seconds

    def hear(self, frame: Any) -> bool:
        """Take one frame; whether more is wanted.

        Raises:
            BadRecord: ``audio_not_finite``, ``audio_sample_rate``.
        """
        rate = frame.sample_rate
        if not MIN_SAMPLE_RATE <= rate <= MAX_SAMPLE_RATE:
            message = f"{rate} samples per second, {MIN_SAMPLE_RATE} to {MAX_SAMPLE_RATE} allowed"
            raise BadRecord("audio_sample_rate", message)
        time = self._due if frame.pts is None else frame.pts * self._tick - self._origin
        form = (frame.format.name, frame.layout.name, rate)
        if self._resampler is None or form != self._form or abs(time - self._due) > _GAP_SECONDS:
            self._finish()
            self._resampler = av.AudioResampler(format="flt", layout="mono", rate=SAMPLE_RATE)
            self._waiting = av.AudioFifo()
            self._form = form
            self._begin, self._given, self._due = round(time * SAMPLE_RATE), 0, time
        self._due += frame.samples / rate
        frame.pts = None
        self._waiting.write(frame)
        if self._waiting.samples >= _BLOCK_SAMPLES:
            self._resample(self._waiting.read())
        return self._due * SAMPLE_RATE < self._end

    def sound(self) -> Sound:
        """What was heard, up to the end."""
        self._finish()
        return Sound(self._start, tuple(self._pieces))

    def _finish(self) -> None:
        if self._resampler is not None:
            if (rest := self._waiting.read()) is not None:
                self._resample(rest)
            self._resample(None)
        self._resampler = None

    def _resample(self, frame: Any) -> None:
        if frame is not None:
            frame.pts = None
        for resampled in self._resampler.resample(frame):
            self._keep(resampled)

    def _keep(self, frame: Any) -> None:
        samples = frame.to_ndarray()[0]
        if not np.isfinite(samples).all():
            raise BadRecord("audio_not_finite", "samples are not finite (NaN or infinity)")
        begin = self._begin + self._given
        self._given += len(samples)
        if begin > self._at:  # a gap
            silence = min(begin, self._end) - self._at
            if silence > 0:
                self._pieces.append(np.zeros(silence, np.int16))
                self._at += silence
        own = samples[max(self._at - begin, 0) : max(self._end - begin, 0)]
        if len(own):
            self._pieces.append(to_int16(own))
            self._at += len(own)


def to_int16(samples: npt.NDArray[np.float32]) -> Samples:
    """Samples in -1..1 as 16-bit integers; what lies outside is clipped."""
    whole: Samples = np.rint(np.clip(samples, -1.0, 1.0) * 32767.0).astype(np.int16)
    return whole
