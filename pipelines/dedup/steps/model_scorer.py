"""Scores by models: aesthetics, alignment of picture and caption, unsafe pictures, toxic text, ….

A score is a feature of a shard: measured once per checkpoint, kept beside the dataset, held against a bound by
`threshold` as often as one likes. Shards are not rewritten.
"""

from __future__ import annotations

import io
import re
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
import pyarrow as pa
from pydantic import Field, model_validator

from omnimill.config import digest_json
from omnimill.errors import IntegrityError, OmnimillError
from omnimill.infra import storage
from omnimill.pipelines.dedup.base import Featurizer, ScoreStep, Workers
from omnimill.schema import SCHEMA_VERSION

if TYPE_CHECKING:
    from omnimill.pipelines.dedup.scorers import ImageText, Pair, Scorer, Scores

# Files of a checkpoint that a model is made of.
_PARTS = (".json", ".safetensors", ".txt", ".model", ".jinja")
_PLACES = {"model", "weights", "head"}
_CLASSIFIERS = ("image_classifier", "text_classifier")
_EMBEDDING = ("clip_similarity", "image_regression_head")


class ModelScorer(ScoreStep):
    """Asks a model about the pictures, the texts or the captioned pictures of every example.

    kind: what is asked.
        clip_similarity: cosine between a picture and its caption, by a model with one space for both (CLIP, SigLIP). A
        caption goes with the picture that it names, or with every picture when it names none.
        image_classifier, text_classifier: probability of each of `labels`.
        image_regression_head: a linear head (`head`) on the embedding of a picture, such as LAION's aesthetics.
    name: of the score. With several `labels` the scores are ``<name>_<label>``, in lower case, spaces as underscores.
    model: a folder with config.json and safetensors weights; or the id of a repository on the Hugging Face hub, with
        its commit as `revision`; or, with `framework: open_clip`, an architecture, with the file of its `weights`.
    digest: of the checkpoint's files, `head` and `weights`. Filled in when the configuration is read: another content
        is scored anew, the same content at another place is not.
    roles: of the texts; captions for clip_similarity, body, captions and transcripts for text_classifier when None.
    reduce: of several values of an example. max_items: of an example that are looked at, in order.
    max_chars: of a text that are looked at, before the model's own limit.
    dtype: of the model's arithmetic; float16 needs a GPU.
    batch_size, actors, cpus_per_actor, gpus_per_actor: do not change scores beyond rounding, and score nothing again.

    An example without what is asked about has no score.
    """

    decides: ClassVar[tuple[str, ...]] = ("batch_size", "actors", "cpus_per_actor", "gpus_per_actor")

    step: Literal["model_scorer"]
    name: str = Field(pattern=r"^[a-z0-9][a-z0-9_]*$")
    kind: Literal["clip_similarity", "image_classifier", "text_classifier", "image_regression_head"]
    model: str = Field(min_length=1)
    framework: Literal["transformers", "open_clip"] = "transformers"
    revision: str | None = Field(None, pattern=r"^[0-9a-f]{40}$")
    weights: str | None = None
    head: str | None = None
    labels: tuple[str, ...] = ()
    digest: str | None = None
    roles: tuple[str, ...] | None = Field(None, min_length=1)
    reduce: Literal["mean", "max", "min"] = "mean"
    max_items: int = Field(16, ge=1)
    max_chars: int = Field(4000, ge=1)
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    batch_size: int = Field(32, ge=1)
    actors: int = Field(1, ge=1)
    cpus_per_actor: float = Field(1.0, gt=0)
    gpus_per_actor: float = Field(0.0, ge=0)

    @model_validator(mode="before")
    @classmethod
    def _fill_in_digest(cls, values: Any) -> Any:
        if isinstance(values, dict) and values.get("model") and values.get("digest") is None:
            try:
                found = _digest(str(values["model"]), values.get("weights"), values.get("head"))
            except OSError as error:
                raise ValueError(f"cannot be read: {error}") from None
            return {**values, "digest": found}
        return values

    @model_validator(mode="after")
    def _fits_together(self) -> ModelScorer:
        needs = {"labels": self.kind in _CLASSIFIERS, "head": self.kind == "image_regression_head"}
        needs |= {"weights": self.framework == "open_clip"}
        for setting, needed in needs.items():
            if needed != bool(getattr(self, setting)):
                of = f"framework {self.framework}" if setting == "weights" else f"kind {self.kind}"
                raise ValueError(f"{of} {'needs' if needed else 'has no'} {setting}")
        for path in (self.weights, self.head):
            if path is not None and not path.endswith(".safetensors"):
                raise ValueError(f"{path} is not a safetensors file; other formats can run code and are not read")
        if self.framework == "open_clip":
            if self.kind not in _EMBEDDING:
                raise ValueError(f"framework open_clip has no kind {self.kind}")
            if not re.fullmatch(r"[\w.-]+", self.model):
                raise ValueError(f"{self.model!r} is not the name of an architecture of open_clip")
        if self.dtype == "float16" and not self.gpus_per_actor:
            raise ValueError("dtype float16 needs gpus_per_actor")
        if len(set(self.scores())) < len(self.scores()):
            raise ValueError("labels have to differ")
        if self.framework == "transformers":
            self._check_model()
        return self

    def _check_model(self) -> None:
        folder = Path(self.model)
        if folder.is_dir():
            if not (folder / "config.json").is_file():
                raise ValueError(f"{folder} is no checkpoint of transformers: it has no config.json")
            if not any(folder.glob("*.safetensors")):
                raise ValueError(f"{folder} has no safetensors weights; other formats can run code and are not read")
        elif self.model.count("/") != 1 or self.model.startswith((".", "/", "~")):
            raise ValueError(f"{self.model}: no such folder, and not the id of a repository (owner/name)")
        elif self.revision is None:
            raise ValueError(f"{self.model}: no such folder; a repository on the hub needs its commit as `revision`")

    def scores(self) -> tuple[str, ...]:
        if len(self.labels) < 2:
            return (self.name,)
        return tuple(f"{self.name}_{label.lower().replace(' ', '_')}" for label in self.labels)

    def feature_recipe(self) -> str:
        places = _PLACES if Path(self.model).is_dir() else _PLACES - {"model"}
        settings = self.model_dump(mode="json", exclude={"sources", *self.decides, *places})
        return digest_json([SCHEMA_VERSION, self.version, settings])

    def reads(self) -> tuple[str, ...]:
        texts = ("text",) if self.kind in ("clip_similarity", "text_classifier") else ()
        return ("id", *texts) if self.kind == "text_classifier" else ("id", "images", *texts)

    def workers(self) -> Workers:
        return Workers(self.actors, self.cpus_per_actor, self.gpus_per_actor)

    def featurizer(self) -> Featurizer:
        import torch  # noqa: PLC0415 - seconds to import, and only where models run

        if _digest(self.model, self.weights, self.head) != self.digest:
            raise IntegrityError(f"{self.model} is not the checkpoint that the configuration was read with")
        threads = max(1, int(self.cpus_per_actor))
        torch.set_num_threads(threads)
        return _Featurizer(self, self._load(), threads)

    def _load(self) -> Scorer:
        import torch  # noqa: PLC0415

        from omnimill.pipelines.dedup import scorers  # noqa: PLC0415
        from omnimill.pipelines.dedup.checkpoints import Checkpoint  # noqa: PLC0415

        device = "cuda" if self.gpus_per_actor else "cpu"
        if device == "cuda" and not torch.cuda.is_available():
            raise OmnimillError("gpus_per_actor is set, but torch finds no GPU on this worker")
        checkpoint = Checkpoint(self.model, self.revision, self.weights, device, self.dtype)
        if self.kind == "image_classifier":
            return scorers.ImageClassifier(checkpoint, self.labels)
        if self.kind == "text_classifier":
            return scorers.TextClassifier(checkpoint, self.labels)
        embedding: ImageText
        if self.framework == "open_clip":
            embedding = scorers.OpenClipImageText(checkpoint)
        else:
            embedding = scorers.TransformersImageText(checkpoint)
        if self.kind == "clip_similarity":
            return scorers.ClipSimilarity(embedding)
        assert self.head is not None
        return scorers.ImageRegressionHead(embedding, self.head, device)

    @property
    def asked_roles(self) -> tuple[str, ...]:
        """The roles of the texts that are looked at."""
        if self.roles is not None:
            return self.roles
        return (
            ("caption", "alt_text") if self.kind == "clip_similarity" else ("body", "caption", "alt_text", "transcript")
        )


