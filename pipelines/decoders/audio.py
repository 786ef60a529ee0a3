"""Sound out of audio and video files as clips of 16 kHz mono FLAC, streamed window by window.

Times count from the start of the file. Windows of 4.08 s (65,280 samples) follow each other without overlap.
"""

from __future__ import annotations

import io
import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import islice

import numpy as np
import numpy.typing as npt
import soundfile
import soxr
from blake3 import blake3

from omnimill.errors import BadRecord
from omnimill.pipelines.decoders import ffmpeg
from omnimill.pipelines.decoders.probe import BEST_TRACKS, AudioTrack, MediaLimits, TrackChoice, probe
from omnimill.pipelines.decoders.sound import MAX_SAMPLE_RATE, MIN_SAMPLE_RATE, SAMPLE_RATE, Samples, to_int16
from omnimill.schema import Audio
from omnimill.segments import segment_count

# Shorter pieces hold no frame of a spectrogram worth having.
MIN_SECONDS = 0.1
_BLOCK_SAMPLES = 1 << 18
_UNKNOWN_FRAMES = 1 << 40

Waveform = npt.NDArray[np.float32]


@dataclass(frozen=True)
class AudioFacts:
    """Of a recording as it lies: samples per second, channels and length."""

    sample_rate: int
    channels: int
    seconds: float


def audio_windows(
    path: str,
    segment: float,
    limits: MediaLimits,
    timeout: float,
    choice: TrackChoice = BEST_TRACKS,
    rest: bool = False,
) -> tuple[AudioFacts, list[Audio]]:
    """The windows of an audio file. Call it through :func:`~omnimill.pipelines.isolation.isolated`.

    libsndfile reads what it can (WAV, FLAC, MP3, Ogg, Opus, AIFF, SPHERE, …), ffmpeg the rest. Headers are checked
    before anything is decoded. There are :func:`~omnimill.segments.segment_count` windows; the last may be short.

    Args:
        path: local file.
        segment: seconds per window.
        timeout: seconds that ffmpeg may take.
        rest: whether the last window is kept however short it is.

    Raises:
        BadRecord: ``audio_unreadable``, ``audio_no_stream``, ``audio_too_long``, ``audio_too_large``,
            ``audio_sample_rate``, ``audio_truncated``, ``audio_undecodable``, ``audio_not_finite``, ``audio_empty``,
            ``audio_timeout``.
    """
    try:
        with soundfile.SoundFile(path) as file:
            facts = _sndfile_facts(file, limits)
            clips = list(_clips(_sndfile_blocks(file, facts, limits), segment))
    except soundfile.LibsndfileError:
        info = probe(path, "audio", limits, choice)
        if info.audio is None:
            raise BadRecord("audio_no_stream", "the file has no sound that can be decoded") from None
        facts = AudioFacts(info.audio.sample_rate, info.audio.channels, 0.0)
        most = math.ceil(limits.seconds / segment)
        clips = track_clips(path, info.demuxer, info.audio, segment, most, timeout)
    if not clips:
        raise BadRecord("audio_empty", "no samples")
    seconds = sum(clip.samples for clip in clips) / SAMPLE_RATE
    count = len(clips) if rest else segment_count(seconds, segment)
    return replace(facts, seconds=facts.seconds or seconds), clips[:count]


