"""Stored tokenizer sets.

Layout under any fsspec URL::

    <root>/tokenizers/<name>/<digest>/text.model            SentencePiece
                                     image.safetensors      picture network (absent: the corpus had no pictures)
                                     audio.safetensors      spectrogram network (absent: the corpus had no sound)
                                     vocoder.safetensors    spectrograms to waveforms (absent: none was given)
                                     tokenizers.json        sizes, shapes, ranges, digests of the files
    <root>/tokenizers/<name>/tokenizers.json                the current set: a copy of one of these

A set is named by its content, and ``tokenizers.json`` is written last: a reader sees a whole set or none, and token
datasets keep finding the set that they were made with.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TypeVar

import safetensors.torch
from blake3 import blake3
from pydantic import Field
from torch import nn

from omnimill.config import Config, canonical_json, digest_json
from omnimill.errors import IntegrityError, OmnimillError
from omnimill.infra import storage
from omnimill.locations import Range
from omnimill.tokenizers.audio import FloatArray, griffin_lim
from omnimill.tokenizers.networks import AudioNetworkConfig, ImageNetworkConfig, audio_network, image_network
from omnimill.tokenizers.number_format import NumberFormat, number_format
from omnimill.tokenizers.text import TextTokenizer
from omnimill.tokenizers.vocabulary import Vocabulary
from omnimill.tokenizers.vocoder import HifiGan, Vocoder, VocoderConfig
from omnimill.tokenizers.vq import BATCH, AudioTokenizer, ImageTokenizer
from omnimill.tokens import AudioLayout, ImageLayout, TokenLayout
from omnimill.vocabulary_layout import NumberLayout, VocabularyLayout

STORE_VERSION = 2
INDEX = "tokenizers.json"
FILES = {
    "text": "text.model",
    "image": "image.safetensors",
    "audio": "audio.safetensors",
    "vocoder": "vocoder.safetensors",
}
SET = "set"

N = TypeVar("N", bound=nn.Module)


class VectorRanges(Config):
    """Range of every dimension of a source's states and actions."""

    state: tuple[Range, ...] = ()
    action: tuple[Range, ...] = ()


class Made(Config):
    """How a set came about; no part of its digest.

    recipe: digest of everything that decided it. dataset, manifest: the examples it learned from. quality: measured on
    held-out examples.
    """

    recipe: str = ""
    dataset: str = ""
    manifest: str = ""
    quality: dict[str, float] = Field(default_factory=dict)


class StoredSet(Config):
    """``tokenizers.json``. digests: blake3 of the set's files by part; ranges: by source."""

    version: int = STORE_VERSION
    text_pieces: int
    image: ImageLayout
    audio: AudioLayout
    vocabulary: VocabularyLayout = VocabularyLayout()
    numbers: NumberLayout = NumberLayout()
    image_network: ImageNetworkConfig | None = None
    audio_network: AudioNetworkConfig | None = None
    vocoder: VocoderConfig | None = None
    ranges: dict[str, VectorRanges] = Field(default_factory=dict)
    digests: dict[str, str]
    made: Made = Made()

    @property
    def digest(self) -> str:
        """64 hex digits over everything that decides what the set does."""
        return digest_json(self.model_dump(mode="json", exclude={"made"}))

    def layout(self, name: str) -> TokenLayout:
        """The layout of what the set `name` tokenizes."""
        return TokenLayout(
            text_pieces=self.text_pieces,
            image=self.image,
            audio=self.audio,
            vocabulary=self.vocabulary,
            numbers=self.numbers,
            tokenizers=name,
            digests={**self.digests, SET: self.digest},
        )


@dataclass(frozen=True)
class Tokenizers:
    """A loaded set.

    layout: what the numbers of its tokens mean. ranges: of states and actions by source.
    image_codes, audio_codes: None when the set has no network for that modality. vocoder: None when it has none.
    """

    layout: TokenLayout
    text: TextTokenizer
    ranges: Mapping[str, VectorRanges]
    image_codes: ImageTokenizer | None = None
    audio_codes: AudioTokenizer | None = None
    vocoder: Vocoder | None = None

    @property
    def image(self) -> ImageTokenizer:
        """Raises OmnimillError when the set holds none."""
        if self.image_codes is None:
            raise self._missing("image", "pictures")
        return self.image_codes

    @property
    def audio(self) -> AudioTokenizer:
        """Raises OmnimillError when the set holds none."""
        if self.audio_codes is None:
            raise self._missing("audio", "sound")
        return self.audio_codes

    @cached_property
    def numbers(self) -> NumberFormat:
        """How sparse structures are written.

        Raises:
            ConfigError: as location tokens, which the vocabulary does not have.
        """
        return number_format(self.layout.numbers, self.text)

    def waveform(self, mel: FloatArray) -> FloatArray:
        """Sound of a decoded log-mel spectrogram [frames, mels]: float32 [segment_samples] within -1..1.

        From the vocoder where the set has one, by Griffin-Lim otherwise.
        """
        return griffin_lim(mel, self.layout.audio) if self.vocoder is None else self.vocoder(mel)

    def _missing(self, modality: str, what: str) -> OmnimillError:
        return OmnimillError(
            f"tokenizer set {self.layout.tokenizers!r} has no {modality} tokenizer: the examples that it learned from "
            f"hold no {what}; train it on a dataset that does"
        )


