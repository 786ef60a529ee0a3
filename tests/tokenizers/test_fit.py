"""Training of code networks: what is drawn, what is learnt, going on after a stop, and more workers than one."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch

from omnimill.errors import ConfigError, OmnimillError
from omnimill.rng import digest64
from omnimill.schema import Image
from omnimill.tokenizers import media
from omnimill.tokenizers.config import TokenizerConfig
from omnimill.tokenizers.corpus import Corpus, MediaItems, Split
from omnimill.tokenizers.feed import Feed
from omnimill.tokenizers.fit import CHECKPOINT, FitTask, fit_task, learning_rate, read_checkpoint
from omnimill.tokenizers.launch import fit
from omnimill.tokenizers.metrics import mel_error, psnr
from omnimill.tokenizers.networks import CodeNetwork
from omnimill.tokenizers.parts import audio_part, image_part
from omnimill.tokenizers.perceptual import CONVOLUTIONS
from omnimill.tokenizers.views import views_of

PHOTOS = 300


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory, samples: SimpleNamespace) -> str:
    """A root with pictures of 32 x 32 and sound; some pictures and clips cannot be decoded."""
    root = str(tmp_path_factory.mktemp("photos"))
    examples = [samples.example("photos", i, images=[samples.picture(i, 32, 32)]) for i in range(PHOTOS)]
    examples += [samples.example("films", i, audio=[samples.sound(i, 6000 + 100 * i)]) for i in range(48)]
    broken = Image(data=b"not a picture", format="png", width=8, height=8, digest="x")
    examples += [samples.example("broken", i, images=[broken]) for i in range(3)]
    samples.store(root, "corpus", examples)
    return root


def settings(config: TokenizerConfig, part: str = "image", **training: Any) -> TokenizerConfig:
    """The configuration with other training settings."""
    plain = config.model_dump(mode="json")
    plain[part]["training"].update(training)
    return TokenizerConfig.model_validate(plain)


def task_of(root: str, config: TokenizerConfig, name: str = "mini", part: Any = "image") -> FitTask:
    corpus = Corpus(root, "corpus")
    column = "images" if part == "image" else "audio"
    split = corpus.split(column, 0.1, config.seed)  # type: ignore[arg-type]
    assert split is not None
    return fit_task(config.model_copy(update={"name": name}), part, corpus, split, {})


def values(network: CodeNetwork) -> dict[str, torch.Tensor]:
    return dict(network.state_dict())


def same(one: CodeNetwork, other: CodeNetwork) -> bool:
    first, second = values(one), values(other)
    return all(torch.equal(value, second[name]) for name, value in first.items())


def feed_of(root: str, config: TokenizerConfig, part: str = "image", threads: int = 1) -> Feed:
    corpus, views = Corpus(root, "corpus"), views_of(config, part)
    split = corpus.split(views.column, 0.2, 0)
    assert split is not None
    return Feed(MediaItems(corpus, views.column), views, split, 7, threads)


def test_batches_are_functions_of_seed_and_step(photos: str, config: TokenizerConfig) -> None:
    whole = list(feed_of(photos, config).batches(0, 6, range(8)))
    first, second = (list(feed_of(photos, config, threads=3).batches(0, 6, range(rank, 8, 2))) for rank in (0, 1))
    for batch, even, odd in zip(whole, first, second, strict=True):
        assert torch.equal(batch[::2], even)
        assert torch.equal(batch[1::2], odd)
    later = list(feed_of(photos, config).batches(4, 6, range(8)))
    assert all(torch.equal(a, b) for a, b in zip(whole[4:], later, strict=True))
    assert not torch.equal(whole[0], whole[1])


def test_nothing_held_out_is_drawn_and_every_other_picture_is(photos: str, config: TokenizerConfig) -> None:
    corpus, views = Corpus(photos, "corpus"), views_of(config, "image")
    split = corpus.split("images", 0.2, 0)
    assert split is not None
    examples = [sample.example for sample in corpus.media("images", 1000, 0)]
    held = {example for example in examples if split.measures(example)}
    assert 0.1 * len(examples) < len(held) < 0.3 * len(examples)
    measured = corpus.media("images", 1000, 0, split)
    assert {sample.example for sample in measured} == held

    drawn = {batch.numpy().tobytes() for step in feed_of(photos, config).batches(0, 200, range(8)) for batch in step}
    shown = {s.example: views.read(s.data).tobytes() for s in corpus.media("images", 1000, 0) if s.data[:3] != b"not"}
    assert not drawn & {content for example, content in shown.items() if example in held}
    assert drawn == {content for example, content in shown.items() if example not in held}


def test_what_cannot_be_decoded_is_named_and_passed_over(
    tmp_path: Path, config: TokenizerConfig, samples: SimpleNamespace, capfd: pytest.CaptureFixture[str]
) -> None:
    broken = Image(data=b"not a picture", format="png", width=8, height=8, digest="x")
    samples.store(str(tmp_path), "corpus", [samples.example("photos", 0, images=[broken])])
    with pytest.raises(OmnimillError, match="1000 draws of 1 images found none to learn from"):
        fit(task_of(str(tmp_path), config))
    assert capfd.readouterr().err.count("image_undecodable") == 1


def test_one_example_is_learnt_from_and_measured_with() -> None:
    alone = Split(seed=0, held_out=1.0, learn_all=True)
    assert (alone.learns("a"), alone.measures("a")) == (True, True)


def test_random_parts_are_keyed(photos: str, config: TokenizerConfig, samples: SimpleNamespace) -> None:
    augment = {"scale_low": 1.0, "scale_high": 2.0, "fill": 1.0, "min_side": 8}
    views = views_of(settings(config, side=16, augment=augment), "image")
    read = views.read(samples.picture(1, 200, 300).data)
    assert min(read.shape[:2]) == 32, "no part needs more pixels"
    parts = [views.part(read, "k", i) for i in range(5)]
    assert all(part.shape == (16, 16, 3) for part in parts)
    assert len({part.tobytes() for part in parts}) == 5
    np.testing.assert_array_equal(parts[3], views.part(read, "k", 3))

    sounds = views_of(settings(config, "audio", random_segments=True), "audio")
    wave = sounds.read(samples.sound(3, 20000).data)
    assert len({sounds.part(wave, i).tobytes() for i in range(5)}) == 5
    middle = views_of(config, "audio").read(samples.sound(3, 20000).data)
    np.testing.assert_allclose(middle, media.clip(samples.sound(3, 20000).data, config.layout.audio).mel, atol=0.02)


def test_a_picture_network_learns_in_seconds(photos: str, config: TokenizerConfig) -> None:
    def measured(steps: int) -> float:
        part = image_part(settings(config, steps=steps, batch=16), Corpus(photos, "corpus"), {})
        assert part is not None
        return part.quality["image_psnr_db"]

    canvases = next(feed_of(photos, config).batches(0, 1, range(64))).numpy() / np.float32(255.0)
    constant = psnr(canvases[32:], np.broadcast_to(canvases[:32].mean(axis=0), canvases[32:].shape))
    start = measured(0)
    assert start > constant + 2  # principal components and k-means
    assert measured(100) > start + 0.4  # what the network adds


def test_a_sound_network_learns(photos: str, config: TokenizerConfig) -> None:
    part = audio_part(settings(config, "audio", steps=60), Corpus(photos, "corpus"), {})
    assert part is not None
    mels = next(feed_of(photos, config, "audio").batches(0, 1, range(40))).numpy()
    typical = mel_error(mels[20:], np.broadcast_to(mels[:20].mean(axis=0), mels[20:].shape))
    assert part.quality["audio_mel_error"] < 0.75 * typical


def test_training_repeats_itself_and_leaves_torch_as_it_was(
    photos: str, config: TokenizerConfig, tmp_path: Path
) -> None:
    def learnt(name: str, **training: Any) -> CodeNetwork:
        return fit(task_of(photos, settings(config, steps=4, **training), name))

    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    first = learnt("one")
    assert torch.equal(torch.rand(1), expected)
    assert same(first, learnt("two"))
    assert same(first, learnt("three", loaders=3, checkpoint_every=1, log_every=1))
    assert not same(first, fit(task_of(photos, config.model_copy(update={"seed": 1}), "four")))


def test_going_on_from_a_checkpoint_is_the_undisturbed_training(photos: str, config: TokenizerConfig) -> None:
    """Also with a discriminator, and for a schedule that may be gone on with."""
    adversarial = {"from_step": 2, "channels": 4, "layers": 1}
    how = {
        "schedule": "constant",
        "warmup_steps": 3,
        "losses": {"adversarial": adversarial},
        "log_every": 1,
        "checkpoint_every": 2,
    }
    lines: dict[int, dict[str, float]] = {}
    whole = fit(
        task_of(photos, settings(config, steps=7, **how), "whole"),
        lambda _, line, step: lines.update({step: dict(line)}),
    )
    assert ["discriminator" in lines[step] for step in range(1, 8)] == [False, False, True, True, True, True, True]
    assert all(lines[step]["adaptive_weight"] > 0 for step in range(3, 8))
    assert lines[1]["learning_rate"] == pytest.approx(2e-3 / 3)

    short, long = (task_of(photos, settings(config, steps=steps, **how), "cut") for steps in (4, 7))
    assert short.folder == long.folder
    fit(short)
    state = read_checkpoint(long)
    assert state is not None
    assert (state["step"], "judge" in state) == (4, True)
    assert same(fit(long), whole)
    # Of what is done nothing is done again.
    assert fit(long, lambda *_: pytest.fail("trained again")) is not None


def test_examples_on_an_object_store_are_learnt_from(
    tmp_path: Path, config: TokenizerConfig, samples: SimpleNamespace
) -> None:
    examples = [samples.example("photos", i, images=[samples.picture(i, 32, 32)]) for i in range(20)]
    roots = (str(tmp_path), "memory://bucket/fit")
    networks = []
    for root in roots:
        samples.store(root, "corpus", examples)
        networks.append(fit(task_of(root, settings(config, steps=3, checkpoint_every=1))))
    assert same(*networks)


def test_what_decides_the_weights_decides_where_a_training_is_kept(photos: str, config: TokenizerConfig) -> None:
    base = task_of(photos, config).folder
    for same_training in ({"workers": 2}, {"threads": 2}, {"log_every": 1}, {"loaders": 4}):
        assert task_of(photos, settings(config, **same_training)).folder == base
    assert task_of(photos, settings(config, "audio", steps=1)).folder == base
    for other in ({"steps": 21}, {"bf16": True}, {"losses": {"error": "l1"}}):
        assert task_of(photos, settings(config, **other)).folder != base


def test_schedules(config: TokenizerConfig) -> None:
    cosine = settings(config, steps=1000, learning_rate=1.0, warmup_steps=None).image.training
    assert learning_rate(cosine, 0) == pytest.approx(1 / 20)  # 2 % of the steps
    assert learning_rate(cosine, 500) == pytest.approx(0.5)
    assert learning_rate(cosine, 999) < 1e-5
    constant = cosine.model_copy(update={"schedule": "constant", "warmup_steps": 10})
    assert [learning_rate(constant, step) for step in (4, 9, 999)] == pytest.approx([0.5, 1.0, 1.0])


def test_half_precision_and_other_losses(photos: str, config: TokenizerConfig, tmp_path: Path) -> None:
    numbers = [number for block in CONVOLUTIONS for number in block]
    vgg = {f"features.{n}.weight": torch.randn(4, 3 if n == 0 else 4, 3, 3) for n in numbers}
    vgg |= {f"features.{n}.bias": torch.zeros(4) for n in numbers}
    safetensors.torch.save_file(vgg, tmp_path / "vgg.safetensors")
    losses = {"error": "l1", "perceptual": {"weights": [str(tmp_path / "vgg.safetensors")], "weight": 0.5}}
    lines: list[dict[str, float]] = []
    changed = settings(config, steps=3, bf16=True, losses=losses, log_every=3)
    network = fit(task_of(photos, changed, "half"), lambda _, line, __: lines.append(dict(line)))
    assert {"error", "commitment", "perceptual", "perplexity", "codes_used"} <= set(lines[-1])
    assert lines[-1]["perceptual"] > 0
    assert all(value.dtype == torch.float32 for value in values(network).values())
    assert all(value.isfinite().all() for value in values(network).values())
    with pytest.raises(ConfigError, match=r"features\.0\.weight"):
        missing = {"perceptual": {"weights": [str(tmp_path / "none.safetensors")]}}
        task_of(photos, settings(config, losses=missing))


def test_given_weights_are_the_start_and_without_steps_the_end(
    photos: str, config: TokenizerConfig, tmp_path: Path
) -> None:
    part = image_part(settings(config, steps=5), Corpus(photos, "corpus"), {})
    assert part is not None
    file = tmp_path / "image.safetensors"
    file.write_bytes(part.file)
    plain = settings(config, steps=0).model_dump(mode="json")
    plain["image"]["weights"] = str(file)
    imported = image_part(TokenizerConfig.model_validate(plain), Corpus(photos, "corpus"), {"image.weights": "x"})
    assert imported is not None
    assert imported.file == part.file
    assert imported.quality == part.quality


@pytest.mark.fault
@pytest.mark.ray
@pytest.mark.usefixtures("ray_local")
def test_two_workers_of_ray_train_learn_what_one_does(photos: str, config: TokenizerConfig) -> None:
    how = {"steps": 6, "log_every": 2, "losses": {"adversarial": {"from_step": 4, "channels": 4, "layers": 1}}}
    told: dict[str, dict[int, dict[str, float]]] = {"one": {}, "two": {}}

    def learnt(name: str, workers: int) -> CodeNetwork:
        task = task_of(photos, settings(config, workers=workers, **how), name)
        return fit(task, lambda _, line, step: told[name].update({step: dict(line)}))

    one, two = values(learnt("one", 1)), values(learnt("two", 2))
    for name, value in one.items():
        torch.testing.assert_close(two[name], value, atol=2e-3, rtol=2e-2)
    assert sorted(told["one"]) == sorted(told["two"]) == [2, 4, 6]
    for step, line in told["one"].items():
        assert told["two"][step] == pytest.approx(line, rel=0.02, abs=0.02)


def test_a_killed_training_goes_on_to_the_same_weights(photos: str, config: TokenizerConfig) -> None:
    changed = settings(config, steps=150, batch=4, checkpoint_every=5)
    task = task_of(photos, changed, "killed")
    program = (
        "import sys; from omnimill.tokenizers.fit import FitTask; from omnimill.tokenizers.launch import fit; "
        "fit(FitTask.model_validate_json(sys.argv[1]))"
    )
    process = subprocess.Popen([sys.executable, "-c", program, task.model_dump_json()], stderr=subprocess.DEVNULL)
    # The first checkpoint is there; how many steps later it ends is up to chance.
    while not Path(task.folder, CHECKPOINT).exists() and process.poll() is None:
        time.sleep(0.002)
    time.sleep(digest64("kill", "fit") % 100 / 500)
    process.kill()
    assert process.wait() == -signal.SIGKILL
    state = read_checkpoint(task)
    assert state is not None
    assert 5 <= state["step"] < 150

    lines: list[int] = []
    network = fit(task, lambda _, __, step: lines.append(step))
    assert lines[0] > state["step"], "what was done is not done again"
    assert same(network, fit(task_of(photos, changed, "undisturbed")))
