"""What decides each part of a token row, and which recipes an earlier shard may have been made with.

A token dataset keeps every recipe that it was made with, named by its digest::

    <root>/<dataset>/recipes/<recipe>.json      digest of what decides each part, by part (`omnimill.tokens.PARTS`)

A commit names its recipe. So when a tokenizer has changed, the earlier commit of the same unit tells which of its
columns still hold, and only the others are made again.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from omnimill.config import canonical_json, digest_json
from omnimill.infra import storage
from omnimill.infra.dataset import Dataset
from omnimill.schema import SCHEMA_VERSION
from omnimill.tokenizers.store import StoredSet
from omnimill.tokens import PARTS, TOKEN_SCHEMA_VERSION

# Raised when a part comes out otherwise for the same examples.
_VERSIONS = {"text": 3, "image": 1, "image_codes": 1, "audio": 1, "audio_codes": 1, "target_codes": 1}
# What a part costs beside the others, in rough shares of time: decides which earlier shard is worth most.
_COSTS = {"text": 1, "image": 4, "image_codes": 100, "audio": 2, "audio_codes": 20, "target_codes": 100}

# Fields of the layouts that concern codes only, and input only.
_IMAGE_CODES, _IMAGE_INPUT = {"target_size", "code_stride", "codes"}, {"input_size", "history_size", "patch"}
_AUDIO_CODES, _AUDIO_INPUT = {"code_patch", "codes"}, {"patch"}

# Example columns that a part is computed from.
_READ = {
    "text": ("text", "trajectory", "views", "annotations", "targets", "images"),
    "image": ("images",),
    "image_codes": ("images",),
    "audio": ("audio",),
    "audio_codes": ("audio",),
    "target_codes": ("targets", "annotations", "images"),
}
# Example columns by the token column that is made of them; what no part names is copied.
MADE_OF: dict[str, tuple[str, ...]] = {
    **{column: (column,) for column in ("id", "source", "key")},
    **{column: _READ[part] for part, columns in PARTS.items() for column in columns},
}

Parts = dict[str, str]


def part_digests(stored: StoredSet, jpeg_quality: int, execution: Mapping[str, Any]) -> Parts:
    """Digest of everything that decides a part besides the examples, by part.

    Args:
        stored: the tokenizer set.
        jpeg_quality: of stored pictures.
        execution: how networks run, as far as it decides codes to the last bit.
    """
    # The vocoder makes sound of codes, it decides none.
    told = stored.model_dump(mode="json", exclude={"made": True, "vocoder": True, "digests": {"vocoder"}})
    image, audio, files = told.pop("image"), told.pop("audio"), told.pop("digests")
    networks = {name: [told.pop(f"{name}_network"), files.pop(name, None)] for name in ("image", "audio")}
    pictures = {"layout": _without(image, _IMAGE_INPUT), "network": networks["image"], "execution": execution}
    sounds = {"layout": _without(audio, _AUDIO_INPUT), "network": networks["audio"], "execution": execution}
    decides = {
        # Whatever a set says that no other part is known to need; places are told on the input canvas.
        "text": {**told, "files": files, "canvas": image["input_size"]},
        "image": {"layout": _without(image, _IMAGE_CODES), "jpeg_quality": jpeg_quality},
        "image_codes": pictures,
        "audio": {"layout": _without(audio, _AUDIO_CODES)},
        "audio_codes": sounds,
        "target_codes": pictures,
    }
    return {
        part: digest_json([part, _VERSIONS[part], TOKEN_SCHEMA_VERSION, SCHEMA_VERSION, decides[part]])
        for part in PARTS
    }


def recipe_of(parts: Parts) -> str:
    """Digest of what decides a unit's outcome besides its examples."""
    return digest_json(parts)


def publish_recipe(dataset: Dataset, parts: Parts) -> None:
    """Let later runs know what the parts of this recipe's shards were decided by."""
    storage.publish_bytes(storage.join(dataset.url, "recipes", f"{recipe_of(parts)}.json"), canonical_json(parts))


def earlier_recipes(dataset: Dataset, parts: Parts) -> tuple[Parts, ...]:
    """Other recipes of a dataset that share a part with this one, those that share the costliest parts first."""
    stored = [json.loads(data) for _, data in storage.read_folder(storage.join(dataset.url, "recipes"), ".json")]
    found = [other for other in stored if other != parts and shared(other, parts)]
    saved = {recipe_of(other): sum(_COSTS[part] for part in shared(other, parts)) for other in found}
    return tuple(sorted(found, key=lambda other: (-saved[recipe_of(other)], recipe_of(other))))


def shared(one: Parts, other: Parts) -> frozenset[str]:
    """Parts that two recipes decide alike."""
    return frozenset(part for part in PARTS if one.get(part) == other.get(part))


def _without(values: Mapping[str, Any], names: set[str]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if name not in names}
