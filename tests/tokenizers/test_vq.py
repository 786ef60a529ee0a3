"""Codebook networks: they learn, repeat themselves exactly, and give a picture the same codes in any company."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from omnimill.rng import generator
from omnimill.tokenizers import audio
from omnimill.tokenizers.config import TokenizerConfig
from omnimill.tokenizers.metrics import codebook_use
from omnimill.tokenizers.networks import VqganConfig, image_network
from omnimill.tokenizers.quantiser import Quantiser
from omnimill.tokenizers.store import Tokenizers
from omnimill.tokenizers.vq import ImageTokenizer, picture_input
from omnimill.tokens import ImageLayout


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
@settings(max_examples=20)
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
    assert use == {"x_codes_used": 2.0, "x_codebook_usage": 0.25, "x_perplexity": 2.0}


def test_half_precision_keeps_nearly_all_codes_and_they_need_no_company() -> None:
    """A network of random weights, with codes where its vectors lie."""
    torch.manual_seed(3)
    layout = ImageLayout(input_size=32, history_size=32, target_size=32, patch=8, code_stride=4, codes=64)
    network = image_network(VqganConfig(channels=32, multipliers=(1, 1, 2), blocks=1, attention_sides=(8,)), layout)
    canvases = generator("half").integers(0, 256, (6, 32, 32, 3), dtype=np.uint8)
    network.start(picture_input(torch.from_numpy(canvases)))
    whole = ImageTokenizer(network, layout, batch=4).encode(canvases)
    half = ImageTokenizer(network, layout, batch=4, bf16=True)
    codes = half.encode(canvases)
    assert 0.8 < (codes == whole).mean() < 1.0
    for i in range(len(canvases)):
        np.testing.assert_array_equal(half.encode(canvases[i : i + 1])[0], codes[i])
