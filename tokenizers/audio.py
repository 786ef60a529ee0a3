"""Sound before a network sees it: log-mel spectrograms, patches, normalisation, and the way back to a waveform.

Follows Unified-IO 2 (arXiv 2312.17172, Table 8 and its released preprocessing): power mel spectrogram with a symmetric
Hann window, Slaney mel scale and norm, natural logarithm, exact zeros where there is no sound. Spectrograms are
time-major: [frames, mels].
"""

from __future__ import annotations

import io
from functools import lru_cache

import numpy as np
import soundfile
import torch
from numpy.typing import NDArray

from omnimill.errors import BadRecord
from omnimill.rng import generator
from omnimill.tokens import AudioLayout

FloatArray = NDArray[np.float32]
DoubleArray = NDArray[np.float64]
BoolArray = NDArray[np.bool_]

MEL_MAX_HZ = 8000.0
FLOOR, CEILING = 1e-5, 1e5
WINDOW = 1024

MAX_SAMPLES = 100_000_000
_BLOCK = 1 << 20
_BLOCK_FRAMES = 64
# Of the powers behind a mel spectrogram; more do not bring it closer to what it was made of.
_UNMIX_STEPS = 30
_TINY = 1e-30

# (mean, deviation) of log-mel values: of the audio encoder's training data, and of the code targets' (AudioSet).
INPUT_NORM = (-4.26, 9.14)
TARGET_NORM = (-5.0945, 3.8312)


def hop_samples(layout: AudioLayout) -> int:
    """Samples between spectrogram frames: as many as make a segment `layout.frames` long (256 for the reference)."""
    return layout.segment_samples // (layout.frames - 1)


def window_samples(layout: AudioLayout) -> int:
    """Length of the analysis window: 1,024 samples, or the power of two that leaves no gap between frames."""
    return int(max(WINDOW, 1 << (hop_samples(layout) - 1).bit_length()))


