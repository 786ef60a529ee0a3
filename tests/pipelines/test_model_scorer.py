"""Scores by models: the numbers of a direct call, whatever the batch; what is refused; what is scored again."""

from __future__ import annotations

import io
import re
import shutil
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image as Pillow
import pyarrow as pa
import pytest
import tiny_models
import torch
from pydantic import ValidationError
from safetensors.torch import save_file
from transformers import (
    AutoImageProcessor,
    AutoTokenizer,
    BertForSequenceClassification,
    BertModel,
    CLIPModel,
    ViTForImageClassification,
)

from omnimill import rng
from omnimill.config import load_config
from omnimill.errors import ConfigError, IntegrityError, OmnimillError
from omnimill.infra.dataset import Commit, Counts, Dataset
from omnimill.infra.selections import left_out
from omnimill.pipelines.dedup.checkpoints import Checkpoint
from omnimill.pipelines.dedup.config import Dedup
from omnimill.pipelines.dedup.run import DedupResult, dedup
from omnimill.pipelines.dedup.scorers import OpenClipImageText
from omnimill.pipelines.dedup.steps.model_scorer import ModelScorer
from omnimill.schema import Example, Image, Provenance, Text, example_id, to_table

CAPTIONS = ["a cat on the mat", "red car", "the dog and a very good cat", "bad"]
NSFW = {0: "normal", 1: "NSFW"}
TOXIC = {0: "toxic", 1: "severe toxic", 2: "fine"}


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    tiny_models.clip(folder / "clip")
    tiny_models.vit(folder / "vit", NSFW)
    tiny_models.bert(folder / "bert", NSFW)
    tiny_models.bert(folder / "toxic", TOXIC, "multi_label_classification")
    layers = {"layers.0.weight": torch.randn(4, 8), "layers.0.bias": torch.randn(4)}
    layers |= {"layers.2.weight": torch.randn(1, 4), "layers.2.bias": torch.randn(1)}
    save_file(layers, folder / "deep.safetensors")
    save_file({"weight": torch.randn(1, 8), "bias": torch.randn(1)}, folder / "head.safetensors")
    return folder


def picture(i: int) -> Pillow.Image:
    draw = rng.generator("scorer", i)
    return Pillow.fromarray(draw.integers(0, 256, (40 + i, 50, 3), dtype=np.uint8))


def encoded(image: Pillow.Image) -> Image:
    stream = io.BytesIO()
    image.save(stream, "PNG")
    return Image(data=stream.getvalue(), format="png", width=image.width, height=image.height, digest="0" * 64)


def example(key: str, pictures: list[int], texts: list[Text]) -> Example:
    digest = "ab" * 32
    return Example(
        id=example_id("s", key, digest),
        source="s",
        unit="u",
        key=key,
        provenance=Provenance(uri="u", digest=digest),
        text=texts,
        images=[encoded(picture(i)) for i in pictures],
    )


def caption(text: str, image: int | None = None) -> Text:
    return Text(role="caption", text=text, image=image)


EXAMPLES = [
    *(example(str(i), [i], [caption(text, 0)]) for i, text in enumerate(CAPTIONS)),
    example("two", [0, 1], [caption(CAPTIONS[0]), Text(role="body", text=CAPTIONS[1])]),
    example("none", [], [Text(role="body", text="good " * 40)]),
    example("bare", [2], []),
]


def step(models: Path, kind: str, model: str, **settings: Any) -> ModelScorer:
    return ModelScorer(step="model_scorer", name="score", kind=kind, model=str(models / model), **settings)


def measured(scorer: ModelScorer, examples: list[Example] = EXAMPLES) -> dict[str, list[float | None]]:
    table = to_table(examples).select(list(scorer.reads()))
    found: pa.Table = scorer.featurizer()(table)
    assert found.schema.names == list(scorer.scores())
    return found.to_pydict()


def cosines(models: Path) -> Callable[[int, str], float]:
    """By a direct call of the model, for one picture and one caption."""
    folder = models / "clip"
    model = CLIPModel.from_pretrained(folder)
    processor, tokenizer = AutoImageProcessor.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)

    def cosine(image: int, text: str) -> float:
        with torch.no_grad():
            inputs = {**processor(images=picture(image), return_tensors="pt"), **tokenizer(text, return_tensors="pt")}
            out = model(**inputs)
        return float(out.image_embeds[0] @ out.text_embeds[0])

    return cosine