def publish(root: str, name: str, stored: StoredSet, files: Mapping[str, bytes]) -> None:
    """Store a set under its digest and make it the current one of its name.

    Args:
        root: fsspec URL or path.
        name: of the set.
        stored: its index; `digests` are those of `files`.
        files: content by part ("text", "image", "audio", "vocoder").
    """
    folder = storage.join(root, "tokenizers", name)
    for part, content in files.items():
        storage.publish_bytes(storage.join(folder, stored.digest, FILES[part]), content)
    body = canonical_json(stored.model_dump(mode="json"))
    storage.publish_bytes(storage.join(folder, stored.digest, INDEX), body)
    storage.publish_bytes(storage.join(folder, INDEX), body)


def file_digests(files: Mapping[str, bytes]) -> dict[str, str]:
    return {part: blake3(content).hexdigest() for part, content in files.items()}


def weights(network: nn.Module) -> bytes:
    """A network's parameters and codebook as safetensors: equal values give equal bytes."""
    return safetensors.torch.save({name: tensor.contiguous().cpu() for name, tensor in network.state_dict().items()})


def stored_set(root: str, name: str, digest: str | None = None) -> StoredSet:
    """The index of a set: the current one of a name, or the one of a given digest.

    Raises:
        OmnimillError: there is no such set.
        IntegrityError: its version is unknown to this program, or its content does not hash to its name.
    """
    folder = storage.join(root, "tokenizers", name)
    url = storage.join(folder, INDEX) if digest is None else storage.join(folder, digest, INDEX)
    try:
        body = json.loads(storage.read_bytes(url))
    except FileNotFoundError:
        raise OmnimillError(
            f"no tokenizer set {name!r} under {root}: {url} does not exist; omnimill tokenizer train makes one"
        ) from None
    version = body.get("version")
    if version != STORE_VERSION:
        cure = "; omnimill tokenizer train makes the set anew" if _older(version) else ""
        raise IntegrityError(f"{url}: tokenizer set version {version!r}; this omnimill reads {STORE_VERSION}{cure}")
    stored = StoredSet.model_validate(body)
    if digest is not None and stored.digest != digest:
        raise IntegrityError(f"{url}: content hashes to {stored.digest}")
    return stored


def current_set(root: str, name: str) -> StoredSet | None:
    """The current set of a name; None when there is none, or one that an older version of this program made.

    Raises:
        IntegrityError: a newer version made it.
    """
    url = storage.join(root, "tokenizers", name, INDEX)
    if not storage.exists(url):
        return None
    version = json.loads(storage.read_bytes(url)).get("version")
    return None if _older(version) else stored_set(root, name)


def _older(version: object) -> bool:
    return isinstance(version, int) and version < STORE_VERSION


def load_tokenizers(
    root: str,
    name: str,
    digest: str | None = None,
    device: str = "cpu",
    batch: int = BATCH,
    bf16: bool = False,
    compiled: bool = False,
) -> Tokenizers:
    """Load a set.

    Args:
        root: fsspec URL or path.
        name: of the set.
        digest: of one version (a token layout has it in ``digests["set"]``); the current one when None.
        device: that the networks run on.
        batch: pictures or spectrograms that a network takes at a time.
        bf16, compiled: how networks encode, see `omnimill.tokenizers.vq.Batches`.

    Raises:
        OmnimillError: there is no such set.
        IntegrityError: a file is not what the index says.
    """
    stored = stored_set(root, name, digest)
    layout = stored.layout(name)
    image_codes = audio_codes = vocoder = None
    if stored.image_network is not None:
        network = _restore(image_network(stored.image_network, stored.image), root, layout, "image")
        image_codes = ImageTokenizer(network, stored.image, device, batch, bf16, compiled)
    if stored.audio_network is not None:
        network = _restore(audio_network(stored.audio_network, stored.audio), root, layout, "audio")
        audio_codes = AudioTokenizer(network, stored.audio, device, batch, bf16, compiled)
    if stored.vocoder is not None:
        generator = HifiGan(stored.vocoder, stored.audio.mels)
        vocoder = Vocoder(_restore(generator, root, layout, "vocoder"), stored.audio, device)
    return Tokenizers(layout, load_text(root, layout), stored.ranges, image_codes, audio_codes, vocoder)


def load_text(root: str, layout: TokenLayout) -> TextTokenizer:
    """The text tokenizer that a token dataset was made with.

    Raises:
        OmnimillError: the root does not have it.
        IntegrityError: the file is not the one that the layout names.
    """
    if SET not in layout.digests:
        layout = stored_set(root, layout.tokenizers).layout(layout.tokenizers)
    return TextTokenizer.of(*_read(root, layout, "text"), Vocabulary.of(layout).text)


def _restore(network: N, root: str, layout: TokenLayout, part: str) -> N:
    network.load_state_dict(safetensors.torch.load(_read(root, layout, part)[0]))
    return network


def _read(root: str, layout: TokenLayout, part: str) -> tuple[bytes, str]:
    """Content and URL of a set's file."""
    url = storage.join(root, "tokenizers", layout.tokenizers, layout.digests[SET], FILES[part])
    try:
        content = storage.read_bytes(url)
    except FileNotFoundError:
        raise OmnimillError(f"tokenizer set {layout.tokenizers!r} under {root}: {url} does not exist") from None
    found = blake3(content).hexdigest()
    if found != layout.digests[part]:
        raise IntegrityError(f"{url}: content hashes to {found}, not to {layout.digests[part]}")
    return content, url
