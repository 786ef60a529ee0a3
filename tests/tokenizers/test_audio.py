"""Log-mel spectrograms: sizes, masks, hand-computed values, the way back to sound."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from omnimill.errors import BadRecord
from omnimill.tokenizers import audio
from omnimill.tokens import AudioLayout

REFERENCE = AudioLayout()
SMALL = AudioLayout(segment_seconds=1.02, frames=64, mels=32, patch=8, code_patch=(8, 8))


def tone(hertz: float, samples: int, rate: int = 16000) -> audio.FloatArray:
    return (0.5 * np.sin(2 * np.pi * hertz * np.arange(samples) / rate)).astype(np.float32)


def test_the_reference_sizes() -> None:
    assert (audio.hop_samples(REFERENCE), audio.window_samples(REFERENCE)) == (256, 1024)
    assert REFERENCE.segment_samples == 65280
    mel, mask = audio.log_mel(tone(440.0, 65280), REFERENCE)
    assert mel.shape == mask.shape == (256, 128)
    assert mel.dtype == np.float32


@given(st.integers(2, 80), st.integers(4, 64), st.floats(0.3, 5.0), st.integers(0, 70000))
@settings(max_examples=20)
def test_any_layout_gets_exactly_its_frames_and_mels(frames: int, mels: int, seconds: float, samples: int) -> None:
    layout = AudioLayout(segment_seconds=seconds, frames=frames, mels=mels)
    mel, _ = audio.log_mel(tone(300.0, samples), layout)
    assert mel.shape == (frames, mels)
    assert np.isfinite(mel).all()


def test_mel_scale_and_a_tone_in_its_band() -> None:
    filters = audio.mel_filters(16000, 1024, 128)
    # Slaney: 15 mels per 1,000 Hz below the knee, ln(f / 1000) * 27 / ln 6.4 above; 8,000 Hz is 45.2457 mels.
    top = 15 + np.log(8.0) * 27 / np.log(6.4)
    centre_of_first = top / 129 * 200 / 3
    assert np.argmax(filters[0]) == round(centre_of_first / 15.625)
    np.testing.assert_allclose((filters * 15.625).sum(axis=1)[60:], 1.0, atol=0.05)  # unit area
    mel, _ = audio.log_mel(tone(1000.0, 65280), REFERENCE)
    assert np.argmax(mel[128]) == round(15 / (top / 129)) - 1


def test_power_of_a_tone() -> None:
    # A sine of amplitude a at a bin has power (a / 2 * sum of the window)^2 there, and a quarter at its neighbours.
    hertz = 64 * 15.625
    power = audio.power_mel(tone(hertz, 65280), REFERENCE)[128].sum()
    bins = np.zeros(513)
    amplitude = 0.5 / 2 * np.hanning(1024).sum()
    bins[63:66] = np.array([0.25, 1.0, 0.25]) * amplitude**2
    np.testing.assert_allclose(power, (audio.mel_filters(16000, 1024, 128) @ bins).sum(), rtol=1e-2)


def test_padding_is_exactly_zero_and_silence_is_masked() -> None:
    mel, mask = audio.log_mel(tone(500.0, 20000), REFERENCE)
    assert not mask[0].any()
    assert mask[128].all()
    np.testing.assert_array_equal(mel[~mask], 0.0)
    np.testing.assert_allclose(audio.normalise_input(mel[:1]), 0.466, atol=1e-3)
    np.testing.assert_allclose(audio.normalise_target(mel[:1]), 1.330, atol=1e-3)
    np.testing.assert_allclose(audio.denormalise_target(audio.normalise_target(mel)), mel, atol=1e-5)


@given(st.integers(0, 70000), st.sampled_from([REFERENCE, SMALL]))
@settings(max_examples=40)
def test_valid_patches_are_the_mask_at_patch_centres(samples: int, layout: AudioLayout) -> None:
    sound = np.random.default_rng(samples).uniform(0.1, 0.5, samples).astype(np.float32)
    _, mask = audio.log_mel(sound, layout)
    half = layout.patch // 2
    sampled = mask[half :: layout.patch, half :: layout.patch]
    np.testing.assert_array_equal(audio.valid_patches(samples, layout), sampled.reshape(-1))


def test_patches_run_time_first() -> None:
    mel = np.arange(4 * 6, dtype=np.float32).reshape(4, 6)
    patches = audio.patchify(mel, 2)
    assert patches.shape == (6, 4)
    np.testing.assert_array_equal(patches[1], [2, 3, 8, 9])
    np.testing.assert_array_equal(patches[3], [12, 13, 18, 19])


@given(st.integers(0, 1000), st.sampled_from([REFERENCE, SMALL]))
@settings(max_examples=8)
def test_a_spectrum_is_found_behind_any_mel_powers(seed: int, layout: AudioLayout) -> None:
    rng = np.random.default_rng(seed)
    window = audio.window_samples(layout)
    filters = audio.mel_filters(layout.sample_rate, window, layout.mels)
    power = np.exp(rng.uniform(-3, 3, (3, window // 2 + 1))) @ filters.T
    spectrum = audio.spectrum_of_mel(power, layout)
    assert (spectrum >= 0).all()
    assert np.abs(np.log(spectrum @ filters.T / power)).mean() < 0.02
    np.testing.assert_array_equal(audio.spectrum_of_mel(np.zeros((2, layout.mels)), layout), 0.0)


def test_griffin_lim_gives_back_the_spectrogram() -> None:
    # Two tones that come and go, and noise, with silence at both ends.
    rng = np.random.default_rng(0)
    beat = np.sin(np.arange(60000) / 3000) ** 2
    middle = (tone(440.0, 60000) * 0.5 + tone(1800.0, 60000) * 0.3) * beat + rng.normal(0, 0.02, 60000)
    sound = audio.to_segment(middle.astype(np.float32), REFERENCE)
    mel, mask = audio.log_mel(sound, REFERENCE)
    rebuilt = audio.griffin_lim(mel, REFERENCE)
    assert rebuilt.shape == (65280,)
    again, _ = audio.log_mel(rebuilt, REFERENCE)
    assert np.abs(again - mel)[mask].mean() < 0.25
    # Spectral convergence, of the magnitudes that the mel filters see: -15 dB.
    wanted, found = (np.sqrt(audio.power_mel(waveform, REFERENCE)) for waveform in (sound, rebuilt))
    assert np.linalg.norm(found - wanted) < 0.18 * np.linalg.norm(wanted)
    np.testing.assert_array_equal(audio.griffin_lim(mel, REFERENCE), rebuilt)


def test_sixteen_bit_sound_survives_flac_and_wav() -> None:
    sound = (np.random.default_rng(1).integers(-32768, 32768, 5000) / 32768).astype(np.float32)
    for form in ("FLAC", "WAV"):
        data = audio.encode_waveform(sound, 16000, form)
        assert data == audio.encode_waveform(sound, 16000, form)
        decoded, rate = audio.decode_waveform(data)
        assert rate == 16000
        np.testing.assert_array_equal(decoded, sound)


def test_what_cannot_be_decoded_is_a_bad_record(monkeypatch: pytest.MonkeyPatch) -> None:
    flac = audio.encode_waveform(tone(440.0, 5000), 16000, "FLAC")
    # The last one claims to hold 2^36 - 1 samples; no memory is set aside for them.
    lying = flac[:21] + bytes([flac[21] | 0x0F]) + b"\xff\xff\xff\xff" + flac[26:]
    for broken in (b"", b"not a sound", flac[:30], lying):
        with pytest.raises(BadRecord) as caught:
            audio.decode_waveform(broken)
        assert caught.value.reason == "audio_undecodable"
        assert "0x" not in caught.value.message
    monkeypatch.setattr(audio, "MAX_SAMPLES", 4999)
    with pytest.raises(BadRecord) as caught:
        audio.decode_flac(flac)
    assert caught.value.reason == "audio_too_long"


def test_golden_spectrograms(parity: Path) -> None:
    file = parity / "13_preprocess_audio.npz"
    if not file.exists():
        return
    golden = np.load(file)
    sound = golden["in/waveform_i16"].astype(np.float32) / 32768
    np.testing.assert_allclose(np.hanning(1024), golden["out/window_1024"], atol=1e-12)
    np.testing.assert_allclose(audio.mel_filters(16000, 1024, 128), golden["out/mel_filterbank_128x513"], atol=1e-6)
    for i in range(2):
        mel, mask = audio.log_mel(sound[i * 65280 : (i + 1) * 65280], REFERENCE)
        np.testing.assert_allclose(mel, golden["out/log_mel_time256_mel128"][i], atol=1e-4)
        assert mask.sum() == golden["out/mask_nnz"][i]
    mel, _ = audio.log_mel(sound[:65280], REFERENCE)
    patches = audio.normalise_input(audio.patchify(mel, 16))[[0, 5, 64, 127]]
    np.testing.assert_allclose(patches, golden["out/ast_patches_segment0_rows0_5_64_127"], atol=1e-4)
    target = audio.normalise_target(mel)[::4, ::4]
    np.testing.assert_allclose(target, golden["out/target_norm_segment0_every4th"], atol=1e-4)
