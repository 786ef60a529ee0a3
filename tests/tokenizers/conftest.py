"""A small corpus of every modality as an example dataset, and a tokenizer set trained on it; made once."""

from __future__ import annotations

import io
from collections.abc import Sequence
from types import SimpleNamespace

import numpy as np
import PIL.Image
import pytest

from omnimill.infra.dataset import Commit, Counts, Dataset, InputRef
from omnimill.locations import spherical_views
from omnimill.rng import generator
from omnimill.schema import (
    Annotation,
    Audio,
    Example,
    Image,
    Provenance,
    Text,
    Trajectory,
    example_id,
    to_table,
)
from omnimill.tokenizers import audio, image, store
from omnimill.tokenizers.config import TokenizerConfig
from omnimill.tokenizers.corpus import Corpus
from omnimill.tokenizers.number_format import NumberFormat, number_format
from omnimill.tokenizers.store import Tokenizers, load_tokenizers
from omnimill.tokenizers.text import BpeConfig, TextTokenizer, train_bpe
from omnimill.tokenizers.train import make_set
from omnimill.vocabulary_layout import NumberLayout

CONFIG = TokenizerConfig.model_validate(
    {
        "name": "mini",
        "dataset": "corpus",
        "tokens": "corpus-tokens",
        "layout": {
            "image": {
                "input_size": 64,
                "history_size": 32,
                "target_size": 32,
                "patch": 8,
                "code_stride": 8,
                "codes": 32,
            },
            "audio": {"segment_seconds": 0.5, "frames": 32, "mels": 16, "patch": 8, "code_patch": [8, 8], "codes": 16},
        },
        "text": {"pieces": 400},
        "image": {
            "network": {
                "type": "patches",
                "stem": 4,
                "channels": 8,
                "multipliers": [1, 2],
                "blocks": 1,
                "code_width": 8,
            },
            "training": {"steps": 20, "batch": 8, "learning_rate": 2e-3, "warmup_steps": 10},
        },
        "audio": {
            "network": {"type": "patches", "width": 16, "layers": 1, "heads": 2, "code_width": 8, "normalised": False},
            "training": {"steps": 10, "batch": 4, "learning_rate": 2e-3, "warmup_steps": 10},
        },
        "max_quarantined_share": 0.5,
    }
)


