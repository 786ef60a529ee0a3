"""A small text tokenizer and a small token dataset of every modality, made once for all tests of the room."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
import yaml
from torch import Tensor

from omnimill.infra.dataset import Commit, Counts, Dataset, InputRef, Manifest
from omnimill.mixtures.config import Mixture, Task
from omnimill.rng import generator
from omnimill.schema import example_id
from omnimill.tokenizers import audio, image
from omnimill.tokenizers.networks import AudioPatchesConfig, ImagePatchesConfig, audio_network, image_network
from omnimill.tokenizers.store import StoredSet, file_digests, publish, weights
from omnimill.tokenizers.text import BpeConfig, TextTokenizer, train_bpe
from omnimill.tokens import TOKEN_SCHEMA, AudioLayout, ImageLayout, TokenLayout
from omnimill.training.checkpoints.checkpoint import CheckpointRecord, checkpoints_folder, folder_name
from omnimill.training.checkpoints.settings import CheckpointSettings, RegistrySettings
from omnimill.training.checkpoints.writer import CheckpointWriter
from omnimill.training.engine.optim import AdafactorConfig
from omnimill.training.evaluation.settings import EvaluationSettings
from omnimill.training.packing.settings import PackingSettings
from omnimill.training.planning.lengths import Budgets
from omnimill.training.rendering.settings import RenderSettings
from omnimill.training.runs.config import TrainConfig
from omnimill.training.runs.history import TIMING, read_history
from omnimill.training.runs.inputs import TrainInputs, resolve
from omnimill.training.runs.loop import Worker, train_worker
from omnimill.vocabulary_layout import VocabularyLayout

# A forked copy of this process would wait for ever for threads that it does not have (those of Polars and Arrow). What
# is forked instead is a server without threads that has loaded everything once.
multiprocessing.set_forkserver_preload(["omnimill.training.runs.loop", "torch._dynamo"])

_WORDS = (
    "the",
    "red",
    "blue",
    "small",
    "tree",
    "house",
    "river",
    "stands",
    "near",
    "while",
    "bird",
    "cat",
    "sings",
    "then",
)


@dataclass(frozen=True)
class TokenData:
    """A stored token dataset and what is needed to render it. `rows`: what its shards hold, by source."""

    root: str
    manifest: Manifest
    layout: TokenLayout
    text: TextTokenizer
    rows: dict[str, list[dict[str, Any]]]


def sentence(rng: np.random.Generator, words: int) -> str:
    return " ".join(rng.choice(_WORDS, words))


@pytest.fixture(scope="session")
def text(tmp_path_factory: pytest.TempPathFactory) -> TextTokenizer:
    rng = generator("corpus")
    model = train_bpe([sentence(rng, 12) for _ in range(200)], BpeConfig(pieces=320))
    path = tmp_path_factory.mktemp("tokenizer") / "text.model"
    path.write_bytes(model)
    return TextTokenizer(path)


@pytest.fixture(scope="session")
def layout(text: TextTokenizer) -> TokenLayout:
    return TokenLayout(
        text_pieces=text.vocabulary.pieces,
        image=ImageLayout(input_size=96, history_size=64, target_size=64, patch=16, code_stride=8, codes=64),
        audio=AudioLayout(segment_seconds=0.5, frames=64, mels=32, code_patch=(8, 8), codes=32),
        tokenizers="mini",
        digests={},
    )


def token_row(source: str, number: int, text: TextTokenizer, layout: TokenLayout) -> dict[str, Any]:
    """One row: ``photos`` a captioned picture, ``pages`` a document, ``films`` frames, clips and transcript, ``robot``
    pictures with state and action tokens."""
    rng = generator("row", source, number)
    row: dict[str, Any] = {name: [] for name in TOKEN_SCHEMA.names}
    row |= {"id": example_id(source, str(number), ""), "source": source, "key": str(number)}
    moments = {"photos": 1, "pages": 0}.get(source, int(rng.integers(2, 7)))

    def add_text(role: str, ids: list[int], picture: int | None = None, clip: int | None = None) -> None:
        row["text_roles"].append(role)
        row["text_images"].append(picture)
        row["text_audio"].append(clip)
        row["text_items"].append(None)
        row["text_lengths"].append(len(ids))
        row["text_ids"].append(ids)

    for moment in range(moments):
        _add_picture(row, rng, layout.image)
        if source == "films":
            _add_clip(row, rng, layout.audio)
            add_text("transcript", text.encode(sentence(rng, int(rng.integers(1, 9)))), moment, moment)
        if source == "robot":
            for role in ("state", "action"):
                add_text(role, [text.vocabulary.location(int(b)) for b in rng.integers(0, 1000, 7)], moment)
    if source == "photos":
        for _ in range(int(rng.integers(1, 4))):
            add_text("caption", text.encode(sentence(rng, int(rng.integers(2, 15)))), 0)
    if source == "pages":
        add_text("body", text.encode(sentence(rng, int(rng.integers(2, 400)))))
    if source == "robot":
        add_text("instruction", text.encode(sentence(rng, 6)))
    return row


def _add_picture(row: dict[str, Any], rng: np.random.Generator, layout: ImageLayout) -> None:
    side = layout.input_size
    height, width = (side, int(rng.integers(24, side + 1)))[:: int(rng.choice([1, -1]))]
    data = image.encode_png(rng.integers(0, 256, (height, width, 3), np.uint8))
    row["image_data"].append(data)
    row["image_patches"].append(int(image.valid_patches(height, width, layout.input_size, layout.patch).sum()))
    row["history_patches"].append(int(image.valid_patches(height, width, layout.history_size, layout.patch).sum()))
    row["image_codes"].append(rng.integers(0, layout.codes, layout.target_grid**2, np.uint16).tolist())
    row["image_codes_lengths"].append(layout.target_grid**2)


def _add_clip(row: dict[str, Any], rng: np.random.Generator, layout: AudioLayout) -> None:
    samples = int(rng.integers(layout.segment_samples // 3, layout.segment_samples + 1))
    codes = layout.target_grid[0] * layout.target_grid[1]
    waveform = rng.uniform(-0.5, 0.5, samples).astype(np.float32)
    row["audio_data"].append(audio.encode_waveform(waveform, layout.sample_rate, "FLAC"))
    row["audio_patches"].append(int(audio.valid_patches(samples, layout).sum()))
    row["audio_codes"].append(rng.integers(0, layout.codes, codes, np.uint16).tolist())
    row["audio_codes_lengths"].append(codes)


def store(root: str, rows: dict[str, list[dict[str, Any]]], layout: TokenLayout) -> Manifest:
    """A token dataset ``tokens`` with two units per source."""
    dataset = Dataset(root, "tokens")
    commits = []
    for source, all_rows in rows.items():
        for unit, part in enumerate((all_rows[::2], all_rows[1::2])):
            shard = dataset.publish_shard(pa.Table.from_pylist(part, TOKEN_SCHEMA))
            commit = Commit(
                unit=f"{source}-{unit}",
                source=source,
                recipe="test",
                inputs=(InputRef(uri=f"memory:{source}-{unit}", digest="0" * 64, bytes=1),),
                shards=(shard,),
                counts=Counts(records_in=len(part), kept=len(part), examples_written=len(part)),
            )
            dataset.commit(commit)
            commits.append(commit)
    return dataset.publish_manifest("tokens", commits, attributes={"layout": layout.model_dump(mode="json")})[1]


@pytest.fixture(scope="session")
def token_data(tmp_path_factory: pytest.TempPathFactory, text: TextTokenizer, layout: TokenLayout) -> TokenData:
    """40 rows of each of four sources."""
    rows = {
        source: [token_row(source, number, text, layout) for number in range(40)]
        for source in ("films", "pages", "photos", "robot")
    }
    root = str(tmp_path_factory.mktemp("root"))
    return TokenData(root, store(root, rows, layout), layout, text, rows)


@pytest.fixture(scope="session")
def store_tokens() -> Callable[[str, dict[str, list[dict[str, Any]]], TokenLayout], Manifest]:
    return store


@pytest.fixture(scope="session")
def stored_layout(
    layout: TokenLayout, text: TextTokenizer, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, TokenLayout]:
    """A root with a set of tokenizers whose networks nobody trained, and its layout."""
    torch.manual_seed(0)
    shapes = (
        ImagePatchesConfig(stem=4, channels=8, multipliers=(1, 1), blocks=1),
        AudioPatchesConfig(width=16, layers=1, heads=2),
    )
    networks = image_network(shapes[0], layout.image), audio_network(shapes[1], layout.audio)
    for network in networks:
        network.quantiser.codebook.normal_()
    files = {"text": text.model, "image": weights(networks[0]), "audio": weights(networks[1])}
    stored = StoredSet(
        text_pieces=layout.text_pieces,
        image=layout.image,
        audio=layout.audio,
        image_network=shapes[0],
        audio_network=shapes[1],
        digests=file_digests(files),
    )
    root = tmp_path_factory.mktemp("networks")
    publish(str(root), "mini", stored, files)
    return root, stored.layout("mini")


@pytest.fixture(scope="session")
def joint_layout(text: TextTokenizer, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, TokenLayout]:
    """The same with codes of pictures among the ids of text, as decoder-only backbones read them."""
    torch.manual_seed(0)
    images = ImageLayout(input_size=32, history_size=32, target_size=32, patch=16, code_stride=8, codes=32)
    shape = ImagePatchesConfig(stem=4, channels=8, multipliers=(1, 1), blocks=1)
    network = image_network(shape, images)
    network.quantiser.codebook.normal_()
    files = {"text": text.model, "image": weights(network)}
    stored = StoredSet(
        text_pieces=text.vocabulary.pieces,
        vocabulary=VocabularyLayout(joint=("image",), specials=("<break>", "<mask>"), locations=0, history=1),
        image=images,
        audio=AudioLayout(segment_seconds=0.5, frames=64, mels=32),
        image_network=shape,
        digests=file_digests(files),
    )
    root = tmp_path_factory.mktemp("joint")
    publish(str(root), "joint", stored, files)
    return root, stored.layout("joint")


@pytest.fixture(scope="session")
def mixture() -> Mixture:
    """Every objective and every stream."""
    tasks = (
        Task(
            name="caption",
            rate=2,
            sources=("photos",),
            inputs=("image",),
            target="text:caption",
            prompts=("what is this?", "describe the picture"),
        ),
        Task(name="paint", rate=2, sources=("photos",), target="image", prompts=("paint {caption} .", "{caption}")),
        Task(name="restore", rate=1, sources=("photos",), target="image", objective="image_denoising"),
        Task(name="read", rate=3, sources=("pages",), target="text:body", objective="text_denoising"),
        Task(
            name="watch",
            rate=1,
            sources=("films",),
            inputs=("image", "image_history", "audio", "audio_history"),
            target="text:transcript",
        ),
        Task(
            name="listen",
            rate=1,
            sources=("films",),
            inputs=("image",),
            target="audio",
            prompts=("the sound of {transcript}",),
        ),
        Task(name="hear", rate=1, sources=("films",), target="audio", objective="audio_denoising"),
        Task(
            name="subtitle",
            rate=1,
            sources=("films",),
            inputs=("image_history",),
            target="text:transcript",
            objective="text_denoising",
        ),
        Task(
            name="act",
            rate=1,
            sources=("robot",),
            inputs=("image", "image_history"),
            target="text:action",
            prompts=("{instruction} at {state}",),
        ),
    )
    return Mixture(datasets=("tokens",), seed=7, tasks=tasks)


@pytest.fixture(scope="session")
def train_root(token_data: TokenData, mixture: Mixture) -> Path:
    """The root of `token_data`, with its tokenizers and, as ``mixture.yaml``, its mixture."""
    root, layout, files = Path(token_data.root), token_data.layout, {"text": token_data.text.model}
    stored = StoredSet(
        text_pieces=layout.text_pieces, image=layout.image, audio=layout.audio, digests=file_digests(files)
    )
    publish(token_data.root, layout.tokenizers, stored, files)
    (root / "mixture.yaml").write_text(yaml.safe_dump(mixture.model_dump(mode="json", exclude_defaults=True)))
    return root


@pytest.fixture(scope="session")
def train_config(train_root: Path) -> TrainConfig:
    """A training small enough for a step to take a tenth of a second."""
    return TrainConfig(
        name="run",
        mixture=str(train_root / "mixture.yaml"),
        steps=6,
        streams=4,
        checkpoints=CheckpointSettings(every=2),
        packing=PackingSettings(budgets=Budgets(encoder=128, decoder=96), pool=8),
        render=RenderSettings(max_text=64, max_target_text=64, history_frames=2),
        optimizer=AdafactorConfig(peak_learning_rate=0.03, warmup_steps=4),
    )


@pytest.fixture(scope="session")
def watched_config(train_config: TrainConfig, train_root: Path, mixture: Mixture) -> TrainConfig:
    """The same with a task of every modality held out, and evaluated on."""
    tasks = (
        Task(name="tell", rate=1, sources=("photos",), inputs=("image",), target="text:caption", prompts=("tell",)),
        Task(name="draw", rate=1, sources=("photos",), target="image", prompts=("draw {caption}",)),
        Task(name="play", rate=1, sources=("films",), target="audio", prompts=("play {transcript}",)),
    )
    plain = mixture.model_dump(mode="json", exclude_defaults=True)
    plain["tasks"] += [{**task.model_dump(mode="json", exclude_defaults=True), "held_out": True} for task in tasks]
    path = train_root / "watched.yaml"
    path.write_text(yaml.safe_dump(plain))
    evaluation = EvaluationSettings(every=8, examples=5, sequences=2)
    return train_config.model_copy(update={"mixture": str(path), "evaluation": evaluation})


@pytest.fixture(scope="session")
def inputs(train_config: TrainConfig, train_root: Path) -> TrainInputs:
    """What `train_config` means."""
    return resolve(train_config, str(train_root))


@pytest.fixture(scope="session")
def store_checkpoint() -> Callable[..., Path]:
    """A function that publishes a checkpoint from this process alone and returns its folder."""

    def store(run: Path, record: CheckpointRecord, weights: Mapping[str, Tensor]) -> Path:
        with CheckpointWriter(run, CheckpointSettings(keep=99)) as writer:
            writer.save(record, {"model": dict(weights), "optimizer": {"state": {}, "param_groups": []}})
        return checkpoints_folder(run) / folder_name(record.step)

    return store


@dataclass(frozen=True)
class RayRun:
    """A run of two workers that nothing disturbed, its result, and the folder of the run that it replaced."""

    config: TrainConfig
    result: Any
    folder: Path
    replaced: Path

    @property
    def curve(self) -> list[dict[str, Any]]:
        return self.curve_of(self.folder)

    @staticmethod
    def curve_of(run: Path) -> list[dict[str, Any]]:
        """Everything in a run's history that must not depend on when and where a step was computed."""
        return [{key: value for key, value in line.items() if key != TIMING} for line in read_history(run)]


@pytest.fixture(scope="session")
def ray_run(watched_config: TrainConfig, train_root: Path, ray_local: None) -> RayRun:
    """Twelve steps of two workers on Ray Train, begun anew over an existing run of another seed."""
    from omnimill.infra import lineage
    from omnimill.training.runs.run import train

    checkpoints = CheckpointSettings(every=4, registry=RegistrySettings(model="calm", aliases=("newest",)))
    changed = {"name": "calm", "steps": 12, "workers": 2, "checkpoints": checkpoints}
    config = watched_config.model_copy(update=changed)
    earlier = config.model_copy(update={"seed": 9, "steps": 2, "workers": 1})
    with lineage.command_run(str(train_root), "train", {}, "calm") as told:
        train_worker(resolve(earlier, str(train_root)), str(train_root), Worker(), told.id)
    result = train(config, str(train_root), restart=True)
    return RayRun(config, result, train_root / "runs" / "calm", train_root / "runs" / "calm.1")
