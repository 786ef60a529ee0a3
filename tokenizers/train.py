"""``tokenizer train``: text model, picture codes and sound codes from one example dataset, stored as one set."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

from omnimill.config import digest_json
from omnimill.infra import storage
from omnimill.infra.lineage import command_run
from omnimill.progress import console
from omnimill.tokenizers import store
from omnimill.tokenizers.config import TokenizerConfig
from omnimill.tokenizers.corpus import Corpus
from omnimill.tokenizers.parts import audio_part, image_part, text_part
from omnimill.tokenizers.store import Made, StoredSet
from omnimill.tokenizers.text import TextTokenizer

# Raised when the same settings and examples give another set.
TRAIN_VERSION = 1


@dataclass(frozen=True)
class TrainResult:
    """A set as ``tokenizer train`` left it; reused: it was there already, made by the same settings and examples."""

    name: str
    stored: StoredSet
    reused: bool
    seconds: float

    def as_json(self) -> dict[str, Any]:
        """The shape that ``--json`` prints."""
        return {
            "tokenizers": self.name,
            "digest": self.stored.digest,
            "reused": self.reused,
            "quality": self.stored.made.quality,
            "seconds": round(self.seconds, 3),
        }


def train_tokenizers(config: TokenizerConfig, root: str) -> TrainResult:
    """Make the tokenizer set of a configuration the current one of its name, training it unless it is.

    Raises:
        OmnimillError: there is no dataset, or no text in it.
    """
    started = time.monotonic()
    with command_run(root, "tokenizer train", config.model_dump(mode="json"), f"tokenizer train {config.name}") as run:
        corpus = Corpus(root, config.dataset, config.selections)
        corpus.record(run)
        recipe = _recipe(config, corpus)
        found = _current(root, config.name)
        if found is not None and found.made.recipe == recipe:
            stored = found
            console.print(f"{config.name}: trained on these examples with these settings already, nothing to do")
        else:
            stored, files = make_set(config, corpus, recipe)
            store.publish(root, config.name, stored, files)
        result = TrainResult(config.name, stored, stored is found, time.monotonic() - started)
        run.output(f"tokenizers-{config.name}", stored.digest, storage.join(root, "tokenizers", config.name))
        run.metrics({**stored.made.quality, "seconds": result.seconds})
        run.tags({"omnimill.reused": str(result.reused).lower()})
        run.json(stored.model_dump(mode="json"), store.INDEX)
        return result


def make_set(config: TokenizerConfig, corpus: Corpus, recipe: str = "") -> tuple[StoredSet, dict[str, bytes]]:
    """Train every part that the examples have something for.

    Returns:
        The set's index, and its files by part.
    """
    trained = {
        "text": text_part(config, corpus),
        "image": image_part(config, corpus),
        "audio": audio_part(config, corpus),
    }
    parts = {name: part for name, part in trained.items() if part is not None}
    for name in [name for name, part in trained.items() if part is None]:
        console.print(f"{config.name}: no {name} tokenizer, dataset {config.dataset!r} holds nothing to learn it from")
    files = {name: part.file for name, part in parts.items()}
    stored = StoredSet(
        text_pieces=TextTokenizer.of(files["text"], "the text model just trained").vocabulary.pieces,
        image=config.layout.image,
        audio=config.layout.audio,
        **{f"{name}_network": part.network for name, part in parts.items() if part.network is not None},  # type: ignore[arg-type]
        ranges={**corpus.ranges(), **config.ranges},
        digests=store.file_digests(files),
        made=Made(
            recipe=recipe,
            dataset=config.dataset,
            manifest=corpus.digest,
            quality={name: value for part in parts.values() for name, value in part.quality.items()},
        ),
    )
    return stored, files


def _recipe(config: TokenizerConfig, corpus: Corpus) -> str:
    """Digest of everything that decides the set."""
    settings = config.model_dump(mode="json", include={"dataset", "seed", "layout", "text", "image", "audio", "ranges"})
    if config.text.model is not None:
        settings["text"]["model"] = storage.digest_file(config.text.model)
    read = {"manifest": corpus.digest, "selections": sorted(corpus.selections.values())}
    return digest_json({"version": TRAIN_VERSION, "settings": settings, **read})


def _current(root: str, name: str) -> StoredSet | None:
    found = storage.exists(storage.join(root, "tokenizers", name, store.INDEX))
    return store.stored_set(root, name) if found else None
