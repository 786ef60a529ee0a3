"""Committed examples to committed token shards on one actor, against the bare networks with their inputs in memory.

The networks have the reference's sizes (VQGAN of 256 x 256 pixels, ViT-VQGAN of 256 x 128 log-mel) and random weights:
what they compute costs the same. ``tokenize`` does everything that it always does: reads shards by memory map, decodes,
resizes, writes JPEG and FLAC, makes spectrograms, encodes, hashes, writes and commits. Its time is that from the first
unit's commit to the last one's, for the units after the first: starting Ray, loading weights and the first batch, which
makes plans and memory that later ones find, are not in it.

The ceiling of a speed is the bare network's forward pass on batches of the same size and on the same device, the faster
of one run before and one after. On a CPU both are speeds per second of processor time, with one thread for the network,
so that nothing is gained from other cores or lost to other programs. Beside it stands how much of the device's peak
that is, as the number of floating point operations of a matrix product of the same type, and how many pictures one core
can prepare: a GPU needs as many cores as it takes to keep up with it.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import Literal

import numpy as np
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from omnimill import rng
from omnimill.bench.contest import run_alone
from omnimill.bench.ingest.photos import photo, scene
from omnimill.bench.metric import OURS, Metric
from omnimill.infra.dataset import Commit, Counts, Dataset, InputRef
from omnimill.schema import Audio, Example, Image, Provenance, to_table
from omnimill.tokenizers import media, store
from omnimill.tokenizers.audio import encode_waveform
from omnimill.tokenizers.config import ActorSettings, TokenizerConfig
from omnimill.tokenizers.image import decode_rgb
from omnimill.tokenizers.networks import (
    CodeNetwork,
    VitVqganConfig,
    VqganConfig,
    audio_network,
    image_network,
)
from omnimill.tokenizers.text import BpeConfig, TextTokenizer, train_bpe
from omnimill.tokens import AudioLayout, ImageLayout

Kind = Literal["images", "audio_clips"]
KINDS: tuple[Kind, ...] = ("images", "audio_clips")

SET = "bench"
UNITS = 4
SCENES = 4
PREPARED = 48


@dataclass(frozen=True)
class Setting:
    """One device and what it is given. counts: media by kind. threads: that prepare examples."""

    device: str
    batch: int
    bf16: bool
    counts: dict[Kind, int]
    threads: int


@dataclass(frozen=True)
class Tokenized:
    """media: of all units but the first. seconds: from its commit to the last one; on a CPU of processor time."""

    media: int
    seconds: float
    peak_gpu_bytes: int


def settings() -> list[Setting]:
    """The devices of this machine; few media on a CPU, where a picture takes seconds."""
    found = [Setting("cpu", 4, False, {"images": 16, "audio_clips": 48}, 1)]
    if torch.cuda.is_available():
        found.append(Setting("cuda", 64, True, {"images": 6144, "audio_clips": 12288}, os.cpu_count() or 1))
    return found


def run() -> list[Metric]:
    """Media per second, share of the bare network and of the device's peak, and peak memory."""
    metrics: list[Metric] = []
    for setting in settings():
        peak = run_alone(partial(_matmul, setting)).value
        with tempfile.TemporaryDirectory() as root:
            write_inputs(root, setting.counts)
            for kind in KINDS:
                metrics += _measured(root, kind, setting, peak)
    metrics.append(_metric("tokenize_images_prepared_per_core", "1/s", PREPARED / run_alone(_preparer).value))
    return metrics