@dataclass(frozen=True)
class _Item:
    """What is scored at once, of a row of a shard; the picture is still encoded."""

    row: int
    id: str
    image: bytes | None = None
    text: str | None = None


class _Featurizer:
    def __init__(self, step: ModelScorer, scorer: Scorer, threads: int) -> None:
        self._step, self._scorer, self._threads = step, scorer, threads

    def __call__(self, table: pa.Table) -> pa.Table:
        items: Iterable[_Item] = self._items(table)
        if not self._scorer.takes_images:
            # Texts of like length together: little padding.
            items = sorted(items, key=lambda item: len(item.text or ""))
        rows: list[int] = []
        scores: list[Scores] = []
        for batch_rows, pairs in self._batches(iter(items)):
            rows += batch_rows
            scores.append(self._scorer(pairs))
        return self._reduced(np.array(rows, np.int64), scores, table.num_rows)

    def _items(self, table: pa.Table) -> Iterator[_Item]:
        """What is scored, row by row; only the bytes of one row are copied at a time."""
        step, row = self._step, 0
        for batch in table.to_batches():
            for at in range(batch.num_rows):
                values = {name: batch.column(name)[at].as_py() for name in step.reads()}
                yield from islice(self._of_example(row, values), step.max_items)
                row += 1

    def _of_example(self, row: int, values: dict[str, Any]) -> Iterator[_Item]:
        images = [image["data"] for image in values.get("images", ())]
        texts = [
            text for text in values.get("text", ()) if text["role"] in self._step.asked_roles and text["text"].strip()
        ]
        for text in texts:
            content = text["text"][: self._step.max_chars]
            if not self._scorer.takes_images:
                yield _Item(row, values["id"], text=content)
            elif text["image"] is None:
                yield from (_Item(row, values["id"], image, content) for image in images)
            else:
                yield _Item(row, values["id"], images[text["image"]], content)
        if not self._scorer.takes_texts:
            yield from (_Item(row, values["id"], image) for image in images)

    def _batches(self, items: Iterator[_Item]) -> Iterator[tuple[list[int], list[Pair]]]:
        """Batches in order; the pictures of the next one are decoded in threads while a batch is scored."""
        with ThreadPoolExecutor(self._threads, thread_name_prefix="decode") as pool:
            ahead: deque[tuple[list[int], list[Future[Pair]]]] = deque()
            while batch := list(islice(items, self._step.batch_size)):
                ahead.append(([item.row for item in batch], [pool.submit(_decoded, item) for item in batch]))
                if len(ahead) > 1:
                    rows, futures = ahead.popleft()
                    yield rows, [future.result() for future in futures]
            for rows, futures in ahead:
                yield rows, [future.result() for future in futures]

    def _reduced(self, rows: np.ndarray[Any, np.dtype[np.int64]], scores: Sequence[Scores], count: int) -> pa.Table:
        names = self._step.scores()
        values = np.concatenate(scores) if scores else np.zeros((0, len(names)))
        times = np.bincount(rows, minlength=count)
        start, combine = {"mean": (0.0, np.add), "max": (-np.inf, np.maximum), "min": (np.inf, np.minimum)}[
            self._step.reduce
        ]
        columns = []
        for column in values.T:
            found = np.full(count, start)
            combine.at(found, rows, column)
            if self._step.reduce == "mean":
                found = found / np.maximum(times, 1)
            columns.append(pa.array(found, pa.float64(), mask=times == 0))
        return pa.table(columns, names=list(names))


def _decoded(item: _Item) -> Pair:
    from PIL import Image, ImageOps, UnidentifiedImageError  # noqa: PLC0415

    from omnimill.pipelines.dedup.scorers import Pair  # noqa: PLC0415

    if item.image is None:
        return Pair(text=item.text)
    try:
        with Image.open(io.BytesIO(item.image), formats=("JPEG", "PNG", "WEBP")) as opened:
            return Pair(ImageOps.exif_transpose(opened).convert("RGB"), item.text)
    except (UnidentifiedImageError, OSError, ValueError, SyntaxError) as error:
        raise OmnimillError(f"a picture of example {item.id} cannot be decoded: {error}") from error


def _digest(model: str, weights: str | None, head: str | None) -> str | None:
    """64 hex digits over the content of a checkpoint's local files; None when it has none."""
    folder = Path(model)
    files = [path for path in sorted(folder.iterdir()) if path.suffix in _PARTS] if folder.is_dir() else []
    content = {path.name: storage.digest_file(str(path)) for path in files}
    content |= {f"/{what}": storage.digest_file(path) for what, path in (("weights", weights), ("head", head)) if path}
    return digest_json(content) if content else None
