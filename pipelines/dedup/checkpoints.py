"""Checkpoints of models: what is loaded of them, and what is refused."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from omnimill.errors import ConfigError, OmnimillError

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


@dataclass(frozen=True)
class Checkpoint:
    """Where a model comes from and how it runs.

    model: a folder, the id of a repository on the Hugging Face hub, or the name of an architecture of open_clip.
    revision: commit of a repository. weights: safetensors file of an open_clip model.
    device: of torch. dtype: float32, bfloat16 or float16.
    """

    model: str
    revision: str | None = None
    weights: str | None = None
    device: str = "cpu"
    dtype: str = "float32"


class Place:
    """Loads the parts of a checkpoint of transformers and moves numbers to where its model runs."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        try:
            import transformers  # noqa: PLC0415 - an extra
        except ImportError:
            raise ConfigError("models of transformers need it: pip install 'omnimill[scorers]'") from None
        self._transformers = transformers
        self._checkpoint = checkpoint
        local = Path(checkpoint.model).is_dir()
        self._where: dict[str, Any] = {
            "pretrained_model_name_or_path": checkpoint.model,
            "revision": None if local else checkpoint.revision,
            "local_files_only": local,
            "trust_remote_code": False,
        }

    def model(self, kind: str) -> Any:
        """The model of a class of transformers.

        Raises:
            ConfigError: the checkpoint lacks weights of it, which would be random.
            OmnimillError: it cannot be loaded.
        """
        dtype = DTYPES[self._checkpoint.dtype]
        loaded, found = self._load(kind, "weights", use_safetensors=True, dtype=dtype, output_loading_info=True)
        if missing := sorted(found["missing_keys"]):
            named = ", ".join(missing[:5])
            raise ConfigError(f"{self._checkpoint.model} has no weights of {len(missing)} parts of {kind}: {named}")
        return loaded.eval().requires_grad_(False).to(self._checkpoint.device)

    def image_processor(self) -> Any:
        # The same arithmetic everywhere, whether torchvision is installed or not.
        return self._load("AutoImageProcessor", "image processor", backend="pil")

    def tokenizer(self) -> Any:
        return self._load("AutoTokenizer", "tokenizer", use_fast=True)

    def moved(self, values: torch.Tensor) -> torch.Tensor:
        dtype = DTYPES[self._checkpoint.dtype] if values.is_floating_point() else values.dtype
        return values.to(self._checkpoint.device, dtype)

    def _load(self, kind: str, part: str, **settings: Any) -> Any:
        try:
            return getattr(self._transformers, kind).from_pretrained(**self._where, **settings)
        except (OSError, ValueError, ImportError, KeyError) as error:
            raise OmnimillError(f"{self._checkpoint.model}: its {part} cannot be loaded: {error}") from error


def safetensors_file(path: str | Path | None) -> Path:
    """`path`, if it is a safetensors file that is there.

    Raises:
        ConfigError: it is none.
    """
    if path is None or Path(path).suffix != ".safetensors":
        raise ConfigError(f"weights have to be a .safetensors file, found {path}; convert them with safetensors.torch")
    if not Path(path).is_file():
        raise ConfigError(f"{path}: no such file")
    return Path(path)


def linear_layers(path: Path) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Weights and biases, float32, of a stack of linear layers that ends in one number, in the order of their numbers.

    Raises:
        ConfigError: the file holds no such thing.
    """
    from safetensors import SafetensorError  # noqa: PLC0415 - with the models
    from safetensors.torch import load_file  # noqa: PLC0415

    try:
        tensors: Mapping[str, torch.Tensor] = load_file(path)
    except SafetensorError as error:
        raise ConfigError(f"{path}: not a safetensors file: {error}") from None
    names = [name for name in tensors if name.endswith("weight")]
    names.sort(key=lambda name: [int(part) for part in name.split(".") if part.isdigit()])
    layers = [
        (tensors[name].float(), tensors[f"{name[:-6]}bias"].float()) for name in names if f"{name[:-6]}bias" in tensors
    ]
    widths = [tuple(weight.shape) for weight, _ in layers]
    chained = all(after[1] == before[0] for before, after in itertools.pairwise(widths))
    if not layers or any(len(width) != 2 for width in widths) or not chained or widths[-1][0] != 1:
        raise ConfigError(f"{path}: linear layers down to one number were expected, found {sorted(tensors)}")
    return layers


def text_length(config: Any, tokenizer: Any) -> int:
    """The most tokens that a model takes."""
    positions = getattr(config, "max_position_embeddings", None) or 512
    # RoBERTa's first positions are taken by padding.
    if config.model_type in ("roberta", "xlm-roberta", "camembert"):
        positions -= config.pad_token_id + 1
    return int(min(positions, tokenizer.model_max_length))
