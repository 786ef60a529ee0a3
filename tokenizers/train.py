"""``tokenizer train``: text model, picture codes and sound codes from one example dataset, stored as one set."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import reduce
from operator import getitem
from typing import Any

from omnimill.config import digest_json
from omnimill.infra import storage
from omnimill.infra.lineage import command_run
from omnimill.progress import console
from omnimill.tokenizers import store
from omnimill.tokenizers.config import FREE_TO_CHANGE, TokenizerConfig
from omnimill.tokenizers.corpus import Corpus
from omnimill.tokenizers.launch import Tell
from omnimill.tokenizers.parts import audio_part, image_part, text_part
from omnimill.tokenizers.store import Made, StoredSet
from omnimill.tokenizers.text import TextTokenizer
from omnimill.tokenizers.weights import initial_vocoder, published_digests

# Raised when the same settings and examples give another set.
TRAIN_VERSION = 2


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
        published = published_digests(config)
        recipe = _recipe(config, corpus, published)
        found = store.current_set(root, config.name)
        if found is not None and found.made.recipe == recipe:
            stored = found
            console.print(f"{config.name}: trained on these examples with these settings already, nothing to do")
        else:

            def tell(part: str, values: Mapping[str, float], step: int) -> None:
                run.metrics({f"{part}/{name}": value for name, value in values.items()}, step)

            stored, files = make_set(config, corpus, recipe, published, tell)
            store.publish(root, config.name, stored, files)
        result = TrainResult(config.name, stored, stored is found, time.monotonic() - started)
        run.output(f"tokenizers-{config.name}", stored.digest, storage.join(root, "tokenizers", config.name))
        run.metrics({**stored.made.quality, "seconds": result.seconds})
        run.tags({"omnimill.reused": str(result.reused).lower()})
        run.json(stored.model_dump(mode="json"), store.INDEX)
        return result


def make_set(
    config: TokenizerConfig,
    corpus: Corpus,
    recipe: str = "",
    published: Mapping[str, str] | None = None,
    tell: Tell | None = None,
) -> tuple[StoredSet, dict[str, bytes]]:
    """Train every part that the examples have something for; a training that was stopped is gone on with.

    Args:
        config: of the set.
        corpus: to learn from.
        recipe: digest of everything that decides the set.
        published: see :func:`published_digests`; found out here when None.
        tell: told how trainings go on.

    Returns:
        The set's index, and its files by part.
    """
    given = published_digests(config) if published is None else published
    trained = {
        "text": text_part(config, corpus),
        "image": image_part(config, corpus, given, tell),
        "audio": audio_part(config, corpus, given, tell),
    }
    parts = {name: part for name, part in trained.items() if part is not None}
    for name in [name for name in ("image", "audio") if name not in parts]:
        console.print(f"{config.name}: no {name} tokenizer, dataset {config.dataset!r} holds nothing to learn it from")
    files = {name: part.file for name, part in parts.items()}
    vocoder = config.audio.vocoder
    if vocoder is not None:
        files["vocoder"] = store.weights(initial_vocoder(vocoder, config.layout.audio))
    stored = StoredSet(
        text_pieces=TextTokenizer.of(files["text"], "the text model just trained").vocabulary.pieces,
        image=config.layout.image,
        audio=config.layout.audio,
        vocabulary=config.layout.vocabulary,
        numbers=config.layout.numbers,
        image_network=config.image.network if "image" in parts else None,
        audio_network=config.audio.network if "audio" in parts else None,
        vocoder=None if vocoder is None else vocoder.network,
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


def _recipe(config: TokenizerConfig, corpus: Corpus, published: Mapping[str, str]) -> str:
    """Digest of everything that decides the set."""
    settings = config.model_dump(mode="json", include={"dataset", "seed", "layout", "text", "image", "audio", "ranges"})
    for part in ("image", "audio"):
        for free in FREE_TO_CHANGE:
            del settings[part]["training"][free]
    for setting, digest in published.items():  # what the files hold, not where they lie
        *groups, key = setting.split(".")
        reduce(getitem, groups, settings)[key] = digest
    read = {"manifest": corpus.digest, "selections": sorted(corpus.selections.values())}
    return digest_json({"version": TRAIN_VERSION, "settings": settings, **read})