def track_clips(path: str, demuxer: str, track: AudioTrack, segment: float, count: int, timeout: float) -> list[Audio]:
    """The first `count` windows of a stream's sound from the start of the file on; silence where it has gaps.

    Args:
        path: local file; `demuxer` and `track` are what :func:`~omnimill.pipelines.decoders.probe.probe` found.
        segment: seconds per window. timeout: seconds.

    Raises:
        BadRecord: ``audio_timeout``, ``audio_undecodable``, ``audio_not_finite``.
    """
    resampled = (
        ffmpeg.source(path, demuxer)[str(track.index)]
        .filter("aresample", SAMPLE_RATE, first_pts=0, **{"async": 1})
        .filter("aformat", sample_fmts="flt", channel_layouts="mono")
    )
    output = resampled.output("pipe:", format="f32le", acodec="pcm_f32le")
    with ffmpeg.piped(output, "audio", timeout) as stream:

        def blocks() -> Iterator[Waveform]:
            while data := stream.read(4 * _BLOCK_SAMPLES):
                yield _finite(np.frombuffer(data[: len(data) // 4 * 4], dtype=np.float32))

        return list(islice(_clips(blocks(), segment), count))


def _sndfile_facts(file: soundfile.SoundFile, limits: MediaLimits) -> AudioFacts:
    rate, channels = int(file.samplerate), int(file.channels)
    if not MIN_SAMPLE_RATE <= rate <= MAX_SAMPLE_RATE:
        message = f"{rate} samples per second, {MIN_SAMPLE_RATE} to {MAX_SAMPLE_RATE} allowed"
        raise BadRecord("audio_sample_rate", message)
    if channels > limits.channels:
        raise BadRecord("audio_too_large", f"{channels} channels, {limits.channels} allowed")
    seconds = file.frames / rate if file.frames < _UNKNOWN_FRAMES else 0.0
    if seconds > limits.seconds:
        raise BadRecord("audio_too_long", f"{seconds:.1f} s, {limits.seconds:g} s allowed")
    return AudioFacts(rate, channels, seconds)


def _sndfile_blocks(file: soundfile.SoundFile, facts: AudioFacts, limits: MediaLimits) -> Iterator[Waveform]:
    """The file as 16 kHz mono, block by block."""
    resampler = soxr.ResampleStream(facts.sample_rate, SAMPLE_RATE, 1, dtype="float32")
    frames = 0
    while len(block := file.read(_BLOCK_SAMPLES, dtype="float32", always_2d=True)):
        frames += len(block)
        if frames > limits.seconds * facts.sample_rate:
            raise BadRecord("audio_too_long", f"sound goes on past {limits.seconds:g} s")
        yield resampler.resample_chunk(_finite(block.mean(axis=1)), last=False)
    if frames / facts.sample_rate < 0.95 * facts.seconds - 1.0:
        message = f"the header says {facts.seconds:.2f} s, the sound ends at {frames / facts.sample_rate:.2f} s"
        raise BadRecord("audio_truncated", message)
    yield resampler.resample_chunk(np.zeros(0, np.float32), last=True)


def _finite(samples: Waveform) -> Waveform:
    if not np.isfinite(samples).all():
        raise BadRecord("audio_not_finite", "samples are not finite (NaN or infinity)")
    return samples


def _clips(blocks: Iterator[Waveform], segment: float) -> Iterator[Audio]:
    """Windows of 16 kHz mono as FLAC, the last one as long as the rest is."""
    size = round(segment * SAMPLE_RATE)
    pending = np.zeros(0, np.float32)
    start = 0
    for block in blocks:
        pending = np.concatenate([pending, block])
        whole = len(pending) // size * size
        for offset in range(0, whole, size):
            yield _clip(pending[offset : offset + size], start + offset)
        pending = pending[whole:]
        start += whole
    if len(pending):
        yield _clip(pending, start)


def _clip(waveform: Waveform, start: int) -> Audio:
    return flac_clip(to_int16(waveform), start)


def flac_clip(samples: Samples, start: int) -> Audio:
    """16 kHz samples as a clip of FLAC; its digest is that of the FLAC, as it has no file of its own.

    Args:
        start: of the clip in its recording, in samples.
    """
    data = _flac(samples)
    return Audio(
        data=data,
        format="flac",
        sample_rate=SAMPLE_RATE,
        channels=1,
        samples=len(samples),
        digest=blake3(data).hexdigest(),
        start=start / SAMPLE_RATE,
    )


def encode_flac(waveform: Waveform) -> bytes:
    """Float samples [n] in -1..1 as 16-bit FLAC at 16 kHz; what lies outside is clipped."""
    return _flac(to_int16(waveform))


def _flac(samples: Samples) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, samples, SAMPLE_RATE, format="FLAC", subtype="PCM_16")
    return file.getvalue()


def decode_clip(clip: Audio) -> Waveform:
    """A stored clip as float32 [samples], mono."""
    samples, _ = soundfile.read(io.BytesIO(clip.data), dtype="float32", always_2d=True)
    return np.asarray(samples.mean(axis=1), dtype=np.float32)
