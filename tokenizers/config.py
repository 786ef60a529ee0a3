"""The configuration that ``tokenizer train`` and ``tokenize`` share."""

from __future__ import annotations

from typing import Self

from pydantic import Field, model_validator

from omnimill.config import Config
from omnimill.tokenizers.networks import AudioNetworkConfig, ImageNetworkConfig
from omnimill.tokenizers.store import VectorRanges
from omnimill.tokenizers.text import BpeConfig
from omnimill.tokens import AudioLayout, ImageLayout

MAX_CODES = 1 << 16  # token shards hold codes as 16-bit numbers


class TextSettings(BpeConfig):
    """model: path or URL of an existing SentencePiece model, which is then used as it is; trained when None."""

    model: str | None = None


class FitConfig(Config):
    """How a network is trained.

    samples: at most so many pictures or clips of the dataset are looked at, chosen by keyed hash.
    held_out: share of them that measures quality.
    threads: of the CPU; fixed, because sums in another order give other weights.
    """

    steps: int = Field(default=300, ge=0)
    batch: int = Field(default=16, ge=1)
    learning_rate: float = Field(default=2e-3, gt=0)
    samples: int = Field(default=1024, ge=2)
    held_out: float = Field(default=0.1, gt=0, lt=1)
    threads: int = Field(default=1, ge=1)
    device: str = "cpu"


class ImageSettings(Config):
    network: ImageNetworkConfig = ImageNetworkConfig()
    training: FitConfig = FitConfig()


class AudioSettings(Config):
    network: AudioNetworkConfig = AudioNetworkConfig()
    training: FitConfig = FitConfig()


class LayoutSettings(Config):
    """Sizes of the streams, see `omnimill.tokens`; the defaults are the reference's."""

    image: ImageLayout = ImageLayout()
    audio: AudioLayout = AudioLayout()

    @model_validator(mode="after")
    def _divisible(self) -> Self:
        image, audio = self.image, self.audio
        for name, size, part in (
            ("image.input_size", image.input_size, image.patch),
            ("image.history_size", image.history_size, image.patch),
            ("image.target_size", image.target_size, image.code_stride),
            ("audio.frames", audio.frames, audio.patch),
            ("audio.mels", audio.mels, audio.patch),
            ("audio.frames", audio.frames, audio.code_patch[0]),
            ("audio.mels", audio.mels, audio.code_patch[1]),
        ):
            if size % part:
                raise ValueError(f"{name} must be a multiple of {part}, found {size}")
        for name, codes in (("image.codes", image.codes), ("audio.codes", audio.codes)):
            if not 2 <= codes <= MAX_CODES:
                raise ValueError(f"{name} must lie between 2 and {MAX_CODES}, found {codes}")
        return self


class ActorSettings(Config):
    """The pool that tokenizes.

    count: actors; as many as the cluster has room for, up to this number, work at once.
    num_cpus, num_gpus: of each. In a cluster with fewer GPUs than one actor asks for, actors run on CPUs.
    batch: pictures or spectrograms that a network takes at a time.
    """

    count: int = Field(default=2, ge=1)
    num_cpus: float = Field(default=1.0, gt=0)
    num_gpus: float = Field(default=0.0, ge=0)
    batch: int = Field(default=16, ge=1)


class TokenizerConfig(Config):
    """name: of the tokenizer set. dataset: examples; tokens: token dataset to make of them. seed: of training.

    selections: of the examples, by name; what one leaves out is neither learnt from nor tokenized.
    ranges: of states and actions by source, where they should not be what the dataset holds.
    jpeg_quality: of the pictures in token shards. max_quarantined_share: of the examples, before `tokenize` fails.
    """

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9_-]*$")
    dataset: str
    tokens: str
    selections: tuple[str, ...] = ()
    seed: int = 0
    layout: LayoutSettings = LayoutSettings()
    text: TextSettings = TextSettings()
    image: ImageSettings = ImageSettings()
    audio: AudioSettings = AudioSettings()
    ranges: dict[str, VectorRanges] = Field(default_factory=dict)
    jpeg_quality: int = Field(default=95, ge=1, le=100)
    max_quarantined_share: float = Field(default=0.05, ge=0, le=1)
    actors: ActorSettings = ActorSettings()

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.tokens == self.dataset:
            raise ValueError(f"the token dataset needs a name of its own, found {self.tokens!r} for both")
        stride = self.layout.image.code_stride
        if self.image.network.stride != stride:
            raise ValueError(
                "image.network: stem * 2 ** (levels - 1) must be layout.image.code_stride "
                f"({stride}), found {self.image.network.stride}"
            )
        audio = self.audio.network
        if audio.width % audio.heads:
            raise ValueError(f"audio.network: width {audio.width} must be a multiple of heads {audio.heads}")
        return self