def _measured(root: str, kind: Kind, setting: Setting, peak: float) -> list[Metric]:
    count = setting.counts[kind]
    bare = partial(_bare, kind, setting)
    before = run_alone(bare).value
    ours = run_alone(partial(_pipeline, root, kind, setting))
    after = run_alone(bare).value
    speed = ours.value.media / ours.value.seconds
    name = f"tokenize_{kind}_{setting.device}"
    found = [
        _metric(name, "1/s", speed, count / min(before, after)),
        _metric(f"{name}_arithmetic", "TFLOP/s", speed * operations(kind) / 1e12, peak / 1e12),
        Metric.of(f"{name}_peak_memory", "MB", {OURS: ours.peak_bytes / 1e6}, best="smallest"),
    ]
    if ours.value.peak_gpu_bytes:
        gpu = {OURS: ours.value.peak_gpu_bytes / 1e6}
        found.append(Metric.of(f"{name}_peak_gpu_memory", "MB", gpu, best="smallest"))
    return found


def _metric(name: str, unit: str, value: float, ceiling: float | None = None) -> Metric:
    return Metric.of(name, unit, {OURS: value}, best="largest", ceiling=ceiling)


def operations(kind: Kind) -> int:
    """Floating point operations of one medium's way through the encoder and the codebook."""
    with torch.device("meta"), torch.inference_mode(), FlopCounterMode(display=False) as counter:
        network(kind).encode(torch.zeros(1, *_shape(kind)))
    return int(counter.get_total_flops())


def network(kind: Kind) -> CodeNetwork:
    """The reference's, with random weights and codes."""
    torch.manual_seed(0)
    made = (
        image_network(VqganConfig(), ImageLayout())
        if kind == "images"
        else audio_network(VitVqganConfig(), AudioLayout())
    )
    made.quantiser.codebook.normal_()
    return made.eval()


