"""Models that score pictures and texts: checkpoints of transformers or open_clip, loaded once, asked in batches.

Only safetensors weights are read, and no code that a checkpoint brings is run. A model takes a batch of *pairs*, each
a picture or a text or both, and gives a number per score for each. What is scored of which example is the caller's
matter.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import PIL.Image as Pillow
import torch
from numpy.typing import NDArray

from omnimill.errors import ConfigError
from omnimill.pipelines.dedup.checkpoints import (
    DTYPES,
    Checkpoint,
    Place,
    linear_layers,
    safetensors_file,
    text_length,
)

Scores = NDArray[np.float64]


@dataclass(frozen=True)
class Pair:
    """What is scored at once. image: RGB."""

    image: Pillow.Image | None = None
    text: str | None = None


class Scorer(ABC):
    """A loaded model. takes_images, takes_texts: what its pairs have to hold."""

    takes_images: ClassVar[bool] = False
    takes_texts: ClassVar[bool] = False

    @abstractmethod
    def __call__(self, pairs: Sequence[Pair]) -> Scores:
        """Scores, float64 [pairs, scores]."""


class ImageText(ABC):
    """A model with one space for pictures and texts; embeddings are float32 [n, width] of length 1."""

    @abstractmethod
    def images(self, images: Sequence[Pillow.Image]) -> torch.Tensor:
        """Embeddings of RGB pictures."""

    @abstractmethod
    def texts(self, texts: Sequence[str]) -> torch.Tensor:
        """Embeddings of texts, cut to the model's length."""


class TransformersImageText(ImageText):
    """CLIP, SigLIP and their kin out of transformers."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        self._place = Place(checkpoint)
        self._model = self._place.model("AutoModel")
        self._processor = self._place.image_processor()
        self._tokenizer = self._place.tokenizer()

    def images(self, images: Sequence[Pillow.Image]) -> torch.Tensor:
        pixels = self._processor(images=list(images), return_tensors="pt")["pixel_values"]
        return _unit(self._model.get_image_features(pixel_values=self._place.moved(pixels)))

    def texts(self, texts: Sequence[str]) -> torch.Tensor:
        # SigLIP is trained on texts padded to its full length and without a mask.
        padding = "max_length" if "siglip" in self._model.config.model_type else True
        length = self._model.config.get_text_config().max_position_embeddings
        tokens = self._tokenizer(list(texts), padding=padding, truncation=True, max_length=length, return_tensors="pt")
        names = ("input_ids", "attention_mask")
        return _unit(
            self._model.get_text_features(**{name: self._place.moved(tokens[name]) for name in names if name in tokens})
        )


class OpenClipImageText(ImageText):
    """An architecture of open_clip with weights from a safetensors file."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        try:
            import open_clip  # noqa: PLC0415 - not one of our dependencies
        except ImportError as error:
            raise ConfigError(
                f"framework open_clip needs the package open_clip_torch and torchvision: {error}"
            ) from None
        weights = safetensors_file(checkpoint.weights)
        self._device, self._dtype = checkpoint.device, DTYPES[checkpoint.dtype]
        model, _, preprocess = open_clip.create_model_and_transforms(
            checkpoint.model, pretrained=str(weights), device=checkpoint.device
        )
        self._model, self._preprocess = model.eval().to(self._dtype), preprocess
        self._tokenizer = open_clip.get_tokenizer(checkpoint.model)

    def images(self, images: Sequence[Pillow.Image]) -> torch.Tensor:
        pixels = torch.stack([self._preprocess(image) for image in images])
        return _unit(self._model.encode_image(pixels.to(self._device, self._dtype)))

    def texts(self, texts: Sequence[str]) -> torch.Tensor:
        return _unit(self._model.encode_text(self._tokenizer(list(texts)).to(self._device)))


class ClipSimilarity(Scorer):
    """Cosine of the angle between a picture and its caption, -1 to 1."""

    takes_images = takes_texts = True

    def __init__(self, model: ImageText) -> None:
        self._model = model

    def __call__(self, pairs: Sequence[Pair]) -> Scores:
        with torch.inference_mode():
            images, texts = self._model.images(_images(pairs)), self._model.texts(_texts(pairs))
            return _numbers((images * texts).sum(dim=1, keepdim=True))


