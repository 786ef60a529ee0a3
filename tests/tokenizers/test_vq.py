"""Codebook networks: they learn, repeat themselves exactly, and give a picture the same codes in any company."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from omnimill.tokenizers import audio
from omnimill.tokenizers.config import FitConfig, TokenizerConfig
from omnimill.tokenizers.fit import codebook_use, fit
from omnimill.tokenizers.networks import (
    AudioNetworkConfig,
    Autoencoder,
    ImageNetworkConfig,
    audio_network,
    image_network,
)
from omnimill.tokenizers.quantiser import Quantiser
from omnimill.tokenizers.store import Tokenizers
from omnimill.tokenizers.vq import AudioTokenizer, ImageTokenizer, picture_input, sound_input
from omnimill.tokens import AudioLayout, ImageLayout

IMAGE = ImageLayout(input_size=64, history_size=32, target_size=32, patch=8, codes=64)
IMAGE_NETWORK = ImageNetworkConfig(stem=4, channels=16, multipliers=(1, 2), blocks=1, code_width=8)
AUDIO = AudioLayout(segment_seconds=0.5, frames=32, mels=16, patch=8, code_patch=(8, 8), codes=16)
AUDIO_NETWORK = AudioNetworkConfig(width=32, layers=1, heads=2, code_width=8, normalised=False)


@pytest.fixture(scope="module")
def canvases(samples: SimpleNamespace) -> torch.Tensor:
    return torch.from_numpy(np.stack([samples.pixels(i, 32, 32) for i in range(400)]))


def learn(canvases: torch.Tensor, steps: int, seed: int = 0) -> Autoencoder:
    config = FitConfig(steps=steps, batch=16, learning_rate=3e-3)
    return fit(lambda: image_network(IMAGE_NETWORK, IMAGE), canvases, picture_input, config, seed, "image")


def psnr(network: Autoencoder, canvases: torch.Tensor) -> float:
    tokenizer = ImageTokenizer(network, IMAGE)
    decoded = tokenizer.decode(tokenizer.encode(canvases.numpy()))
    return float(-10 * np.log10(np.square(decoded - canvases.numpy() / 255.0).mean()))


def test_a_picture_network_learns_in_seconds(canvases: torch.Tensor) -> None:
    learned, unseen = canvases[:360], canvases[360:]
    mean = learned.numpy().mean(axis=0)
    constant = float(-10 * np.log10(np.square((unseen.numpy() - mean) / 255.0).mean()))
    start, trained = psnr(learn(learned, 0), unseen), psnr(learn(learned, 120), unseen)
    assert start > constant + 3  # principal components and k-means
    assert trained > start + 0.5  # what the network adds


def test_a_sound_network_learns(samples: SimpleNamespace) -> None:
    mels = np.stack([audio.log_mel(samples.waveform(i, 8000), AUDIO)[0] for i in range(40)])
    inputs = torch.from_numpy(audio.normalise_target(mels))
    config = FitConfig(steps=60, batch=8, learning_rate=2e-3)
    network = fit(lambda: audio_network(AUDIO_NETWORK, AUDIO), inputs[:32], sound_input, config, 0, "audio")
    tokenizer = AudioTokenizer(network, AUDIO)
    codes = tokenizer.encode(mels)
    assert codes.shape == (40, 8)
    decoded = tokenizer.decode(codes)
    assert decoded.shape == mels.shape
    typical = np.abs(mels[32:] - mels[:32].mean(axis=0)).mean()
    assert np.abs(decoded[32:] - mels[32:]).mean() < 0.75 * typical


def test_training_repeats_itself_and_leaves_torch_as_it_was(canvases: torch.Tensor) -> None:
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    first = learn(canvases, 3)
    assert torch.equal(torch.rand(1), expected)
    again, other = learn(canvases, 3).state_dict(), learn(canvases, 3, seed=1).state_dict()
    assert all(torch.equal(value, again[name]) for name, value in first.state_dict().items())
    assert not torch.equal(first.state_dict()["quantiser.codebook"], other["quantiser.codebook"])


def test_codes_do_not_depend_on_the_company(tokenizers: Tokenizers, samples: SimpleNamespace) -> None:
    pictures = np.stack([samples.pixels(i, 32, 32) for i in range(21)])
    codes = tokenizers.image.encode(pictures)
    assert codes.shape == (21, 16)
    for i in (0, 7, 20):
        np.testing.assert_array_equal(tokenizers.image.encode(pictures[i : i + 1])[0], codes[i])
    np.testing.assert_array_equal(tokenizers.image.encode(pictures.astype(np.float32) / 255.0), codes)
    assert tokenizers.image.encode(pictures[:0]).shape == (0, 16)


def test_decoded_pictures_and_spectrograms(tokenizers: Tokenizers, config: TokenizerConfig) -> None:
    layout = config.layout
    pictures = tokenizers.image.decode(np.arange(32).reshape(2, 16))
    assert pictures.shape == (2, 32, 32, 3)
    assert (pictures.min() >= 0, pictures.max() <= 1) == (True, True)
    mels = tokenizers.audio.decode(np.arange(8).reshape(1, 8))
    assert mels.shape == (1, 32, 16)
    sound = audio.griffin_lim(mels[0], layout.audio, iterations=4)
    assert sound.shape == (layout.audio.segment_samples,)
    decoded, rate = audio.decode_waveform(audio.encode_waveform(sound, layout.audio.sample_rate, "WAV"))
    assert (len(decoded), rate) == (8000, 16000)


@given(st.booleans(), st.integers(0, 1000))
@settings(max_examples=20, deadline=None)
def test_codes_are_the_nearest(normalised: bool, seed: int) -> None:
    torch.manual_seed(seed)
    quantiser = Quantiser(12, 5, normalised).eval()
    quantiser.start(torch.randn(200, 5))
    vectors = torch.randn(7, 5)
    placed = torch.nn.functional.normalize(vectors, dim=1) if normalised else vectors
    distances = torch.cdist(placed.double(), quantiser.codebook.double())
    best = distances.gather(1, quantiser.codes_of(vectors)[:, None])[:, 0]
    torch.testing.assert_close(best, distances.min(1).values, atol=1e-5, rtol=0)
    if normalised:
        torch.testing.assert_close(quantiser.codebook.norm(dim=1), torch.ones(12))


def test_gradients_pass_straight_through() -> None:
    torch.manual_seed(0)
    quantiser = Quantiser(6, 4, normalised=False)
    quantiser.start(torch.randn(50, 4))
    vectors = torch.randn(9, 4, requires_grad=True)
    quantised, _, _ = quantiser(vectors)
    weights = torch.randn(9, 4)
    (quantised * weights).sum().backward()
    torch.testing.assert_close(vectors.grad, weights)


def test_dead_codes_come_back_to_life() -> None:
    torch.manual_seed(0)
    quantiser = Quantiser(16, 2, normalised=False)
    quantiser.start(torch.randn(200, 2))
    quantiser.train()
    for _ in range(100):
        quantiser(torch.randn(200, 2) + 50.0)
    _, codes, _ = quantiser(torch.randn(500, 2) + 50.0)
    assert len(codes.unique()) == 16


def test_codebook_use() -> None:
    use = codebook_use("x", np.array([0, 0, 3, 3], np.uint16), 8)
    assert use == {"x_codes_used": 2.0, "x_perplexity": 2.0}


def test_the_reference_shapes_can_be_built() -> None:
    with torch.device("meta"):
        pictures = image_network(ImageNetworkConfig(), ImageLayout())
        sounds = audio_network(AudioNetworkConfig(), AudioLayout())
        assert pictures.encode(torch.zeros(1, 3, 256, 256)).shape == (1, 32, 32)
        assert sounds.encode(torch.zeros(1, 1, 256, 128)).shape == (1, 32, 16)
        assert sounds.decode(torch.zeros(1, 32, 16, dtype=torch.int64)).shape == (1, 1, 256, 128)
