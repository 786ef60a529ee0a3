"""HiFi-GAN's generator: equal to the published construction, loaded from its checkpoints, used where a set has it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from omnimill.config import load_config
from omnimill.errors import ConfigError, OmnimillError
from omnimill.tokenizers import audio, store
from omnimill.tokenizers.config import TokenizerConfig, VocoderSettings
from omnimill.tokenizers.store import load_tokenizers
from omnimill.tokenizers.text import BpeConfig, train_bpe
from omnimill.tokenizers.vocoder import HifiGan, Vocoder, VocoderConfig
from omnimill.tokenizers.weights import initial_vocoder
from omnimill.tokens import AudioLayout, ImageLayout

SHAPE = VocoderConfig(channels=16)
REFERENCE = AudioLayout()


class Published(nn.Module):
    """The generator as it is trained: each convolution under PyTorch's own weight normalisation."""

    def __init__(self, mels: int, width: int, normed: object) -> None:
        super().__init__()
        self.conv_pre = normed(nn.Conv1d(mels, width, 7, 1, 3))  # type: ignore[operator]
        self.ups, self.resblocks = nn.ModuleList(), nn.ModuleList()
        for rate, kernel in ((8, 16), (8, 16), (4, 8)):
            self.ups.append(normed(nn.ConvTranspose1d(width, width // 2, kernel, rate, (kernel - rate) // 2)))  # type: ignore[operator]
            width //= 2
            for size, dilations in ((3, (1, 2)), (5, (2, 6)), (7, (3, 12))):
                block = nn.Module()
                block.convs = nn.ModuleList(
                    normed(nn.Conv1d(width, width, size, 1, (size * d - d) // 2, d))  # type: ignore[operator]
                    for d in dilations
                )
                self.resblocks.append(block)
        self.conv_post = normed(nn.Conv1d(width, 1, 7, 1, 3))  # type: ignore[operator]

    def forward(self, mels: Tensor) -> Tensor:
        x = self.conv_pre(mels)
        for stage in range(3):
            x = self.ups[stage](F.leaky_relu(x, 0.1))
            total = torch.zeros_like(x)
            for block in self.resblocks[3 * stage : 3 * stage + 3]:
                y = x
                for conv in block.convs:
                    y = conv(F.leaky_relu(y, 0.1)) + y
                total += y
            x = total / 3
        return torch.tanh(self.conv_post(F.leaky_relu(x, 0.01)))


def published(seed: int, normed: object) -> Published:
    torch.manual_seed(seed)
    network = Published(128, 16, normed)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)  # lengths that are not those of the directions
    return network.eval()


@pytest.mark.filterwarnings("ignore:.*weight_norm.*deprecated:FutureWarning")
@pytest.mark.parametrize("normed", [torch.nn.utils.weight_norm, torch.nn.utils.parametrizations.weight_norm])
def test_it_equals_the_published_construction(normed: object, tmp_path: Path) -> None:
    network = published(0, normed)
    torch.save({"generator": network.state_dict()}, tmp_path / "g_00930000")
    settings = VocoderSettings(weights=str(tmp_path / "g_00930000"), network=SHAPE)
    ours = initial_vocoder(settings, REFERENCE).eval()
    mels = torch.randn(2, 128, 11)
    with torch.no_grad():
        expected = network(mels)[:, 0]
        torch.testing.assert_close(ours(mels), expected, atol=1e-5, rtol=1e-4)
    assert expected.std() > 0.01
    assert ours(mels).shape == (2, 11 * 256)


def test_the_published_size() -> None:
    with torch.device("meta"):
        network = HifiGan(VocoderConfig(), 128)
        assert network(torch.zeros(1, 128, 256)).shape == (1, 65536)
    # 128 x 256 x 7 + three stages (a transposed convolution, then 2 x (3 + 5 + 7) taps of width squared) + 32 x 7.
    stages = [256 * 128 * 16 + 30 * 128**2, 128 * 64 * 16 + 30 * 64**2, 64 * 32 * 8 + 30 * 32**2]
    biases = 256 + 7 * (128 + 64 + 32) + 1
    found = sum(parameter.numel() for parameter in network.parameters())
    assert found == 128 * 256 * 7 + sum(stages) + 32 * 7 + biases


def test_a_segment_lies_where_its_spectrogram_does() -> None:
    """A generator that answers a loud frame with a pulse in the middle of its samples."""

    class Pulses(HifiGan):
        def forward(self, mels: Tensor) -> Tensor:
            result = torch.zeros(len(mels), mels.shape[2], 256)
            result[:, :, 128] = (mels.amax(1) > 0).float()
            return result.flatten(1)

    clip = np.zeros(REFERENCE.segment_samples, np.float32)
    clip[100 * 256] = 1.0
    power = audio.power_mel(clip, REFERENCE)
    frames = np.zeros_like(power)
    frames[power.sum(axis=1).argmax()] = 1.0
    sound = Vocoder(Pulses(SHAPE, 128), REFERENCE)(frames)
    assert sound.shape == (REFERENCE.segment_samples,)
    assert np.flatnonzero(sound).tolist() == [100 * 256]


def test_silence_is_the_floor_it_was_trained_with() -> None:
    torch.manual_seed(0)
    vocoder = Vocoder(HifiGan(SHAPE, 128), REFERENCE)
    empty = np.zeros((256, 128), np.float32)
    np.testing.assert_array_equal(vocoder(empty), vocoder(np.full_like(empty, np.log(1e-5))))


def test_a_set_decodes_sound_with_its_vocoder(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = HifiGan(SHAPE, 128)
    files = {"text": train_bpe(["some words"] * 30, BpeConfig(pieces=290)), "vocoder": store.weights(network)}
    digests = store.file_digests(files)
    bare = {"text_pieces": 290, "image": ImageLayout(), "audio": REFERENCE}
    store.publish(str(tmp_path), "a", store.StoredSet(**bare, vocoder=SHAPE, digests=digests), files)
    del files["vocoder"], digests["vocoder"]
    store.publish(str(tmp_path), "b", store.StoredSet(**bare, digests=digests), files)
    mel = np.random.default_rng(0).normal(-5, 2, (256, 128)).astype(np.float32)
    heard = load_tokenizers(str(tmp_path), "a").waveform(mel)
    np.testing.assert_array_equal(heard, Vocoder(network, REFERENCE)(mel))
    np.testing.assert_array_equal(load_tokenizers(str(tmp_path), "b").waveform(mel), audio.griffin_lim(mel, REFERENCE))


def test_what_does_not_fit_is_named(tmp_path: Path) -> None:
    torch.save({"generator": published(0, torch.nn.utils.parametrizations.weight_norm).state_dict()}, tmp_path / "g")
    with pytest.raises(
        OmnimillError, match=r"audio.vocoder.weights: .*of another shape: conv_pre.weight \[16, 128, 7\]"
    ):
        initial_vocoder(VocoderSettings(weights=str(tmp_path / "g"), network=VocoderConfig(channels=32)), REFERENCE)
    with pytest.raises(OmnimillError, match=r"does not exist\n.*\n  g_00930000: HiFi-GAN"):
        initial_vocoder(VocoderSettings(weights=str(tmp_path / "none")), REFERENCE)
    file = tmp_path / "config.yaml"
    file.write_text(
        "name: a\ndataset: a\ntokens: b\naudio: {vocoder: {weights: g, network: {rates: [8, 8], kernels: [16, 16]}}}\n"
    )
    with pytest.raises(ConfigError, match=r"makes 64 samples of a frame, layout.audio has 256"):
        load_config(file, TokenizerConfig)