@lru_cache(maxsize=8)
def mel_filters(sample_rate: int, window: int, mels: int) -> DoubleArray:
    """Slaney-style mel filter bank from 0 to 8,000 Hz, each filter of unit area: float64 [mels, window // 2 + 1].

    Slaney's scale is linear below 1,000 Hz (200/3 Hz per mel) and logarithmic above (27 mels per factor of 6.4).
    """
    step, knee, log_step = 200.0 / 3.0, 1000.0, np.log(6.4) / 27.0
    knee_mel = knee / step
    top = min(MEL_MAX_HZ, sample_rate / 2)
    top_mel = knee_mel + np.log(top / knee) / log_step if top >= knee else top / step
    points = np.linspace(0.0, top_mel, mels + 2)
    hertz = np.where(points >= knee_mel, knee * np.exp(log_step * (points - knee_mel)), step * points)
    bins = np.linspace(0.0, sample_rate / 2, window // 2 + 1)
    rising = (bins[None, :] - hertz[:-2, None]) / (hertz[1:-1] - hertz[:-2])[:, None]
    falling = (hertz[2:, None] - bins[None, :]) / (hertz[2:] - hertz[1:-1])[:, None]
    triangles = np.maximum(0.0, np.minimum(rising, falling))
    return np.asarray(triangles * (2.0 / (hertz[2:] - hertz[:-2]))[:, None])


def to_segment(waveform: FloatArray, layout: AudioLayout) -> FloatArray:
    """A waveform as exactly one segment: the middle of a longer one, a shorter one centred between zeros."""
    wanted, found = layout.segment_samples, len(waveform)
    if found >= wanted:
        start = (found - wanted) // 2
        return waveform[start : start + wanted]
    before = (wanted - found) // 2
    return np.pad(waveform, (before, wanted - found - before))


def power_mel(waveform: FloatArray, layout: AudioLayout) -> FloatArray:
    """Mel power spectrogram of one segment: float32 [frames, mels]."""
    hop, window = hop_samples(layout), window_samples(layout)
    frames = _frames(to_segment(waveform, layout).astype(np.float64), hop, window)[: layout.frames]
    filters = torch.from_numpy(mel_filters(layout.sample_rate, window, layout.mels)).T
    mel = np.empty((len(frames), layout.mels), np.float32)
    # By blocks that fit a processor's cache: a third less time than the whole clip, and than many clips, at once.
    for start in range(0, len(frames), _BLOCK_FRAMES):
        spectrum = np.fft.rfft(frames[start : start + _BLOCK_FRAMES] * np.hanning(window), axis=1)
        power = np.square(spectrum.real) + np.square(spectrum.imag)
        # PyTorch keeps to the threads that it is given; NumPy's threads would wait for each other in every preparer.
        mel[start : start + _BLOCK_FRAMES] = (torch.from_numpy(power) @ filters).numpy()
    return mel


def log_mel(waveform: FloatArray, layout: AudioLayout) -> tuple[FloatArray, BoolArray]:
    """Log-mel spectrogram of one segment.

    Args:
        waveform: float32 [n] in -1..1 at the layout's sample rate, of any length.
        layout: sizes.

    Returns:
        float32 [frames, mels], natural logarithm of the power clipped to 1e-5..1e5, exactly 0 where there is none;
        and bool [frames, mels], False where the power is zero (padding and digital silence).
    """
    power = power_mel(waveform, layout)
    mask = power != 0
    return np.log(np.clip(power, FLOOR, CEILING)) * mask, mask


def valid_patches(samples: int, layout: AudioLayout) -> BoolArray:
    """Which encoder patches hold sound, from a clip's length alone: bool [time * mel], time first.

    A patch counts when the frame in its middle (nearest sampling) has a window that touches the clip.
    """
    hop, half = hop_samples(layout), window_samples(layout) // 2
    wanted = layout.segment_samples
    start = max(wanted - samples, 0) // 2
    stop = start + min(samples, wanted)
    times, mels = layout.input_grid
    centres = (np.arange(times) * layout.patch + layout.patch // 2) * hop
    # The first and last sample of a symmetric Hann window weigh nothing.
    touches = (centres - half + 1 < stop) & (centres + half - 2 >= start)
    return np.repeat(touches & (samples > 0), mels)


def patchify(mel: FloatArray, patch: int) -> FloatArray:
    """[frames, mels] cut into [time * mel, patch * patch], time first, values in (time, mel) order."""
    times, mels = mel.shape[0] // patch, mel.shape[1] // patch
    cut = mel.reshape(times, patch, mels, patch).transpose(0, 2, 1, 3)
    return np.ascontiguousarray(cut.reshape(times * mels, patch * patch))


def normalise_input(mel: FloatArray) -> FloatArray:
    """Log-mel values as the audio encoder wants them; padding becomes 0.466."""
    return ((mel - INPUT_NORM[0]) / INPUT_NORM[1]).astype(np.float32, copy=False)


def normalise_target(mel: FloatArray) -> FloatArray:
    """Log-mel values as the audio code network wants them; padding becomes 1.330."""
    return ((mel - TARGET_NORM[0]) / TARGET_NORM[1]).astype(np.float32, copy=False)


def denormalise_target(values: FloatArray) -> FloatArray:
    """Inverse of :func:`normalise_target`."""
    return (values * TARGET_NORM[1] + TARGET_NORM[0]).astype(np.float32, copy=False)


def spectrum_of_mel(power: FloatArray | DoubleArray, layout: AudioLayout) -> DoubleArray:
    """Non-negative powers of a spectrum whose mel powers are those given.

    Richardson 1972 and Lucy 1974: each step multiplies every power by how far the mel powers that it belongs to are
    from those wanted; there is no answer below zero, and quiet bands count as much as loud ones.

    Args:
        power: [frames, mels].

    Returns:
        float64 [frames, window // 2 + 1]; zero where no filter looks.
    """
    filters = mel_filters(layout.sample_rate, window_samples(layout), layout.mels)
    weight = np.maximum(filters.sum(axis=0), _TINY)
    spectrum = np.asarray(power @ filters, np.float64)
    for _ in range(_UNMIX_STEPS):
        spectrum *= (power / np.maximum(spectrum @ filters.T, _TINY)) @ filters / weight
    return spectrum


def griffin_lim(mel: FloatArray, layout: AudioLayout, iterations: int = 64) -> FloatArray:
    """A waveform whose log-mel spectrogram is close to `mel`.

    Griffin and Lim 1984, with the momentum of Perraudin, Balazs and Sondergaard 2013; starts from fixed random phases.

    Args:
        mel: float32 [frames, mels], natural logarithm; exact zeros count as silence, as :func:`log_mel` writes them.
        layout: sizes.
        iterations: phase refinements.

    Returns:
        float32 [segment_samples] within -1..1.
    """
    hop, window = hop_samples(layout), window_samples(layout)
    power = np.where(mel == 0, 0.0, np.exp(np.clip(mel.astype(np.float64), np.log(FLOOR), np.log(CEILING))))
    magnitude = np.sqrt(spectrum_of_mel(power, layout))
    angles = generator("griffin_lim").uniform(0.0, 2.0 * np.pi, magnitude.shape)
    phase = np.exp(1j * angles)
    before = np.zeros_like(phase)
    for _ in range(iterations):
        rebuilt = _stft(_istft(magnitude * phase, hop, window, layout.segment_samples), hop, window)[: len(magnitude)]
        pushed = rebuilt + 0.99 * (rebuilt - before)
        phase, before = pushed / np.maximum(np.abs(pushed), 1e-12), rebuilt
    waveform = _istft(magnitude * phase, hop, window, layout.segment_samples)
    return (waveform / max(1.0, float(np.abs(waveform).max()))).astype(np.float32)


def decode_waveform(data: bytes) -> tuple[FloatArray, int]:
    """Encoded sound (WAV, FLAC, OGG, MP3) as mono float32 [n] in -1..1, and its sample rate; channels are averaged.

    Raises:
        BadRecord: ``audio_undecodable``, ``audio_too_long`` (more than `MAX_SAMPLES`) or ``audio_empty``.
    """
    blocks: list[FloatArray] = []
    total = 0
    try:
        with soundfile.SoundFile(io.BytesIO(data)) as sound:
            # In blocks, because the length that a header claims may be anything.
            while len(block := sound.read(_BLOCK, dtype="float32", always_2d=True)):
                total += block.size
                if total > MAX_SAMPLES:
                    raise BadRecord("audio_too_long", f"more than {MAX_SAMPLES:,} samples in all channels")
                blocks.append(block.mean(axis=1, dtype=np.float32))
            rate = int(sound.samplerate)
    except soundfile.LibsndfileError as error:
        # Its text begins with an object's address, which differs from run to run.
        raise BadRecord("audio_undecodable", error.error_string) from None
    if not total:
        raise BadRecord("audio_empty", "the clip holds no samples")
    return np.concatenate(blocks), rate


def decode_flac(data: bytes) -> FloatArray:
    """A token shard's clip (mono, at the layout's sample rate) as float32 [n] in -1..1."""
    return decode_waveform(data)[0]


def encode_waveform(waveform: FloatArray, sample_rate: int, form: str) -> bytes:
    """Mono float32 [n] as 16-bit ``FLAC`` or ``WAV``; equal samples give equal bytes."""
    buffer = io.BytesIO()
    scaled = np.clip(np.rint(waveform * 32768.0), -32768, 32767).astype(np.int16)
    soundfile.write(buffer, scaled, sample_rate, format=form, subtype="PCM_16")
    return buffer.getvalue()


def _stft(waveform: DoubleArray, hop: int, window: int) -> NDArray[np.complex128]:
    """Centred short-time Fourier transform with reflect padding: complex [1 + n // hop, window // 2 + 1]."""
    return np.asarray(np.fft.rfft(_frames(waveform, hop, window) * np.hanning(window), axis=1))


def _frames(waveform: DoubleArray, hop: int, window: int) -> DoubleArray:
    """Overlapping pieces of a waveform that is reflected at its ends, a view: [1 + n // hop, window]."""
    padded = np.pad(waveform, window // 2, mode="reflect")
    return np.lib.stride_tricks.sliding_window_view(padded, window)[::hop]


def _istft(spectrum: NDArray[np.complex128], hop: int, window: int, samples: int) -> DoubleArray:
    """Overlap-add inverse of :func:`_stft` (least squares), cut to `samples`."""
    taper = np.hanning(window)
    pieces = np.fft.irfft(spectrum, window, axis=1) * taper
    total = np.zeros(samples + 2 * window + hop)
    weight = np.zeros_like(total)
    for i, piece in enumerate(pieces):
        total[i * hop : i * hop + window] += piece
        weight[i * hop : i * hop + window] += taper**2
    total /= np.maximum(weight, 1e-8)
    return total[window // 2 : window // 2 + samples]