def test_similarity_is_that_of_a_direct_call(models: Path) -> None:
    cosine = cosines(models)
    expected = [cosine(i, text) for i, text in enumerate(CAPTIONS)]
    expected.append((cosine(0, CAPTIONS[0]) + cosine(1, CAPTIONS[0])) / 2)
    scores = measured(step(models, "clip_similarity", "clip"))["score"]
    assert scores == pytest.approx([*expected, None, None], abs=1e-6)
    highest = measured(step(models, "clip_similarity", "clip", reduce="max"))["score"]
    assert highest[4] == pytest.approx(max(cosine(0, CAPTIONS[0]), cosine(1, CAPTIONS[0])), abs=1e-6)


def test_image_classifier_is_a_direct_call(models: Path) -> None:
    model = ViTForImageClassification.from_pretrained(models / "vit")
    processor = AutoImageProcessor.from_pretrained(models / "vit")
    with torch.no_grad():
        pixels = processor(images=[picture(i) for i in range(4)], return_tensors="pt")
        expected = model(**pixels).logits.softmax(dim=1)[:, 1].tolist()
    scores = measured(step(models, "image_classifier", "vit", labels=("nsfw",), reduce="max"))["score"]
    assert scores == pytest.approx([*expected, max(expected[:2]), None, expected[2]], abs=1e-6)


def test_text_classifier_is_a_direct_call(models: Path) -> None:
    model = BertForSequenceClassification.from_pretrained(models / "toxic")
    tokenizer = AutoTokenizer.from_pretrained(models / "toxic")
    texts = [*CAPTIONS, CAPTIONS[1], "good " * 40]
    expected = []
    for text in texts:
        with torch.no_grad():
            tokens = tokenizer(text, truncation=True, max_length=10, return_tensors="pt")
            expected.append(model(**tokens).logits.sigmoid()[0].tolist())
    scorer = step(models, "text_classifier", "toxic", labels=("toxic", "severe toxic"), reduce="max")
    scores = measured(scorer)
    assert list(scores) == ["score_toxic", "score_severe_toxic"]
    for column, name in enumerate(scores):
        own = [one[column] for one in expected]
        # The example with two pictures has a caption and a body.
        assert scores[name] == pytest.approx([*own[:4], max(own[0], own[1]), own[5], None], abs=1e-6)
    one_of = measured(step(models, "text_classifier", "bert", labels=("normal", "NSFW"), roles=("caption",)))
    sums = [a + b for a, b in zip(one_of["score_normal"][:5], one_of["score_nsfw"][:5], strict=True)]
    assert sums == pytest.approx([1] * 5)
    assert one_of["score_nsfw"][5:] == [None, None]


@pytest.mark.parametrize("head", ["head", "deep"])
def test_regression_head_is_applied_to_embeddings_of_length_one(models: Path, head: str) -> None:
    from safetensors.torch import load_file

    tensors = load_file(models / f"{head}.safetensors")
    model = CLIPModel.from_pretrained(models / "clip")
    processor = AutoImageProcessor.from_pretrained(models / "clip")
    with torch.no_grad():
        values = model.get_image_features(**processor(images=[picture(i) for i in range(4)], return_tensors="pt"))
        values = getattr(values, "pooler_output", values)
        values = values / values.norm(dim=1, keepdim=True)
        for name in ("weight",) if head == "head" else ("layers.0.weight", "layers.2.weight"):
            values = values @ tensors[name].T + tensors[name.replace("weight", "bias")]
    scores = measured(step(models, "image_regression_head", "clip", head=str(models / f"{head}.safetensors")))["score"]
    assert scores[:4] == pytest.approx(values[:, 0].tolist(), abs=1e-5)


def kinds(models: Path, **settings: Any) -> list[ModelScorer]:
    head = str(models / "head.safetensors")
    return [
        step(models, "clip_similarity", "clip", **settings),
        step(models, "image_regression_head", "clip", head=head, **settings),
        step(models, "image_classifier", "vit", labels=("nsfw",), **settings),
        step(models, "text_classifier", "bert", labels=("nsfw",), **settings),
    ]


