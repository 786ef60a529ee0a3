"""Encoded pictures and clips of examples, in the form that token shards and networks want them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import soxr

from omnimill.errors import BadRecord
from omnimill.tokenizers import audio, image
from omnimill.tokens import AudioLayout, ImageLayout


@dataclass(frozen=True)
class StoredPicture:
    """data: JPEG that fits the input canvas. patches, history_patches: valid ones of it on the two input canvases."""

    data: bytes
    patches: int
    history_patches: int


@dataclass(frozen=True)
class Target:
    """canvas: uint8 [target_size, target_size, 3], what is to be encoded; mask: bool, True where the picture is."""

    canvas: image.ByteArray
    mask: image.BoolArray


@dataclass(frozen=True)
class Clip:
    """data: FLAC of at most one segment. patches: valid ones. mel: log-mel float32 [frames, mels] of these samples."""

    data: bytes
    patches: int
    mel: audio.FloatArray


def picture(data: bytes, layout: ImageLayout) -> Target:
    """Decode a picture and prepare it for the network.

    Raises:
        BadRecord: it cannot be decoded.
    """
    return target(image.decode_rgb(data), layout)


def target(rgb: image.ByteArray, layout: ImageLayout) -> Target:
    """A decoded picture, prepared for the network."""
    canvas, mask = image.to_canvas(rgb, layout.target_size)
    return Target(image.to_bytes(canvas), mask)


def stored(rgb: image.ByteArray, layout: ImageLayout, jpeg_quality: int) -> StoredPicture:
    """A decoded picture as token shards hold it."""
    fitted = image.fit(rgb, layout.input_size)
    height, width = fitted.shape[:2]
    return StoredPicture(
        data=image.encode_jpeg(fitted, jpeg_quality),
        patches=int(image.valid_patches(height, width, layout.input_size, layout.patch).sum()),
        history_patches=int(image.valid_patches(height, width, layout.history_size, layout.patch).sum()),
    )


def clip(data: bytes, layout: AudioLayout) -> Clip:
    """Decode a clip and prepare it for its shard: mono, at the layout's rate, the middle of what is too long.

    Raises:
        BadRecord: it cannot be decoded, or holds no sound.
    """
    waveform, rate = audio.decode_waveform(data)
    if rate != layout.sample_rate:
        waveform = np.asarray(soxr.resample(waveform, rate, layout.sample_rate), np.float32)
    if not len(waveform):
        raise BadRecord("audio_empty", f"the clip holds no sample at {layout.sample_rate} Hz")
    if len(waveform) > layout.segment_samples:
        waveform = audio.to_segment(waveform, layout)
    flac = audio.encode_waveform(waveform, layout.sample_rate, "FLAC")
    # From the samples as they are stored, so that whoever decodes the shard sees the same spectrogram.
    mel, _ = audio.log_mel(audio.decode_flac(flac), layout)
    return Clip(flac, int(audio.valid_patches(len(waveform), layout).sum()), mel)