def write_inputs(root: str, counts: dict[Kind, int]) -> None:
    """A dataset of examples of each kind, a picture or a clip each, and a set of tokenizers for them."""
    for kind, count in counts.items():
        dataset = Dataset(root, kind)
        edges = [unit * count // UNITS for unit in range(UNITS + 1)]
        made = _pictures if kind == "images" else _clips
        commits = []
        for start, stop in pairwise(edges):
            shard = dataset.publish_shard(to_table(made(range(start, stop))))
            commit = Commit(
                unit=f"{kind}-{start}",
                source=kind,
                recipe="bench",
                inputs=(InputRef(uri=kind, digest=shard.digest, bytes=shard.bytes),),
                shards=(shard,),
                counts=Counts(records_in=shard.rows, kept=shard.rows, examples_written=shard.rows),
            )
            dataset.commit(commit)
            commits.append(commit)
        dataset.publish_manifest("examples", commits)
    model = train_bpe(["a made-up photograph " * 100], BpeConfig(pieces=300))
    files = {
        "text": model,
        "image": store.weights(network("images")),
        "audio": store.weights(network("audio_clips")),
    }
    stored = store.StoredSet(
        text_pieces=TextTokenizer.of(model, "the benchmark's").vocabulary.pieces,
        image=ImageLayout(),
        audio=AudioLayout(),
        image_network=VqganConfig(),
        audio_network=VitVqganConfig(),
        digests=store.file_digests(files),
    )
    store.publish(root, SET, stored, files)


def _pictures(numbers: range) -> list[Example]:
    scenes = [scene(number) for number in range(SCENES)]
    found = []
    for number in numbers:
        data = photo(scenes, number)
        height, width = decode_rgb(data).shape[:2]
        picture = Image(data=data, format="jpeg", width=width, height=height, digest=str(number))
        found.append(_example(number, images=[picture]))
    return found


def _clips(numbers: range) -> list[Example]:
    samples = AudioLayout().segment_samples
    found = []
    for number in numbers:
        noise = rng.generator("bench", "clip", number).normal(0, 0.1, samples).astype(np.float32)
        data = encode_waveform(noise, AudioLayout().sample_rate, "FLAC")
        clip = Audio(data=data, format="flac", sample_rate=16000, channels=1, samples=samples, digest=str(number))
        found.append(_example(number, audio=[clip]))
    return found


def _example(number: int, images: Sequence[Image] = (), audio: Sequence[Audio] = ()) -> Example:
    where = Provenance(uri="made", digest=str(number))
    key = f"{number:06d}"
    return Example(
        id=key, source="bench", unit="made", key=key, provenance=where, images=list(images), audio=list(audio)
    )


def _shape(kind: Kind) -> tuple[int, int, int]:
    """Of one input of a network."""
    sizes, frames = ImageLayout(), AudioLayout()
    return (3, sizes.target_size, sizes.target_size) if kind == "images" else (1, frames.frames, frames.mels)


def _clock(setting: Setting) -> Callable[[], float]:
    """What time is told by: of the processor where that computes."""
    return time.process_time if setting.device == "cpu" else time.perf_counter


def _bare(kind: Kind, setting: Setting) -> Callable[[], float]:
    """Seconds of the network on as many batches as the media fill, all of the same inputs, which lie on the device.

    Pictures lie in memory as decoders leave them, channels last, which is also the faster way on a CPU.
    """
    torch.set_num_threads(1)
    made = network(kind).to(setting.device)
    inputs = torch.rand(setting.batch, *_shape(kind), device=setting.device)
    inputs = inputs.contiguous(memory_format=torch.channels_last) if kind == "images" else inputs
    half = torch.autocast(setting.device, torch.bfloat16) if setting.bf16 else nullcontext()
    clock = _clock(setting)

    def work(batches: int = setting.counts[kind] // setting.batch) -> float:
        started = clock()
        with torch.inference_mode(), half:
            for _ in range(batches):
                codes = made.encode(inputs)
            codes.cpu()  # waits for a GPU
        return clock() - started

    work(1)
    return work


def _matmul(setting: Setting) -> Callable[[], float]:
    """Floating point operations per second of a product of square matrices."""
    torch.set_num_threads(1)
    clock = _clock(setting)
    side, rounds = (8192, 50) if setting.device == "cuda" else (2048, 10)
    kind = torch.bfloat16 if setting.bf16 else torch.float32
    left, right = (torch.rand(side, side, device=setting.device, dtype=kind) for _ in range(2))

    def work(count: int = rounds) -> float:
        started = clock()
        for _ in range(count):
            product: Tensor = left @ right
        product[0, 0].item()  # waits for a GPU
        return 2.0 * side**3 * count / (clock() - started)

    work(2)
    return work


def _pipeline(root: str, kind: Kind, setting: Setting) -> Callable[[], Tokenized]:
    from omnimill.infra.ray_session import start_ray  # noqa: PLC0415 - in the contestant's process only
    from omnimill.tokenizers.run import tokenize  # noqa: PLC0415

    start_ray(setting.threads, log_to_driver=False)
    actors = ActorSettings(
        count=1,
        num_cpus=setting.threads,
        num_gpus=float(setting.device == "cuda"),
        batch=setting.batch,
        bf16=setting.bf16,
    )
    config = TokenizerConfig(name=SET, dataset=kind, tokens=f"{kind}-{setting.device}", actors=actors)

    def work() -> Tokenized:
        result = tokenize(config, root)
        seen = [(result.dataset.observed(commit), commit.counts.kept) for commit in result.manifest.commits]
        clock = "cpu_" if setting.device == "cpu" else ""
        ends = sorted((one[f"{clock}begun"] + one[f"{clock}seconds"], kept) for one, kept in seen)
        gpu = max(one.get("peak_gpu_bytes", 0) for one, _ in seen)
        return Tokenized(sum(kept for _, kept in ends[1:]), ends[-1][0] - ends[0][0], gpu)

    return work


def _preparer() -> Callable[[], float]:
    """Processor seconds of all that is done to a picture besides encoding it."""
    torch.set_num_threads(1)
    layout = ImageLayout()
    found = [example.images[0].data for example in _pictures(range(PREPARED))]

    def work() -> float:
        started = time.process_time()
        for data in found:
            rgb = decode_rgb(data)
            media.stored(rgb, layout, 95)
            media.target(rgb, layout)
        return time.process_time() - started

    return work