def test_batches_do_not_change_scores(models: Path) -> None:
    for whole, single, low in zip(
        kinds(models), kinds(models, batch_size=1), kinds(models, dtype="bfloat16"), strict=True
    ):
        (scores,), (again,) = measured(whole).values(), measured(single).values()
        assert again == pytest.approx(scores, abs=1e-5)
        assert measured(whole) == {"score": scores}
        assert whole.feature_recipe() == single.feature_recipe() != low.feature_recipe()
        assert measured(low)["score"] == pytest.approx(scores, abs=0.05)


def test_an_example_without_rows_or_a_shard_without_examples_has_no_scores(models: Path) -> None:
    scorer = step(models, "clip_similarity", "clip")
    assert measured(scorer, [EXAMPLES[5]]) == {"score": [None]}
    assert measured(scorer, []) == {"score": []}


def test_only_so_many_items_of_an_example_are_looked_at(models: Path) -> None:
    many = example("many", [0, 1, 2, 3], [])
    head = str(models / "head.safetensors")
    first = step(models, "image_regression_head", "clip", head=head, max_items=1)
    alone = measured(first, [example("one", [0], [])])["score"]
    assert measured(first, [many])["score"] == pytest.approx(alone, abs=1e-6)


def refused(message: str, models: Path, kind: str, model: str, **settings: Any) -> None:
    with pytest.raises(ValidationError, match=message):
        step(models, kind, model, **settings)


def test_what_cannot_be_a_checkpoint_is_refused_at_once(models: Path, tmp_path: Path) -> None:
    refused("no such folder", models, "clip_similarity", "absent")
    refused("needs head", models, "image_regression_head", "clip")
    refused("has no head", models, "clip_similarity", "clip", head=str(models / "head.safetensors"))
    refused("No such file", models, "image_regression_head", "clip", head=str(tmp_path / "no.safetensors"))
    refused("needs labels", models, "image_classifier", "vit")
    refused("float16 needs gpus", models, "clip_similarity", "clip", dtype="float16")
    refused("needs weights", models, "clip_similarity", "clip", framework="open_clip")
    open_clip = {"framework": "open_clip", "weights": str(models / "head.safetensors")}
    with pytest.raises(ValidationError, match="not the name of an architecture"):
        ModelScorer(step="model_scorer", name="s", kind="clip_similarity", model="hf-hub:owner/name", **open_clip)
    pickled = tmp_path / "head.pth"
    torch.save({"weight": torch.zeros(1, 8)}, pickled)
    refused("not a safetensors file", models, "image_regression_head", "clip", head=str(pickled))
    unsafe = shutil.copytree(models / "clip", tmp_path / "unsafe")
    (unsafe / "model.safetensors").rename(unsafe / "pytorch_model.bin")
    refused("no safetensors weights", tmp_path, "clip_similarity", "unsafe")
    (unsafe / "config.json").unlink()
    refused("no config.json", tmp_path, "clip_similarity", "unsafe")
    with pytest.raises(ValidationError, match="needs its commit"):
        ModelScorer(step="model_scorer", name="s", kind="clip_similarity", model="owner/name")


