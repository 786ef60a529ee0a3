"""Tiny random checkpoints in the layout of the hub, written on the fly."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    CLIPConfig,
    CLIPModel,
    PreTrainedTokenizerFast,
    ViTConfig,
    ViTForImageClassification,
)

from tokenizers import Tokenizer, models, pre_tokenizers, processors

SIDE = 32
WIDTH = 8
_SMALL: dict[str, Any] = {
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
}
_WORDS = ["a", "the", "cat", "dog", "red", "car", "on", "mat", "good", "bad", "and", "very"]


def clip(folder: Path, seed: int = 0) -> Path:
    torch.manual_seed(seed)
    text = {**_SMALL, "vocab_size": 64, "max_position_embeddings": 12, "eos_token_id": 2}
    vision = {**_SMALL, "image_size": SIDE, "patch_size": 8}
    CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=WIDTH)).save_pretrained(folder)
    _image_processor(folder, "CLIPImageProcessor", size={"shortest_edge": SIDE}, do_center_crop=True)
    _tokenizer(folder, 12)
    return folder


def vit(folder: Path, labels: dict[int, str]) -> Path:
    torch.manual_seed(1)
    config = ViTConfig(
        **_SMALL, image_size=SIDE, patch_size=8, id2label=labels, label2id={b: a for a, b in labels.items()}
    )
    ViTForImageClassification(config).save_pretrained(folder)
    _image_processor(folder, "ViTImageProcessor", size={"height": SIDE, "width": SIDE})
    return folder


def bert(folder: Path, labels: dict[int, str], problem: str = "single_label_classification") -> Path:
    torch.manual_seed(2)
    config = BertConfig(
        **_SMALL,
        vocab_size=64,
        max_position_embeddings=10,
        id2label=labels,
        label2id={b: a for a, b in labels.items()},
        problem_type=problem,
    )
    BertForSequenceClassification(config).save_pretrained(folder)
    _tokenizer(folder, 10)
    return folder


def _image_processor(folder: Path, kind: str, **settings: Any) -> None:
    common = {"do_resize": True, "do_rescale": True, "do_normalize": True, "do_convert_rgb": True}
    values = {"image_mean": [0.5] * 3, "image_std": [0.3] * 3, "crop_size": {"height": SIDE, "width": SIDE}}
    (folder / "preprocessor_config.json").write_text(
        json.dumps({"image_processor_type": kind, **common, **values, **settings})
    )


def _tokenizer(folder: Path, length: int) -> None:
    vocabulary = {word: i for i, word in enumerate(["[PAD]", "[BOS]", "[EOS]", "[UNK]", *_WORDS])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    ends = [("[BOS]", 1), ("[EOS]", 2)]
    tokenizer.post_processor = processors.TemplateProcessing(single="[BOS] $A [EOS]", special_tokens=ends)
    names = {"pad_token": "[PAD]", "unk_token": "[UNK]", "bos_token": "[BOS]", "eos_token": "[EOS]"}
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, **names, model_max_length=length).save_pretrained(folder)