class ImageRegressionHead(Scorer):
    """A linear head on the embedding of a picture, as LAION's aesthetic predictors are.

    The head is a safetensors file with one `weight` [1, width] and its `bias` [1], under any prefix; or a stack of
    linear layers ("layers.0.weight", "layers.2.weight", …), applied in the order of their numbers without anything
    between them, as the second predictor is at inference.
    """

    takes_images = True

    def __init__(self, model: ImageText, head: str | Path, device: str = "cpu") -> None:
        self._model = model
        self._layers = [(weight.to(device), bias.to(device)) for weight, bias in linear_layers(safetensors_file(head))]

    def __call__(self, pairs: Sequence[Pair]) -> Scores:
        with torch.inference_mode():
            values = self._model.images(_images(pairs))
            if values.shape[1] != self._layers[0][0].shape[1]:
                width = self._layers[0][0].shape[1]
                raise ConfigError(f"the head takes embeddings of {width} numbers, the model gives {values.shape[1]}")
            for weight, bias in self._layers:
                values = torch.nn.functional.linear(values, weight, bias)
            return _numbers(values)


class _Classifier(Scorer):
    """Probabilities of some of a classifier's labels: softmax, or sigmoid where the checkpoint says labels are many."""

    kind: ClassVar[str]

    def __init__(self, checkpoint: Checkpoint, labels: Sequence[str]) -> None:
        self._place = Place(checkpoint)
        self._model = self._place.model(self.kind)
        numbers = {str(label).lower(): int(i) for i, label in self._model.config.id2label.items()}
        unknown = [label for label in labels if label.lower() not in numbers]
        if unknown:
            raise ConfigError(
                f"{checkpoint.model} has no label {', '.join(unknown)}; it has: {', '.join(sorted(numbers)[:50])}"
            )
        self._columns = [numbers[label.lower()] for label in labels]

    def _probabilities(self, logits: torch.Tensor) -> Scores:
        several = self._model.config.problem_type == "multi_label_classification" or logits.shape[1] == 1
        logits = logits.float()
        return _numbers((logits.sigmoid() if several else logits.softmax(dim=1))[:, self._columns])


class ImageClassifier(_Classifier):
    """Probability of labels of a picture."""

    kind = "AutoModelForImageClassification"
    takes_images = True

    def __init__(self, checkpoint: Checkpoint, labels: Sequence[str]) -> None:
        super().__init__(checkpoint, labels)
        self._processor = self._place.image_processor()

    def __call__(self, pairs: Sequence[Pair]) -> Scores:
        with torch.inference_mode():
            pixels = self._processor(images=_images(pairs), return_tensors="pt")["pixel_values"]
            return self._probabilities(self._model(pixel_values=self._place.moved(pixels)).logits)


class TextClassifier(_Classifier):
    """Probability of labels of a text, which is cut to the model's length."""

    kind = "AutoModelForSequenceClassification"
    takes_texts = True

    def __init__(self, checkpoint: Checkpoint, labels: Sequence[str]) -> None:
        super().__init__(checkpoint, labels)
        self._tokenizer = self._place.tokenizer()
        self._length = text_length(self._model.config, self._tokenizer)

    def __call__(self, pairs: Sequence[Pair]) -> Scores:
        with torch.inference_mode():
            tokens = self._tokenizer(
                _texts(pairs), padding=True, truncation=True, max_length=self._length, return_tensors="pt"
            )
            inputs = {name: self._place.moved(value) for name, value in tokens.items()}
            return self._probabilities(self._model(**inputs).logits)


def _unit(features: Any) -> torch.Tensor:
    """Embeddings of length 1; models of transformers give a tensor or, since version 5, an output that holds it."""
    values: torch.Tensor = features if isinstance(features, torch.Tensor) else features.pooler_output
    return torch.nn.functional.normalize(values.float(), dim=1)


def _numbers(values: torch.Tensor) -> Scores:
    return values.double().cpu().numpy()


def _images(pairs: Sequence[Pair]) -> list[Pillow.Image]:
    return [pair.image for pair in pairs if pair.image is not None]


def _texts(pairs: Sequence[Pair]) -> list[str]:
    return [pair.text for pair in pairs if pair.text is not None]