def test_what_does_not_fit_is_said_when_the_model_is_loaded(models: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no label scary; it has: normal, nsfw"):
        step(models, "image_classifier", "vit", labels=("scary",)).featurizer()
    BertModel.from_pretrained(models / "bert").save_pretrained(tmp_path / "headless")
    with pytest.raises(ConfigError, match=r"has no weights of 2 parts .*: classifier\.bias, classifier\.weight"):
        step(tmp_path, "text_classifier", "headless", labels=("LABEL_0",)).featurizer()
    partial = shutil.copytree(models / "clip", tmp_path / "partial")
    (partial / "preprocessor_config.json").unlink()
    (partial / "processor_config.json").unlink(missing_ok=True)
    with pytest.raises(OmnimillError, match="partial: its image processor cannot be loaded"):
        step(tmp_path, "clip_similarity", "partial").featurizer()
    save_file({"weight": torch.zeros(1, 5), "bias": torch.zeros(1)}, tmp_path / "narrow.safetensors")
    with pytest.raises(ConfigError, match="takes embeddings of 5 numbers, the model gives 8"):
        measured(step(models, "image_regression_head", "clip", head=str(tmp_path / "narrow.safetensors")))
    (tmp_path / "torn.safetensors").write_bytes(b"\x08")
    with pytest.raises(ConfigError, match="not a safetensors file"):
        step(models, "image_regression_head", "clip", head=str(tmp_path / "torn.safetensors")).featurizer()
    damaged = example("damaged", [0], [])
    damaged.images[0].data = damaged.images[0].data[:200]
    with pytest.raises(OmnimillError, match=f"picture of example {damaged.id} cannot be decoded"):
        measured(step(models, "image_classifier", "vit", labels=("nsfw",)), [damaged])


def test_open_clip_is_needed_only_where_it_is_asked_for(models: Path) -> None:
    weights = str(models / "head.safetensors")
    settings = {"kind": "clip_similarity", "model": "ViT-B-32", "framework": "open_clip", "weights": weights}
    assert ModelScorer(step="model_scorer", name="s", **settings).digest is not None
    if find_spec("open_clip") is None:
        with pytest.raises(ConfigError, match="needs the package open_clip_torch"):
            OpenClipImageText(Checkpoint("ViT-B-32", weights=weights))


def test_the_content_of_a_checkpoint_decides_not_its_place(models: Path, tmp_path: Path) -> None:
    here = step(models, "clip_similarity", "clip")
    copy = shutil.copytree(models / "clip", tmp_path / "copy")
    there = step(tmp_path, "clip_similarity", "copy")
    assert here.feature_recipe() == there.feature_recipe()
    shutil.rmtree(copy)
    tiny_models.clip(copy, seed=9)
    assert step(tmp_path, "clip_similarity", "copy").feature_recipe() != here.feature_recipe()
    with pytest.raises(IntegrityError, match="is not the checkpoint"):
        there.featurizer()


def test_the_example_of_the_page_is_valid(models: Path, tmp_path: Path) -> None:
    page = (Path(__file__).parents[2] / "docs" / "ingest.md").read_text()
    (text,) = (text for text in re.findall(r"```yaml\n(.*?)```", page, re.DOTALL) if "model_scorer" in text)
    text = text.replace("/models/clip-vit-large-patch14", str(models / "clip"))
    path = tmp_path / "dedup.yaml"
    path.write_text(text.replace("/models/aesthetic.safetensors", str(models / "head.safetensors")))
    asked = [one.kind for one in load_config(path, Dedup).steps if isinstance(one, ModelScorer)]
    assert asked == ["clip_similarity", "image_classifier", "image_regression_head"]


def publish(root: str) -> Dataset:
    dataset = Dataset(root, "made")
    shards = tuple(dataset.publish_shard(to_table(EXAMPLES[i : i + 3])) for i in range(0, len(EXAMPLES), 3))
    counts = Counts(records_in=len(EXAMPLES), kept=len(EXAMPLES), examples_written=len(EXAMPLES))
    dataset.publish_manifest(
        "examples", [Commit(unit="u", source="s", recipe="r", inputs=(), shards=shards, counts=counts)]
    )
    return dataset


@pytest.mark.ray
@pytest.mark.usefixtures("ray_local")
def test_scores_are_measured_once_and_thresholds_read_them(models: Path, root: str) -> None:
    dataset = publish(root)
    expected = dict(
        zip((one.id for one in EXAMPLES), measured(step(models, "clip_similarity", "clip"))["score"], strict=True)
    )
    bound = sorted(value for value in expected.values() if value is not None)[2]

    def run(least: float, **settings: Any) -> DedupResult:
        scorer = {"step": "model_scorer", "name": "align", "kind": "clip_similarity", "model": str(models / "clip")}
        steps = [{**scorer, **settings}, {"step": "threshold", "score": "align", "min": least, "missing": "drop"}]
        return dedup(Dedup.model_validate({"dataset": "made", "selection": "aligned", "steps": steps}), root)

    def features() -> dict[str, float]:
        files = Path(dataset.url, "features").rglob("*.arrow")
        return {str(path): path.stat().st_mtime_ns for path in files}

    result = run(bound)
    rows = [row for part in result.selection.shards for row in left_out(dataset, part.file).to_pylist()]
    gone = {key for key, value in expected.items() if value is None or value < bound - 1e-9}
    assert {row["id"] for row in rows} == gone
    assert {row["reason"] for row in rows} == {"score_low", "score_missing"}
    assert all(row["score"] == pytest.approx(expected[row["id"]], abs=1e-6) for row in rows)

    before = features()
    assert run(-2.0, batch_size=1).selection.dropped == {"score_missing": 2}
    assert features() == before