def picture_pixels(seed: int, height: int = 40, width: int = 60) -> image.ByteArray:
    """Two coloured rectangles on a graded ground."""
    rng = generator("picture", seed)
    canvas = np.linspace(0, 1, width)[None, :, None] * rng.uniform(60, 200, 3) + rng.uniform(0, 55, 3)
    canvas = np.repeat(canvas, height, axis=0)
    for _ in range(2):
        top, left = rng.integers(0, height // 2), rng.integers(0, width // 2)
        canvas[top : top + height // 2, left : left + width // 3] = rng.uniform(0, 255, 3)
    return canvas.astype(np.uint8)


def waveform(seed: int, samples: int) -> audio.FloatArray:
    rng = generator("sound", seed)
    time = np.arange(samples) / 16000
    tones = [np.sin(2 * np.pi * hertz * time) for hertz in rng.uniform(100, 4000, 3)]
    return (np.sum(tones, axis=0) * 0.2 + rng.normal(0, 0.01, samples)).astype(np.float32)


def picture(seed: int, height: int = 40, width: int = 60) -> Image:
    data = image.encode_png(picture_pixels(seed, height, width))
    return Image(data=data, format="png", width=width, height=height, digest=str(seed))


def mask_of(example: Example) -> bytes:
    """The PNG of a mask of an example's first picture: its upper left quarter."""
    height, width = example.images[0].height, example.images[0].width
    mask = np.zeros((height, width), np.bool_)
    mask[: height // 2, : width // 2] = True
    stream = io.BytesIO()
    PIL.Image.fromarray(mask).save(stream, "PNG")
    return stream.getvalue()


def sound(seed: int, samples: int = 8000, rate: int = 16000) -> Audio:
    data = audio.encode_waveform(waveform(seed, samples), rate, "WAV")
    return Audio(data=data, format="wav", sample_rate=rate, channels=1, samples=samples, digest=str(seed))


def example(source: str, number: int, **content: object) -> Example:
    key = str(number)
    return Example(
        id=example_id(source, key, "content"),
        source=source,
        unit="unit",
        key=key,
        provenance=Provenance(uri=f"raw/{source}/{key}", digest="digest"),
        **content,  # type: ignore[arg-type]
    )


def trajectory(number: int, steps: int = 3) -> Trajectory:
    rng = generator("trajectory", number)
    return Trajectory(
        episode=str(number),
        first_step=0,
        steps_per_second=10.0,
        state_names=["x", "y", "z"],
        action_names=["dx", "grip"],
        states=rng.uniform(-1, 1, (steps, 3)).tolist(),
        actions=rng.uniform(-5, 5, (steps, 2)).tolist(),
        step_images=[0, None, 1][:steps],
    )


def corpus(photos: int = 24) -> list[Example]:
    """Captioned pictures (one of them annotated), a document, a film with sound, robot episodes, views, and a broken
    picture."""
    examples = [
        example(
            "photos",
            i,
            text=[Text(role="caption", text=f"Picture number {i} of rectangles on a graded ground.", image=0)],
            images=[picture(i, 30 + i, 90 - 2 * i)],
        )
        for i in range(photos)
    ]
    examples[0].annotations = [
        Annotation(kind="box", image=0, label="red block", box=[0.0, 0.0, 0.5, 0.5]),
        Annotation(kind="box", label="blue block", box=[0.25, 0.25, 1.0, 1.0]),
        Annotation(kind="points", image=0, points=[0.5, 0.5]),
    ]
    broken = Image(data=b"not a picture", format="png", width=8, height=8, digest="x")
    examples.append(example("photos", 1000, images=[broken]))
    examples.append(example("pages", 0, text=[Text(role="body", text="The quick brown fox jumps. " * 50)]))
    for i in range(6):
        examples.append(
            example(
                "films",
                i,
                text=[Text(role="transcript", text="words that are said", image=0, audio=0, start=0.0, end=1.0)],
                images=[picture(100 + i, 64, 64), picture(200 + i, 64, 64)],
                audio=[sound(i, 8000), sound(50 + i, 3000 + 1000 * i, rate=8000)],
            )
        )
    for i in range(3):
        content = {"trajectory": trajectory(i), "images": [picture(300 + i), picture(310 + i)]}
        examples.append(example("robot", i, text=[Text(role="instruction", text="Lift it.")], **content))
    views = spherical_views([(1.0 + 0.1 * i, 0.5 * i, 2.0 + 0.1 * i) for i in range(3)])
    examples.append(example("shapes", 0, images=[picture(400 + i, 48, 48) for i in range(3)], views=views))
    return examples


def store_examples(root: str, name: str, examples: Sequence[Example], shard_rows: int = 16) -> str:
    """Write examples as a committed dataset, in shards of `shard_rows`; returns the manifest's digest."""
    dataset = Dataset(root, name)
    commits = []
    by_source: dict[str, list[Example]] = {}
    for item in examples:
        by_source.setdefault(item.source, []).append(item)
    for source, items in by_source.items():
        for start in range(0, len(items), shard_rows):
            shard = dataset.publish_shard(to_table(items[start : start + shard_rows]))
            commit = Commit(
                unit=f"{source}-{start}",
                source=source,
                recipe="test",
                inputs=(InputRef(uri=source, digest=shard.digest, bytes=1),),
                shards=(shard,),
                counts=Counts(records_in=shard.rows, kept=shard.rows, examples_written=shard.rows),
            )
            dataset.commit(commit)
            commits.append(commit)
    return dataset.publish_manifest("examples", commits)[0]


@pytest.fixture(scope="session")
def samples() -> SimpleNamespace:
    """The functions of this file, for tests that make their own examples."""
    return SimpleNamespace(
        pixels=picture_pixels,
        waveform=waveform,
        picture=picture,
        mask_of=mask_of,
        sound=sound,
        example=example,
        trajectory=trajectory,
        corpus=corpus,
        store=store_examples,
    )


@pytest.fixture(scope="session")
def config() -> TokenizerConfig:
    return CONFIG


@pytest.fixture(scope="session")
def root(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Holds the corpus and the tokenizer set ``mini``; tests leave both as they are."""
    folder = str(tmp_path_factory.mktemp("tokenizers"))
    store_examples(folder, "corpus", corpus())
    stored, files = make_set(CONFIG, Corpus(folder, "corpus"))
    store.publish(folder, "mini", stored, files)
    return folder


@pytest.fixture(scope="session")
def tokenizers(root: str) -> Tokenizers:
    return load_tokenizers(root, "mini")


@pytest.fixture(scope="session")
def text() -> TextTokenizer:
    """A small text model with bytes as fallback."""
    lines = [
        "The quick brown fox jumps over the lazy dog, 12 times.",
        "left eye, right knee, nose, pick and place",
    ] * 20
    return TextTokenizer.of(train_bpe(lines, BpeConfig(pieces=400)), "text")


@pytest.fixture(scope="session", params=["locations", "decimals"])
def numbers(request: pytest.FixtureRequest, text: TextTokenizer) -> NumberFormat:
    """Both ways to write numbers; decimals with four digits."""
    return number_format(NumberLayout(form=request.param, digits=4), text)
